//! What was measured, side by side.

use std::fmt::{self, Write as _};

use serde::Serialize;

pub(super) const NOBODY: &str = "nobody";
pub(super) const EMPTY: &str = "an empty program";
/// Its arguments have types, as those of dropwatch's.
pub(super) const EMPTY_TYPED: &str = "an empty one, typed";
pub(super) const DROPWATCH: &str = "dropwatch";
pub(super) const DROPWATCH_STACKS: &str = "dropwatch -g";
pub(super) const BY_IFACE: &str = "dropwatch --by netns,iface";
pub(super) const EXPRESSION: &str = "dropwatch EXPR (filter)";
pub(super) const BPFTRACE: &str = "bpftrace";
pub(super) const PERF: &str = "perf record";
pub(super) const PERF_STACKS: &str = "perf record -g";

/// All tools, measured in turn.
#[derive(Serialize)]
pub(super) struct Table {
    /// Of one flood.
    pub(super) frames: u64,
    pub(super) rounds: usize,
    /// By the clock, and as many by the kernel's statistics, for each tool in a round.
    pub(super) floods: usize,
    /// The first is nobody, the second an empty program.
    pub(super) rows: Vec<Row>,
}

/// One tool, a value for each flood, round after round.
#[derive(Serialize)]
pub(super) struct Row {
    name: &'static str,
    /// Its program's arguments have types, so it is compared with an empty one that has them, too.
    #[serde(skip)]
    typed: bool,
    /// Wall-clock time of a flood by its frames, nanoseconds.
    pub(super) wall_ns: Vec<f64>,
    /// Run time of its program by its runs, nanoseconds; empty where there is none.
    pub(super) run_ns: Vec<f64>,
    /// Whether it counted every frame; null where it was not asked.
    pub(super) exact: Option<bool>,
}

impl Row {
    pub(super) fn new(name: &'static str, typed: bool) -> Self {
        Self { name, typed, wall_ns: Vec::new(), run_ns: Vec::new(), exact: None }
    }
}

impl Table {
    pub(super) fn text(&self) -> String {
        let nobody = self.rows.first().map_or(0.0, |row| least(&row.wall_ns));
        let mut text = format!(
            "ns for each dropped frame: least (median) of {} floods of {} frames, in {} rounds\n\n",
            self.floods * self.rounds,
            self.frames,
            self.rounds
        );
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{:<27} {:>13} {:>7}  {:>10}  {:>13}  exact",
            "watched by", "wall clock", "added", "run time", "x empty"
        );
        for row in &self.rows {
            let wall = format!("{:.0} ({:.0})", least(&row.wall_ns), median(&row.wall_ns));
            let added = least(&row.wall_ns) - nobody;
            let (run, ratio) = match row.run_ns.is_empty() {
                true => ("–".to_owned(), "–".to_owned()),
                false => (
                    format!("{:.0} ({:.0})", least(&row.run_ns), median(&row.run_ns)),
                    self.empty_beside(row)
                        .map_or("–".to_owned(), |empty| times(&row.run_ns, &empty.run_ns)),
                ),
            };
            let exact = match row.exact {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "–",
            };
            let _infallible = writeln!(
                text,
                "{:<27} {wall:>13} {added:>+7.0}  {run:>10}  {ratio:>13}  {exact}",
                row.name
            );
        }
        text
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The empty program that a row's is compared with.
    fn empty_beside(&self, row: &Row) -> Option<&Row> {
        let typed = row.typed.then(|| self.row(EMPTY_TYPED)).flatten();
        typed.or_else(|| self.row(EMPTY))
    }

