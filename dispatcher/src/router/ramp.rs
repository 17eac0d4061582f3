//! A newcomer's first week: from a part of what it declares to the whole, in hourly steps. It follows the operator, so that
//! registering again gains nothing. Integers; time is an argument.

use super::health::WEIGHT_ONE;

/// Length of the climb.
pub const RAMP_US: u64 = 7 * 24 * RAMP_STEP_US;
/// One step of it.
pub const RAMP_STEP_US: u64 = 3_600_000_000;
/// Where it begins where a network does not say otherwise, millionths.
pub const RAMP_START_PPM: u64 = 250_000;

/// Part of the declared capacity that an operator's nodes may use, in millionths.
pub fn share_ppm(start_ppm: u64, since_us: u64, now_us: u64) -> u64 {
    let steps = now_us.saturating_sub(since_us) / RAMP_STEP_US;
    let start = start_ppm.min(WEIGHT_ONE);
    let all = RAMP_US / RAMP_STEP_US;
    start + (WEIGHT_ONE - start) * steps.min(all) / all
}

/// When that part changes next; `None` when it is the whole.
pub fn next_step_us(start_ppm: u64, since_us: u64, now_us: u64) -> Option<u64> {
    let steps = now_us.saturating_sub(since_us) / RAMP_STEP_US;
    let climbing = start_ppm < WEIGHT_ONE && steps < RAMP_US / RAMP_STEP_US;
    climbing.then(|| since_us.saturating_add((steps + 1) * RAMP_STEP_US))
}

/// Jobs at once: that part of what is declared, at least one.
pub fn capacity(declared: u32, share_ppm: u64) -> u32 {
    let part = u64::from(declared) * share_ppm / WEIGHT_ONE;
    u32::try_from(part).unwrap_or(u32::MAX).max(1).min(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = RAMP_STEP_US;

    #[test]
    fn a_week_from_a_quarter_to_the_whole() {
        let at = |hours: u64| share_ppm(RAMP_START_PPM, 5, 5 + hours * HOUR);
        assert_eq!([at(0), at(84), at(168), at(9_999)], [250_000, 625_000, 1_000_000, 1_000_000]);
        assert_eq!(share_ppm(RAMP_START_PPM, 0, HOUR - 1), 250_000, "steps are whole hours");
        assert_eq!([capacity(8, at(0)), capacity(8, at(84)), capacity(8, at(168))], [2, 5, 8]);
        assert_eq!([capacity(1, at(0)), capacity(0, at(0))], [1, 0], "one slot is never less than one");
    }

    #[test]
    fn steps_end_with_the_week() {
        assert_eq!(next_step_us(RAMP_START_PPM, 7, 7), Some(7 + HOUR));
        assert_eq!(next_step_us(RAMP_START_PPM, 7, 7 + HOUR), Some(7 + 2 * HOUR));
        assert_eq!(next_step_us(RAMP_START_PPM, 7, 7 + 168 * HOUR), None);
        assert_eq!(next_step_us(WEIGHT_ONE, 0, 0), None, "a network without a ramp");
    }
}
