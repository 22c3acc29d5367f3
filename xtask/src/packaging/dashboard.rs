//! The dashboard: every query of it, asked of a real server.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Packaging,
    checks::{Checks, read},
    exporter,
    prometheus::{Prometheus, Series},
};

pub(super) const FILE: &str = "grafana/dropwatch.json";
const NAME: &str = "dashboard";

/// A question of the dashboard.
#[derive(Debug, PartialEq)]
struct Query {
    /// Of the panel.
    title: String,
    expr: String,
    /// How a series is named: `{{label}}` stands for a label's value.
    legend: String,
    /// Whether an empty answer is a defect. Annotations are empty on a good day.
    must_answer: bool,
}

/// A variable of the dashboard: the values that a label has on a metric.
#[derive(Debug, PartialEq)]
struct Variable {
    metric: String,
    label: String,
}

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    if !checks.selects(NAME) {
        return;
    }
    let (queries, variables) = match load(&packaging.path(FILE)) {
        Ok(loaded) => loaded,
        Err(error) => return checks.check(NAME, || Err(error)),
    };
    let Some(program) = checks.program(NAME, "prometheus") else { return };
    let server = exporter::start()
        .and_then(|targets| Prometheus::start(packaging, &program, NAME, &targets));
    let server = match server {
        Ok(server) => server,
        Err(error) => return checks.check(NAME, || Err(error)),
    };
    for query in &queries {
        checks.check(&format!("{NAME}: {}", query.title), || ask(&server, query));
    }
    for Variable { metric, label } in &variables {
        checks.check(&format!("{NAME}: variable {label}"), || {
            match server.label_values(metric, label)?.as_slice() {
                [] => bail!("no {label} on {metric}"),
                _ => Ok(()),
            }
        });
    }
    checks.check("dashboard: a server evaluates all rules", || server.check_rules());
}

fn ask(server: &Prometheus, query: &Query) -> Result<()> {
    let expr = substitute(&query.expr)?;
    if !query.must_answer {
        return server.query(&expr).map(drop);
    }
    let answer = server.wait_for(&expr, |answer| !answer.is_empty())?;
    match labels(&query.legend).find(|label| !has(&answer, label)) {
        Some(label) => bail!("the legend names {label}, which no series has"),
        None => Ok(()),
    }
}

fn has(answer: &[Series], label: &str) -> bool {
    answer.iter().any(|series| series.labels.contains_key(label))
}

/// What Grafana puts in place of its variables, for scrapes a second apart.
fn substitute(expr: &str) -> Result<String> {
    let expr = expr.replace("$__rate_interval", "5s").replace("$instance", ".*");
    if expr.contains('$') {
        bail!("a variable that is not known here: `{expr}`");
    }
    Ok(expr)
}

/// The labels that a legend or a title names.
fn labels(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim)
}

fn load(path: &Path) -> Result<(Vec<Query>, Vec<Variable>)> {
    let dashboard: Value = serde_json::from_str(&read(path)?)
        .with_context(|| format!("{} is not JSON", path.display()))?;
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in list(&panel["targets"]) {
            queries.push(query(title, target, "legendFormat", true)?);
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        let name = annotation["name"].as_str().context("an annotation without a name")?;
        queries.push(query(name, annotation, "textFormat", false)?);
    }
    let all = occurrences(&dashboard, "expr");
    if queries.is_empty() || queries.len() != all {
        bail!("{} of {all} queries are where they are looked for", queries.len());
    }
    let variables = list(&dashboard["templating"]["list"])
        .filter(|variable| variable["type"] == "query")
        .map(|variable| parse_variable(variable["definition"].as_str().unwrap_or_default()))
        .collect::<Result<_>>()?;
    Ok((queries, variables))
}

fn query(title: &str, source: &Value, legend: &str, must_answer: bool) -> Result<Query> {
    let expr = source["expr"].as_str().with_context(|| format!("{title}: no expr"))?;
    Ok(Query {
        title: title.to_owned(),
        expr: expr.to_owned(),
        legend: source[legend].as_str().unwrap_or_default().to_owned(),
        must_answer,
    })
}

/// `label_values(METRIC, LABEL)`
fn parse_variable(definition: &str) -> Result<Variable> {
    definition
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|arguments| arguments.split_once(','))
        .map(|(metric, label)| Variable {
            metric: metric.trim().to_owned(),
            label: label.trim().to_owned(),
        })
        .with_context(|| format!("`{definition}` is not label_values(METRIC, LABEL)"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// How often a field occurs, at any depth.
fn occurrences(value: &Value, field: &str) -> usize {
    match value {
        Value::Object(fields) => {
            let here = usize::from(fields.contains_key(field));
            here + fields.values().map(|value| occurrences(value, field)).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(|value| occurrences(value, field)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn the_dashboard_is_read_whole() {
        let path = Project::find().unwrap().root.join("packaging").join(FILE);
        let (queries, variables) = load(&path).unwrap();
        assert!(queries.len() > 10);
        for query in &queries {
            substitute(&query.expr).unwrap();
        }
        let instance = Variable { metric: "dropwatch_build_info".into(), label: "instance".into() };
        assert_eq!(variables, [instance]);
    }

    #[test]
    fn labels_of_a_legend() {
        assert_eq!(labels("{{symbol}} of {{ module }}").collect::<Vec<_>>(), ["symbol", "module"]);
        assert_eq!(labels("all").count(), 0);
    }

    #[test]
    fn unknown_variables_are_refused() {
        substitute("up{a=\"$b\"}").unwrap_err();
        parse_variable("up").unwrap_err();
    }
}
