//! Twenty exporters under one Prometheus, each from a recording; and the questions that somebody asks
//! who has twenty hosts: which of them, for which reason, since when.
//!
//! Needs a dropwatch with `--metrics`, as do the command lines of units, images and runbooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Packaging,
    checks::{Checks, read},
    http::{free_port, get},
    prometheus::{PATIENCE, Prometheus, Series, Target},
    recording::{Host, REPORTS},
    rules::{RULES, runbooks},
    unit,
    yaml::{documents, items},
};
use crate::{process::CommandExt, project::cargo, root::BINARY, test::built};

const NAME: &str = "fleet";
const RECORDINGS: &str = "recordings: dropwatch takes those of the tests";
const COMMANDS: &str = "commands: what one is asked to run is understood";
const HOSTS: u64 = 20;

/// Metrics that an exporter has whatever happens on its host.
const ALWAYS: [&str; 7] = [
    "dropwatch_build_info",
    "dropwatch_drops_total",
    "dropwatch_interval_seconds",
    "dropwatch_last_report_timestamp_seconds",
    "dropwatch_lost_total",
    "dropwatch_namespace_drops_total",
    "dropwatch_reports_total",
];

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    if ![NAME, COMMANDS, RECORDINGS].iter().any(|name| checks.selects(name)) {
        return;
    }
    let binary = match dropwatch(packaging) {
        Ok(binary) => binary,
        Err(error) => return checks.check("fleet: dropwatch", || Err(error)),
    };
    let hosts: Vec<Host> = (0..HOSTS).map(Host::number).collect();
    checks.check(RECORDINGS, || recordings(packaging, &binary, &hosts));
    let has_metrics = Command::new(&binary)
        .args(["replay", "--help"])
        .read()
        .is_ok_and(|help| help.contains("--metrics"));
    if !has_metrics {
        checks.skip(COMMANDS, "this dropwatch has no option --metrics");
        return checks.skip(NAME, "this dropwatch has no option --metrics");
    }
    checks.check(COMMANDS, || commands(packaging, &binary));
    let Some(prometheus) = checks.program(NAME, "prometheus") else { return };
    let running = Fleet::start(packaging, &binary, &hosts).and_then(|fleet| {
        let server = Prometheus::start(packaging, &prometheus, "fleet-server", &fleet.targets)?;
        Ok((fleet, server))
    });
    let (_fleet, server) = match running {
        Ok(running) => running,
        Err(error) => return checks.check(NAME, || Err(error)),
    };
    for (question, ask) in QUESTIONS {
        checks.check(&format!("{NAME}: {question}"), || ask(&server, &hosts));
    }
}

/// The dropwatch of the tree, or another one that `DROPWATCH_BIN` names.
pub(super) fn dropwatch(packaging: &Packaging<'_>) -> Result<PathBuf> {
    if let Some(binary) = env::var_os(BINARY) {
        return Ok(binary.into());
    }
    let mut command = Command::new(cargo());
    command.current_dir(&packaging.project.root);
    command.args(["build", "--package", "dropwatch", "--bin", "dropwatch"]);
    built(command, "dropwatch")
}

/// That they are what `docs/json.md` says: one file, since recordings may be appended to each other.
fn recordings(packaging: &Packaging<'_>, binary: &Path, hosts: &[Host]) -> Result<()> {
    let file = packaging.scratch("recordings")?.join("all.ndjson");
    let all: String = hosts.iter().map(Host::record).collect();
    fs::write(&file, all).context("cannot write a recording")?;
    let report = Command::new(binary).arg("replay").arg(&file).read()?;
    let missing = hosts.iter().find(|host| !report.contains(host.reason));
    ensure!(missing.is_none(), "the replay does not show {missing:?}");
    Ok(())
}

/// Every command line of dropwatch that this folder holds, with `--help` behind it: options that are
/// not there are refused before it is reached.
fn commands(packaging: &Packaging<'_>, binary: &Path) -> Result<()> {
    let mut lines = runbooks(&packaging.path(RULES[1]))?;
    lines.extend(unit::commands(packaging)?);
    let image = read(packaging.path("container/Containerfile"))?;
    let words = image.lines().find_map(|line| line.strip_prefix("CMD ")).context("no CMD")?;
    let words: Vec<String> = serde_json::from_str(words).context("CMD is no list")?;
    lines.push(format!("dropwatch {}", words.join(" ")));
    let set = documents(&packaging.path("kubernetes/daemonset.yml"))?;
    let container = &set[1]["spec"]["template"]["spec"]["containers"][0];
    let words: Vec<&str> = items(&container["args"]).filter_map(|word| word.as_str()).collect();
    lines.push(format!("dropwatch {}", words.join(" ").replace("$(NODE_IP)", "192.0.2.1")));
    let mut understood = 0;
    for line in &lines {
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        if let Some(arguments) = line.strip_prefix("dropwatch ") {
            let arguments = arguments.split(' ').map(|word| word.trim_matches('\''));
            Command::new(binary).args(arguments).arg("--help").read().context(line.to_owned())?;
            understood += 1;
        }
    }
    ensure!(understood > 5, "only {understood} command lines found");
    Ok(())
}

