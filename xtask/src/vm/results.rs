//! What a matrix run came to: kept as JSON, shown as a table.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use testbed::unproved;

use crate::test::tally::{group, outcome};

/// Every kernel of a run, in the order of the pins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Matrix {
    pub(super) kernels: Vec<KernelRun>,
}

/// One kernel's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct KernelRun {
    pub(super) name: String,
    pub(super) about: String,
    /// As `uname -r` prints it; empty when the kernel was not to be had.
    pub(super) release: String,
    /// Not the pinned packages: theirs are gone.
    pub(super) instead: Option<String>,
    pub(super) accelerator: String,
    /// From power on to power off.
    pub(super) seconds: f64,
    /// What `dropwatch doctor` prints in the guest.
    pub(super) doctor: String,
    pub(super) tests: Vec<Test>,
    /// Why the run broke off, in one line.
    pub(super) broke: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) passed: bool,
    /// Since the test before it, from outside.
    pub(super) milliseconds: u64,
    /// It failed at first, and passed when it was run again, alone in a fresh guest.
    #[serde(default)]
    pub(super) again: bool,
    /// It passed and proved nothing: why.
    #[serde(default)]
    pub(super) unproved: Option<String>,
}

impl Test {
    pub(super) fn group(&self) -> &str {
        group(&self.name)
    }

    fn proved(&self) -> bool {
        self.passed && self.unproved.is_none()
    }
}

/// What came of the tests of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) proved: usize,
    pub(super) failed: usize,
    pub(super) all: usize,
}

impl KernelRun {
    pub(super) fn passed(&self) -> usize {
        self.tests.iter().filter(|test| test.proved()).count()
    }

    /// Those that ran and proved nothing.
    pub(super) fn skipped(&self) -> usize {
        self.tests.iter().filter(|test| test.passed && !test.proved()).count()
    }

    /// Takes over what passed when the tests that had failed were run again.
    pub(super) fn judge_again(&mut self, second: &Self) {
        self.seconds += second.seconds;
        for test in self.tests.iter_mut().filter(|test| !test.passed) {
            let passed = second.tests.iter().find(|it| it.name == test.name && it.passed);
            (test.passed, test.again) = (passed.is_some(), passed.is_some());
            test.unproved = passed.and_then(|it| it.unproved.clone());
        }
    }

    /// A run that broke off is a failure of its own, besides its tests'.
    pub(super) fn failed(&self) -> usize {
        let failed = self.tests.iter().filter(|test| !test.passed).count();
        failed + usize::from(self.broke.is_some())
    }

    pub(super) fn groups(&self) -> BTreeMap<&str, Group> {
        let mut groups = BTreeMap::new();
        for test in &self.tests {
            let group: &mut Group = groups.entry(test.group()).or_default();
            group.proved += usize::from(test.proved());
            group.failed += usize::from(!test.passed);
            group.all += 1;
        }
        groups
    }
}

impl Matrix {
    pub(super) fn passed(&self) -> usize {
        self.kernels.iter().map(KernelRun::passed).sum()
    }

    pub(super) fn failed(&self) -> usize {
        self.kernels.iter().map(KernelRun::failed).sum()
    }

    pub(super) fn skipped(&self) -> usize {
        self.kernels.iter().map(KernelRun::skipped).sum()
    }

    pub(super) fn is_success(&self) -> bool {
        self.failed() == 0 && self.kernels.iter().all(|kernel| kernel.passed() > 0)
    }

    /// Every group that any kernel has, sorted.
    pub(super) fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<_> =
            self.kernels.iter().flat_map(|kernel| kernel.groups().into_keys()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Groups down, kernels across; below it the failures by name.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![("", Vec::new()), ("", Vec::new())];
        for kernel in &self.kernels {
            rows[0].1.push(kernel.name.clone());
            rows[1].1.push(format!("{} {:.0}s", kernel.accelerator, kernel.seconds));
        }
        for group in self.groups() {
            let cell = |kernel: &KernelRun| match kernel.groups().get(group) {
                Some(Group { failed: failed @ 1.., .. }) => format!("{failed} FAILED"),
                Some(Group { proved, all, .. }) if proved == all => format!("{all} ok"),
                Some(Group { proved, all, .. }) => format!("{proved} of {all}"),
                None => "-".to_owned(),
            };
            rows.push((group, self.kernels.iter().map(cell).collect()));
        }
        let mut text = String::new();
        for (group, cells) in rows {
            let _infallible = write!(text, "{group:<14}");
            for cell in cells {
                let _infallible = write!(text, "{cell:>12}");
            }
            text.push('\n');
        }
        for kernel in &self.kernels {
            if let Some(instead) = &kernel.instead {
                let _infallible =
                    writeln!(text, "{}: the pinned package is gone, tested {instead}", kernel.name);
            }
            if let Some(slowest) = kernel.tests.iter().max_by_key(|test| test.milliseconds) {
                let (name, seconds) = (&slowest.name, slowest.milliseconds / 1000);
                let _infallible = writeln!(text, "slowest: {} {name}, {seconds} s", kernel.name);
            }
            for test in kernel.tests.iter().filter(|test| test.again) {
                let _infallible = writeln!(
                    text,
                    "unsteady: {} {} failed at first, and passed alone",
                    kernel.name, test.name
                );
            }
            for test in kernel.tests.iter().filter(|test| test.passed) {
                if let Some(why) = &test.unproved {
                    let _infallible =
                        writeln!(text, "skipped: {} {}: {why}", kernel.name, test.name);
                }
            }
            for test in kernel.tests.iter().filter(|test| !test.passed) {
                let _infallible = writeln!(text, "failed: {} {}", kernel.name, test.name);
            }
            if let Some(broke) = &kernel.broke {
                let _infallible = writeln!(text, "failed: {}: {broke}", kernel.name);
            }
        }
        text
    }
}

