//! A dropwatch that counts real drops, under a real Prometheus.

use std::{
    collections::BTreeMap,
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
        unread::Unread,
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

const LIVE: &str = "live: Prometheus and JSON have the same drops, harmless ones apart";
const LINT: &str = "live: promtool check metrics";
/// Datagrams before a scrape, and after it: a rate needs both.
const FIRST: u64 = 300;
const THEN: u64 = 200;
/// Packets that a socket is closed with.
const HARMLESS: u64 = 80;

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    if ![LIVE, LINT].iter().any(|name| checks.selects(name)) {
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
    let unread = Unread::new()?;
    let address: SocketAddr = free_port()?;
    let mut command = Command::new(binary);
    command.args(["--json", "-i", "200ms", "--metrics", &address.to_string()]);
    let run = Watch::start(&mut command)?;
    let target = Target { instance: "live".to_owned(), address };
    let server = Prometheus::start(packaging, prometheus, "live-server", &[target])?;
    let harm = r#"sum(dropwatch_drops_total{symbol=~".*udp.*",reason="NO_SOCKET",benign="false"})"#;
    // The rest of this machine may drop, too.
    let has = |drops: u64| {
        move |answer: &[Series]| answer.first().is_some_and(|sum| sum.value >= drops as f64)
    };
    unread.send(HARMLESS)?;
    closed.send(FIRST)?;
    server.wait_for(harm, has(FIRST))?;
    closed.send(THEN)?;
    server.wait_for(harm, has(FIRST + THEN))?;
    let harmless = r#"sum(dropwatch_drops_total{symbol=~"inet_sock_destruct.*",benign="true"})"#;
    server.wait_for(harmless, has(HARMLESS))?;
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
    let (served, reports) = served(&page)?;
    let reported = reported(&ended.lines, reports)?;
    ensure!(served == reported, "metrics have {served:?}, JSON has {reported:?}");
    let [places, namespaces] =
        ["dropwatch_drops_total{", "dropwatch_namespace_drops_total{"].map(|it| sum(&page, it));
    ensure!(places? == namespaces?, "namespaces are not all drops: {page}");
    Ok(page)
}

/// Drops by function, module, reason, subsystem and harmlessness.
type Drops = BTreeMap<[String; 5], u64>;

/// The sum of all series that begin so.
fn sum(page: &str, series: &str) -> Result<u64> {
    let mut sum = 0;
    for line in page.lines().filter(|line| line.starts_with(series)) {
        let value = line.rsplit(' ').next().context("no value")?;
        sum += value.parse::<u64>().context("no count")?;
    }
    Ok(sum)
}

/// The drops of a page, and how many reports they are of.
fn served(page: &str) -> Result<(Drops, usize)> {
    let mut drops = Drops::new();
    for line in page.lines().filter(|line| line.starts_with("dropwatch_drops_total{")) {
        let (labels, count) = line.rsplit_once(' ').context("no value")?;
        // The names of the kernel have no quotes.
        let values: Vec<String> = labels.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        let count: u64 = count.parse().context("no count")?;
        let labels = values.try_into().ok().context("not five labels")?;
        if count > 0 {
            drops.insert(labels, count);
        }
    }
    let reports = page.lines().find_map(|line| line.strip_prefix("dropwatch_reports_total "));
    Ok((drops, reports.context("no number of reports")?.parse()?))
}

/// Drops by series, of the first `reports` reports among JSON lines.
fn reported(lines: &[String], reports: usize) -> Result<Drops> {
    let mut drops = Drops::new();
    let mut seen = 0;
    for line in lines {
        let line: Value = serde_json::from_str(line).context("no JSON line")?;
        if line["type"] != "report" || seen == reports {
            continue;
        }
        seen += 1;
        for row in line["locations"].as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let symbol = row["symbol"].as_str().unwrap_or("unknown").to_owned();
            let benign = row["benign"].to_string();
            let labels = [symbol, text("module"), text("reason"), text("subsystem"), benign];
            *drops.entry(labels).or_default() += row["count"].as_u64().context("no count")?;
        }
        let unknown = line["other"]["unknown_location"].as_u64().context("no sum of others")?;
        if unknown > 0 {
            let labels = ["unknown", "", "", "", "false"].map(str::to_owned);
            *drops.entry(labels).or_default() += unknown;
        }
    }
    ensure!(seen == reports, "JSON has {seen} reports of {reports}");
    Ok(drops)
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
