//! UDP sockets lose datagrams because their receive buffer is full.
//!
//! What waits for the reader is charged to its socket; a datagram that does not fit is freed and
//! counted as `RcvbufErrors` (`__udp_enqueue_schedule_skb` and `__udp_queue_rcv_skb`,
//! net/ipv4/udp.c; for IPv6 in net/ipv6/udp.c). The reader is too slow, or pauses for longer than
//! the buffer lasts. Nobody sends it again.

use super::{Draft, Facts, Makes, Proof, Rule, Verdict};
use crate::{
    diagnose::{facts::NetnsFacts, named::Local},
    report::{
        finding::{Finding, Severity},
        object::Object,
        question::{Ask, SocketPort, Transport},
    },
};

const DEFAULT: &str = "net.core.rmem_default";
const MOST: &str = "net.core.rmem_max";

/// Where both families free what a socket has no room for; compilers inline the inner ones.
pub(super) const FUNCTIONS: &[&str] = &[
    "udp_queue_rcv_one_skb",
    "udpv6_queue_rcv_one_skb",
    "__udp_queue_rcv_skb",
    "__udpv6_queue_rcv_skb",
    "__udp_enqueue_schedule_skb",
];

/// What kernels start with (`SK_RMEM_MAX`, include/net/sock.h).
const LEAST: u64 = 212_992;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "udp_receive_buffer",
        severity: "critical",
        says: "a UDP socket is read too slowly",
        rests_on: "`RcvbufErrors`",
    }],
    counters: &["Udp.RcvbufErrors", "Udp6.RcvbufErrors"],
    proofs: &[Proof::of(&["Udp.RcvbufErrors", "Udp6.RcvbufErrors"], "SOCKET_RCVBUFF", FUNCTIONS)],
    host_settings: &["net.core.rmem_max", "net.core.rmem_default"],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    facts.namespaces().filter_map(|namespace| Verdict::of(full(facts, namespace))).collect()
}

/// The buffers of the sockets with this port that have lost most of what was `lost`, the smallest first; none
/// where that is not known, as of one that is closed by now.
fn buffers(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    port: u16,
    lost: u64,
) -> Result<Vec<u64>, Ask> {
    let Some(netns) = namespace.netns() else { return Ok(Vec::new()) };
    let port = SocketPort { transport: Transport::Udp, port };
    let sockets = facts.sockets(netns.number(), port)?.unwrap_or_default();
    let losers = sockets.iter().filter_map(|socket| socket.buffer).filter(|it| it.lost > 0);
    let theirs: u64 = losers.clone().map(|it| u64::from(it.lost)).sum();
    if theirs < lost.div_ceil(2) {
        return Ok(Vec::new());
    }
    let mut buffers: Vec<u64> = losers.map(|it| it.bytes.into()).collect();
    buffers.sort_unstable();
    Ok(buffers)
}

