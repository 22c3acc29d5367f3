//! What dropwatch has found in the scenario's namespaces.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns;

/// A command of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    pub command: String,
    /// What it says that the command shows or changes.
    pub note: String,
}

/// A finding, as the JSON has it.
#[derive(Clone, Debug)]
pub struct Found {
    pub rule: String,
    pub severity: String,
    pub title: String,
    pub commands: Vec<Printed>,
    pub netns: Option<String>,
}

/// The findings in dropwatch's JSON lines that are about the whole host or a namespace of this
/// process, each rule and namespace once. What is wrong elsewhere on the host is not its business.
///
/// # Errors
/// When a line is none.
pub fn findings(lines: &[String]) -> Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).context("dropwatch printed a broken line")?;
        for finding in line["findings"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let actions = finding["actions"].as_array().into_iter().flatten();
            let found = Found {
                rule: text(&finding["rule"]),
                severity: text(&finding["severity"]),
                title: text(&finding["title"]),
                commands: actions
                    .map(|action| Printed {
                        command: text(&action["command"]),
                        note: text(&action["note"]),
                    })
                    .collect(),
                netns: finding["netns"]["name"].as_str().map(str::to_owned),
            };
            if found.netns.as_deref().is_some_and(|name| !netns::is_own(name)) {
                continue;
            }
            if !all.iter().any(|known| known.rule == found.rule && known.netns == found.netns) {
                all.push(found);
            }
        }
    }
    Ok(all)
}

/// Names of the rules that found something, in order, each once for each namespace.
pub(super) fn rules(findings: &[Found]) -> Vec<String> {
    let mut rules: Vec<String> = findings.iter().map(|found| found.rule.clone()).collect();
    rules.sort_unstable();
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_all_reports_are_told_once() {
        let report = |netns: &str| {
            format!(
                r#"{{"findings":[{{"rule":"a","severity":"critical","title":"t",
                "netns":{netns},"actions":[{{"command":"c","note":"n"}}]}}]}}"#
            )
        };
        let own = format!("dwt-{}-0-gw", std::process::id());
        let ours = report(&format!(r#"{{"name":"{own}","inum":1}}"#));
        let others = report(r#"{"name":"gw","inum":2}"#);
        let lines = [ours.clone(), "{}".to_owned(), others, report("null"), ours];
        let found = findings(&lines).unwrap();
        assert_eq!(rules(&found), ["a", "a"]);
        let printed = Printed { command: "c".to_owned(), note: "n".to_owned() };
        assert_eq!(found[0].commands, [printed]);
        assert_eq!(found[0].netns, Some(own));
        assert_eq!(found[1].netns, None);
        assert!(findings(&["{".to_owned()]).is_err());
    }
}
