//! How fast threads read a buffer as large as the model: the limit of decoding, which reads every weight once a token.

use crate::{BenchError, Tried};
use memmap2::MmapMut;
use std::hint::black_box;
use std::time::Instant;

/// Passes of one measurement; the best counts, because neighbours only ever slow a pass down.
const PASSES: usize = 5;
/// Bytes that are taken together, few enough for the registers of any processor.
const LANES: usize = 128;

/// Memory to read, on large pages where the system has them, as the weights are.
pub(super) struct Buffer(MmapMut);

impl Buffer {
    pub(super) fn new(bytes: usize) -> Result<Buffer, BenchError> {
        let mut memory = MmapMut::map_anon(bytes).tried("memory to read")?;
        // A system without large pages says no, and small ones do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        memory.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        Ok(Buffer(memory))
    }

    /// Seconds in which `threads` threads together read all of it once.
    pub(super) fn read_seconds(&self, threads: usize) -> f64 {
        let length = self.0.len().div_ceil(threads).next_multiple_of(LANES);
        (0..PASSES).map(|_| pass(&self.0, length)).fold(f64::INFINITY, f64::min)
    }
}

/// One thread for each part of `length` bytes. The clock starts when all are ready.
fn pass(bytes: &[u8], length: usize) -> f64 {
    let parts: Vec<&[u8]> = bytes.chunks(length).collect();
    let ready = std::sync::Barrier::new(parts.len());
    std::thread::scope(|scope| {
        let readers: Vec<_> = parts
            .iter()
            .map(|part| {
                scope.spawn(|| {
                    ready.wait();
                    let started = Instant::now();
                    black_box(read(part));
                    (started, Instant::now())
                })
            })
            .collect();
        let times: Vec<_> = readers.into_iter().filter_map(|reader| reader.join().ok()).collect();
        let first = times.iter().map(|(start, _)| *start).min();
        let last = times.iter().map(|(_, end)| *end).max();
        first.zip(last).map_or(f64::INFINITY, |(first, last)| (last - first).as_secs_f64())
    })
}

fn read(bytes: &[u8]) -> u8 {
    let mut lanes = [0u8; LANES];
    for chunk in bytes.chunks_exact(LANES) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, byte)| *lane ^= byte);
    }
    lanes.into_iter().fold(0, |a, b| a ^ b)
}
