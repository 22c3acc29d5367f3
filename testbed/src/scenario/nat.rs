//! A web server behind a NAT gateway is slow, and the gateway's conntrack table is why.
//!
//! The same load runs twice: with room for 1,000 tracked connections, and with room for all. Each
//! time dropwatch's count at `nf_hook_slow` stands beside the `drop` counter of the gateway's
//! connection tracking, which knows nothing of tracing.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

pub use super::gateway::{CLIENT, OUTSIDE, OUTSIDE_LINK, PORT, Tools};
use super::{
    gateway::{Gateway, INSIDE, WEB},
    rules::{findings, within_own},
};
use crate::{
    command,
    host_value::HostValue,
    load::{self, Answers},
    machine, netns,
    pid1::Pid1Drops,
    undo::Undo,
    watch::Watch,
};

/// The rule that finds a full table.
const RULE: &str = "conntrack_table_full";
const LIMIT: &str = "net/netfilter/nf_conntrack_max";
/// Tracked connections that each namespace may have in the first run.
pub const LOW: u64 = 1_000;
/// Requests, and how many at once.
const REQUESTS: u64 = 10_000;
const AT_ONCE: u64 = 900;
/// How long a request may wait for its answer, or a load for any.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one load came to.
#[derive(Debug)]
pub struct Outcome {
    /// Requests that were answered, of [`Outcome::requests`].
    pub answered: u64,
    pub failed: u64,
    pub requests: u64,
    /// The gateway's conntrack `drop` counter, its increase.
    pub conntrack_drops: u64,
    /// Drops at `nf_hook_slow` with NETFILTER_DROP, as dropwatch reports them.
    pub reported: u64,
    /// Drops with that reason while PID 1 was current; see [`Pid1Drops`].
    pub in_pid1: u64,
    /// Name of the gateway's namespace.
    pub gateway: String,
    /// Packets that the findings about a full table say were refused.
    pub refused: u64,
    /// The first command of such a finding.
    pub fix: Option<String>,
    /// Every other finding, by its title.
    pub other_findings: Vec<String>,
    /// dropwatch's JSON lines.
    pub lines: Vec<String>,
}

impl Outcome {
    /// Whether both counts agree, to the packet. Where the host hides drops in PID 1's context
    /// from tracing programs, those are in conntrack's count alone.
    pub fn agrees(&self) -> bool {
        self.reported == self.conntrack_drops
            || self.reported + self.in_pid1 == self.conntrack_drops
    }
}

/// Both loads, and the setting between them.
#[derive(Debug)]
pub struct Story {
    limit: HostValue,
    dropwatch: PathBuf,
    tools: Tools,
    requests: u64,
}

impl Story {
    /// Sets the low limit. It is one value for the whole host and comes back when this is dropped.
    ///
    /// # Errors
    /// When the host's own connections would suffer from the low limit.
    pub fn new(dropwatch: &Path, tools: Tools) -> Result<Self> {
        crate::need_root()?;
        check_host()?;
        let limit = HostValue::set(LIMIT, &LOW.to_string())?;
        // On a slow machine just enough to overflow the table.
        let requests = machine::fewer(REQUESTS).max(2 * LOW);
        Ok(Self { limit, dropwatch: dropwatch.to_owned(), tools, requests })
    }

    /// Runs the load with the low limit.
    pub fn full_table(&self) -> Result<Outcome> {
        self.limit.change(&LOW.to_string())?;
        self.load(PATIENCE)
    }

