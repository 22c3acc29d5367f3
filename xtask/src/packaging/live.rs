//! A dropwatch that counts real drops, under a real Prometheus.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    udp::Family,
    watch::Watch,
};

use super::{
    Packaging,
    checks::Checks,
    fleet::dropwatch,
    http::{free_port, get},
    prometheus::{Prometheus, Series, Target},
};
use crate::locks::Machine;

const LIVE: &str = "live: Prometheus and JSON have the same drops, by reason";
const LINT: &str = "live: promtool check metrics";
/// Datagrams before a scrape, and after it: a rate needs both.
const FIRST: u64 = 300;
const THEN: u64 = 200;

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    if ![LIVE, LINT].iter().any(|name| checks.wants(name)) {
        return;
    }
    if let Err(error) = testbed::need_root() {
        return checks.skip(LIVE, &format!("{error:#}"));
    }
    let Some(prometheus) = checks.program(LIVE, "prometheus") else { return };
    let Some(promtool) = checks.program(LINT, "promtool") else { return };
    let mut page = String::new();
    checks.check(LIVE, || {
        let binary = dropwatch(packaging)?;
        let _machine = Machine::take()?;
        page = watch(packaging, &binary, &prometheus)?;
        Ok(())
    });
    checks.check(LINT, || lint(&promtool, &page));
}

/// Counts, is scraped, and is held against its own JSON lines; returns its last page.
fn watch(packaging: &Packaging<'_>, binary: &Path, prometheus: &Path) -> Result<String> {
    let closed = Closed::new(Transport::Udp, Family::V4)?;
    let address: SocketAddr = free_port()?;
    let mut command = Command::new(binary);
    command.args(["--json", "-i", "200ms", "--metrics", &address.to_string()]);
    // Whatever else this machine drops.
    command.args(["--netns", closed.netns().name()]);
    let run = Watch::start(&mut command)?;
    let target = Target { instance: "live".to_owned(), address };
    let server = Prometheus::start(packaging, prometheus, "live-server", &[target])?;
    let query = r#"sum(dropwatch_drops_total{reason="NO_SOCKET"})"#;
    let has = |drops: u64| {
        move |answer: &[Series]| answer.first().is_some_and(|sum| sum.value == drops as f64)
    };
    closed.send(FIRST)?;
    server.wait_for(query, has(FIRST))?;
    closed.send(THEN)?;
    server.wait_for(query, has(FIRST + THEN))?;
    let query = "sum(rate(dropwatch_drops_total[1m])) by (reason)";
    server.wait_for(query, |answer| {
        let rate = answer
            .iter()
            .find(|series| series.labels.get("reason").is_some_and(|reason| reason == "NO_SOCKET"));
        rate.is_some_and(|rate| rate.value > 0.0)
    })?;
    let (_, page) = get(address, "/metrics")?;
    let ended = run.stop()?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    let mut told = 0;
    for line in &ended.lines {
        let line: Value = serde_json::from_str(line).context("no JSON line")?;
        let rows = line["locations"].as_array().into_iter().flatten();
        let rows = rows.filter(|row| row["reason"] == "NO_SOCKET");
        told += rows.filter_map(|row| row["count"].as_u64()).sum::<u64>();
    }
    ensure!(told == FIRST + THEN, "JSON has {told} drops");
    Ok(page)
}

fn lint(promtool: &Path, page: &str) -> Result<()> {
    ensure!(page.contains("dropwatch_drops_total"), "there is no page to look at");
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    child.stdin.take().context("no pipe")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "{}", said.trim());
    Ok(())
}
