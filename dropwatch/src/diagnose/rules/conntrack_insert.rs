//! Connection tracking loses packets although its table has room.
//!
//! Two packets of one connection that has no entry yet (DNS asks for A and AAAA at once) race for
//! it, and where NAT keeps the kernel from merging them the later one is dropped; or a chain of the
//! hash table is too long. Counted as `insert_failed`, and as `drop` where the collision was looked
//! into (`nf_ct_resolve_clash`, `__nf_conntrack_confirm`, net/netfilter/nf_conntrack_core.c).
//!
//! Where NAT finds no free port (`get_unique_tuple`, net/netfilter/nf_nat_core.c) it leaves one that is
//! taken, and the entry collides just so. So the host is asked which ports its rules allow for the sampled
//! packet, and how many of these are in use towards the same server. Without an answer, segments of TCP tell:
//! they do not race for an entry, so if they are what is lost after POSTROUTING, NAT is the cause; datagrams
//! of UDP may be lost in either way.

use std::net::SocketAddr;

use super::{
    Counts, Draft, Facts, Kept, Makes, Rule, Verdict, conntrack_full,
    nat_ports::{self, Allowed},
    netfilter::{self, NFT_RULES, show_rules},
};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        conntrack::ConntrackCounter,
        finding::{Finding, Severity},
        question::Ask,
    },
};

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "conntrack_insert_failed",
        severity: "warning, critical where NAT has no free port and for chains that are too long",
        says: "entries collide, or NAT has no free port",
        rests_on: "`insert_failed`, `drop`, `chaintoolong`; ports that NAT may give and that are in use",
    }],
    host_settings: &["net.netfilter.nf_conntrack_buckets"],
    counts: &[Counts::of(
        Kept::Tracking(ConntrackCounter::InsertFailed),
        conntrack_full::DROPPED,
        conntrack_full::AT_HOOKS,
    )],
    check_or_ask,
    ..Rule::NONE
};

/// What is to be changed in the rules that are shown.
const RANGE: &str = "rules of all tables with their packet counters; the rule of the table nat \
                     (MASQUERADE, SNAT) needs a larger range of ports (--to-ports) or more addresses \
                     (--to-source); shorter timeouts of conntrack free ports sooner";

/// Why an entry could not be added.
enum Cause {
    LongChain,
    /// For connections to this address and port, if they are to one.
    NoFreePort(Option<String>),
    Collision,
    /// Samples do not tell.
    Unknown,
}

impl Cause {
    /// As the host says of the ports that a packet of these rows may have, else as samples show it.
    fn of(rows: &Rows<'_>, allowed: &Allowed) -> Self {
        let protocols = rows.protocols();
        match (allowed, &protocols[..], &rows.on_paths(netfilter::hook)[..]) {
            (Allowed::Ports(ports), ..) if ports.are_taken() => Self::NoFreePort(to(rows)),
            (Allowed::Ports(_), ..) => Self::Collision,
            (_, [only], ["POSTROUTING"]) if only == "tcp" => Self::NoFreePort(to(rows)),
            (Allowed::Nothing, [only], _) if only == "udp" => Self::Collision,
            _ => Self::Unknown,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::LongChain => "a chain of its hash table is too long",
            Self::NoFreePort(_) => "NAT found no free port",
            Self::Collision => "its entry collided with another's",
            Self::Unknown => "its entry collided with another's, or NAT found no free port",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Self::LongChain | Self::NoFreePort(_) => Severity::Critical,
            Self::Collision | Self::Unknown => Severity::Warning,
        }
    }
}

/// Where nearly all of their packets were going.
fn to(rows: &Rows<'_>) -> Option<String> {
    let to = rows.destination().zip(rows.port());
    to.map(|(to, port)| SocketAddr::new(to, port).to_string())
}

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let decided = facts.namespaces().map(|namespace| failed(facts, namespace));
    decided.filter_map(Verdict::of).collect()
}

/// Packets of `namespace` that were lost this way.
pub(super) fn lost(namespace: &NetnsFacts<'_>) -> u64 {
    let drop =
        namespace.conntrack_delta(ConntrackCounter::Drop) - conntrack_full::refused(namespace);
    // The larger of the two, not the sum: some kernels count one packet in both counters, others in
    // one of them.
    drop.max(namespace.conntrack_delta(ConntrackCounter::InsertFailed))
}

