//! The shim's own proof: whichever barrier of `kernels.cu` is left out, some order of threads gives other bits, or the shim says
//! what went wrong. A barrier that nothing notices is either superfluous or untested.

use super::operations::{attention_case, norm};
use super::sampling::{Rows, run_sample};
use super::*;

const SOURCE: &str = include_str!("../../../cuda/kernels.cu");

/// Orders of threads that are tried.
const ORDERS: u64 = 12;

/// Results of every kernel that has a barrier.
fn outcome(options: EmulatedOptions) -> Result<Vec<Vec<u32>>, Error> {
    let device = emulated(options);
    let mut random = Random(5);
    let (rows, width) = (2, 576);
    let out = device.activations(rows, width);
    let places = [rows * width, rows * width, width].map(|count| device.put(&random.values(count)));
    let mut results = vec![norm(&device, (places[0], places[1], places[2]), &out, rows)?];
    results.extend(device.planes(&out, rows));
    let host = weights(TensorType::Q4_1, 64, width, 3);
    let matrix = DeviceMatrix::upload(&device, &[&host])?;
    let input = device.quantised(&random.values(20 * width), width);
    results.push(device.product(&matrix, &input, 20)?);
    let case = attention_case(&mut random, 4, 64, vec![150]);
    let (attended, bad) = case.run(&device)?;
    results.extend([attended, bad]);
    for rows in Rows::for_barriers() {
        results.push(run_sample(&device, &rows)?);
    }
    Ok(results)
}

#[test]
fn every_missing_barrier_is_noticed() {
    let expected = outcome(EmulatedOptions { seed: 0, ..EmulatedOptions::default() }).unwrap();
    for seed in 1..=ORDERS {
        let found = outcome(EmulatedOptions { seed, ..EmulatedOptions::default() }).unwrap();
        assert!(found == expected, "the order of threads {seed} changes a result");
    }
    let lines = SOURCE.lines().enumerate().filter(|(_, line)| line.contains("__syncthreads()"));
    let lines: Vec<u32> = lines.map(|(index, _)| index as u32 + 1).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        let notices = |seed: &u64| {
            let options = EmulatedOptions { seed: *seed, skipped_line: line, ..EmulatedOptions::default() };
            outcome(options).map_or(true, |found| found != expected)
        };
        let noticed = (1..=ORDERS).filter(notices).count();
        println!("kernels.cu:{line}: {noticed} of {ORDERS} orders notice");
        assert!(noticed > 0, "kernels.cu:{line}: nothing notices that its barrier is missing");
    }
}