fn full(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Option<Finding>, Ask> {
    let (ipv4, ipv6) = (namespace.delta("Udp.RcvbufErrors"), namespace.delta("Udp6.RcvbufErrors"));
    let lost = ipv4 + ipv6;
    if lost == 0 {
        return Ok(None);
    }
    let rows = facts.rows_or_unspecified(&["SOCKET_RCVBUFF"], FUNCTIONS);
    let here = rows.within(namespace);
    let port = here.port().map(|port| format!(" of port {port}")).unwrap_or_default();
    let title = format!(
        "UDP receive buffer{port} full in {}: {} datagrams lost",
        namespace.name(),
        facts.selected(lost, &here)
    );
    let mut draft = Draft::new(
        facts,
        "udp_receive_buffer",
        Severity::Critical,
        port.trim_start_matches(" of "),
        title,
    )
    .at(namespace)
    .explains(lost.min(rows.count()), &rows)
    .counted_too("Udp.RcvbufErrors", ipv4, "snmp")
    .counted_too("Udp6.RcvbufErrors", ipv6, "snmp6");
    if here.port().is_some() || here.owner().is_some() {
        draft = draft.names(Object::socket("udp", Local::port(here.port()), here.owner()));
    }
    if let Some(owner) = here.owner() {
        draft = draft.state("reader", format!("{} ({})", owner.comm, owner.pid), "samples");
    }
    let buffers = match here.port() {
        Some(port) => buffers(facts, namespace, port, lost)?,
        None => Vec::new(),
    };
    if let Some(smallest) = buffers.first() {
        draft = draft.state("receive buffer", *smallest, "sock_diag");
    }
    draft = draft.setting(DEFAULT).setting(MOST);
    let number = |name| facts.setting(name).and_then(|value| value.parse::<u64>().ok());
    let by_default = |buffer: &u64| number(DEFAULT) == Some(*buffer);
    // What a program asks for is doubled, and no more than the most is doubled (`__sock_set_rcvbuf`,
    // net/core/sock.c).
    let at_most = |buffer: &u64| number(MOST).map(|most| most.saturating_mul(2)) == Some(*buffer);
    let of_port = here.port().map(|port| format!(" sport = :{port}")).unwrap_or_default();
    let look = format!("ss -uamn{of_port}");
    const OWN: &str = "the program sets the size of its buffer itself (SO_RCVBUF, `rb` is twice that): have \
                       it ask for more, or read faster";
    draft = match &buffers[..] {
        [] => draft
            .run(&look, "`rb`: the buffer of each socket; d: what it has lost")
            .double(DEFAULT, LEAST, "where `rb` is as much: for sockets opened from now on")
            .double(MOST, LEAST, "where `rb` is twice as much, and the program asks for more"),
        all if all.iter().all(by_default) => {
            draft.double(DEFAULT, LEAST, "for sockets opened from now on: start the program again")
        }
        all if all.iter().all(at_most) => {
            let why = "the program has set its buffer to the most: have it ask for more, too, or read faster";
            draft.run(&look, "`rb`: the buffer of each socket").double(MOST, LEAST, why)
        }
        all if !all.iter().any(by_default) && !all.iter().any(at_most) => draft.run(&look, OWN),
        _ => draft.run(
            &look,
            "several sockets have the port: `rb` is the buffer of each, d what it has lost",
        ),
    };
    Ok(Some(draft.done()))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::facts::Netns;
    use crate::report::{
        facts::Owner,
        flow::Flow,
        question::{Answer, Question, ReceiveBuffer, Socket},
    };

    fn host(drops: u64, function: &str, reason: &str) -> TestHost {
        TestHost::new()
            .row(drops, function, reason)
            .flow(Flow { dst_port: Some(53), ..Flow::default() })
            .owner(Owner { comm: "dnsmasq".into(), pid: 812, cgroup: None })
            .host_setting("net.core.rmem_default", "212992")
            .host_setting("net.core.rmem_max", "4194304")
    }

    #[test]
    fn the_socket_and_its_reader_are_named() {
        let host = host(50, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF");
        let found = host.counted("Udp.RcvbufErrors", 50).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.title, "UDP receive buffer of port 53 full in gw: 50 datagrams lost");
        assert_eq!(finding.explains.map(|e| e.drops), Some(50));
        assert!(
            finding
                .evidence
                .iter()
                .any(|e| e.name == "reader" && e.value == "dnsmasq (812)".into())
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw ss -uamn sport = :53",
                "sysctl -w net.core.rmem_default=425984",
                "sysctl -w net.core.rmem_max=8388608"
            ],
            "one value for the host, whatever the namespace"
        );
    }

    #[test]
    fn what_a_program_sets_itself_no_setting_changes() {
        let advised_of = |buffers: &[u32], lost| {
            let socket = |bytes: &u32| Socket {
                local: ([0; 4], 53).into(),
                peer: None,
                queued: 0,
                buffer: Some(ReceiveBuffer { bytes: *bytes, lost }),
                owner: None,
            };
            let answer = Answer::Sockets(buffers.iter().map(socket).collect());
            let asked = SocketPort { transport: Transport::Udp, port: 53 };
            let host = host(50, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF");
            let host = host.answer(Question::Sockets(asked), answer);
            let found = host.counted("Udp.RcvbufErrors", 50).run(&RULE);
            let commands = found[0].actions.iter().map(|it| it.command.clone());
            commands.map(|it| it.replace("ip netns exec gw ", "")).collect::<Vec<_>>()
        };
        let advised = |buffers: &[u32]| advised_of(buffers, 50);
        let (look, default) = ("ss -uamn sport = :53", "sysctl -w net.core.rmem_default=425984");
        assert_eq!(advised(&[8192]), [look]);
        assert_eq!(advised(&[8192, 212_992]), [look], "which of them is not known");
        assert_eq!(advised(&[212_992]), [default]);
        assert_eq!(advised_of(&[8192], 0).len(), 3, "the one that lost them has ended");
        assert_eq!(advised(&[8_388_608]), [look, "sysctl -w net.core.rmem_max=8388608"]);
    }

    #[test]
    fn with_filters_a_title_counts_what_they_let_through() {
        let host = host(8, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF").filtered();
        let found = host.counted("Udp.RcvbufErrors", 50).run(&RULE);
        assert_eq!(found[0].title, "UDP receive buffer of port 53 full in gw: 8 datagrams lost");
        assert_eq!(found[0].explains.map(|e| e.drops), Some(8));
    }

    #[test]
    fn kernels_without_reasons_are_taken_by_the_function() {
        let found =
            host(50, "udpv6_queue_rcv_one_skb", "").counted("Udp6.RcvbufErrors", 9).run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(9), "no more than was counted");
    }

    #[test]
    fn drops_that_the_namespace_has_not_counted_are_another_socket_s() {
        assert_eq!(host(50, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF").run(&RULE), []);
        let raw = host(50, "raw_rcv", "SOCKET_RCVBUFF").counted("Udp.RcvbufErrors", 0);
        assert_eq!(raw.run(&RULE), []);
    }

    #[test]
    fn one_datagram_is_a_loss() {
        let found = TestHost::new().counted("Udp.RcvbufErrors", 1).run(&RULE);
        assert_eq!(found[0].title, "UDP receive buffer full in gw: 1 datagrams lost");
        assert_eq!(found[0].explains.map(|e| e.drops), Some(0), "filters left the drop out");
        assert_eq!(found[0].actions.len(), 1, "of settings the live values are not known");
    }

    #[test]
    fn drops_of_an_ended_namespace_are_those_that_no_counter_of_another_claims() {
        let host = TestHost::new()
            .row(100, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF")
            .details(|it| it.netns.as_mut().unwrap().is = Netns::new(None, 9))
            .counted("Udp.RcvbufErrors", 30);
        let found = host.run(&RULE);
        let titles: Vec<&str> = found.iter().map(|finding| finding.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "UDP receive buffer full in gw: 30 datagrams lost",
                "UDP receive buffer full in netns 9: 70 datagrams lost",
            ]
        );
        assert_eq!(found[1].explains.unwrap().drops, 70);
        let all = TestHost::new()
            .row(100, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF")
            .details(|it| it.netns.as_mut().unwrap().is = Netns::new(None, 9))
            .counted("Udp.RcvbufErrors", 100);
        assert_eq!(all.run(&RULE).len(), 1, "all are another's");
    }
}
