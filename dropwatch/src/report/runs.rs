//! What the lines of one recorded run must agree in.

use thiserror::Error;

use super::model::{End, Host, Line, Report};

/// An end line whose numbers are not those of the reports before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("has {said} {name}, where the reports of its run have {sum}: the recording is damaged")]
pub struct WrongEnd {
    name: &'static str,
    said: u64,
    sum: u128,
}

/// Numbers of reports that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Gap {
    #[error(
        "report {next} follows report {last}: lines are missing between them, or another run's \
         are among them"
    )]
    Between { last: u64, next: u64 },
    #[error("the first report of the run has the number {next}: lines are missing before it")]
    Before { next: u64 },
    #[error(
        "the run has ended with {said} reports, and the last one here is {last}: lines are missing"
    )]
    After { last: u64, said: u64 },
}

/// Adds up the reports of each run in a recording. Of a run whose begin is missing, as behind a log
/// rotation, or that another one was written into, no sums can be said.
#[derive(Clone, Debug, Default)]
pub struct RecordedRuns {
    /// Whose run is under way, and its sums; nothing where it is not complete so far.
    run: Option<(Host, Sums)>,
    /// Whose reports were last, and their number, 0 before the first; nothing where the next one may
    /// have any number.
    last: Option<(Host, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    reports: u64,
    drops: u128,
    undecided: u128,
}

impl RecordedRuns {
    /// Takes the next line, and returns the reports that are missing before it.
    ///
    /// # Errors
    /// It ends a complete run, with other numbers than those of its reports.
    pub fn add(&mut self, line: &Line) -> Result<Option<Gap>, WrongEnd> {
        let gap = self.gap(line);
        self.sum(line).map(|()| gap)
    }

    fn gap(&mut self, line: &Line) -> Option<Gap> {
        let mut of = |host: &Host| self.last.take().filter(|(own, _)| own == host);
        match line {
            Line::Start(start) => {
                self.last = Some((start.host.clone(), 0));
                None
            }
            Line::Report(report) => {
                let next = report.seq;
                let last = of(&report.host).map(|(_, last)| last);
                // A smaller number is another run's.
                self.last =
                    last.is_none_or(|last| next > last).then(|| (report.host.clone(), next));
                match last {
                    Some(0) if next > 1 => Some(Gap::Before { next }),
                    Some(last) if next > last.saturating_add(1) => {
                        Some(Gap::Between { last, next })
                    }
                    _ => None,
                }
            }
            Line::Sample(_) => None,
            Line::End(end) => {
                let (_, last) = of(&end.host)?;
                (end.reports > last).then_some(Gap::After { last, said: end.reports })
            }
        }
    }

    fn sum(&mut self, line: &Line) -> Result<(), WrongEnd> {
        let mut of = |host: &Host| self.run.take().filter(|(own, _)| own == host);
        match line {
            Line::Start(start) => self.run = Some((start.host.clone(), Sums::default())),
            Line::Report(report) => {
                let next = |(host, sums): (Host, Sums)| Some((host, sums.and(report)?));
                let run = of(&report.host).and_then(next);
                self.run = run;
            }
            Line::Sample(_) => {}
            Line::End(end) => return of(&end.host).map_or(Ok(()), |(_, sums)| sums.check(end)),
        }
        Ok(())
    }
}

impl Sums {
    /// With the next report; nothing where it is another.
    fn and(self, report: &Report) -> Option<Self> {
        (report.seq == self.reports + 1).then(|| Self {
            reports: report.seq,
            drops: self.drops + u128::from(report.drops),
            undecided: self.undecided + u128::from(report.filter_undecided.unwrap_or(0)),
        })
    }

