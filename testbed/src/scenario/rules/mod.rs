//! A scenario for each rule: cause it, see that finding and no other critical one; apply the
//! command that the finding printed, cause it again, and see it gone.
//!
//! Counter-examples look like trouble and are none: no finding may name them.

mod filters;
mod ip;
mod links;
mod objects;
mod sockets;
mod tracking;

use std::{collections::BTreeSet, io::Write, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{command, drops::Cause, netns, tracepoint::Tracepoint, watch::Watch};

/// A host on which one thing is wrong, or nothing is.
pub trait Trouble {
    /// Makes packets get lost; returns when all of it has happened.
    ///
    /// # Errors
    /// When it cannot.
    fn happen(&mut self) -> Result<()>;

    /// What a person has to do besides the finding's command: start a service again, fill in an
    /// address.
    ///
    /// # Errors
    /// When it cannot.
    fn mend(&mut self) -> Result<()> {
        Ok(())
    }

    /// The command that a person runs, of the finding's `commands`; the first unless something has
    /// to be filled in. `None` where it only tells where to look.
    fn choose(&self, commands: &[String]) -> Option<String> {
        commands.first().cloned()
    }
}

/// Scenarios whose cause shows in a drop reason alone, which older kernels lack.
const REASONS: [(&str, &str); 13] = [
    ("socket-filter", "SOCKET_FILTER"),
    ("slow-link", "QDISC_DROP"),
    ("tc-ingress", "TC_INGRESS"),
    ("xdp", "XDP"),
    ("udp-memory", "PROTO_MEM"),
    ("martian", "IP_LOCAL_SOURCE"),
    ("ipv6-off", "IPV6DISABLED"),
    ("no-carrier", "QDISC_DROP"),
    ("no-carrier-arp", "NEIGH_FAILED"),
    ("redirect-down", "TC_INGRESS"),
    ("tap-full", "FULL_RING"),
    ("tcp-unread", "TCP_INVALID_SEQUENCE"),
    ("group-egress", "BPF_CGROUP_EGRESS"),
];

/// Every scenario, by topic.
pub fn list() -> impl Iterator<Item = &'static RuleScenario> {
    [filters::ALL, sockets::ALL, ip::ALL, objects::ALL, links::ALL, tracking::ALL]
        .into_iter()
        .flatten()
}

/// Trouble that is so many packets of one cause.
struct Caused<C>(C, u64);

impl<C: Cause> Trouble for Caused<C> {
    fn happen(&mut self) -> Result<()> {
        let Self(cause, packets) = self;
        let sent = cause.send(*packets)?;
        ensure!(sent == *packets, "{sent} of {packets} packets sent");
        Ok(())
    }
}

/// What came of a scenario that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All went as it should.
    Proved,
    /// This kernel lacks what the scenario is about; the reason.
    Unproved(String),
}

/// One scenario.
#[derive(Debug)]
pub struct RuleScenario {
    pub name: &'static str,
    /// What goes wrong, in one line.
    pub about: &'static str,
    /// The rule that finds it; `None` where nothing may be found.
    pub rule: Option<&'static str>,
    /// Whether its command ends it.
    pub mended: bool,
    pub make: fn() -> Result<Box<dyn Trouble>>,
}

/// A finding, as the JSON has it.
#[derive(Clone, Debug)]
pub struct Found {
    pub rule: String,
    pub severity: String,
    pub title: String,
    pub commands: Vec<String>,
    pub netns: Option<String>,
}

