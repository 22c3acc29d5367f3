//! Answers pass address translation untranslated, since connection tracking takes them for invalid.
//!
//! A segment that is outside of the window of its connection is `invalid` to connection tracking
//! (`tcp_in_window`, net/netfilter/nf_conntrack_proto_tcp.c). Such packets are in no connection, so NAT does
//! not touch them, and unless a rule drops them they are forwarded as they are. The client gets them from an
//! address that it never spoke to, and answers with a reset, which ends the connection for the server.
//!
//! The client drops them for want of a socket. That a connection is tracked whose answers look just so and
//! are to be translated, the host is asked; that they were not is seen.

use super::{Draft, Facts, Makes, Rule, Verdict, elsewhere, elsewhere::Tracked, matters};
use crate::{
    diagnose::facts::Rows,
    report::{
        conntrack::ConntrackCounter,
        evidence::TableFamily,
        finding::{Finding, Severity},
        flow::Flow,
        object::Object,
        protocol::number::TCP,
        question::{Ask, RulePlace, Sought, Tuple},
    },
};

const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// Where segments without a socket are freed.
const FUNCTIONS: &[&str] = &["tcp_v4_rcv", "tcp_v6_rcv"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "conntrack_invalid",
        severity: "warning",
        says: "answers that conntrack takes for invalid are not translated back",
        rests_on: "`invalid` of conntrack; segments without a socket that are the untranslated answers of a \
                   tracked connection",
    }],
    settings: &[LIBERAL],
    across: true,
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let mut rows = facts.rows(&["NO_SOCKET"], FUNCTIONS);
    rows.0.retain(|row| matters(row.count, facts));
    elsewhere::look(
        facts,
        &rows,
        |tracker| tracker.conntrack_delta(ConntrackCounter::Invalid) > 0,
        |packet| packet,
        |connection| connection.reply.from,
        |tracked| untranslated(facts, &rows, tracked),
    )
}

fn untranslated(
    facts: &Facts<'_>,
    rows: &Rows<'_>,
    tracked: &Tracked<'_>,
) -> Result<Option<Finding>, Ask> {
    let Tracked { tracker, connection } = tracked;
    let server = connection.reply.from;
    let is_translated = connection.reply != connection.original.turned();
    let Some(netns) = tracker.netns().filter(|_| is_translated) else { return Ok(None) };
    let drops = rows.count_of(|flow| is_from(flow, connection.reply));
    let invalid = tracker.conntrack_delta(ConntrackCounter::Invalid);
    // Answers that take another way than through this namespace are not invalid to it.
    if !matters(drops, facts) || invalid < drops {
        return Ok(None);
    }
    let rules = facts.targets(netns.number(), Sought::To(server.ip()))?.unwrap_or_default();
    let name = tracker.name();
    let title = format!(
        "conntrack in {name} takes answers of {server} for invalid, so they pass untranslated: {drops} \
         packets refused, each with a reset"
    );
    let draft =
        Draft::new(facts, "conntrack_invalid", Severity::Warning, server.to_string(), title)
            .at(*tracker)
            .explains(drops, rows)
            .names(Object::connection(connection))
            .counted("invalid", invalid, "ctnetlink")
            .counted("NO_SOCKET", rows.count(), "kfree_skb")
            .state("connection", format!("{}", connection.original.to), "ctnetlink")
            .setting(LIBERAL)
            .set(LIBERAL, 1, "segments outside of the window are then translated all the same");
    let note = "the other way: they are lost, and sent again; before rules that accept them";
    let programs = facts.rule_programs();
    let saves = |family, is_legacy| match is_legacy {
        true => programs.legacy.get(&family),
        false => programs.nft.get(&family),
    };
    let save = rules.iter().find_map(|target| match &target.rule {
        RulePlace::Legacy { family, .. } => saves(*family, true),
        RulePlace::Nft { by_iptables: true, family: "ip6", .. } => saves(TableFamily::Ipv6, false),
        RulePlace::Nft { by_iptables: true, .. } => saves(TableFamily::Ipv4, false),
        RulePlace::Nft { .. } => None,
    });
    let program = save.and_then(|save| save.split(' ').next()?.strip_suffix("-save"));
    let draft = match program {
        Some(program) => {
            draft.run(&format!("{program} -I FORWARD -m conntrack --ctstate INVALID -j DROP"), note)
        }
        None => draft,
    };
    Ok(Some(draft.done()))
}

/// Whether a flow is an answer of a connection's server, as it was sent.
fn is_from(flow: &Flow, reply: Tuple) -> bool {
    Tuple::of(flow).is_some_and(|tuple| tuple.protocol == TCP && tuple.from == reply.from)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        conntrack::ConntrackStats,
        evidence::RulePrograms,
        question::{Answer, Connection, Does, Question, RuleTarget},
    };

    fn tuple(from: &str, to: &str) -> Tuple {
        Tuple { protocol: 6, from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn stats(invalid: u32) -> ConntrackStats {
        let mut stats = ConntrackStats { entries: 1, ..ConntrackStats::default() };
        stats.counters.add(ConntrackCounter::Invalid, invalid);
        stats
    }

    fn refused(invalid: u32) -> TestHost {
        let flow = Flow {
            protocol: Some("tcp".into()),
            src: Some([10, 103, 1, 2].into()),
            src_port: Some(8080),
            dst: Some([10, 103, 0, 2].into()),
            dst_port: Some(47_450),
            kind: Some("PSH ACK".into()),
            ..Flow::default()
        };
        let mut host = TestHost::new()
            .row(20, "tcp_v4_rcv", "NO_SOCKET")
            .flow(flow)
            .conntrack(stats(7), stats(7 + invalid));
        host.now.rule_programs = RulePrograms {
            legacy: [(TableFamily::Ipv4, "iptables-legacy-save -c".to_owned())].into(),
            ..RulePrograms::default()
        };
        host
    }

    fn entry(asked: &str) -> (Question, Answer) {
        let reply = tuple("10.103.1.2:8080", "10.103.0.2:47450");
        let original = tuple("10.103.0.2:47450", asked);
        let connection = Some(Connection { original, reply });
        (Question::Connection(reply), Answer::Connection(connection))
    }

    fn found(host: TestHost, asked: &str) -> Vec<Finding> {
        let rule = RulePlace::Legacy {
            family: TableFamily::Ipv4,
            table: "nat".into(),
            chain: "PREROUTING".into(),
            position: 1,
        };
        let targets = Answer::Targets(vec![RuleTarget { does: Does::Destination, rule }]);
        let (question, answer) = entry(asked);
        host.answer(question, answer)
            .answer(Question::Targets(Sought::To([10, 103, 1, 2].into())), targets)
            .run(&RULE)
    }

    #[test]
    fn answers_that_came_untranslated_and_invalid_were_not_translated() {
        let found = found(refused(40), "10.96.0.3:80");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "conntrack in gw takes answers of 10.103.1.2:8080 for invalid, so they pass \
             untranslated: 20 packets refused, each with a reset"
        );
        let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1",
                "ip netns exec gw iptables-legacy -I FORWARD -m conntrack --ctstate INVALID -j DROP"
            ]
        );
    }

    #[test]
    fn answers_that_took_another_way_are_not_invalid_here() {
        assert_eq!(found(refused(19), "10.96.0.3:80"), []);
        assert_eq!(found(refused(0), "10.96.0.3:80"), []);
    }

    #[test]
    fn late_segments_of_a_connection_that_nobody_translates_are_usual() {
        assert_eq!(found(refused(40), "10.103.1.2:8080"), []);
        assert_eq!(refused(40).run(&RULE), [], "not tracked");
    }
}