    fn check(self, end: &End) -> Result<(), WrongEnd> {
        let undecided = end.filter_undecided.unwrap_or(0);
        for (name, said, sum) in [
            ("reports", end.reports, u128::from(self.reports)),
            ("drops", end.drops, self.drops),
            ("undecided drops", undecided, self.undecided),
        ] {
            if u128::from(said) != sum {
                return Err(WrongEnd { name, said, sum });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Start;

    fn report(seq: u64, drops: u64) -> Line {
        let filter_undecided = Some(seq);
        Line::Report(Report { seq, drops, filter_undecided, ..Report::default() })
    }

    fn end(reports: u64, drops: u64, undecided: u64) -> Line {
        let filter_undecided = Some(undecided);
        Line::End(End { reports, drops, filter_undecided, ..End::default() })
    }

    fn of_another(mut line: Line) -> Line {
        let (Line::Report(Report { host, .. }) | Line::End(End { host, .. })) = &mut line else {
            return line;
        };
        host.host = "another".to_owned();
        line
    }

    /// The error of the first line that has one.
    fn check(lines: &[Line]) -> Option<String> {
        let mut runs = RecordedRuns::default();
        lines.iter().find_map(|line| runs.add(line).err()).map(|error| error.to_string())
    }

    #[test]
    fn the_end_of_a_complete_run_has_the_sums_of_its_reports() {
        let begin = || [Line::Start(Start::default()), report(1, 5), report(2, 7)];
        let whole = |end: Line| check(&[&begin()[..], &[end]].concat());
        assert_eq!(whole(end(2, 12, 3)), None);
        let damaged = "the recording is damaged";
        for (line, what) in [
            (end(2, 999_999, 3), "has 999999 drops, where the reports of its run have 12"),
            (end(3, 12, 3), "has 3 reports, where the reports of its run have 2"),
            (end(2, 12, 4), "has 4 undecided drops, where the reports of its run have 3"),
        ] {
            assert_eq!(whole(line), Some(format!("{what}: {damaged}")));
        }
        let twice = [&begin()[..], &[end(2, 12, 3)], &begin(), &[end(2, 13, 3)]].concat();
        assert!(check(&twice).is_some_and(|error| error.contains("13 drops")));
        let most = [Line::Start(Start::default()), report(1, u64::MAX), report(2, u64::MAX)];
        assert!(check(&[&most[..], &[end(2, u64::MAX, 3)]].concat()).is_some());
    }

    /// What is said to be missing, in order.
    fn gaps(lines: &[Line]) -> Vec<Gap> {
        let mut runs = RecordedRuns::default();
        lines.iter().filter_map(|line| runs.add(line).ok().flatten()).collect()
    }

    #[test]
    fn numbers_that_are_missing_are_said() {
        let start = || Line::Start(Start::default());
        for (lines, expected) in [
            (
                vec![start(), report(1, 5), report(99, 5), report(100, 5), end(100, 10, 0)],
                vec![Gap::Between { last: 1, next: 99 }],
            ),
            (
                vec![start(), report(3, 5), report(5, 5)],
                vec![Gap::Before { next: 3 }, Gap::Between { last: 3, next: 5 }],
            ),
            // Behind a log rotation the first number may be any.
            (vec![report(57, 5), report(59, 5)], vec![Gap::Between { last: 57, next: 59 }]),
            (vec![report(57, 5), end(60, 5, 0)], vec![Gap::After { last: 57, said: 60 }]),
            (
                vec![start(), report(1, 5), report(u64::MAX, 5), report(1, 5)],
                vec![Gap::Between { last: 1, next: u64::MAX }],
            ),
        ] {
            assert_eq!(gaps(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_all_there_has_no_gap() {
        let start = || Line::Start(Start::default());
        for lines in [
            vec![start(), report(1, 5), report(2, 5), end(2, 10, 3), start(), report(1, 5)],
            // A run that was killed, and another one.
            vec![start(), report(1, 5), start(), report(1, 5)],
            vec![report(3, 5), report(4, 5), end(4, 10, 7), report(9, 1)],
            // Two runs in one file, neither of whose begins is there.
            vec![report(5, 1), report(1, 1), report(6, 1), report(2, 1)],
            vec![start(), report(1, 5), of_another(report(7, 1)), of_another(report(8, 1))],
        ] {
            assert_eq!(gaps(&lines), [], "{lines:?}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_run_that_is_not_all_there() {
        let start = || Line::Start(Start::default());
        for lines in [
            vec![report(3, 5), end(3, 12, 9)],
            vec![end(3, 12, 9)],
            vec![start(), report(1, 5), report(3, 5), end(3, 12, 9)],
            vec![start(), report(1, 5), report(1, 6), report(2, 7), end(2, 12, 3)],
            vec![start(), report(1, 5), start(), report(1, 1), end(1, 1, 1), end(1, 5, 1)],
            vec![start(), of_another(report(1, 5)), end(2, 9, 9)],
            vec![start(), report(1, 5), of_another(end(0, 0, 0))],
        ] {
            assert_eq!(check(&lines), None, "{lines:?}");
        }
    }
}
