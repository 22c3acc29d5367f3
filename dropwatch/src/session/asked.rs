//! Whether the names in a run's filters are anything's on this host, and whether anything can pass.
//!
//! A filter for what is not there counts nothing, and would make a gate out of a typing mistake. So
//! such a name is refused, unless `--later` says that it is still to come. One that the host gives no
//! way to check is used as it is, with a notice.

use std::collections::BTreeSet;

use caps::Capability;

use super::awaited::Meant;
use crate::{
    exit::Failure,
    filter::{
        contradiction::{self, NothingPasses},
        interface_name,
    },
    kernel::{HostNames, HostRoot, Known, Unfound, netns_named, short_name},
    privilege,
    report::{
        keys::{Choice, Glob},
        near::{did_you_mean, near},
        shell::can_be_typed,
    },
    settings::Attached,
};

/// Most interfaces that are listed where none is like the one that was typed.
const MOST_LISTED: usize = 8;

/// What the names of filters turned out to be on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedNames {
    /// For the first lines of the run.
    pub notices: Vec<String>,
    /// The network namespaces, in the order of the options.
    pub netns: Vec<Meant>,
}

/// Looks all of them up. To be called while capabilities are there.
///
/// # Errors
/// Usage: the first name that is nothing's, with those that look like it; filters that contradict
/// each other.
pub fn check(
    attached: &Attached,
    root: &HostRoot,
    names: &mut HostNames,
) -> Result<ResolvedNames, Failure> {
    let mut resolved = ResolvedNames::default();
    for Choice { exclude, value: reason } in &attached.keys.reasons {
        let typed = typed(*exclude, reason.text());
        let later = Later::of(attached.later, || is_of_a_module(reason), OF_MODULES_REASON);
        resolved.settle("--reason", &typed, names.has_reason(reason), later)?;
    }
    for Choice { exclude, value: function } in &attached.keys.symbols {
        let typed = typed(*exclude, &function.to_string());
        let known = names.has_function(function);
        let later = Later::of(attached.later, || names.may_come(function), OF_MODULES_FUNCTION);
        resolved.settle("--symbol", &typed, known, later)?;
    }
    for Choice { exclude, value: name } in &attached.packets.netns {
        let (known, inum) = netns(name, names);
        resolved.settle("--netns", &typed(*exclude, name), known, anything(attached.later))?;
        // What is not called by a file's name cannot get another namespace.
        let may_change = attached.later && (inum.is_none() || netns_named(root, name) == inum);
        resolved.netns.push(match inum {
            Some(inum) if !may_change => Meant::One(inum),
            inum => Meant::Whichever(inum),
        });
    }
    let selected: Vec<Option<u32>> = attached
        .packets
        .netns
        .iter()
        .zip(&resolved.netns)
        .filter(|(choice, _)| !choice.exclude)
        .map(|(_, it)| it.now())
        .collect();
    if !attached.packets.iface.is_empty() {
        let choices = &attached.packets.iface;
        let called: Vec<String> =
            choices.iter().map(|choice| interface_name(&choice.value)).collect();
        let known = interfaces(&called, &selected, names);
        for ((choice, name), known) in choices.iter().zip(&called).zip(known) {
            let typed = typed(choice.exclude, name);
            resolved.settle("--iface", &typed, known, anything(attached.later))?;
        }
    }
    let (keys, packets) = (&attached.keys, &attached.packets);
    let places = packets.netns.iter().zip(&resolved.netns).map(|(choice, it)| match it.now() {
        inum @ Some(_) => (inum, String::new()),
        None => (None, short_name(&choice.value)),
    });
    let places: Vec<_> = places.collect();
    let vain = contradiction::check(keys, packets, &places, &attached.filters);
    resolved.notices.extend(vain.map_err(|error| Failure::Usage(error.to_string()))?);
    if !attached.later && !keys.is_empty() && !names.leaves_any(keys) {
        let typed = attached.filters.iter().take(keys.reasons.len() + keys.symbols.len());
        let nothing = NothingPasses::Together(typed.cloned().collect());
        return Err(Failure::Usage(nothing.to_string()));
    }
    Ok(resolved)
}

impl ResolvedNames {
    fn settle(
        &mut self,
        option: &str,
        typed: &str,
        known: Known,
        later: Later,
    ) -> Result<(), Failure> {
        // Only names of the kernel's own can be patterns.
        let star = match option {
            "--netns" | "--iface" if typed.contains('*') => "; a star stands for itself here",
            _ => "",
        };
        match known {
            Known::Yes => {}
            Known::No(_) if later == Later::Taken => {
                let then = if typed.starts_with('!') { "left out" } else { "counted" };
                let then = format!("{then} once it is{star}");
                self.notices.push(format!("{option} {typed}: not there yet; {then}"));
            }
            Known::Never(why) => return Err(Failure::Usage(format!("{option} {typed}: {why}"))),
            Known::No(why) => {
                let takes = match later {
                    Later::Refused(takes) => takes,
                    Later::Taken | Later::NotRequested => "what is still to come",
                };
                return Err(Failure::Usage(format!(
                    "{option} {typed}: {why}{star} (--later takes {takes})"
                )));
            }
            Known::Unchecked(why) => {
                self.notices.push(format!("{option} {typed} cannot be checked: {why}"));
            }
        }
        Ok(())
    }
}

