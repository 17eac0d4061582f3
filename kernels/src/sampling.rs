//! The choice of a token from logits (I). Weights are integers, so every sum and cut is exact and independent of order. No
//! state between tokens: the random number is a function of key and token index.

use crate::job::{MILLION, SamplingParams};
use crate::numerics::scalar::WEIGHT_ONE;
use crate::numerics::{Numerics, is_bad};
use llguidance::toktrie::SimpleVob;

/// Rounds of Philox.
const PHILOX_ROUNDS: u32 = 10;

/// What leaves tokens out besides top-k and top-p.
pub(crate) struct Cuts<'a> {
    /// Share of the largest weight, in millionths.
    pub min_p_millionths: u32,
    /// The tokens that may come at all.
    pub allowed: Option<&'a SimpleVob>,
}

/// Log-probabilities of one output token, in millionths of a natural logarithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLogprobs {
    /// Of the token itself.
    pub chosen_millionths: i32,
    /// The most likely tokens with theirs, by (logit descending, id ascending).
    pub top: Vec<(u32, i32)>,
}

/// Memory for one choice at a time.
#[derive(Default)]
pub(crate) struct Sampler {
    masked: Vec<f32>,
    weights: Vec<u32>,
    /// weight << 32 | !id: descending order is (weight descending, id ascending).
    candidates: Vec<u64>,
}

impl Sampler {
    /// The token of output index `index`; None if a logit is NaN or infinite.
    pub(crate) fn sample(
        &mut self,
        numerics: &dyn Numerics,
        params: &SamplingParams,
        index: u32,
        logits: &[f32],
    ) -> Option<u32> {
        self.sample_controlled(numerics, params, &Cuts { min_p_millionths: 0, allowed: None }, index, logits)
    }

    /// As [`Sampler::sample`], from logits that the job's controls have changed.
    pub(crate) fn sample_controlled(
        &mut self,
        numerics: &dyn Numerics,
        params: &SamplingParams,
        cuts: &Cuts<'_>,
        index: u32,
        logits: &[f32],
    ) -> Option<u32> {
        let mut top = argmax(logits)?;
        if let Some(allowed) = cuts.allowed {
            top = argmax_allowed(logits, allowed)?;
        }
        let (best, maximum) = top;
        if params.temperature_millionths == 0 {
            return Some(best);
        }
        let temperature = (f64::from(params.temperature_millionths) / f64::from(MILLION)) as f32;
        self.weights.resize(logits.len(), 0);
        match cuts.allowed {
            None => numerics.sampling_weights(logits, maximum, temperature, &mut self.weights),
            Some(allowed) => {
                // A logit above the largest allowed one would have no weight in range; it has none anyway.
                let is_allowed = |id: usize| allowed.is_allowed(id as u32);
                self.masked.clear();
                let masked =
                    logits.iter().enumerate().map(|(id, l)| if is_allowed(id) { *l } else { maximum });
                self.masked.extend(masked);
                numerics.sampling_weights(&self.masked, maximum, temperature, &mut self.weights);
                self.weights
                    .iter_mut()
                    .enumerate()
                    .filter(|(id, _)| !is_allowed(*id))
                    .for_each(|(_, w)| *w = 0);
            }
        }
        self.keep(params, cuts.min_p_millionths);
        let total: u64 = self.candidates.iter().map(|c| c >> 32).sum();
        let random = random_u64(&params.sampling_key, index);
        Some(self.pick(((u128::from(random) * u128::from(total)) >> 64) as u64, best))
    }

    /// Log-probabilities at temperature 1 of `chosen` and of the `count` most likely tokens; the logits are finite.
    pub(crate) fn logprobs(
        &mut self,
        numerics: &dyn Numerics,
        logits: &[f32],
        chosen: u32,
        count: u8,
    ) -> Option<TokenLogprobs> {
        let (_, maximum) = argmax(logits)?;
        self.weights.resize(logits.len(), 0);
        numerics.sampling_weights(logits, maximum, 1.0, &mut self.weights);
        let total: u64 = self.weights.iter().map(|w| u64::from(*w)).sum();
        let log_total = libm::log(total as f64 / f64::from(WEIGHT_ONE));
        let millionths = |id: u32| {
            let log = f64::from(logits[id as usize] - maximum) - log_total;
            // Saturates: a probability of e^-2147 is as good as none.
            (log * f64::from(MILLION)).round_ties_even() as i32
        };
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b));
        let count = usize::from(count).min(ids.len());
        if count > 0 {
            ids.select_nth_unstable_by(count - 1, order);
        }
        ids.truncate(count);
        ids.sort_unstable_by(order);
        let top = ids.into_iter().map(|id| (id, millionths(id))).collect();
        Some(TokenLogprobs { chosen_millionths: millionths(chosen), top })
    }

    /// How many logits are larger than that of `id`, or equal with a lower id: its rank from 0.
    pub(crate) fn rank(logits: &[f32], id: u32) -> u32 {
        let own = logits[id as usize];
        let before = |(other, logit): (usize, &f32)| *logit > own || (*logit == own && (other as u32) < id);
        logits.iter().enumerate().filter(|pair| before(*pair)).count() as u32
    }

    /// Fills `candidates` with the tokens that top-k, then top-p, then min-p leave, ascending by id.
    fn keep(&mut self, params: &SamplingParams, min_p_millionths: u32) {
        self.candidates.clear();
        let weighted = self.weights.iter().enumerate().filter(|(_, w)| **w > 0);
        self.candidates.extend(weighted.map(|(id, w)| u64::from(*w) << 32 | u64::from(!(id as u32))));
        let limit = params.top_k as usize;
        if limit > 0 && limit < self.candidates.len() {
            self.candidates.select_nth_unstable_by(limit - 1, |a, b| b.cmp(a));
            self.candidates.truncate(limit);
        }
        if params.top_p_millionths < MILLION {
            self.candidates.sort_unstable_by(|a, b| b.cmp(a));
            let total: u64 = self.candidates.iter().map(|c| c >> 32).sum();
            let wanted = u128::from(total) * u128::from(params.top_p_millionths);
            let mut sum = 0u128;
            let reached = self.candidates.iter().position(|c| {
                sum += u128::from(c >> 32);
                sum * u128::from(MILLION) >= wanted
            });
            self.candidates.truncate(reached.map_or(usize::MAX, |at| at + 1));
        }
        if min_p_millionths > 0 {
            let largest = self.candidates.iter().map(|c| c >> 32).max().unwrap_or(0);
            let least = largest * u64::from(min_p_millionths);
            self.candidates.retain(|c| (c >> 32) * u64::from(MILLION) >= least);
        }
        self.candidates.sort_unstable_by_key(|c| !(*c as u32));
    }

    /// The first candidate, by id, whose prefix sum exceeds `threshold`.
    fn pick(&self, threshold: u64, best: u32) -> u32 {
        let mut sum = 0u64;
        let found = self.candidates.iter().find(|c| {
            sum += **c >> 32;
            sum > threshold
        });
        // The most likely token always has weight 2^24, so the sum exceeds every threshold below it.
        found.map_or(best, |c| !(*c as u32))
    }
}