impl RuleScenario {
    /// Runs it, and tells on `out` what was found.
    ///
    /// # Errors
    /// What dropwatch said and should not have, or did not say.
    pub fn run(&self, dropwatch: &Path, out: &mut dyn Write) -> Result<Outcome> {
        if let Some(why) = tracking::lacking(self.name).or_else(|| links::lacking(self.name)) {
            writeln!(out, "    {why}: nothing can be proved")?;
            return Ok(Outcome::Unproved(why.to_owned()));
        }
        let mut trouble = (self.make)().context("cannot make the trouble")?;
        let before = watch(dropwatch, trouble.as_mut())?;
        tell(&before, out)?;
        let needed = REASONS.iter().find(|(name, _)| *name == self.name);
        if let Some((_, reason)) = needed
            && Tracepoint::read()?.reason_number(reason).is_none()
        {
            let others: Vec<_> = before.iter().filter(|it| it.severity == "critical").collect();
            ensure!(others.is_empty(), "nothing can be proved here, and it found {others:?}");
            let why = format!("this kernel has no reason {reason}");
            writeln!(out, "    {why}: nothing can be proved")?;
            return Ok(Outcome::Unproved(why));
        }
        let Some(rule) = self.rule else {
            ensure!(before.is_empty(), "nothing is wrong, and it found {:?}", rules(&before));
            return Ok(Outcome::Proved);
        };
        let found = before.iter().find(|found| found.rule == rule);
        let found = found.with_context(|| format!("{rule} not found, but {:?}", rules(&before)))?;
        let critical =
            before.iter().filter(|other| other.severity == "critical" && other.rule != rule);
        let critical: Vec<&Found> = critical.collect();
        ensure!(critical.is_empty(), "also critical: {critical:?}");
        if !self.mended {
            return Ok(Outcome::Proved);
        }
        let Some(fix) = trouble.choose(&found.commands) else {
            bail!("{rule} names no command that would end it: {:?}", found.commands);
        };
        writeln!(out, "    $ {fix}")?;
        command::output(Command::new("sh").arg("-c").arg(&fix)).context("its own command")?;
        trouble.mend()?;
        let after = watch(dropwatch, trouble.as_mut())?;
        ensure!(after.iter().all(|found| found.rule != rule), "{rule} is still found: {after:?}");
        writeln!(out, "    gone")?;
        Ok(Outcome::Proved)
    }
}

/// What dropwatch finds in the scenario's namespaces while the trouble happens, each rule and
/// namespace once.
///
/// Of the drops, dropwatch counts those alone: other tenants of this host have drops at the same
/// places, and a row is told as that of whoever has the most of them.
fn watch(dropwatch: &Path, trouble: &mut dyn Trouble) -> Result<Vec<Found>> {
    let mut command = Command::new(dropwatch);
    command.args(["--json", "-i", "1s"]).args(within_own()?);
    let watch = Watch::start(&mut command)?;
    trouble.happen()?;
    let ended = watch.stop()?;
    if !ended.status.success() {
        bail!("dropwatch failed ({}): {}", ended.status, ended.stderr.trim());
    }
    findings(&ended.lines)
}

/// Options of dropwatch that leave out drops of other namespaces than this process has made.
///
/// # Errors
/// When those cannot be listed.
pub(super) fn within_own() -> Result<Vec<String>> {
    Ok(netns::own()?.into_iter().flat_map(|name| ["--netns".to_owned(), name]).collect())
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
                commands: actions.map(|action| text(&action["command"])).collect(),
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

fn tell(findings: &[Found], out: &mut dyn Write) -> Result<()> {
    for Found { severity, title, .. } in findings {
        writeln!(out, "    {severity}: {title}")?;
    }
    if findings.is_empty() {
        writeln!(out, "    nothing found")?;
    }
    Ok(())
}

fn rules(findings: &[Found]) -> BTreeSet<&str> {
    findings.iter().map(|found| found.rule.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_all_reports_are_told_once() {
        let report = |netns: &str| {
            format!(
                r#"{{"findings":[{{"rule":"a","severity":"critical","title":"t",
                "netns":{netns},"actions":[{{"command":"c","note":""}}]}}]}}"#
            )
        };
        let own = format!("dwt-{}-0-gw", std::process::id());
        let ours = report(&format!(r#"{{"name":"{own}","inum":1}}"#));
        let others = report(r#"{"name":"gw","inum":2}"#);
        let lines = [ours.clone(), "{}".to_owned(), others, report("null"), ours];
        let found = findings(&lines).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].commands.as_slice(), found[0].netns.as_deref()),
            (&["c".to_owned()][..], Some(own.as_str()))
        );
        assert_eq!(found[1].netns, None);
        assert!(findings(&["{".to_owned()]).is_err());
    }
}