    /// What dropwatch is to be, beside those of the others that were measured.
    pub(super) fn goals(&self) -> Vec<Goal> {
        let row = |name| self.row(name);
        let Some(nobody) = row(NOBODY) else { return Vec::new() };
        let added = |row: &Row| least(&row.wall_ns) - least(&nobody.wall_ns);
        // The clock may not see it for noise: it adds no less than the time in which it runs, of
        // which the measuring is the greater part.
        let ours = |row: &Row| added(row).max(least(&row.run_ns));
        let mut goals = Vec::new();
        for (what, limit) in [(DROPWATCH, 1.25), (BY_IFACE, 2.0), (EXPRESSION, 3.2)] {
            let Some(row) = row(what) else { continue };
            let Some(empty) = self.empty_beside(row) else { continue };
            let value = least(&row.run_ns) / least(&empty.run_ns);
            goals.push(Goal { what, limit, least: false, value });
        }
        for (what, limit, other, one) in [
            ("what bpftrace adds beside it, at least", 3.0, BPFTRACE, DROPWATCH),
            ("what perf record adds beside it, at least", 8.0, PERF, DROPWATCH),
            ("what perf record -g adds beside -g, at least", 4.0, PERF_STACKS, DROPWATCH_STACKS),
        ] {
            if let Some((other, one)) = row(other).zip(row(one)) {
                goals.push(Goal { what, limit, least: true, value: added(other) / ours(one) });
            }
        }
        goals
    }
}

/// What a figure of dropwatch's is to be.
pub(super) struct Goal {
    what: &'static str,
    limit: f64,
    /// The limit is the least that the value may be, and not the most.
    least: bool,
    value: f64,
}

impl Goal {
    pub(super) fn is_reached(&self) -> bool {
        if self.least { self.value >= self.limit } else { self.value <= self.limit }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, value, .. } = self;
        let verdict = if self.is_reached() { "reached" } else { "MISSED" };
        write!(f, "{what:<45} {limit:>5.2}: {value:>6.2}  {verdict}")
    }
}

/// How much more one costs than another: by the least of either, which noise cannot make smaller,
/// and by their medians.
fn times(of: &[f64], to: &[f64]) -> String {
    format!("{:.2} ({:.2})", least(of) / least(to), median(of) / median(to))
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_few_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(least(&[3.0, 1.0, 2.0]), 1.0);
    }

    #[test]
    fn costs_are_told_beside_nobodys_and_an_empty_programs() {
        let row = |name, wall: &[f64], run: &[f64]| Row {
            name,
            typed: false,
            wall_ns: wall.to_vec(),
            run_ns: run.to_vec(),
            exact: (name == "dropwatch").then_some(true),
        };
        let rows = vec![
            row("nobody", &[700.0, 720.0], &[]),
            row("an empty program", &[760.0, 790.0], &[40.0, 60.0]),
            row("dropwatch", &[800.0, 810.0], &[50.0, 70.0]),
        ];
        let text = Table { frames: 10, rounds: 2, floods: 1, rows }.text();
        let last = text.lines().last().unwrap();
        assert_eq!(
            last.split_whitespace().collect::<Vec<_>>(),
            ["dropwatch", "800", "(805)", "+100", "50", "(60)", "1.25", "(1.20)", "yes"]
        );
        assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
    }

    #[test]
    fn goals_are_reached_or_missed() {
        let row = |name, wall, run: &[f64]| Row {
            name,
            typed: false,
            wall_ns: vec![wall],
            run_ns: run.to_vec(),
            exact: None,
        };
        let goals = |ours| {
            let rows = vec![
                row(NOBODY, 800.0, &[]),
                row(EMPTY, 820.0, &[24.0]),
                row(DROPWATCH, ours, &[30.0]),
                row(BPFTRACE, 1_100.0, &[80.0]),
                row(PERF, 1_280.0, &[]),
            ];
            let table = Table { frames: 10, rounds: 1, floods: 1, rows };
            table.goals().iter().map(|goal| (goal.value, goal.is_reached())).collect::<Vec<_>>()
        };
        assert_eq!(goals(860.0), [(1.25, true), (5.0, true), (8.0, true)]);
        // What the clock does not see is at least its run time.
        assert_eq!(goals(790.0), [(1.25, true), (10.0, true), (16.0, true)]);
        assert_eq!(goals(1_000.0), [(1.25, true), (1.5, false), (2.4, false)]);
    }

    #[test]
    fn an_expression_has_a_goal_of_its_own() {
        let row = |name, run: &[f64]| Row { run_ns: run.to_vec(), ..Row::new(name, true) };
        let rows = vec![row(NOBODY, &[]), row(EMPTY, &[20.0]), row(EXPRESSION, &[66.0, 70.0])];
        let goals = Table { frames: 10, rounds: 1, floods: 1, rows }.goals();
        let goals: Vec<_> = goals.iter().map(|goal| (goal.value, goal.is_reached())).collect();
        assert_eq!(goals, [(3.3, false)]);
    }
}