    /// Runs the load after the command that dropwatch's finding named.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub fn mended(&self, full: &Outcome) -> Result<Outcome> {
        let fix = full.fix.as_deref().context("no finding says what to do")?;
        command::output(Command::new("sh").args(["-c", fix]))?;
        // Nothing is refused: a request that waits for long waits for the machine.
        self.load(machine::longer(PATIENCE))
    }

    /// Runs the load once, in namespaces of its own. A request that is not answered within
    /// `patience` has failed, and its client asks no more.
    fn load(&self, patience: Duration) -> Result<Outcome> {
        let gateway = Gateway::new(self.tools)?;
        let before = gateway.conntrack_drops()?;
        let pid1 = Pid1Drops::of_reason("NETFILTER_DROP")?;
        // Other tenants of this host may have a packet filter, too.
        let watch = Watch::start(Command::new(&self.dropwatch).arg("--json").args(within_own()?))?;
        let Answers { answered, failed } = match self.tools {
            Tools::NginxAndAb => ab(&gateway, self.requests, patience)?,
            Tools::Own => {
                let site = format!("{OUTSIDE}:{PORT}").parse()?;
                load::ask(gateway.client(), site, self.requests, machine::fewer(AT_ONCE), patience)?
            }
        };
        // What is still under way would fall between the two counts.
        gateway.quiet()?;
        let ended = watch.stop()?;
        let in_pid1 = pid1.stop()?;
        let conntrack_drops = gateway.conntrack_drops()? - before;
        if !ended.status.success() {
            bail!("dropwatch failed ({}): {}", ended.status, ended.stderr.trim());
        }
        let (refused, fix) = full_tables(&ended.lines)?;
        let others = findings(&ended.lines)?.into_iter().filter(|found| found.rule != RULE);
        Ok(Outcome {
            refused,
            fix,
            other_findings: others.map(|found| found.title).collect(),
            answered,
            failed,
            requests: self.requests,
            conntrack_drops,
            reported: nf_hook_slow(&ended.lines)?,
            in_pid1,
            gateway: gateway.name().to_owned(),
            lines: ended.lines,
        })
    }
}

/// Tells the story to somebody who sees dropwatch for the first time.
pub(super) fn tell(dropwatch: &Path, out: &mut dyn Write) -> Result<()> {
    let before = read_limit()?;
    let story = Story::new(dropwatch, Tools::NginxAndAb)?;
    write!(
        out,
        "A web server stands behind a NAT gateway. All three are namespaces here:

  client {CLIENT} --- {OUTSIDE} gateway {INSIDE} --- {WEB} web server
                        port {PORT} is translated to the web server's port 80

The gateway remembers each translated connection in a table (conntrack). A load
test asks for {REQUESTS} pages, {AT_ONCE} at a time, while dropwatch watches the kernel:

1. Room for {LOW} connections: nf_conntrack_max={LOW}

"
    )?;
    out.flush()?;
    let full = story.full_table()?;
    show(dropwatch, &full, out)?;
    write!(
        out,
        "
nf_hook_slow with NETFILTER_DROP means that a hook of the packet filter said no.
No rule here does: the finding shows that connection tracking refused as many.
Each lost packet is the first one of a connection, and whoever sent it waits a
second or more before trying again: that is why the site is slow.

2. The same load after the finding's own command:

  # {}

",
        full.fix.as_deref().unwrap_or("(no finding)")
    )?;
    out.flush()?;
    let room = story.mended(&full)?;
    show(dropwatch, &room, out)?;
    // `tcp_v4_rcv` frees what a TIME_WAIT socket has taken in at `discard_it`, as if dropped.
    write!(
        out,
        "
Nothing is refused any more. What shows at tcp_v4_rcv is no loss: the web server
closes first, and its sockets in TIME_WAIT take in the last packet of each
connection, which the kernel then frees the way it frees dropped ones.
"
    )?;
    drop(story);
    let after = read_limit()?;
    writeln!(out, "\nThe namespaces are gone, and nf_conntrack_max is {after} again.")?;
    if before != after {
        bail!("nf_conntrack_max was {before} before and is {after} now");
    }
    Ok(())
}

