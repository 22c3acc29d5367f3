//! Which findings were made in which scenario, and which were to be: a confusion matrix.
//!
//! A row for each scenario, a column for each finding, in the same order. Off the diagonal is what was found and was not
//! to be, and what was to be found and was not.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

use super::rules::{self, End, OPEN, Outcome, Ran, RuleScenario};

/// Findings in one block of columns, and in one line of their list.
const BLOCK: usize = 10;
const LISTED: usize = 3;

/// What came of one scenario.
#[derive(Debug)]
struct Row {
    scenario: &'static RuleScenario,
    found: Vec<String>,
    still_found: Vec<String>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Proved,
    /// Nothing can be proved here, for this reason.
    Unproved(String),
    Failed,
}

/// What came of all scenarios that were run.
#[derive(Debug, Default)]
pub struct Matrix {
    rows: Vec<Row>,
}

impl Matrix {
    /// What comes of all scenarios where each goes as it should.
    pub fn expected() -> Self {
        let row = |scenario: &'static RuleScenario| Row {
            scenario,
            found: scenario.finds.iter().map(|&rule| rule.to_owned()).collect(),
            still_found: Vec::new(),
            state: State::Proved,
        };
        Self { rows: rules::list().map(row).collect() }
    }

    pub(super) fn add(&mut self, scenario: &'static RuleScenario, ran: Ran) {
        let state = match ran.outcome {
            Ok(Outcome::Proved) => State::Proved,
            Ok(Outcome::Unproved(why)) => State::Unproved(why),
            Err(_) => State::Failed,
        };
        let Ran { found, still_found, .. } = ran;
        self.rows.push(Row { scenario, found, still_found, state });
    }

    fn count(&self, state: impl Fn(&State) -> bool) -> usize {
        self.rows.iter().filter(|row| state(&row.state)).count()
    }

    pub(super) fn proved(&self) -> usize {
        self.count(|state| *state == State::Proved)
    }

    pub(super) fn failed(&self) -> usize {
        self.count(|state| *state == State::Failed)
    }

    pub(super) fn unproved(&self) -> usize {
        self.count(|state| matches!(state, State::Unproved(_)))
    }

    /// Each cell off the diagonal, in words.
    pub(super) fn off_diagonal(&self) -> Vec<String> {
        self.rows.iter().flat_map(Row::off_diagonal).collect()
    }

    /// The columns: all findings that scenarios are to make, that are open, or that were made.
    fn findings(&self) -> Vec<&str> {
        let open = OPEN.iter().map(|(finding, _)| *finding);
        let made = self.rows.iter().flat_map(|row| {
            row.scenario.finds.iter().copied().chain(row.found.iter().map(String::as_str))
        });
        Vec::from_iter(open.chain(made).collect::<BTreeSet<_>>())
    }
}

impl Row {
    /// One cell: how often the finding was to be made, and how often it was.
    fn counts(&self, finding: &str) -> (usize, usize) {
        let expected = self.scenario.finds.iter().filter(|it| **it == finding).count();
        (expected, self.found.iter().filter(|it| *it == finding).count())
    }

    fn cell(&self, finding: &str) -> char {
        match self.counts(finding) {
            (0, 0) => '·',
            (expected, found) if expected == found => '✓',
            (expected, found) if expected < found => '!',
            _ => '?',
        }
    }

    /// Whether it was silent without anything wrong.
    fn silent(&self) -> char {
        match self.scenario.end {
            End::Never(_) => ' ',
            _ if !self.still_found.is_empty() => '!',
            End::Healthy if !self.found.is_empty() => '!',
            _ if self.state == State::Proved => '✓',
            _ => '?',
        }
    }

    fn off_diagonal(&self) -> Vec<String> {
        if matches!(self.state, State::Unproved(_)) {
            return Vec::new();
        }
        let name = self.scenario.name;
        let found = self.found.iter().map(String::as_str);
        let all: BTreeSet<&str> = self.scenario.finds.iter().copied().chain(found).collect();
        let mut off = Vec::new();
        for finding in all {
            match self.counts(finding) {
                (expected, found) if expected < found => {
                    off.push(format!("{name}: {finding} was found, and is not there"));
                }
                (expected, found) if expected > found => {
                    off.push(format!("{name}: {finding} is there, and was not found"));
                }
                _ => {}
            }
        }
        for finding in &self.still_found {
            off.push(format!("{name}: {finding} is found where nothing is wrong any more"));
        }
        off
    }
}

