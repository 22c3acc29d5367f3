//! A scenario for each finding: cause it, and see that finding and no other; run the commands that it
//! prints; end the cause by one of them or as a person would, let the same happen again, and see nothing.
//!
//! Some are healthy from the start and look like trouble: nothing may be found there, either.

mod commands;
mod filters;
mod found;
mod ip;
mod links;
mod objects;
mod rulesets;
mod sockets;
mod tracking;

use std::{io::Write, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use self::commands::changes;
pub use self::found::{Found, findings};
use crate::{drops::Cause, netns, tracepoint::Tracepoint, watch::Watch};

/// A host on which one thing is wrong, or nothing is.
pub trait Trouble {
    /// Makes packets get lost; returns when all of it has happened.
    ///
    /// # Errors
    /// When it cannot.
    fn happen(&mut self) -> Result<()>;

    /// What a person has to do, besides the finding's command or in its place: start a service again, add
    /// a route.
    ///
    /// # Errors
    /// When it cannot.
    fn mend(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Scenarios whose cause shows in a drop reason alone, which older kernels lack.
const REASONS: [(&str, &str); 14] = [
    ("socket-filter", "SOCKET_FILTER"),
    ("slow-link", "QDISC_DROP"),
    ("tc-ingress", "TC_INGRESS"),
    ("xdp", "XDP"),
    ("udp-memory", "PROTO_MEM"),
    ("martian", "IP_LOCAL_SOURCE"),
    ("ipv6-off", "IPV6DISABLED"),
    ("no-carrier", "QDISC_DROP"),
    ("no-carrier-route", "QDISC_DROP"),
    ("no-carrier-arp", "NEIGH_FAILED"),
    ("redirect-down", "TC_INGRESS"),
    ("tap-full", "FULL_RING"),
    ("tcp-unread", "TCP_INVALID_SEQUENCE"),
    ("group-egress", "BPF_CGROUP_EGRESS"),
];

/// Findings that nothing here can cause, each with the reason.
pub const OPEN: [(&str, &str); 2] = [
    ("nic_damaged", "needs a network card that receives damaged frames, and counts them"),
    ("nic_no_room", "needs a network card whose own memory overflows"),
];

/// How often something may happen until what is wrong is found: what dropwatch asks a busy host for one
/// report may come too late, and the next report has it. The last look counts, and what is found and is
/// not there fails it.
const LOOKS: u32 = 3;

/// Every scenario, by topic.
pub fn list() -> impl Iterator<Item = &'static RuleScenario> {
    [filters::ALL, rulesets::ALL, sockets::ALL, ip::ALL, objects::ALL, links::ALL, tracking::ALL]
        .into_iter()
        .flatten()
}

/// Trouble that is so many packets of one cause, which a person ends.
struct Ended<C>(C, u64, fn(&mut C) -> Result<()>);

impl<C: Cause> Trouble for Ended<C> {
    fn happen(&mut self) -> Result<()> {
        let sent = self.0.send(self.1)?;
        ensure!(sent == self.1, "{sent} of {} packets sent", self.1);
        Ok(())
    }

    fn mend(&mut self) -> Result<()> {
        (self.2)(&mut self.0)
    }
}

/// So many packets of one cause; nobody has to do anything besides a command.
fn caused<C: Cause + 'static>(cause: C, packets: u64) -> Result<Box<dyn Trouble>> {
    ended(cause, packets, |_| Ok(()))
}

/// So many packets of one cause, until a person has done this.
fn ended<C: Cause + 'static>(
    cause: C,
    packets: u64,
    end: fn(&mut C) -> Result<()>,
) -> Result<Box<dyn Trouble>> {
    Ok(Box::new(Ended(cause, packets, end)))
}

/// What a scenario has shown.
#[derive(Debug)]
pub struct Ran {
    /// Rules that found something, each once for each namespace.
    pub found: Vec<String>,
    /// The same while the same happened to a host on which nothing was wrong any more.
    pub still_found: Vec<String>,
    /// # Errors
    /// What dropwatch said and should not have, or did not say; which command does not work.
    pub outcome: Result<Outcome>,
}

/// What came of a scenario that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All went as it should.
    Proved,
    /// This kernel lacks what the scenario is about; the reason.
    Unproved(String),
}

