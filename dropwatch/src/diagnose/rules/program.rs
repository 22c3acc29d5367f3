//! A program that somebody attached drops packets: a tc filter or action, XDP, a cgroup's BPF
//! program.
//!
//! The reason alone says which kind (`TC_INGRESS`, … in include/net/dropreason-core.h); samples
//! say where. Only XDP's reason means less: a failed redirection has it, while what a program
//! drops is freed without one (`netif_receive_generic_xdp`, net/core/dev.c, up to 7.2 at least),
//! so the function decides. XDP in a driver (not generic) frees packets before they are any: no
//! event shows it.
//!
//! Which program or filter it was the host is asked: where there is but one that can have done it, that
//! one is named.

use super::{
    Draft, Facts, Makes, Rule, Verdict,
    draft::quote,
    matters,
    objects::{self, Objects},
};
use crate::{
    diagnose::{facts::Rows, knowledge::NOT_SPECIFIED},
    report::{
        finding::{Finding, Severity},
        model::Location,
        question::Ask,
    },
};

/// Most programs or filters that are listed where one of several did it.
const MOST_NAMED: usize = 3;

/// A kind of program, by its drop reason.
pub(super) struct ProgramKind {
    pub(super) reason: &'static str,
    /// Drops without a reason at these functions are its doing, too.
    functions: &'static [&'static str],
    what: &'static str,
    pub(super) show: ShowCommand,
}

