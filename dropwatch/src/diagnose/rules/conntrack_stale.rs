//! A connection that is tracked is sent to where no rule sends connections any more.
//!
//! Rules of NAT are looked at by the first packet of a connection alone; later ones go where its entry says
//! (`nf_nat_packet`, net/netfilter/nf_nat_core.c), and each keeps the entry alive. So where a pod has gone
//! and another has taken its place, a client of UDP that goes on sending from the same port reaches nobody:
//! its packets die on the way to an address that nobody has.
//!
//! That there is such an entry, and that no rule translates to that address, the host is asked.

use std::ptr;

use super::{Draft, Facts, Makes, Rule, Verdict, elsewhere, elsewhere::Tracked, matters};
use crate::{
    diagnose::facts::Rows,
    report::{
        finding::{Finding, Severity},
        flow::{Flow, number_above_ip},
        model::Location,
        object::Object,
        protocol::transport,
        question::{Ask, Sought, Tuple},
    },
};

/// How packets die whose next hop, route or station is not there: reasons, and functions of kernels that
/// give none.
const GONE: [(&str, &[&str]); 6] = [
    ("OTHERHOST", &["ip_rcv_core", "ip6_rcv_core"]),
    ("NEIGH_FAILED", &["arp_error_report", "ndisc_error_report", "neigh_invalidate"]),
    ("NEIGH_QUEUEFULL", &["__neigh_event_send"]),
    ("IP_INNOROUTES", &["ip_error"]),
    ("IP_INADDRERRORS", &["ip_error"]),
    ("IP_OUTNOROUTES", &["__ip_queue_xmit"]),
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "conntrack_stale",
        severity: "warning",
        says: "connections are sent to where no rule sends them any more",
        rests_on: "drops without a next hop, a route or a station; the entry of conntrack that sends them \
                   there; rules that do not",
    }],
    across: true,
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let rows = GONE.iter().flat_map(|(reason, functions)| facts.rows_for(reason, functions).0);
    let mut each: Vec<&Location> = Vec::new();
    for row in rows.filter(|row| matters(row.count, facts)) {
        // Where a kernel gives no reasons, a function may stand for several.
        if !each.iter().any(|known| ptr::eq(*known, row)) {
            each.push(row);
        }
    }
    let rows = Rows(each);
    elsewhere::look(
        facts,
        &rows,
        |_| true,
        Tuple::turned,
        |connection| (connection.original.to, connection.reply.from),
        |tracked| stale(facts, &rows, tracked),
    )
}

fn stale(
    facts: &Facts<'_>,
    rows: &Rows<'_>,
    tracked: &Tracked<'_>,
) -> Result<Option<Finding>, Ask> {
    let Tracked { tracker, connection } = tracked;
    let (asked, place) = (connection.original.to, connection.reply.from);
    let Some(netns) = tracker.netns().filter(|_| connection.is_sent_elsewhere()) else {
        return Ok(None);
    };
    let drops = rows.count_of(|flow| is_for(flow, connection.reply));
    if !matters(drops, facts) {
        return Ok(None);
    }
    // Where a rule sends them there still, the entry is right, and the next would be the same.
    match facts.targets(netns.number(), Sought::To(place.ip()))? {
        Ok(targets) if targets.is_empty() => {}
        _ => return Ok(None),
    }
    let (name, protocol) = (tracker.name(), transport(connection.reply.protocol));
    let title = format!(
        "conntrack in {name} still sends {protocol} for {asked} to {place}, where no rule sends it any \
         more: {drops} packets dropped"
    );
    let draft = Draft::new(facts, "conntrack_stale", Severity::Warning, place.to_string(), title)
        .at(*tracker)
        .explains(drops, rows)
        .names(Object::connection(connection))
        .counted("drops on the way", drops, "kfree_skb")
        .state("rules that send to it", 0_u64, "packet filter");
    let family = if asked.is_ipv6() { "-f ipv6 " } else { "" };
    let those = format!(
        "{family}-p {protocol} --orig-dst {} --orig-port-dst {} --reply-src {} --reply-port-src {}",
        asked.ip(),
        asked.port(),
        place.ip(),
        place.port()
    );
    let draft = draft.run(
        &format!("conntrack -D {those}"),
        "removes these entries and no others: the next packet of each is looked up in the rules anew",
    );
    Ok(Some(draft.done()))
}

