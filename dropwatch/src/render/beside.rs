//! What stands on standard error beside an output that has no line for it: notices and losses beside the
//! classic format, and beside drops that are shown each by itself also how many they were.

use super::{
    Format,
    words::{drops_in, losses},
};
use crate::report::{
    model::{End, Line, Report, Start},
    snapshot::Lost,
};

/// Sums up what is shown of a run, line by line.
#[derive(Debug)]
pub struct Beside {
    /// Drops are shown, each by itself.
    each: bool,
    /// The output itself has notices and losses.
    is_enough: bool,
    run: Shown,
}

/// Drops of the run under way, and how many of them were shown.
#[derive(Debug, Default)]
struct Shown {
    /// Whether the run has begun here, so that its end says how long it took.
    is_begun: bool,
    lines: u64,
    shown: u64,
    drops: u64,
    seconds: f64,
    lost: Lost,
    undecided: u64,
}

impl Beside {
    /// Beside an output in this format, or of drops, `each` by itself.
    pub fn new(format: Format, each: bool) -> Self {
        Self { each, is_enough: format.shows_details(), run: Shown::default() }
    }

    /// What is to be said once the output has shown this line.
    pub fn line(&mut self, line: &Line) -> Vec<String> {
        let mut said = Vec::new();
        match line {
            Line::Start(Start { notices, .. }) => {
                said.extend(self.end());
                self.run.is_begun = true;
                if self.each || !self.is_enough {
                    said.extend(notices.iter().cloned());
                }
            }
            Line::Sample(_) => self.run.sample(),
            Line::Report(report) => {
                self.run.add(report);
                if self.each || !self.is_enough {
                    said.extend(losses(&report.lost));
                }
            }
            Line::End(End { duration_s, .. }) => {
                if self.run.is_begun {
                    self.run.seconds = *duration_s;
                }
                self.run.lines += 1;
                said.extend(self.end());
            }
        }
        said
    }

    /// The sum of a run that has no end, when there are no more lines.
    pub fn end(&mut self) -> Option<String> {
        let run = std::mem::take(&mut self.run);
        (self.each && run.lines > 0).then(|| run.sum())
    }
}

impl Shown {
    fn sample(&mut self) {
        self.lines += 1;
        self.shown += 1;
    }

    fn add(&mut self, report: &Report) {
        self.lines += 1;
        self.drops = self.drops.saturating_add(report.drops);
        self.seconds += report.interval_s;
        self.lost = self.lost.zip(&report.lost, u64::saturating_add);
        let undecided = report.filter_undecided.unwrap_or(0);
        self.undecided = self.undecided.saturating_add(undecided);
    }

    /// Drops without a line of their own that no cause of losses accounts for: a run samples some drops
    /// alone unless it is to sample all, and shows no more than it is asked for.
    fn not_shown(&self) -> u64 {
        let Lost { samples, unsampled, .. } = self.lost;
        let located = self.drops.saturating_sub(self.lost.unknown_location());
        located.saturating_sub(self.shown).saturating_sub(samples).saturating_sub(unsampled)
    }

    /// `12000 drops in 5.2s: 6689 shown, 5311 not sampled`
    fn sum(&self) -> String {
        let mut pieces = vec![format!("{} shown", self.shown)];
        match self.not_shown() {
            0 => {}
            others => pieces.push(format!("{others} not shown")),
        }
        pieces.push(losses(&self.lost).unwrap_or_else(|| "none lost".to_owned()));
        if self.undecided > 0 {
            pieces.push(format!("{} undecided", self.undecided));
        }
        format!("{}: {}", drops_in(self.drops, self.seconds), pieces.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(drops: u64, lost: Lost) -> Line {
        let undecided = Some(2);
        let interval_s = 5.0;
        let report = Report { drops, interval_s, lost, ..Report::default() };
        Line::Report(Report { filter_undecided: undecided, ..report })
    }

    fn start() -> Line {
        let notices = vec!["no names".to_owned()];
        Line::Start(Start { notices, ..Start::default() })
    }

    fn end(duration_s: f64) -> Line {
        Line::End(End { duration_s, ..End::default() })
    }

    fn sample() -> Line {
        Line::Sample(Box::default())
    }

    /// All that is said beside the lines.
    fn said(format: Format, each: bool, lines: &[Line]) -> Vec<String> {
        let mut beside = Beside::new(format, each);
        let mut said: Vec<String> = lines.iter().flat_map(|line| beside.line(line)).collect();
        said.extend(beside.end());
        said
    }

    #[test]
    fn with_the_lines_it_is_all_that_was_dropped() {
        let lost = Lost { recursion: 1, samples: 2, unsampled: 30, stacks: 9, ..Lost::default() };
        let lines = [start(), sample(), sample(), report(50, lost), report(7, Lost::default())];
        let losses = "1 not located: 1 nested; 2 samples lost, 9 stacks lost, 30 not sampled";
        let whole = [&lines[..], &[end(10.2)]].concat();
        for format in [Format::Text, Format::Json] {
            assert_eq!(
                said(format, true, &whole),
                [
                    "no names".to_owned(),
                    losses.to_owned(),
                    format!("57 drops in 10.2s: 2 shown, 22 not shown, {losses}, 4 undecided"),
                ]
            );
        }
        // A run that was killed has no end.
        let cut = said(Format::Text, true, &lines).pop().unwrap_or_default();
        assert!(cut.starts_with("57 drops in 10.0s: 2 shown, 22 not shown"), "{cut}");
        let next =
            [&lines[..], &[start(), sample(), report(1, Lost::default()), end(1.0)]].concat();
        assert_eq!(said(Format::Text, true, &next).len(), 5);
        assert_eq!(
            said(Format::Text, true, &next).pop().unwrap_or_default(),
            "1 drop in 1.0s: 1 shown, none lost, 2 undecided"
        );
        // The numbers of a file that begins within a run are those of its lines.
        let rest = [sample(), report(1, Lost::default()), end(99.0)];
        assert_eq!(
            said(Format::Text, true, &rest),
            ["1 drop in 5.0s: 1 shown, none lost, 2 undecided"]
        );
        assert_eq!(said(Format::Text, true, &[]), [""; 0]);
    }

    #[test]
    fn what_an_output_has_itself_is_not_said_beside_it() {
        let lost = Lost { map_full: 3, ..Lost::default() };
        let lines = [start(), sample(), report(50, lost), end(5.0)];
        assert_eq!(said(Format::Text, false, &lines), [""; 0]);
        assert_eq!(said(Format::Json, false, &lines), [""; 0]);
        let classic = said(Format::Classic, false, &lines);
        assert_eq!(classic, ["no names", "3 not located: 3 map full"]);
    }
}