/// Exporters from recordings; end with this value.
struct Fleet {
    children: Vec<Child>,
    targets: Vec<Target>,
}

impl Fleet {
    fn start(packaging: &Packaging<'_>, binary: &Path, hosts: &[Host]) -> Result<Self> {
        let folder = packaging.scratch(NAME)?;
        let mut fleet = Self { children: Vec::new(), targets: Vec::new() };
        for host in hosts {
            let recording = folder.join(format!("{}.ndjson", host.name));
            fs::write(&recording, host.record()).context("cannot write a recording")?;
            let address = free_port()?;
            let said = File::create(said(&recording)).context("no file for messages")?;
            let child = Command::new(binary)
                .arg("replay")
                .arg(&recording)
                .arg("--metrics")
                .arg(address.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(said)
                .spawn()
                .context("cannot run dropwatch")?;
            fleet.children.push(child);
            fleet.targets.push(Target { instance: host.name.clone(), address });
        }
        fleet.wait_until_healthy(&folder)?;
        Ok(fleet)
    }

    fn wait_until_healthy(&mut self, folder: &Path) -> Result<()> {
        let start = Instant::now();
        for (child, target) in self.children.iter_mut().zip(&self.targets) {
            while !get(target.address, "/healthz").is_ok_and(|(status, _)| status == 200) {
                if let Some(status) = child.try_wait().context("cannot ask for dropwatch")? {
                    let said = said(&folder.join(&target.instance));
                    let said = read(said).unwrap_or_default();
                    bail!("replay of {} ended: {status}: {}", target.instance, said.trim());
                }
                ensure!(start.elapsed() < PATIENCE, "{} is not healthy", target.instance);
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

/// Where the replay of a recording writes its messages.
fn said(recording: &Path) -> PathBuf {
    recording.with_extension("log")
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Nothing can be done about one that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

type Question = (&'static str, fn(&Prometheus, &[Host]) -> Result<()>);

const QUESTIONS: [Question; 12] = [
    ("does every host answer", |server, hosts| {
        let all = sums(hosts.iter().map(|host| (host.name.clone(), 1)));
        expect(server, "up == 1", "instance", &all)
    }),
    ("does every host have the metrics", |server, hosts| {
        for metric in ALWAYS {
            let query = format!("count(count by (instance) ({metric}))");
            server.wait_for(&query, |answer| first(answer) == Some(hosts.len() as f64))?;
        }
        Ok(())
    }),
    ("have all hosts reported all that they counted", |server, hosts| {
        let all = sums(hosts.iter().map(|host| (host.name.clone(), REPORTS)));
        expect(server, "dropwatch_reports_total", "instance", &all)
    }),
    ("which hosts drop, and how much", |server, hosts| {
        let drops = sums(hosts.iter().map(|host| (host.name.clone(), host.drops())));
        // By the rule that alerts and dashboard rest on; and by the counters themselves.
        expect(server, "instance:dropwatch_drops:sum", "instance", &drops)?;
        let query = r#"sum by (instance) (dropwatch_drops_total{benign!="true"})"#;
        expect(server, query, "instance", &drops)
    }),
    ("which hosts have harmless drops", |server, hosts| {
        let drops = sums(hosts.iter().map(|host| (host.name.clone(), host.benign_drops())));
        expect(server, "instance:dropwatch_benign_drops:sum", "instance", &drops)
    }),
    ("which hosts drop most", |server, hosts| {
        let most = sums(hosts.iter().rev().take(3).map(|host| (host.name.clone(), host.drops())));
        expect(server, "topk(3, instance:dropwatch_drops:sum)", "instance", &most)
    }),
    ("whose, and is that all", |server, hosts| {
        let drops = sums(hosts.iter().map(|host| (host.name.clone(), host.drops())));
        let all = r#"sum by (instance) (dropwatch_namespace_drops_total{benign!="true"})"#;
        expect(server, all, "instance", &drops)?;
        let harmless = r#"sum by (instance) (dropwatch_namespace_drops_total{benign="true"}) > 0"#;
        let benign = hosts.iter().filter(|host| host.benign_drops() > 0);
        let benign = sums(benign.map(|host| (host.name.clone(), host.benign_drops())));
        expect(server, harmless, "instance", &benign)?;
        let nat = sums(hosts.iter().map(|host| (host.name.clone(), REPORTS * host.in_nat())));
        expect(server, r#"dropwatch_namespace_drops_total{netns="nat"}"#, "instance", &nat)
    }),
    ("for which reason", |server, hosts| {
        let reasons = sums(hosts.iter().map(|host| (host.reason.to_owned(), REPORTS * host.count)));
        let query = r#"sum by (reason) (dropwatch_drops_total{benign!="true",reason!=""})"#;
        expect(server, query, "reason", &reasons)
    }),
    ("which hosts, for this reason", |server, hosts| {
        let here = hosts.iter().filter(|host| host.reason == "SOCKET_RCVBUFF");
        let here = sums(here.map(|host| (host.name.clone(), REPORTS * host.count)));
        expect(server, r#"dropwatch_drops_total{reason="SOCKET_RCVBUFF"}"#, "instance", &here)
    }),
    ("whose numbers are incomplete", |server, hosts| {
        let lost = hosts.iter().filter(|host| host.unknown > 0);
        let lost = sums(lost.map(|host| (host.name.clone(), REPORTS * host.unknown)));
        expect(server, r#"dropwatch_lost_total{cause="map_full"} > 0"#, "instance", &lost)?;
        let query = r#"dropwatch_drops_total{symbol="unknown"} > 0"#;
        expect(server, query, "instance", &lost)
    }),
    ("which hosts were at a limit, where, and what it cost", |server, hosts| {
        // In all reports but the last, whose gauge knows nothing of it.
        let full: Vec<&Host> = hosts.iter().filter(|host| host.is_full).collect();
        let found = sums(full.iter().map(|host| (host.name.clone(), REPORTS - 1)));
        let query = r#"dropwatch_finding_reports_total{rule="conntrack_table_full",netns="nat"}"#;
        expect(server, query, "instance", &found)?;
        let refused = |host: &&Host| (host.name.clone(), (REPORTS - 1) * host.count);
        let drops = sums(full.iter().map(refused));
        expect(server, "dropwatch_finding_drops_total", "instance", &drops)?;
        expect(server, "dropwatch_findings", "instance", &BTreeMap::new())
    }),
    ("which hosts are at a limit, where, since when", |server, hosts| {
        let full: Vec<&Host> = hosts.iter().filter(|host| host.is_full).collect();
        let ones = sums(full.iter().map(|host| (host.name.clone(), 1)));
        // The alert remembers when its condition first held.
        let query = r#"time() - ALERTS_FOR_STATE{alertname="DropwatchFindingCritical"}"#;
        let since = server.wait_for(query, |answer| answer.len() == full.len())?;
        let names: BTreeSet<&String> =
            since.iter().filter_map(|series| series.labels.get("instance")).collect();
        ensure!(names == ones.keys().collect(), "{since:?}");
        match since.iter().find(|series| !(0.0..600.0).contains(&series.value)) {
            Some(wrong) => bail!("{wrong:?} is no time since the beginning of this test"),
            None => Ok(()),
        }
    }),
];

fn sums(rows: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, count) in rows {
        *sums.entry(name).or_default() += count;
    }
    sums
}

/// That a query gives exactly these values, by the label that tells them apart.
fn expect(
    server: &Prometheus,
    query: &str,
    label: &str,
    expected: &BTreeMap<String, u64>,
) -> Result<()> {
    let is_right = |answer: &[Series]| {
        answer.len() == expected.len()
            && answer.iter().all(|series| {
                let expected = series.labels.get(label).and_then(|name| expected.get(name));
                expected.is_some_and(|&expected| series.value == expected as f64)
            })
    };
    server.wait_for(query, is_right).map(drop).with_context(|| format!("expected {expected:?}"))
}

fn first(answer: &[Series]) -> Option<f64> {
    answer.first().map(|series| series.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_at_a_limit_are_some_and_not_all() {
        let hosts: Vec<Host> = (0..HOSTS).map(Host::number).collect();
        assert_eq!(hosts.iter().filter(|host| host.is_full).count(), 3);
        assert_eq!(hosts.iter().filter(|host| host.unknown > 0).count(), 5);
    }
}