/// Whether a flow goes to where a connection's answers come from.
fn is_for(flow: &Flow, reply: Tuple) -> bool {
    flow.dst == Some(reply.from.ip())
        && flow.dst_port == Some(reply.from.port())
        && number_above_ip(flow) == Some(reply.protocol)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        conntrack::ConntrackStats,
        evidence::TableFamily,
        question::{Answer, Connection, Does, Question, RulePlace, RuleTarget},
    };

    const GONE_PLACE: &str = "10.104.1.11:6858";

    fn tuple(from: &str, to: &str) -> Tuple {
        Tuple { protocol: 17, from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn to(place: &str, port: u16) -> Flow {
        let to: std::net::SocketAddr = place.parse().unwrap();
        Flow {
            protocol: Some("udp".into()),
            src: Some([10, 104, 0, 2].into()),
            src_port: Some(port),
            dst: Some(to.ip()),
            dst_port: Some(to.port()),
            ..Flow::default()
        }
    }

    fn dropped(reason: &str, function: &str, flows: &[Flow]) -> TestHost {
        let stats = ConntrackStats { entries: 1, ..ConntrackStats::default() };
        TestHost::new().row(100, function, reason).flows(flows).conntrack(stats, stats)
    }

    fn entry(asked: &str) -> (Question, Answer) {
        let reply = tuple(GONE_PLACE, "10.104.0.2:5555");
        let original = tuple("10.104.0.2:5555", asked);
        let connection = Some(Connection { original, reply });
        (Question::Connection(reply), Answer::Connection(connection))
    }

    fn rules(targets: Vec<RuleTarget>) -> (Question, Answer) {
        let sought = Sought::To([10, 104, 1, 11].into());
        (Question::Targets(sought), Answer::Targets(targets))
    }

    fn found(host: TestHost, answers: Vec<(Question, Answer)>) -> Vec<Finding> {
        let host = answers.into_iter().fold(host, |host, (asked, said)| host.answer(asked, said));
        host.run(&RULE)
    }

    fn stale() -> TestHost {
        dropped("NEIGH_FAILED", "neigh_invalidate", &[to(GONE_PLACE, 5555)])
    }

    #[test]
    fn an_entry_that_no_rule_would_make_any_more_is_removed() {
        let of = |host| found(host, vec![entry("10.96.0.4:6858"), rules(Vec::new())]);
        let findings = of(stale());
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(
            finding.title,
            "conntrack in gw still sends udp for 10.96.0.4:6858 to 10.104.1.11:6858, where no rule \
             sends it any more: 100 packets dropped"
        );
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw conntrack -D -p udp --orig-dst 10.96.0.4 --orig-port-dst 6858 \
             --reply-src 10.104.1.11 --reply-port-src 6858"
        );
        let flooded = dropped("OTHERHOST", "ip_rcv_core", &[to(GONE_PLACE, 5555)]);
        assert_eq!(of(flooded).len(), 1);
    }

    #[test]
    fn what_rules_still_do_is_not_stale() {
        let rule = RulePlace::Legacy {
            family: TableFamily::Ipv4,
            table: "nat".into(),
            chain: "PREROUTING".into(),
            position: 1,
        };
        let target = RuleTarget { does: Does::Destination, rule };
        assert_eq!(found(stale(), vec![entry("10.96.0.4:6858"), rules(vec![target])]), []);
        assert_eq!(found(stale(), vec![entry("10.96.0.4:6858")]), [], "not answered, not guessed");
    }

    #[test]
    fn a_host_that_is_down_without_translation_is_no_entrys_doing() {
        let direct = entry(GONE_PLACE);
        assert_eq!(found(stale(), vec![direct, rules(Vec::new())]), []);
        let reply = tuple(GONE_PLACE, "10.104.0.2:5555");
        let none = (Question::Connection(reply), Answer::Connection(None));
        assert_eq!(found(stale(), vec![none, rules(Vec::new())]), []);
    }

    #[test]
    fn other_packets_of_the_row_are_not_its() {
        let flows = [to(GONE_PLACE, 5555), to("10.104.1.99:53", 1)];
        let host = dropped("OTHERHOST", "ip_rcv_core", &flows);
        let findings = found(host, vec![entry("10.96.0.4:6858"), rules(Vec::new())]);
        assert_eq!(findings[0].explains.map(|it| it.drops), Some(50));
    }
}