/// How a scenario's trouble ends. Then the same happens again, and nothing may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a command that the finding prints.
    Command,
    /// By what a person does: the commands show where to look.
    Person,
    /// It has not begun: nothing is wrong from the start.
    Healthy,
    /// It cannot be ended here, for this reason.
    Never(&'static str),
}

/// One scenario.
#[derive(Debug)]
pub struct RuleScenario {
    pub name: &'static str,
    /// What goes wrong, in one line.
    pub about: &'static str,
    /// The rules that find something, each once for each namespace, in order; none where nothing is
    /// wrong.
    pub finds: &'static [&'static str],
    pub end: End,
    pub make: fn() -> Result<Box<dyn Trouble>>,
}

impl RuleScenario {
    /// Runs it, and tells on `out` what was found.
    pub fn run(&self, dropwatch: &Path, out: &mut dyn Write) -> Ran {
        let mut ran = Ran {
            found: Vec::new(),
            still_found: Vec::new(),
            outcome: Ok(Outcome::Unproved(String::new())),
        };
        ran.outcome = self.prove(dropwatch, out, &mut ran);
        ran
    }

    fn prove(&self, dropwatch: &Path, out: &mut dyn Write, ran: &mut Ran) -> Result<Outcome> {
        let lacking = [tracking::lacking, rulesets::lacking, links::lacking];
        if let Some(why) = lacking.iter().find_map(|lacking| lacking(self.name)) {
            return Ok(Outcome::Unproved(why.to_owned()));
        }
        let mut trouble = (self.make)().context("cannot make the trouble")?;
        let needed = REASONS.iter().find(|(name, _)| *name == self.name);
        let lacking = match needed {
            Some((_, reason)) if Tracepoint::read()?.reason_number(reason).is_none() => {
                Some(reason)
            }
            _ => None,
        };
        let mut before = watch(dropwatch, trouble.as_mut())?;
        let looks = if lacking.is_some() { 1 } else { LOOKS };
        for _ in 1..looks {
            ran.found = found::rules(&before);
            if self.finds.iter().all(|rule| ran.found.iter().any(|found| found == rule)) {
                break;
            }
            writeln!(out, "    not found: {:?} of {:?}; once more", ran.found, self.finds)?;
            before = watch(dropwatch, trouble.as_mut()).context("once more")?;
        }
        ran.found = found::rules(&before);
        tell(&before, out)?;
        if let Some(reason) = lacking {
            let others: Vec<_> = before.iter().filter(|it| it.severity == "critical").collect();
            ensure!(others.is_empty(), "nothing can be proved here, and it found {others:?}");
            return Ok(Outcome::Unproved(format!("this kernel has no reason {reason}")));
        }
        ensure!(ran.found == self.finds, "to be found: {:?}; found: {before:?}", self.finds);
        // A namespace that ended after the report was made is out of reach.
        let left = netns::own()?;
        let within = |it: &&Found| it.netns.as_ref().is_none_or(|netns| left.contains(netns));
        let commands = before.iter().filter(within).flat_map(|found| &found.commands);
        let (changes, shows): (Vec<_>, Vec<_>) = commands.partition(|it| changes(&it.command));
        for printed in &shows {
            match commands::follows(&printed.command) {
                true => commands::follow(&printed.command, || trouble.happen())?,
                false => commands::show(printed)?,
            }
        }
        let mut changes = changes.into_iter().map(|printed| printed.command.as_str());
        // Dropped before the trouble, which puts back what it has changed earlier itself.
        let mut kept = Vec::new();
        match self.end {
            End::Healthy | End::Never(_) => return Ok(Outcome::Proved),
            End::Command => {
                let Some(fix) = changes.next() else {
                    bail!("no command would end it: {shows:?}");
                };
                writeln!(out, "    $ {fix}")?;
                kept.extend(commands::change(fix)?);
            }
            End::Person => {}
        }
        trouble.mend()?;
        let after = watch(dropwatch, trouble.as_mut())?;
        ran.still_found = found::rules(&after);
        ensure!(after.is_empty(), "nothing is wrong any more, and it found {after:?}");
        writeln!(out, "    gone")?;
        for command in changes {
            kept.extend(commands::change(command)?);
        }
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

fn tell(findings: &[Found], out: &mut dyn Write) -> Result<()> {
    for Found { severity, title, .. } in findings {
        writeln!(out, "    {severity}: {title}")?;
    }
    if findings.is_empty() {
        writeln!(out, "    nothing found")?;
    }
    Ok(())
}
