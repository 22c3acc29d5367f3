//! A filter refuses packets for sockets that were there to receive them.
//!
//! Programs attach BPF filters to their sockets, and cgroups have programs for what comes in; what
//! they refuse is freed with SOCKET_FILTER (`sk_filter_trim_cap`, net/core/filter.c). Most do so on
//! purpose, so it is worth no more than a notice.

use super::{Draft, Facts, Makes, Rule, Verdict, matters, objects};
use crate::{
    diagnose::named::Local,
    report::{
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

/// Most programs that are named.
const MOST_NAMED: usize = 3;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "socket_filter",
        severity: "notice",
        says: "the filter of a program's socket refuses",
        rests_on: "rows with `SOCKET_FILTER`",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    Verdict::of(refused(facts)).into_iter().collect()
}

fn refused(facts: &Facts<'_>) -> Result<Option<Finding>, Ask> {
    let rows = facts.rows(&["SOCKET_FILTER"], &[]);
    let drops = rows.count();
    if !matters(drops, facts) {
        return Ok(None);
    }
    let netns = match rows.namespaces()[..] {
        [only] => Some(only),
        _ => None,
    };
    let name = netns.and_then(|netns| netns.name.as_deref());
    let within = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let port = rows.port().map(|port| format!(" at port {port}")).unwrap_or_default();
    let title = format!("a filter on sockets refuses packets{port}{within}: {drops} dropped");
    let mut draft = Draft::new(
        facts,
        "socket_filter",
        Severity::Notice,
        port.trim_start_matches(" at "),
        title,
    )
    .somewhere(netns)
    .explains(drops, &rows)
    .counted("SOCKET_FILTER", drops, "kfree_skb");
    let protocols = rows.protocols();
    if let (Some(owner), [protocol]) = (rows.owner(), &protocols[..]) {
        let local = Local::port(rows.port());
        draft = draft.names(Object::socket(protocol, local, Some(owner))).state(
            "socket of",
            format!("{} ({})", owner.comm, owner.pid),
            "samples",
        );
    }
    // A socket's own filter looks the same, so these may have done it, and need not.
    let programs = match netns {
        Some(netns) => objects::groups(facts, netns.number(), &rows, false)?,
        None => Vec::new(),
    };
    for object in programs.iter().take(MOST_NAMED) {
        draft = draft.state("may be", object.name.as_str(), object.source);
    }
    let note = "programs of cgroups; a program's own filters: its code";
    draft = match &programs[..] {
        [] => draft.run_on_host("bpftool cgroup tree", note),
        some => some
            .iter()
            .take(MOST_NAMED)
            .flat_map(|object| &object.show)
            .fold(draft, |draft, (command, note)| draft.run_on_host(command, note)),
    };
    Ok(Some(draft.done()))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::flow::Flow;

    #[test]
    fn refused_packets_are_a_notice() {
        let found = TestHost::new()
            .row(50, "sk_filter_trim_cap", "SOCKET_FILTER")
            .flow(Flow { dst_port: Some(68), ..Flow::default() })
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "a filter on sockets refuses packets at port 68 in gw: 50 dropped"
        );
        assert_eq!(finding.severity, Severity::Notice);
        assert_eq!(finding.explains.map(|e| e.drops), Some(50));
    }

    #[test]
    fn a_few_are_nothing_and_other_reasons_are_others_business() {
        assert_eq!(TestHost::new().row(2, "udp_queue_rcv_one_skb", "SOCKET_FILTER").run(&RULE), []);
        assert_eq!(TestHost::new().row(9, "udp_queue_rcv_one_skb", "UDP_CSUM").run(&RULE), []);
    }
}
