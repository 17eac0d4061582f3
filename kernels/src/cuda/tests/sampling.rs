//! The kernel that chooses tokens against the host's sampler.

use super::*;
use crate::job::SamplingParams;
use crate::sampling::{Cuts, Sampler, random_u64};
use proptest::prelude::*;

/// Rows of one launch: logits side by side, parameters of each.
pub(super) struct Rows {
    logits: Vec<f32>,
    params: Vec<(SamplingParams, u32)>,
}

fn params(temperature: u32, top_p: u32, top_k: u32, key: u8) -> SamplingParams {
    SamplingParams {
        temperature_millionths: temperature,
        top_p_millionths: top_p,
        top_k,
        sampling_key: [key; 32],
    }
}

impl Rows {
    fn vocabulary(&self) -> usize {
        self.logits.len() / self.params.len()
    }

    /// Cases in which every barrier matters.
    pub(super) fn for_barriers() -> Vec<Rows> {
        let mut random = Random(21);
        let mut logits = random.values(4 * 700);
        // The largest is found by a thread of the upper half.
        logits[2 * 700 + 250] = 9.0;
        // Not finite where an early thread sees it, once.
        logits[3 * 700 + 200] = f32::NAN;
        let params = vec![
            (params(900_000, 900_000, 150, 3), 0),
            (params(1_000_000, 500_000, 0, 4), 0),
            (params(0, 1_000_000, 0, 5), 0),
            (params(800_000, 1_000_000, 0, 6), 0),
        ];
        // As many candidates as top_k and one more: a wrong count changes the cut.
        let even =
            Rows { logits: vec![1.0; 300], params: vec![(self::params(1_000_000, 1_000_000, 299, 9), 0)] };
        vec![Rows { logits, params }, even]
    }
}

/// Tokens of all rows; index 7 in each output.
pub(super) fn run_sample(device: &dyn Device, rows: &Rows) -> Result<Vec<u32>, Error> {
    let count = rows.params.len();
    let choices: Vec<u32> = rows
        .params
        .iter()
        .flat_map(|(params, min_p)| {
            let temperature = (f64::from(params.temperature_millionths) / 1e6) as f32;
            let random = random_u64(&params.sampling_key, 7);
            let tail = [random as u32, (random >> 32) as u32];
            [[temperature.to_bits(), params.top_k], [params.top_p_millionths, *min_p], tail].concat()
        })
        .collect();
    let tokens = device.put_words(&vec![0xdead; count]);
    let arguments = Arguments::new()
        .address(device.put(&rows.logits))
        .address(device.put_words(&choices))
        .address(device.allocate(rows.logits.len() * 4).unwrap())
        .address(tokens)
        .integer(rows.vocabulary());
    device.start("sample", [count, 1, 1], 256, arguments)?;
    Ok(device.words(tokens, count))
}

fn expected(rows: &Rows) -> Vec<u32> {
    let mut sampler = Sampler::default();
    let each = rows.params.iter().zip(rows.logits.chunks_exact(rows.vocabulary()));
    each.map(|((params, min_p), logits)| {
        let cuts = Cuts { min_p_millionths: *min_p, allowed: None };
        sampler.sample_controlled(&scalar::Scalar, params, &cuts, 7, logits).unwrap_or(u32::MAX)
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn tokens_are_the_samplers(
        seed in 0u64..1000, vocabulary in 1usize..900, coarse in any::<bool>(), temperature in 0u32..2_000_000,
        top_p in prop::sample::select(vec![1u32, 300_000, 950_000, 999_999, 1_000_000]),
        top_k in prop::sample::select(vec![0u32, 1, 2, 17, 100, 5000]),
        min_p in prop::sample::select(vec![0u32, 1, 50_000, 1_000_000]),
    ) {
        let mut random = Random(seed + 1);
        let mut logits = random.values(3 * vocabulary);
        if coarse {
            // Many equal logits: ties in every cut.
            logits.iter_mut().for_each(|logit| *logit = logit.round());
        }
        let rows = Rows {
            logits,
            params: (0..3).map(|row| (params(temperature * row, top_p, top_k, row as u8), min_p)).collect(),
        };
        prop_assert_eq!(run_sample(&*device(seed), &rows).unwrap(), expected(&rows));
    }
}

#[test]
fn a_logit_that_is_not_finite_gives_no_token() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = Random(4).values(600);
        logits[511] = bad;
        let rows = Rows { logits, params: vec![(params(700_000, 900_000, 0, 1), 0); 2] };
        let found = run_sample(&*device(8), &rows).unwrap();
        assert_eq!(found, expected(&rows));
        assert_eq!(found[1], u32::MAX);
    }
}
