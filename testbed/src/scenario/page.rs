//! `docs/scenarios.md`: every scenario with what is found in it, and every finding with its scenarios.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    matrix::Matrix,
    rules::{self, End, OPEN, RuleScenario},
};

const HEAD: &str = "\
# What is found in which scenario

Written by `cargo xtask scenario all --write-docs`, from a run in which nothing was off
the diagonal. What that host's kernel lacked proved nothing there.

Each scenario causes one trouble for real, in network namespaces of its own, or looks like one and is
healthy. In each, exactly these findings are made and no other. Every command that they print is run in
a shell as printed: it ends well, and shows or changes what it says. Then the trouble ends, by such a
command or by what a person does, the same packets are sent again, and nothing is found: that is the
counter-example of its findings. `cargo xtask scenario NAME` runs one and tells it, `all` runs all of
them and ends with the matrix below; it fails where something is off its diagonal.

## Findings

| finding | made in | silent once it has ended |
|---|---|---|
";

const SCENARIOS: &str = "
## Scenarios

| scenario | what goes wrong | found | ended by |
|---|---|---|---|
";

const MATRIX: &str = "
## Matrix

`✓` found, as it should be · `·` not found, as it should not be. Off the diagonal `!` would stand for
what is found and is not there, `?` for what is there and is not found. The last column is the same
traffic once nothing is wrong any more: silent.

```text
";

/// The page, as long as each scenario goes as it should.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for (finding, scenarios) in findings() {
        let names = |scenarios: &[&RuleScenario]| match scenarios {
            [] => "–".to_owned(),
            some => some.iter().map(|it| it.name).collect::<Vec<_>>().join(", "),
        };
        let ended: Vec<&RuleScenario> =
            scenarios.iter().copied().filter(|it| !matches!(it.end, End::Never(_))).collect();
        let ended =
            if ended.len() == scenarios.len() { "all of them".to_owned() } else { names(&ended) };
        let _ = writeln!(page, "| `{finding}` | {} | {ended} |", names(&scenarios));
    }
    page.push_str("\nWithout a scenario, since they cannot be caused here:\n\n");
    for (finding, why) in OPEN {
        let _ = writeln!(page, "- `{finding}`: {why}");
    }
    page.push_str(SCENARIOS);
    for scenario in rules::list() {
        let found: BTreeSet<&str> = scenario.finds.iter().copied().collect();
        let found = found.iter().map(|finding| {
            let places = scenario.finds.iter().filter(|it| *it == finding).count();
            let places =
                if places > 1 { format!(" in {places} namespaces") } else { String::new() };
            format!("`{finding}`{places}")
        });
        let found = match scenario.finds {
            [] => "nothing".to_owned(),
            _ => found.collect::<Vec<_>>().join(", "),
        };
        let end = match scenario.end {
            End::Command => "its command",
            End::Person => "a person",
            End::Healthy => "nothing is wrong",
            End::Never(why) => why,
        };
        let _ = writeln!(page, "| {} | {} | {found} | {end} |", scenario.name, scenario.about);
    }
    page.push_str(MATRIX);
    let _ = writeln!(page, "{}```", Matrix::expected());
    page
}

/// Every finding that a scenario makes, with those.
fn findings() -> BTreeMap<&'static str, Vec<&'static RuleScenario>> {
    let mut findings: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for scenario in rules::list() {
        for finding in scenario.finds.iter().copied().collect::<BTreeSet<_>>() {
            findings.entry(finding).or_default().push(scenario);
        }
    }
    findings
}