/// Reads what a guest's task prints: doctor's page, then libtest's lines.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    /// When the newest test began.
    began: Option<Instant>,
    pub(super) doctor: String,
    in_doctor: bool,
    pub(super) tests: Vec<Test>,
}

/// Lines that the task prints around doctor's page.
pub(super) const DOCTOR: &str = "--- dropwatch doctor";
pub(super) const TESTS: &str = "--- tests";

impl Reader {
    /// Takes output as it comes, and hands every whole line on.
    pub(super) fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            self.whole(&text);
            line(&text);
        }
    }

    /// The name of the test that had begun when the output ended.
    pub(super) fn unfinished(&self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.line);
        let name = line.strip_prefix("test ")?.split_once(" ...")?.0;
        Some(name.to_owned())
    }

    fn whole(&mut self, line: &str) {
        match line {
            DOCTOR => self.in_doctor = true,
            TESTS => {
                self.in_doctor = false;
                self.began = Some(Instant::now());
            }
            _ if self.in_doctor => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
            }
            _ => {
                if let Some(unproved) = unproved::parse(line) {
                    let mut tests = self.tests.iter_mut();
                    if let Some(test) = tests.find(|test| test.name == unproved.test) {
                        test.unproved = Some(unproved.why);
                    }
                } else if let Some((name, passed)) = outcome(line) {
                    let began = self.began.replace(Instant::now());
                    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
                    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    self.tests.push(Test {
                        name: name.to_owned(),
                        passed,
                        milliseconds,
                        again: false,
                        unproved: None,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &str) -> Reader {
        let mut reader = Reader::default();
        // In pieces, as a serial port delivers it.
        for piece in text.as_bytes().chunks(7) {
            reader.take(piece, &mut |_| {});
        }
        reader
    }

    #[test]
    fn tests_are_read_one_by_one() {
        let reader = reader(
            "--- dropwatch doctor\ndropwatch on Linux\n  ok\n--- tests\n\nrunning 3 tests\n\
             test a::b ... ok\ntest a::c ... FAILED\ntest result: FAILED. 1 passed; 1 failed\n",
        );
        assert_eq!(reader.doctor, "dropwatch on Linux\n  ok\n");
        let names: Vec<_> = reader.tests.iter().map(|t| (t.name.as_str(), t.passed)).collect();
        assert_eq!(names, [("a::b", true), ("a::c", false)]);
        assert_eq!(reader.unfinished(), None);
    }

    #[test]
    fn a_test_that_never_ended_is_named() {
        assert_eq!(reader("test a::b ... ok\ntest a::c ... ").unfinished(), Some("a::c".into()));
        assert_eq!(reader("test a::b ... ok\n").unfinished(), None);
    }

    #[test]
    fn what_proves_nothing_has_not_passed() {
        let reader = reader(
            "--- tests\ntest findings::xdp ... ok\ntest findings::mtu ... ok\n\
             test names::a ... ok\ntest result: ok. 3 passed; 0 failed\n\
             unproved: findings::xdp: this kernel has no reason XDP\n",
        );
        let run = KernelRun { name: "6.1".into(), tests: reader.tests, ..KernelRun::default() };
        assert_eq!((run.passed(), run.failed(), run.skipped()), (2, 0, 1));
        let matrix = Matrix { kernels: vec![run] };
        assert!(matrix.is_success());
        let table = matrix.table();
        assert!(table.contains("findings            1 of 2\n"), "{table}");
        assert!(table.contains("names                 1 ok\n"), "{table}");
        let skipped = "skipped: 6.1 findings::xdp: this kernel has no reason XDP\n";
        assert!(table.ends_with(skipped), "{table}");
    }

    #[test]
    fn a_run_that_broke_off_fails_whatever_passed() {
        let test = |name: &str, passed| Test { name: name.into(), passed, ..Test::default() };
        let fine = KernelRun {
            name: "6.1".into(),
            tests: vec![test("a::b", true), test("c::d", true)],
            ..KernelRun::default()
        };
        assert!(Matrix { kernels: vec![fine.clone()] }.is_success());
        assert!(!Matrix { kernels: vec![KernelRun::default()] }.is_success(), "nothing ran");
        let broken = KernelRun {
            name: "7.2".into(),
            tests: vec![test("a::b", false)],
            broke: Some("Kernel panic".into()),
            ..KernelRun::default()
        };
        let matrix = Matrix { kernels: vec![fine, broken] };
        assert_eq!((matrix.passed(), matrix.failed()), (2, 2));
        let table = matrix.table();
        assert!(table.contains("c                     1 ok           -"), "{table}");
        assert!(table.ends_with("failed: 7.2 a::b\nfailed: 7.2: Kernel panic\n"), "{table}");
    }

    #[test]
    fn what_passes_alone_has_passed_and_is_told() {
        let test = |name: &str, passed| Test { name: name.into(), passed, ..Test::default() };
        let run =
            |tests: Vec<Test>| KernelRun { name: "5.10".into(), tests, ..KernelRun::default() };
        let mut first = run(vec![test("a::x", true), test("a::y", false), test("a::z", false)]);
        first.judge_again(&run(vec![test("a::y", true), test("a::z", false)]));
        assert_eq!((first.passed(), first.failed()), (2, 1));
        let table = Matrix { kernels: vec![first] }.table();
        assert!(table.contains("unsteady: 5.10 a::y failed at first, and passed alone"), "{table}");
        assert!(table.contains("failed: 5.10 a::z"), "{table}");
        assert!(!table.contains("unsteady: 5.10 a::z"), "{table}");
    }
}
