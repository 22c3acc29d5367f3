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

/// Adds up the reports of each run in a recording. Of a run whose begin is missing, as behind a log
/// rotation, or that another one was written into, nothing can be said.
#[derive(Clone, Debug, Default)]
pub struct RecordedRuns {
    /// Whose run is under way, and its sums; nothing where it is not complete so far.
    run: Option<(Host, Sums)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    reports: u64,
    drops: u128,
    undecided: u128,
}

impl RecordedRuns {
    /// Takes the next line.
    ///
    /// # Errors
    /// It ends a complete run, with other numbers than those of its reports.
    pub fn add(&mut self, line: &Line) -> Result<(), WrongEnd> {
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