/// What `--later` does with a name that nothing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    NotRequested,
    Taken,
    /// Nothing can bring it: `--later` takes other names, these.
    Refused(&'static str),
}

impl Later {
    fn of(requested: bool, may_come: impl FnOnce() -> bool, takes: &'static str) -> Self {
        match requested {
            false => Self::NotRequested,
            true if may_come() => Self::Taken,
            true => Self::Refused(takes),
        }
    }
}

/// Whoever makes a namespace or an interface may call it anything.
fn anything(requested: bool) -> Later {
    Later::of(requested, || true, "")
}

/// Whether it is a drop reason of a subsystem that modules bring, as their headers begin them
/// (net/openvswitch/drop.h, net/mac80211/drop.h). All others are the kernel's own.
fn is_of_a_module(reason: &Glob) -> bool {
    let name = reason.text().to_ascii_uppercase();
    MODULES_REASONS.iter().any(|begin| name.starts_with(begin))
}

const MODULES_REASONS: [&str; 2] = ["OVS_DROP_", "RX_DROP_"];
const OF_MODULES_REASON: &str = "drop reasons that a module brings: OVS_DROP_…, RX_DROP_…";
const OF_MODULES_FUNCTION: &str =
    "functions of a module that is not loaded yet: --symbol 'FUNCTION [MODULE]'";

/// A name as it stood on the command line.
fn typed(exclude: bool, name: &str) -> String {
    format!("{}{name}", if exclude { "!" } else { "" })
}

/// Whether there is such a namespace, and its number.
fn netns(name: &str, names: &mut HostNames) -> (Known, Option<u32>) {
    let inum = match names.find_netns(name) {
        Ok(inum) => inum,
        Err(why @ Unfound::Absent { .. }) => return (Known::No(why.to_string()), None),
        Err(why) => return (Known::Never(why.to_string()), None),
    };
    // Any number looks like one of a namespace.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || names.namespaces().reach(inum).is_some() {
        return (Known::Yes, Some(inum));
    }
    match hidden(names) {
        Some(why) => (Known::Unchecked(why), Some(inum)),
        None => (Known::No("no network namespace has that number".to_owned()), Some(inum)),
    }
}

/// Whether there are such interfaces in the namespaces `selected`, or anywhere.
fn interfaces(called: &[String], selected: &[Option<u32>], names: &mut HostNames) -> Vec<Known> {
    if selected.contains(&None) {
        // A namespace that is still to come brings its interfaces with it.
        return vec![Known::Yes; called.len()];
    }
    let selected: Vec<u32> = selected.iter().flatten().copied().collect();
    let found = names.namespaces().interfaces(&selected);
    let hidden = match found.complete {
        true if !selected.is_empty() => None,
        true => hidden(names),
        false => {
            let way_out = match privilege::may_use(Capability::CAP_SYS_ADMIN) {
                true => "",
                false => ": run with sudo, for CAP_SYS_ADMIN",
            };
            Some(format!("some network namespaces cannot be entered{way_out}"))
        }
    };
    let place = if selected.is_empty() { "any network namespace" } else { "these namespaces" };
    let known = |name: &String| {
        if found.names.contains(name) {
            return Known::Yes;
        }
        if let Some(why) = &hidden {
            return Known::Unchecked(why.clone());
        }
        let near = match found.aliases.get(name) {
            Some(real) if can_be_typed(real) => vec![real.as_str()],
            Some(_) => Vec::new(),
            None => near(name, found.names.iter().map(String::as_str)),
        };
        let hint = if near.is_empty() { there_are(&found.names) } else { did_you_mean(&near) };
        Known::No(format!("no interface of {place}{hint}"))
    };
    called.iter().map(known).collect()
}

/// `: there are a, b and 3 more`: for whoever has a name in mind that nothing looks like.
fn there_are(names: &BTreeSet<String>) -> String {
    let typed = || names.iter().filter(|name| can_be_typed(name));
    let listed: Vec<&str> = typed().take(MOST_LISTED).map(String::as_str).collect();
    let more = match typed().count().saturating_sub(MOST_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if listed.is_empty() {
        String::new()
    } else {
        format!(": there are {}{more}", listed.join(", "))
    }
}

/// Why there may be namespaces that were not seen.
fn hidden(names: &mut HostNames) -> Option<String> {
    let namespaces = names.namespaces();
    if !namespaces.are_all_in_sight() {
        return Some(
            "network namespaces outside this container are out of sight: run on the host"
                .to_owned(),
        );
    }
    let hidden = namespaces.hidden();
    let blind = hidden > 0 && !privilege::may_use(Capability::CAP_SYS_PTRACE);
    blind.then(|| {
        format!(
            "{hidden} processes hide their network namespaces: run with sudo, for CAP_SYS_PTRACE"
        )
    })
}
