//! How far a share of samples is from the share of the drops that they stand for.
//!
//! Samples of a flood stand for unequal numbers of drops, so fewer equal ones would say as much: their
//! effective number. A share is shown, and held against a limit, only as exactly as that number allows.

use super::number::one_decimal;

/// Standard errors that a share has to be beyond a limit: a chance of one in twenty that it is not.
const SURE: f64 = 1.645;

/// How exact the shares of some samples are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// Each drop was sampled.
    Exact,
    /// As those of so many equal samples.
    Estimated(f64),
    /// The recording is of a version that did not say; its shares are taken as they are.
    Unknown,
}

/// Number of equal samples that say as much as those of these weights: (Σw)² / Σw² (Kish, Survey
/// Sampling, 1965), to one decimal.
pub fn effective(weights: impl Iterator<Item = u64>) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for weight in weights.map(|weight| weight as f64) {
        sum += weight;
        squares += weight * weight;
    }
    if squares > 0.0 { one_decimal(sum * sum / squares) } else { 0.0 }
}

impl Precision {
    /// Of samples of so many `drops` that have this [`effective`] number: all of them, if it is as many.
    pub fn new(effective: Option<f64>, drops: u64) -> Self {
        match effective {
            Some(effective) if effective >= drops as f64 => Self::Exact,
            Some(effective) => Self::Estimated(effective.max(1.0)),
            None => Self::Unknown,
        }
    }

    /// What the true share, 0 to 1, surely is at least (the lower end of Wilson's interval). All, if all
    /// samples agree: nothing was seen of another kind.
    pub fn at_least(self, share: f64) -> f64 {
        let Self::Estimated(n) = self else { return share };
        if share >= 1.0 {
            return share;
        }
        let square = SURE * SURE / n;
        let spread = SURE * (share * (1.0 - share) / n + square / n / 4.0).sqrt();
        ((share + square / 2.0 - spread) / (1.0 + square)).max(0.0)
    }

    /// Whether `part` of `whole` is surely this many percent of it or more.
    pub fn covers(self, part: u64, whole: u64, percent: u64) -> bool {
        let reaches = u128::from(part) * 100 >= u128::from(whole) * u128::from(percent);
        match self {
            Self::Estimated(_) if reaches && whole > 0 => {
                self.at_least(part as f64 / whole as f64) * 100.0 >= percent as f64
            }
            _ => reaches,
        }
    }

    /// Percentage points that a share is to be rounded to, which are no less than its standard error;
    /// `None` where it is no estimate.
    pub fn step(self, share: f64) -> Option<u32> {
        let Self::Estimated(n) = self else { return None };
        // Agresti and Coull's: two samples more of either kind, since few that agree prove little.
        let (n, share) = (n + 4.0, (share * n + 2.0) / (n + 4.0));
        let error = 100.0 * (share * (1.0 - share) / n).sqrt();
        [1, 5, 10].into_iter().find(|step| error <= f64::from(*step)).or(Some(25))
    }
}

/// A share, 0 to 1, as a percentage that is rounded to `step` points.
pub fn rounded(share: f64, step: u32) -> u32 {
    (share * 100.0 / f64::from(step)).round() as u32 * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unequal_weights_are_worth_fewer_samples() {
        assert_eq!(effective([1; 30].into_iter()), 30.0);
        assert_eq!(effective([7, 7].into_iter()), 2.0);
        assert_eq!(effective([1, 1, 98].into_iter()), 1.0);
        // Gaps that double without end: the last sample stands for half of all.
        assert_eq!(effective((0..40).map(|it| 1 << it)), 3.0);
        assert_eq!(effective([].into_iter()), 0.0);
        assert!(effective([u64::MAX; 3].into_iter()) > 2.9);
    }

    #[test]
    fn all_drops_sampled_is_exact() {
        assert_eq!(Precision::new(Some(10.0), 10), Precision::Exact);
        assert_eq!(Precision::new(Some(10.0), 11), Precision::Estimated(10.0));
        assert_eq!(Precision::new(None, 11), Precision::Unknown);
        for exact in [Precision::Exact, Precision::Unknown] {
            assert_eq!((exact.at_least(0.6), exact.step(0.6)), (0.6, None));
            assert!(exact.covers(4, 5, 80) && !exact.covers(3, 5, 80));
        }
    }

    #[test]
    fn a_limit_is_passed_only_beyond_the_error() {
        let of = Precision::Estimated;
        // Wilson's lower ends at 95 % on one side, as tables have them.
        assert!((of(10.0).at_least(0.5) - 0.269).abs() < 0.001);
        assert!((of(100.0).at_least(0.9) - 0.839).abs() < 0.001);
        assert!(of(24.0).at_least(0.55) < 0.5 && of(1000.0).at_least(0.55) > 0.5);
        assert!(!of(24.0).covers(83, 100, 80) && of(2000.0).covers(83, 100, 80));
        assert!(!of(1e9).covers(79, 100, 80));
        assert_eq!(of(1.0).at_least(0.0), 0.0);
    }

    #[test]
    fn samples_that_all_agree_pass_every_limit() {
        assert_eq!(Precision::Estimated(1.0).at_least(1.0), 1.0);
        assert!(Precision::Estimated(1.0).covers(9, 9, 100));
    }

    #[test]
    fn a_share_is_rounded_to_no_less_than_its_error() {
        let step = |n, share| Precision::Estimated(n).step(share);
        assert_eq!(
            (step(3.0, 0.5), step(40.0, 0.5), step(40.0, 0.05)),
            (Some(25), Some(10), Some(5))
        );
        assert_eq!((step(250.0, 0.5), step(1e4, 0.5)), (Some(5), Some(1)));
        assert_eq!(
            [rounded(0.83, 10), rounded(0.83, 5), rounded(0.02, 5), rounded(0.98, 5)],
            [80, 85, 0, 100]
        );
    }
}