fn failed(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Option<Finding>, Ask> {
    let lost = lost(&namespace);
    let Some((_, now)) = namespace.conntrack().filter(|_| lost > 0) else { return Ok(None) };
    let long = namespace.conntrack_delta(ConntrackCounter::ChainTooLong);
    let rows = conntrack_full::hook_rows(facts).within(namespace);
    let allowed = match long {
        0 => nat_ports::ask(facts, namespace, &rows)?,
        _ => Allowed::Nothing,
    };
    let cause = match long {
        0 => Cause::of(&rows, &allowed),
        _ => Cause::LongChain,
    };
    let (name, why, severity) = (namespace.name(), cause.text(), cause.severity());
    let said = facts.selected(lost, &rows);
    let title = match &cause {
        Cause::NoFreePort(to) => format!(
            "NAT in {name} found no free port for {said} packets of new connections{}",
            to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default()
        ),
        _ => format!("conntrack in {name} lost {said} packets: {why}"),
    };
    let mut draft = Draft::new(facts, "conntrack_insert_failed", severity, why, title)
        .at(namespace)
        .explains(lost.min(conntrack_full::hook_drops(facts)), &conntrack_full::hook_rows(facts))
        .counted(
            "insert_failed",
            namespace.conntrack_delta(ConntrackCounter::InsertFailed),
            "ctnetlink",
        )
        .counted("drop", namespace.conntrack_delta(ConntrackCounter::Drop), "ctnetlink")
        .counted(
            "clash_resolve",
            namespace.conntrack_delta(ConntrackCounter::ClashResolve),
            "ctnetlink",
        )
        .state("entries", now.entries, "ctnetlink");
    if let Some(limit) = now.limit {
        draft = draft.state("nf_conntrack_max", limit, "ctnetlink");
    }
    if let Allowed::Ports(ports) = &allowed {
        draft = ports.shown(draft);
    }
    match cause {
        Cause::LongChain => {
            let buckets = now.buckets.unwrap_or(now.entries).max(now.entries);
            draft = draft.counted("chaintoolong", long, "ctnetlink").set(
                "net.netfilter.nf_conntrack_buckets",
                buckets.saturating_mul(2).min(1 << 30).next_power_of_two(),
                "",
            );
        }
        Cause::NoFreePort(_) => {
            if let Allowed::Ports(ports) = &allowed {
                draft = ports.widened(facts, draft);
            }
            draft = match &allowed {
                // What iptables saves has no rule that nft made.
                Allowed::Ports(ports) if ports.are_of_nft() => draft.run(NFT_RULES, RANGE),
                _ => {
                    let families = netfilter::families(&rows);
                    show_rules(draft, facts, namespace.netns(), &families, RANGE)
                }
            };
        }
        Cause::Collision => {
            let note = "insert_failed and clash_resolve by CPU; a sender that waits for the first answer \
                        before it asks again ends it (DNS: options single-request in resolv.conf)";
            draft = draft.run("conntrack -S", note);
        }
        Cause::Unknown => {}
    }
    Ok(Some(draft.done()))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        conntrack::ConntrackStats,
        evidence::{RulePrograms, TableFamily},
        flow::Flow,
        question::{Answer, Does, NatPorts, PortsInUse, Question, RulePlace, RuleTarget, Sought},
    };

    fn table(entries: u64, counted: &[(ConntrackCounter, u32)]) -> ConntrackStats {
        let mut stats = ConntrackStats { entries, limit: Some(1000), ..ConntrackStats::default() };
        for counter in
            [ConntrackCounter::Drop, ConntrackCounter::InsertFailed, ConntrackCounter::ChainTooLong]
        {
            stats.counters.add(counter, 0);
        }
        counted.iter().for_each(|(counter, count)| stats.counters.add(*counter, *count));
        stats
    }

    fn found(entries: u64, counted: &[(ConntrackCounter, u32)]) -> Vec<Finding> {
        let (before, now) = (table(entries, &[]), table(entries, counted));
        TestHost::new().row(9, "nf_hook_slow", "NETFILTER_DROP").conntrack(before, now).run(&RULE)
    }

    #[test]
    fn collisions_in_a_table_with_room() {
        let found = found(10, &[(ConntrackCounter::InsertFailed, 5), (ConntrackCounter::Drop, 5)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(5), "one packet, counted twice");
    }

    #[test]
    fn a_full_table_has_a_finding_of_its_own() {
        assert_eq!(found(1000, &[(ConntrackCounter::Drop, 5)]), []);
    }

    #[test]
    fn chains_that_are_too_long_need_buckets() {
        let found =
            found(900, &[(ConntrackCounter::InsertFailed, 5), (ConntrackCounter::ChainTooLong, 5)]);
        assert_eq!(found[0].severity, Severity::Critical);
        assert_eq!(
            found[0].actions[0].command,
            "sysctl -w net.netfilter.nf_conntrack_buckets=2048"
        );
    }

    /// Packets of a protocol to one port, each lost after POSTROUTING.
    fn lost_of(protocol: &'static str, port: u16) -> Finding {
        lost_from(None, protocol, port)
    }

    /// The same, from a port if it is sampled; the host does not answer.
    fn lost_from(from: Option<u16>, protocol: &'static str, port: u16) -> Finding {
        let flow = Flow {
            protocol: Some(protocol.into()),
            src: from.map(|_| [198, 18, 2, 1].into()),
            src_port: from,
            dst: Some([203, 0, 113, 9].into()),
            dst_port: Some(port),
            ..Flow::default()
        };
        let counted = [(ConntrackCounter::InsertFailed, 60), (ConntrackCounter::Drop, 60)];
        let found = TestHost::new()
            .row(60, "nf_hook_slow", "NETFILTER_DROP")
            .callers(&["ip_output", "ip_forward"])
            .flow(flow)
            .conntrack(table(10, &[]), table(70, &counted))
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        finding.clone()
    }

    #[test]
    fn segments_that_collide_after_nat_found_no_free_port() {
        let finding = lost_of("tcp", 80);
        assert_eq!(
            finding.title,
            "NAT in gw found no free port for 60 packets of new connections to 203.0.113.9:80"
        );
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.actions[0].command, "ip netns exec gw iptables-save -c");
        assert!(finding.actions[0].note.contains("--to-ports"), "{finding:?}");
    }

    /// Which of the two it was, the host alone could say.
    #[test]
    fn datagrams_are_lost_in_either_way_where_the_host_does_not_answer() {
        let finding = lost_from(Some(40_002), "udp", 53);
        assert!(finding.title.ends_with("another's, or NAT found no free port"), "{finding:?}");
        assert_eq!((finding.severity, finding.actions), (Severity::Warning, Vec::new()));
        assert_eq!(lost_from(Some(40_002), "tcp", 80).severity, Severity::Critical);
    }

    #[test]
    fn a_command_names_only_what_samples_show() {
        let dns = lost_of("udp", 53);
        assert!(dns.title.ends_with("its entry collided with another's"), "{}", dns.title);
        assert_eq!(dns.actions[0].command, "ip netns exec gw conntrack -S");
        let unsampled = found(10, &[(ConntrackCounter::InsertFailed, 5)]);
        assert!(unsampled[0].title.ends_with("or NAT found no free port"), "{unsampled:?}");
        assert_eq!(unsampled[0].actions, []);
    }

    #[test]
    fn resolved_collisions_lose_nothing() {
        assert_eq!(found(10, &[(ConntrackCounter::ClashResolve, 100)]), []);
    }

    /// Packets that NAT gave a port of ours, of which so many are taken, by a rule that allows these.
    fn translated(protocol: &'static str, ports: Option<(u16, u16)>, taken: u32) -> Finding {
        let flow = Flow {
            protocol: Some(protocol.into()),
            src: Some([198, 18, 2, 1].into()),
            src_port: Some(40_002),
            dst: Some([203, 0, 113, 9].into()),
            dst_port: Some(53),
            ..Flow::default()
        };
        let rule = RulePlace::Legacy {
            family: TableFamily::Ipv4,
            table: "nat".into(),
            chain: "POSTROUTING".into(),
            position: 1,
        };
        let does = Does::SourceNat { ports };
        let (first, last) = ports.unwrap_or((1024, u16::MAX));
        let number = if protocol == "tcp" { 6 } else { 17 };
        let server = "203.0.113.9:53".parse().unwrap();
        let address = [198, 18, 2, 1].into();
        let asked = NatPorts { protocol: number, server, address, first, last };
        let probed = u32::from(last - first).min(255) + 1;
        let counted = [(ConntrackCounter::InsertFailed, 60), (ConntrackCounter::Drop, 60)];
        let mut host = TestHost::new()
            .row(60, "nf_hook_slow", "NETFILTER_DROP")
            .callers(&["ip_output", "ip_forward"])
            .flow(flow)
            .conntrack(table(10, &[]), table(70, &counted))
            .answer(
                Question::Targets(Sought::SourceNat),
                Answer::Targets(vec![RuleTarget { does, rule }]),
            )
            .answer(Question::PortsInUse(asked), Answer::PortsInUse(PortsInUse { probed, taken }));
        host.now.rule_programs = RulePrograms {
            legacy: [(TableFamily::Ipv4, "iptables-legacy-save -c".to_owned())].into(),
            ..RulePrograms::default()
        };
        let found = host.run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        finding.clone()
    }

    #[test]
    fn ports_that_are_all_taken_are_too_few_whatever_the_protocol() {
        let finding = translated("udp", Some((40_000, 40_004)), 5);
        assert_eq!(
            finding.title,
            "NAT in gw found no free port for 60 packets of new connections to 203.0.113.9:53"
        );
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw sh -c \"iptables-legacy-save -c -t nat | sed -E -e '/-j MASQUERADE/s/--to-ports \
             40000-40004( |$)/--to-ports 1024-65535\\1/' -e '/-j SNAT/s/(--to-source [^ \
             ]*):40000-40004( |$)/\\1:1024-65535\\2/' | iptables-legacy-restore -c -T nat\""
        );
        let any = translated("tcp", None, 250);
        assert_eq!(any.severity, Severity::Critical);
        assert_eq!(any.actions, [], "it has all of them");
    }

    #[test]
    fn ports_that_are_free_are_not_missing() {
        let finding = translated("udp", Some((40_000, 40_004)), 3);
        assert!(finding.title.ends_with("its entry collided with another's"), "{}", finding.title);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.actions[0].command, "ip netns exec gw conntrack -S");
        assert_eq!(translated("tcp", None, 100).severity, Severity::Warning);
    }
}