/// dropwatch's report as text, then the numbers side by side.
fn show(dropwatch: &Path, outcome: &Outcome, out: &mut dyn Write) -> Result<()> {
    for line in replay(dropwatch, &outcome.lines)?.lines() {
        writeln!(out, "{}", format!("  {line}").trim_end())?;
    }
    let Outcome { answered, failed, requests, conntrack_drops, reported, refused, .. } = outcome;
    writeln!(out, "\n  ab           {answered} of {requests} requests answered, {failed} failed")?;
    writeln!(out, "  dropwatch    {reported} packets dropped at nf_hook_slow")?;
    writeln!(out, "  its finding  {refused} packets refused by a full table")?;
    writeln!(out, "  conntrack    {conntrack_drops} packets dropped (conntrack -S)")?;
    if !outcome.agrees() {
        writeln!(out, "  The two differ: the host hides some drops from tracing programs.")?;
    } else if reported != conntrack_drops {
        writeln!(
            out,
            "  The difference of {} fell to process 1, where this host runs no tracing
  program.",
            outcome.in_pid1
        )?;
    }
    Ok(())
}

/// What ApacheBench says of its load.
fn ab(gateway: &Gateway, requests: u64, patience: Duration) -> Result<Answers> {
    // -r goes on after a failed connection, -s gives up when nothing moves for so long. `timeout`
    // bounds what neither does.
    let mut command = gateway.client().command("timeout");
    command
        .args(["60", "ab", "-q", "-r", "-s", &patience.as_secs().to_string()])
        .args(["-c", &AT_ONCE.to_string(), "-n", &requests.to_string()])
        .arg(format!("http://{OUTSIDE}:{PORT}/"));
    // Its status is that of a failure when it gives up, which is part of the story.
    let output = command.output().context("cannot run ab; is apache2-utils installed?")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    parse_ab(&stdout, &stderr).with_context(|| {
        format!("`{}` ({}): {}", command::quote(&command), output.status, stderr.trim())
    })
}

