//! Shares, rates and lengths of time: the one file that divides and rounds what outputs show, so
//! that no two of them round differently.
//!
//! `tests/architecture` holds the rooms of the outputs to it.

use std::time::Duration;

/// `part / whole`, 0 to 1, to three decimals; 0 when there is no whole.
///
/// 1 means all: rounding never gets there by itself. 0 with a `part` above zero means less than
/// 0.0005.
pub fn share(part: u64, whole: u64) -> f64 {
    if part == 0 || whole == 0 {
        0.0
    } else if part >= whole {
        1.0
    } else {
        round(part as f64 / whole as f64, 3).min(0.999)
    }
}

/// Events per second to one decimal; 0 for an interval without length.
pub fn rate(count: u64, interval: Duration) -> f64 {
    per_second(count, interval.as_secs_f64())
}

/// Events per second to one decimal; 0 for a time without length.
pub fn per_second(count: u64, seconds: f64) -> f64 {
    round(exact_per_second(count, seconds), 1)
}

/// Events per second, not rounded: for limits that a rate is held against, and for words that round
/// it themselves. 0 for a time without length.
pub fn exact_per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// How much the rate of an event changed, either way, per second.
pub fn change(before: f64, after: f64) -> f64 {
    (after - before).abs()
}

/// A number to one decimal.
pub fn one_decimal(value: f64) -> f64 {
    round(value, 1)
}

/// Seconds, to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    to_millisecond(time.as_secs_f64())
}

/// Seconds, to the millisecond, of a sum of such.
pub fn to_millisecond(seconds: f64) -> f64 {
    round(seconds, 3)
}

/// Seconds, to the microsecond.
pub fn to_microsecond(time: Duration) -> f64 {
    round(time.as_secs_f64(), 6)
}

/// Seconds that each of `intervals` equal ones takes of `seconds`; all of them where there is none.
pub fn each_of(seconds: f64, intervals: u64) -> f64 {
    seconds / intervals.max(1) as f64
}

/// Seconds of Unix time, of milliseconds.
pub fn unix_seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1e3
}

/// The step, 0 to `highest_step`, that `value` comes to on a scale that ends with `highest`.
pub fn step(value: f64, highest: f64, highest_step: u8) -> usize {
    let step = (value / highest * f64::from(highest_step)).round() as usize;
    step.min(highest_step.into())
}

/// Whether a count is zero: for fields that JSON leaves out then.
pub fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// Rounds to `decimals` places. Integers beyond 2^53 are left as they are.
fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    let scaled = value * scale;
    if scaled.abs() < 2_f64.powi(53) { scaled.round() / scale } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_says_all_only_for_all() {
        assert_eq!(share(10_031, 10_707), 0.937);
        assert_eq!(share(999_999, 1_000_000), 0.999);
        assert_eq!(share(u64::MAX - 1, u64::MAX), 0.999);
        assert_eq!(share(7, 7), 1.0);
        assert_eq!(share(1, 1_000_000), 0.0);
        assert_eq!(share(0, 0), 0.0);
    }

    #[test]
    fn rounding_keeps_whole_numbers() {
        assert_eq!(round(2141.4499, 1), 2141.4);
        assert_eq!(round(1e300, 1), 1e300);
    }

    #[test]
    fn what_has_no_length_has_no_rate() {
        assert_eq!(rate(10_707, Duration::from_secs(5)), 2141.4);
        assert_eq!(rate(7, Duration::ZERO), 0.0);
        assert_eq!(exact_per_second(7, 0.0), 0.0);
        assert_eq!((each_of(5.0, 2), each_of(5.0, 0)), (2.5, 5.0));
    }

    #[test]
    fn a_scale_has_no_step_beyond_its_last() {
        assert_eq!([0.0, 0.5, 1.0, 9.0].map(|value| step(value, 1.0, 7)), [0, 4, 7, 7]);
    }
}
