//! The CPUs that this host can have.

use std::{fs, io};

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
/// More than any kernel is built for (`NR_CPUS_RANGE_END` is 8192 at most, arch/*/Kconfig).
const MOST: u32 = 1 << 16;

/// Numbers of the possible CPUs, ascending.
///
/// In maps with a value for each CPU the kernel writes one value after the other (`for_each_possible_cpu`),
/// so where numbers are left out, the place of a value is not the number of its CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(Vec<u32>);

impl Cpus {
    /// # Errors
    /// Where the file cannot be read, or is no list of CPUs.
    pub fn possible() -> io::Result<Self> {
        let text = fs::read_to_string(POSSIBLE)?;
        Self::parse(&text).ok_or_else(|| {
            let cause = format!("{POSSIBLE} has `{}`", text.trim().escape_debug());
            io::Error::new(io::ErrorKind::InvalidData, cause)
        })
    }

    /// The first CPUs, as many as `count`.
    pub fn first(count: u32) -> Self {
        Self((0..count).collect())
    }

    /// A list such as `0-3,8` (`cpumap_print_to_pagebuf`, include/linux/cpumask.h).
    pub(super) fn parse(list: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for range in list.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            let ascends = numbers.last().is_none_or(|before| *before < first);
            if !ascends || first > last || last >= MOST {
                return None;
            }
            numbers.extend(first..=last);
        }
        Some(Self(numbers))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// One more than the highest number.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, |last| last + 1)
    }

    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let numbers = |list| Cpus::parse(list).map(|cpus| cpus.0);
        assert_eq!(numbers("0\n"), Some(vec![0]));
        assert_eq!(numbers("0-3\n"), Some(vec![0, 1, 2, 3]));
        assert_eq!(numbers("0,2-3,8"), Some(vec![0, 2, 3, 8]));
        for nonsense in ["", "x", "3-1", "0,0", "2,1", "0-", "-1", "0-4294967295", "0--2"] {
            assert_eq!(numbers(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn numbers_that_are_left_out_count_for_the_end_alone() {
        let cpus = Cpus::parse("0,2-3").unwrap();
        assert_eq!((cpus.count(), cpus.end()), (3, 4));
        assert_eq!(cpus.numbers().collect::<Vec<_>>(), [0, 2, 3]);
        assert!(Cpus::possible().unwrap().count() > 0);
    }
}