/// A finished load is a table on standard output; one that gave up ends its progress line with
/// what it had by then, or says nothing when that was nothing.
fn parse_ab(stdout: &str, stderr: &str) -> Option<Answers> {
    let number = |name: &str| {
        stdout.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    if let Some(complete) = number("Complete requests:") {
        let failed = number("Failed requests:")?;
        return Some(Answers { answered: complete.saturating_sub(failed), failed });
    }
    if !stderr.contains("timeout specified has expired") {
        return None;
    }
    let answered = match stdout.split_once("Total of ") {
        Some((_, rest)) => rest.split_once(" requests completed")?.0.parse().ok()?,
        None => 0,
    };
    Some(Answers { answered, failed: 0 })
}

/// Sum of the reports' counts at the one place.
fn nf_hook_slow(lines: &[String]) -> Result<u64> {
    let mut sum = 0;
    for line in lines {
        let line: Value = serde_json::from_str(line).context("dropwatch printed a broken line")?;
        for location in line["locations"].as_array().into_iter().flatten() {
            // Null on a kernel without reasons.
            let reason = &location["reason"];
            let refused = reason.is_null() || reason == "NETFILTER_DROP";
            if location["symbol"] == "nf_hook_slow" && refused {
                sum += location["count"].as_u64().context("a location without a count")?;
            }
        }
    }
    Ok(sum)
}

/// What the findings about a full table say: how many packets it refused, and what to do.
fn full_tables(lines: &[String]) -> Result<(u64, Option<String>)> {
    let (mut refused, mut fix) = (0, None);
    for line in lines {
        let line: Value = serde_json::from_str(line).context("dropwatch printed a broken line")?;
        for finding in line["findings"].as_array().into_iter().flatten() {
            let netns = finding["netns"]["name"].as_str();
            if finding["rule"] != RULE || !netns.is_some_and(netns::is_own) {
                continue;
            }
            let evidence = finding["evidence"].as_array().into_iter().flatten();
            let drops = evidence.filter(|evidence| evidence["name"] == "drop");
            refused += drops.filter_map(|evidence| evidence["value"].as_u64()).sum::<u64>();
            fix = fix.or_else(|| finding["actions"][0]["command"].as_str().map(str::to_owned));
        }
    }
    Ok((refused, fix))
}

/// Has dropwatch print recorded lines as the table that it would have printed live.
fn replay(dropwatch: &Path, lines: &[String]) -> Result<String> {
    let path = PathBuf::from(format!("/run/dwt-{}-nat.ndjson", std::process::id()));
    let _undo = {
        let path = path.clone();
        Undo::new(move || Ok(fs::remove_file(path)?))?
    };
    fs::write(&path, lines.join("\n") + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    command::output(Command::new(dropwatch).arg("replay").arg(&path).args(["--format", "text"]))
}

fn read_limit() -> Result<String> {
    let path = Path::new("/proc/sys").join(LIMIT);
    Ok(fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; is nf_conntrack loaded?", path.display()))?
        .trim()
        .to_owned())
}

/// Refuses a low limit on a host that has connections of its own.
///
/// # Errors
/// Whose connections they are.
pub(crate) fn check_host() -> Result<()> {
    check_room(&busiest_tables()?)
}

/// Refuses the low limit where a table is anywhere near it: from then on, its namespace could
/// make no new connections.
fn check_room(tables: &[(String, u64)]) -> Result<()> {
    for (whose, count) in tables {
        if *count > LOW / 2 {
            bail!(
                "not on this host: {whose} tracks {count} connections, and the scenario limits \
                 every namespace to {LOW} for a minute; run it on a quieter machine or in a VM"
            );
        }
    }
    Ok(())
}

/// Tracked connections of every network namespace that a process lives in.
fn busiest_tables() -> Result<Vec<(String, u64)>> {
    let mut namespaces = HashMap::new();
    for entry in fs::read_dir("/proc").context("cannot list processes")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let path = entry.path().join("ns/net");
        // A process may end meanwhile; kernel threads share the first namespace.
        if let Ok(metadata) = fs::metadata(&path) {
            namespaces.entry(metadata.ino()).or_insert((pid, path));
        }
    }
    let tables = namespaces.into_values().filter_map(|(pid, path)| {
        let file = fs::File::open(path).ok()?;
        let count = std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).ok()?;
            // Missing where conntrack is not loaded; then there is nothing to suffer.
            let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?;
            text.trim().parse().ok()
        });
        Some((format!("the namespace of process {pid}"), count.join().ok()??))
    });
    Ok(tables.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ab_that_finished_and_ab_that_gave_up() {
        let table = "Complete requests:      10000\nFailed requests:        3\n";
        assert_eq!(parse_ab(table, ""), Some(Answers { answered: 9_997, failed: 3 }));
        let gave_up = "apr_pollset_poll: The timeout specified has expired (70007)\n";
        assert_eq!(
            parse_ab("Benchmarking (be patient)...Total of 1017 requests completed\n", gave_up),
            Some(Answers { answered: 1_017, failed: 0 })
        );
        assert_eq!(parse_ab("", gave_up), Some(Answers { answered: 0, failed: 0 }));
        assert_eq!(parse_ab("", "ab: invalid URL\n"), None);
    }

    #[test]
    fn counts_one_place_and_one_reason() {
        let lines = [
            r#"{"type":"start"}"#,
            r#"{"type":"report","locations":[
                {"symbol":"nf_hook_slow","reason":"NETFILTER_DROP","count":7},
                {"symbol":"nf_hook_slow","reason":"NOMEM","count":100},
                {"symbol":"nft_do_chain","reason":"NETFILTER_DROP","count":1000}]}"#,
            r#"{"type":"report","locations":[
                {"symbol":"nf_hook_slow","reason":"NETFILTER_DROP","count":5}]}"#,
        ];
        assert_eq!(nf_hook_slow(&lines.map(str::to_owned)).unwrap(), 12);
        assert!(nf_hook_slow(&["{\"type\":".to_owned()]).is_err());
    }

    #[test]
    fn a_busy_host_is_refused_and_told_why() {
        check_room(&[("the namespace of process 1".into(), LOW / 2)]).unwrap();
        let error = check_room(&[("the namespace of process 7".into(), 501)]).unwrap_err();
        assert!(error.to_string().contains("process 7 tracks 501"), "{error}");
    }
}
