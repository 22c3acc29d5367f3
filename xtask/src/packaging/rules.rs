//! Alerts and recording rules, by promtool; and that every alert is tested both ways.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    Packaging,
    checks::{Checks, read},
    dashboard,
    yaml::{document, items, text},
};
use crate::process::CommandExt;

/// The rule files, below `packaging/`.
pub(super) const RULES: [&str; 2] = ["prometheus/recording.yml", "prometheus/alerts.yml"];

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    let rules = "rules: promtool check";
    if let Some(promtool) = checks.program(rules, "promtool") {
        let files = RULES.map(|name| packaging.path(name));
        checks.check(rules, || {
            Command::new(&promtool).args(["check", "rules", "--lint-fatal"]).args(&files).read()?;
            let example = packaging.path("prometheus/prometheus.yml");
            Command::new(&promtool).args(["check", "config"]).arg(example).read().map(drop)
        });
        match tests(packaging) {
            Ok(tests) => {
                for test in tests {
                    let name = test.file_name().unwrap_or_default().to_string_lossy();
                    checks.check(&format!("rules: promtool test {name}"), || {
                        Command::new(&promtool).args(["test", "rules"]).arg(&test).read().map(drop)
                    });
                }
            }
            Err(error) => checks.check("rules: tests", || Err(error)),
        }
    }
    checks.check("rules: metrics that are asked for are documented", || {
        let documented = read(packaging.project.root.join("docs/metrics.md"))?;
        let documented = metrics(&documented);
        for file in RULES.into_iter().chain([dashboard::FILE, "README.md"]) {
            let asked = metrics(&read(packaging.path(file))?);
            if let Some(unknown) = asked.difference(&documented).next() {
                bail!("{file} asks for {unknown}, which docs/metrics.md does not know");
            }
        }
        Ok(())
    });
    checks.check("rules: each alert has a runbook, and is tested both ways", || {
        covered(&packaging.path(RULES[1]), &tests(packaging)?)
    });
}

/// The metrics of dropwatch that a text names; not those that rules record, whose names have colons.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("dropwatch_") && !word.contains(':'))
        // As in `dropwatch_conntrack_*`.
        .filter(|word| !word.ends_with('_'))
        .map(str::to_owned)
        .collect()
}

/// The files of promtool's unit tests.
fn tests(packaging: &Packaging<'_>) -> Result<Vec<PathBuf>> {
    let folder = packaging.path("prometheus/tests");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context("cannot list tests")?.path();
        if path.extension().is_some_and(|ending| ending == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The commands of all runbooks, one by one.
///
/// # Errors
/// If an alert has none.
pub(super) fn runbooks(alerts: &Path) -> Result<Vec<String>> {
    let mut commands = Vec::new();
    each_alert(alerts, |name, runbook| {
        let runbook = runbook.with_context(|| format!("{name} has no runbook"))?;
        commands.extend(runbook.split(';').map(|command| command.trim().to_owned()));
        Ok(())
    })?;
    Ok(commands)
}

fn each_alert(alerts: &Path, mut each: impl FnMut(&str, Option<&str>) -> Result<()>) -> Result<()> {
    let document = document(alerts)?;
    for rule in items(&document["groups"]).flat_map(|group| items(&group["rules"])) {
        let name = text(&rule["alert"], "name of an alert")?;
        each(name, rule["annotations"]["runbook"].as_str())?;
    }
    Ok(())
}

fn covered(alerts: &Path, tests: &[PathBuf]) -> Result<()> {
    let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for path in tests {
        let document = document(path)?;
        for case in items(&document["tests"]).flat_map(|test| items(&test["alert_rule_test"])) {
            let name = text(&case["alertname"], "alertname")?.to_owned();
            let expected = items(&case["exp_alerts"]).count();
            if expected > 0 {
                fire.insert(name)
            } else {
                silent.insert(name)
            };
        }
    }
    let mut names = BTreeSet::new();
    each_alert(alerts, |name, runbook| {
        if !fire.contains(name) {
            bail!("no test in which {name} fires");
        }
        if !silent.contains(name) {
            bail!("no test in which {name} is silent");
        }
        if !runbook.is_some_and(|runbook| runbook.contains("dropwatch")) {
            bail!("the runbook of {name} names no dropwatch command");
        }
        names.insert(name.to_owned());
        Ok(())
    })?;
    if names.is_empty() {
        bail!("no alerts in {}", alerts.display());
    }
    match fire.union(&silent).find(|name| !names.contains(*name)) {
        Some(unknown) => bail!("a test asks for {unknown}, which is no alert"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn metrics_of_a_text() {
        let text = "sum(dropwatch_drops_total{a=\"b\"}) instance:dropwatch_drops:sum dropwatch_x_*";
        assert_eq!(metrics(text).into_iter().collect::<Vec<_>>(), ["dropwatch_drops_total"]);
    }

    #[test]
    fn every_alert_has_a_runbook_and_both_tests() {
        let project = Project::find().unwrap();
        let packaging = Packaging { root: project.root.join("packaging"), project: &project };
        let alerts = packaging.path(RULES[1]);
        let mut files = tests(&packaging).unwrap();
        covered(&alerts, &files).unwrap();
        assert!(runbooks(&alerts).unwrap().contains(&"sudo dropwatch conntrack".to_owned()));
        files.pop();
        covered(&alerts, &files).unwrap_err();
    }
}