/// At most 80 columns wide.
impl Display for Matrix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let findings = self.findings();
        for line in (1..).zip(&findings).collect::<Vec<_>>().chunks(LISTED) {
            let named: Vec<String> =
                line.iter().map(|(number, name)| format!("{number:>2} {name:<23}")).collect();
            writeln!(f, "{}", named.concat().trim_end())?;
        }
        let digits = |digit: fn(usize) -> String| {
            blocks((1..=findings.len()).map(digit).collect::<Vec<_>>().concat().chars())
        };
        writeln!(f)?;
        let tens = |n: usize| if n < 10 { " ".to_owned() } else { (n / 10).to_string() };
        writeln!(f, "{:<21}{}", "", digits(tens))?;
        writeln!(f, "{:<21}{} silent", "", digits(|n| (n % 10).to_string()))?;
        // By what is to be found; last, where nothing is.
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.scenario.finds.is_empty(), row.scenario.finds.first()));
        for row in rows {
            let cells = match &row.state {
                State::Unproved(_) => "nothing is proved here".to_owned(),
                _ => blocks(findings.iter().map(|finding| row.cell(finding))),
            };
            let silent = match &row.state {
                State::Unproved(_) => ' ',
                _ => row.silent(),
            };
            writeln!(f, "{}", format!("{:<21}{cells} {silent}", row.scenario.name).trim_end())?;
        }
        Ok(())
    }
}

/// Five columns, a gap, and so on.
fn blocks(cells: impl Iterator<Item = char>) -> String {
    let mut line = String::new();
    for (index, cell) in cells.enumerate() {
        if index > 0 && index % BLOCK == 0 {
            line.push(' ');
        }
        line.push(cell);
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn first() -> &'static RuleScenario {
        rules::list().find(|scenario| scenario.finds.len() == 1).unwrap()
    }

    fn of(found: &[&str], still_found: &[&str], outcome: anyhow::Result<Outcome>) -> Matrix {
        let owned = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect();
        let mut matrix = Matrix::default();
        let ran = Ran { found: owned(found), still_found: owned(still_found), outcome };
        matrix.add(first(), ran);
        matrix
    }

    fn row(matrix: &Matrix) -> String {
        let text = matrix.to_string();
        text.lines().last().unwrap().trim_start_matches(first().name).trim().to_owned()
    }

    #[test]
    fn what_goes_as_it_should_is_on_the_diagonal_within_eighty_columns() {
        let matrix = Matrix::expected();
        assert_eq!(matrix.off_diagonal(), [""; 0]);
        assert_eq!(
            (matrix.proved(), matrix.failed(), matrix.unproved()),
            (rules::list().count(), 0, 0)
        );
        let text = matrix.to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!text.contains('!') && !text.contains('?'), "{text}");
    }

    #[test]
    fn what_is_off_the_diagonal_is_named() {
        let expected = first().finds[0];
        let failed = || Err(anyhow!("off"));
        let missing = of(&[], &[], failed());
        assert_eq!(
            missing.off_diagonal(),
            [format!("{}: {expected} is there, and was not found", first().name)]
        );
        assert_eq!(row(&missing).matches('?').count(), 2, "nor is it silent");
        let more = of(&[expected, "mtu"], &[], failed());
        assert_eq!(
            more.off_diagonal(),
            [format!("{}: mtu was found, and is not there", first().name)]
        );
        assert!(row(&more).contains('!') && row(&more).contains('✓'), "{more}");
        let twice = of(&[expected, expected], &[], failed());
        assert!(twice.off_diagonal()[0].ends_with("was found, and is not there"));
        let still = of(&[expected], &[expected], failed());
        assert!(still.off_diagonal()[0].ends_with("is found where nothing is wrong any more"));
        assert!(row(&still).ends_with('!'), "{still}");
    }

    #[test]
    fn what_proves_nothing_is_neither_on_it_nor_off() {
        let matrix = of(&[], &[], Ok(Outcome::Unproved("no such reason".to_owned())));
        assert_eq!((matrix.proved(), matrix.failed(), matrix.unproved()), (0, 0, 1));
        assert_eq!(matrix.off_diagonal(), [""; 0]);
        assert_eq!(row(&matrix), "nothing is proved here");
    }
}
