//! What was measured, side by side.

use std::fmt::Write as _;

use serde::Serialize;

/// All tools, measured in turn.
#[derive(Serialize)]
pub(super) struct Table {
    /// Of one flood by the clock.
    pub(super) frames: u64,
    pub(super) rounds: usize,
    /// Floods by the clock, for each tool in a round.
    pub(super) clocked: usize,
    /// Floods by the kernel's statistics.
    pub(super) timed: usize,
    /// The first is nobody, the second an empty program.
    pub(super) rows: Vec<Row>,
}

/// One tool, a value for each flood, round after round.
#[derive(Serialize)]
pub(super) struct Row {
    name: &'static str,
    /// Wall-clock time of a flood by its frames, nanoseconds.
    pub(super) wall_ns: Vec<f64>,
    /// Run time of its program by its runs, nanoseconds; empty where there is none. Of shorter floods.
    pub(super) run_ns: Vec<f64>,
    /// Whether it counted every frame; null where it was not asked.
    pub(super) exact: Option<bool>,
}

impl Row {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, wall_ns: Vec::new(), run_ns: Vec::new(), exact: None }
    }
}

impl Table {
    pub(super) fn text(&self) -> String {
        let nobody = self.rows.first().map_or(0.0, |row| least(&row.wall_ns));
        let empty = self.rows.get(1).map_or(&[][..], |row| &row.run_ns);
        let mut text = format!(
            "{} rounds; ns for each dropped frame: least (median) of {} floods of {} frames\n\n",
            self.rounds,
            self.clocked * self.rounds,
            self.frames
        );
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "{:<27} {:>15} {:>8}   {:>13} {:>8}  exact",
            "watched by", "wall clock", "added", "run time", "x empty"
        );
        for row in &self.rows {
            let wall = format!("{:.0} ({:.0})", least(&row.wall_ns), median(&row.wall_ns));
            let added = least(&row.wall_ns) - nobody;
            let (run, times) = match row.run_ns.is_empty() {
                true => ("–".to_owned(), "–".to_owned()),
                false => (
                    format!("{:.0} ({:.0})", least(&row.run_ns), median(&row.run_ns)),
                    format!("{:.2}", self.ratio(&row.run_ns, empty)),
                ),
            };
            let exact = match row.exact {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "–",
            };
            let _infallible = writeln!(
                text,
                "{:<27} {wall:>15} {added:>+8.0}   {run:>13} {times:>8}  {exact}",
                row.name
            );
        }
        text
    }

    /// How much more one costs than another: the median of what each round says, of its least
    /// disturbed floods. A machine is faster in one minute than in the next.
    fn ratio(&self, of: &[f64], to: &[f64]) -> f64 {
        let rounds = of.chunks(self.timed.max(1)).zip(to.chunks(self.timed.max(1)));
        median(&rounds.map(|(of, to)| least(of) / least(to)).collect::<Vec<_>>())
    }
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
            wall_ns: wall.to_vec(),
            run_ns: run.to_vec(),
            exact: (name == "dropwatch").then_some(true),
        };
        let rows = vec![
            row("nobody", &[700.0, 720.0], &[]),
            row("an empty program", &[760.0, 790.0], &[40.0, 60.0]),
            row("dropwatch", &[800.0, 810.0], &[60.0, 60.0]),
        ];
        let text = Table { frames: 10, rounds: 2, clocked: 1, timed: 1, rows }.text();
        let last = text.lines().last().unwrap();
        assert_eq!(
            last.split_whitespace().collect::<Vec<_>>(),
            ["dropwatch", "800", "(805)", "+100", "60", "(60)", "1.25", "yes"]
        );
        assert!(text.lines().all(|line| line.chars().count() <= 92), "{text}");
    }
}