/// The command that shows a program.
pub(super) enum ShowCommand {
    /// Shows the programs of one device, whose name comes between the two parts.
    Device(&'static str, &'static str),
    /// Shows the programs of one device or, without a name, of all.
    AnyDevice(&'static str),
    Namespace(&'static str),
    /// Shows the programs of the machine, since control groups belong to no network namespace.
    Machine(&'static str),
}

const KINDS: [ProgramKind; 5] = [
    ProgramKind {
        reason: "TC_INGRESS",
        functions: &[],
        what: "a tc filter at the ingress",
        show: ShowCommand::Device("tc -s filter show dev ", " ingress"),
    },
    ProgramKind {
        reason: "TC_EGRESS",
        functions: &[],
        what: "a tc filter at the egress",
        show: ShowCommand::Device("tc -s filter show dev ", " egress"),
    },
    ProgramKind {
        reason: "XDP",
        // The first is part of the second where compilers inline it.
        functions: &["netif_receive_generic_xdp", "do_xdp_generic"],
        what: "an XDP program",
        show: ShowCommand::AnyDevice("ip -details link show"),
    },
    ProgramKind {
        reason: "BPF_CGROUP_EGRESS",
        functions: &[],
        what: "a BPF program of a control group",
        show: ShowCommand::Machine("bpftool cgroup tree"),
    },
    ProgramKind {
        reason: "TAP_FILTER",
        functions: &[],
        what: "the filter of a tap device",
        show: ShowCommand::Namespace("ip -details tuntap show"),
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[
        Makes {
            name: "program",
            severity: "warning",
            says: "a tc filter, XDP or a control group's program drops",
            rests_on: "rows with its reason",
        },
        Makes {
            name: "redirect_down",
            severity: "warning",
            says: "a tc filter redirects to a device that is down, without carrier, or gone",
            rests_on: "rows with its reason, the filter's own counter, the state of that device",
        },
    ],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let found = KINDS.iter().flat_map(|kind| {
        let with_reason = facts.rows(&[kind.reason], &[]).0;
        let without = match kind.functions {
            [] => Vec::new(),
            functions => facts.rows(&[NOT_SPECIFIED], functions).0,
        };
        let rows = with_reason.into_iter().chain(without).filter(|row| matters(row.count, facts));
        let decided = rows.map(|row| dropped(facts, kind, row).map(Some));
        decided.filter_map(Verdict::of).collect::<Vec<_>>()
    });
    found.collect()
}

fn dropped(facts: &Facts<'_>, kind: &ProgramKind, row: &Location) -> Result<Finding, Ask> {
    let rows = Rows(vec![row]);
    let netns = rows.namespaces().first().copied();
    let device = rows.device();
    let named = match netns {
        Some(netns) => objects::of(facts, netns, kind, &rows)?,
        None => Objects::default(),
    };
    if let (Some(netns), Some(device), Some(redirect)) = (netns, device, &named.redirect) {
        return Ok(objects::redirected(facts, netns, device, kind, redirect, row));
    }
    let mut title = format!("{} dropped {} packets", kind.what, row.count);
    if let Some(device) = device {
        title += &format!(" on {device}");
    }
    if let Some(name) = netns.and_then(|netns| netns.name.as_deref()) {
        title += &format!(" in {name}");
    }
    if let [only] = &named.found[..] {
        title += &format!(": {}", only.name);
    }
    let subject = format!("{} {}", kind.what, device.unwrap_or_default());
    let has_reason = row.place.reason.as_deref() == Some(kind.reason);
    let place =
        if has_reason { kind.reason } else { row.place.symbol.as_deref().unwrap_or(kind.reason) };
    let mut draft = Draft::new(facts, "program", Severity::Warning, subject.trim_end(), title)
        .somewhere(netns)
        .explains(row.count, &rows)
        .counted(place, row.count, "kfree_skb");
    let is = if named.found.len() == 1 { "it is" } else { "one of" };
    for object in named.found.iter().take(MOST_NAMED) {
        draft = draft.state(is, object.name.as_str(), object.source);
        if let Some((counter, count)) = &object.counted {
            draft = draft.state(counter, *count, object.source);
        }
    }
    if let [only] = &named.found[..] {
        draft = draft.names(only.is.clone());
    }
    let note = "the program, and what it has counted; whoever attached it knows why";
    draft = match (&kind.show, device.map(quote)) {
        (ShowCommand::Device(before, after), Some(device)) => {
            draft.run(&format!("{before}{device}{after}"), note)
        }
        (ShowCommand::Device(..), None) => draft,
        (ShowCommand::AnyDevice(command), Some(device)) => {
            draft.run(&format!("{command} dev {device}"), note)
        }
        (ShowCommand::AnyDevice(command), None) | (ShowCommand::Namespace(command), _) => {
            draft.run(command, note)
        }
        (ShowCommand::Machine(command), _) if named.found.is_empty() => {
            draft.run_on_host(command, note)
        }
        (ShowCommand::Machine(_), _) => draft,
    };
    for object in named.found.iter().take(MOST_NAMED) {
        for (command, note) in &object.show {
            draft = draft.run_on_host(command, note);
        }
    }
    Ok(draft.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_filter_is_named_with_its_device() {
        let found = TestHost::new()
            .row(20, "__netif_receive_skb_core", "TC_INGRESS")
            .interface("eth0")
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "a tc filter at the ingress dropped 20 packets on eth0 in gw");
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw tc -s filter show dev eth0 ingress"
        );
    }

    #[test]
    fn where_samples_tell_nothing_there_is_no_command() {
        let found = TestHost::new().row(20, "do_xdp_generic", "XDP").unsampled().run(&RULE);
        assert_eq!(found[0].title, "an XDP program dropped 20 packets");
        assert_eq!(found[0].actions, []);
        assert_eq!(found[0].netns, None);
        let unreachable = found[0].unreachable.as_ref().expect("said");
        assert!(!unreachable.ended, "{unreachable:?}");
    }

    #[test]
    fn control_groups_are_of_the_machine_and_not_of_a_namespace() {
        let host = || TestHost::new().row(20, "ip_finish_output", "BPF_CGROUP_EGRESS");
        for found in [host().run(&RULE), host().unsampled().run(&RULE)] {
            let [action] = &found[0].actions[..] else { panic!("{found:?}") };
            assert_eq!(action.command, "bpftool cgroup tree");
        }
    }

    #[test]
    fn xdp_drops_without_a_reason_are_known_by_the_function() {
        for reason in [NOT_SPECIFIED, ""] {
            let found =
                TestHost::new().row(20, "do_xdp_generic", reason).interface("eth0").run(&RULE);
            let [finding] = &found[..] else { panic!("{reason}: {found:?}") };
            assert_eq!(finding.title, "an XDP program dropped 20 packets on eth0 in gw");
            assert_eq!(finding.evidence[0].name, "do_xdp_generic");
        }
        assert_eq!(TestHost::new().row(20, "tcp_v4_rcv", NOT_SPECIFIED).run(&RULE), []);
    }

    #[test]
    fn few_of_many_are_nothing() {
        let found =
            TestHost::new().row(20, "f", "TC_INGRESS").row(10_000, "g", "NO_SOCKET").run(&RULE);
        assert_eq!(found, []);
    }
}