/// Lowest id among the largest logits, and its logit; None if any is NaN or infinite.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut bad = false;
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = logits.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            bad |= is_bad(*logit);
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    for logit in rest {
        bad |= is_bad(*logit);
        lanes[0] = if *logit > lanes[0] { *logit } else { lanes[0] };
    }
    if bad {
        return None;
    }
    let maximum = lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    logits.iter().position(|logit| *logit == maximum).map(|id| (id as u32, maximum))
}

/// Lowest id among the largest allowed logits; None if nothing is allowed.
fn argmax_allowed(logits: &[f32], allowed: &SimpleVob) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in logits.iter().enumerate().filter(|(id, _)| allowed.is_allowed(*id as u32)) {
        if best.is_none_or(|(_, largest)| *logit > largest) {
            best = Some((id as u32, *logit));
        }
    }
    best
}

/// r0 << 32 | r1 of Philox4x32-10 with the key's first eight bytes and counter (index, 0, 0, 0).
pub(crate) fn random_u64(key: &[u8; 32], index: u32) -> u64 {
    let word = |at: usize| u32::from_le_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let out = philox4x32([index, 0, 0, 0], [word(0), word(4)]);
    u64::from(out[0]) << 32 | u64::from(out[1])
}

/// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (2011).
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..PHILOX_ROUNDS {
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::scalar::Scalar;

    #[test]
    fn philox_known_answers() {
        // From the Random123 distribution, kat_vectors.
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    fn params(temperature: u32, top_p: u32, top_k: u32) -> SamplingParams {
        SamplingParams {
            temperature_millionths: temperature,
            top_p_millionths: top_p,
            top_k,
            sampling_key: [7; 32],
        }
    }

    fn counts(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
        let mut counts = vec![0; logits.len()];
        let mut sampler = Sampler::default();
        for index in 0..4_000 {
            counts[sampler.sample(&Scalar, params, index, logits).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn argmax_takes_the_lowest_id_and_refuses_nan() {
        let mut logits = vec![0.5f32; 40];
        assert_eq!(argmax(&logits), Some((0, 0.5)));
        logits[17] = 2.0;
        logits[38] = 2.0;
        assert_eq!(argmax(&logits), Some((17, 2.0)));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 20, 39] {
                let mut logits = logits.clone();
                logits[at] = bad;
                assert_eq!(argmax(&logits), None);
            }
        }
    }

    #[test]
    fn frequencies_follow_weights_and_cuts() {
        let logits = [0.0f32, 1.0986123, 0.0, 1.0986123, -40.0];
        let all = counts(&params(MILLION, MILLION, 0), &logits);
        for (count, share) in all.iter().zip([0.125, 0.375, 0.125, 0.375, 0.0]) {
            assert!((f64::from(*count) / 4000.0 - share).abs() < 0.03, "{all:?}");
        }
        // Ties in the cut go to the lowest id.
        let three = counts(&params(MILLION, MILLION, 3), &logits);
        assert!(three[0] > 0 && three[1] > 0 && three[2] == 0 && three[3] > 0, "{three:?}");
        let half = counts(&params(MILLION, 375_000, 0), &logits);
        assert_eq!(half[1], 4000, "{half:?}");
        let more = counts(&params(MILLION, 380_000, 0), &logits);
        assert!(more[1] > 0 && more[3] > 0 && more[0] == 0, "{more:?}");
        let cold = counts(&params(10_000, MILLION, 0), &logits);
        assert_eq!(cold[0] + cold[2] + cold[4], 0, "{cold:?}");
    }

    #[test]
    fn the_running_sum_must_exceed_the_threshold() {
        let candidate = |weight: u64, id: u32| weight << 32 | u64::from(!id);
        let sampler = Sampler { candidates: vec![candidate(5, 0), candidate(5, 3)], ..Sampler::default() };
        assert_eq!([0, 4, 5, 9].map(|threshold| sampler.pick(threshold, 77)), [0, 0, 3, 3]);
    }

    #[test]
    fn the_cut_is_exact_where_the_share_is_met_exactly() {
        // Two equal weights: half of the sum is met by the first alone.
        assert_eq!(counts(&params(MILLION, 500_000, 0), &[1.0, 1.0])[0], 4000);
        assert!(counts(&params(MILLION, 500_001, 0), &[1.0, 1.0])[1] > 0);
    }
}
