//! Packets for ports where nobody listens.
//!
//! UDP counts them as `NoPorts` and answers with ICMP (`__udp4_lib_rcv`, net/ipv4/udp.c;
//! net/ipv6/udp.c; `udp_rcv` on newer kernels). TCP answers with a reset (`tcp_v4_rcv`,
//! net/ipv4/tcp_ipv4.c) and has no counter but that of resets. There, late segments of closed
//! connections die in the same place on every healthy host, so only rows count of which samples say
//! that they are connection attempts.
//!
//! One port that most of it is for is a service that somebody expects: a warning. Many are scans;
//! they and the ports that clients get are answers to programs that have gone: a notice. That takes
//! samples. Where these do not show the ports, it is a warning: what is found must not be less severe
//! because samples were lost.

use std::{net::SocketAddr, ops::RangeInclusive};

use super::{Counts, Draft, Facts, Kept, Makes, Proof, Rule, Verdict, matters};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        named::Local,
    },
    report::{
        facts::Field,
        finding::{Finding, Severity},
        model::Location,
        object::Object,
        question::{Ask, Socket, SocketPort, Transport},
    },
};

const UDP: &[&str] = &["__udp4_lib_rcv", "udp_rcv", "__udp6_lib_rcv", "udpv6_rcv"];
const TCP: &[&str] = &["tcp_v4_rcv", "tcp_v6_rcv"];
/// What kernels give to clients (`ip_local_port_range`).
const CLIENTS: RangeInclusive<u16> = 32_768..=60_999;
/// TCP flags of a connection attempt, without and with explicit congestion notification.
const ATTEMPTS: [&str; 2] = ["SYN", "SYN ECE CWR"];

/// What counts datagrams without a socket.
pub(super) const REFUSALS: &[&str] = &["Udp.NoPorts", "Udp6.NoPorts"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "closed_port",
        severity: "warning, notice where samples show that it is for many ports or a client's",
        says: "nobody listens, or at another address",
        rests_on: "`NoPorts`; for TCP, refused connection attempts and resets; the sockets of the port",
    }],
    counters: &["Tcp.OutRsts", "Udp.NoPorts", "Udp6.NoPorts"],
    proofs: &[Proof::of(REFUSALS, "NO_SOCKET", UDP)],
    counts: &[Counts::of(Kept::Netns(&["Tcp.OutRsts"]), &["NO_SOCKET"], TCP)],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let udp = facts.namespaces().filter_map(|namespace| Verdict::of(udp(facts, namespace)));
    udp.chain(facts.namespaces().filter_map(|namespace| Verdict::of(tcp(facts, namespace))))
        .collect()
}

fn udp(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Option<Finding>, Ask> {
    let (ipv4, ipv6) = (namespace.delta("Udp.NoPorts"), namespace.delta("Udp6.NoPorts"));
    let rows = facts.rows(&["NO_SOCKET"], UDP);
    let refused = ipv4 + ipv6;
    let drops = refused.min(rows.count());
    if !matters(drops, facts) {
        return Ok(None);
    }
    let here = rows.within(namespace);
    let selected = facts.selected(refused, &rows);
    let holders = holders(facts, namespace, Transport::Udp, &here)?;
    let draft = draft(facts, namespace, "UDP", selected, &here, &holders)
        .explains(drops, &rows)
        .counted_too("Udp.NoPorts", ipv4, "snmp")
        .counted_too("Udp6.NoPorts", ipv6, "snmp6");
    Ok(Some(holders.show(draft, "ss -uln", "ss -uanp").done()))
}

fn tcp(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Option<Finding>, Ask> {
    let resets = namespace.delta("Tcp.OutRsts");
    let mut rows = facts.rows(&["NO_SOCKET"], TCP).within(namespace);
    rows.0.retain(|row| attempts(row));
    let drops = resets.min(rows.count());
    if !matters(drops, facts) {
        return Ok(None);
    }
    let holders = holders(facts, namespace, Transport::Tcp, &rows)?;
    let draft = draft(facts, namespace, "TCP", drops, &rows, &holders)
        .explains(drops, &rows)
        .counted("NO_SOCKET", rows.count(), "kfree_skb")
        .counted("Tcp.OutRsts", resets, "snmp");
    Ok(Some(holders.show(draft, "ss -tln", "ss -tlnp").done()))
}

const WHAT_LISTENS: &str = "what listens, at which address: start the service, or stop the sender";

/// Whether most of the sampled packets of a row were to open a connection.
fn attempts(row: &Location) -> bool {
    let flow = row.details.as_ref().and_then(|details| details.flow.as_ref());
    let kind = flow.filter(|flow| !flow.varies(Field::Kind)).and_then(|f| f.flow.kind.as_deref());
    kind.is_some_and(|kind| ATTEMPTS.contains(&kind))
}

/// Asks for sockets that have the port and did not take the packets: bound to another address,
/// connected to somebody else.
fn holders(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    transport: Transport,
    rows: &Rows<'_>,
) -> Result<Holders, Ask> {
    let Some(netns) = namespace.netns() else { return Ok(Holders::Unknown) };
    if let Some(port) = rows.port() {
        return Ok(match facts.sockets(netns.number(), SocketPort { transport, port })? {
            Ok(sockets) => Holders::of(port, sockets, rows),
            Err(_) => Holders::Unknown,
        });
    }
    // Answers to many clients, or to one that takes another port each time.
    let answers = rows.source().zip(rows.source_port()).filter(|_| transport == Transport::Udp);
    let Some((source, from_port)) = answers.filter(|(_, port)| !CLIENTS.contains(port)) else {
        return Ok(Holders::Unknown);
    };
    let (from, refused) = (SocketAddr::new(source, from_port), rows.ports());
    let is_other = |(local, peer): &(SocketAddr, SocketAddr)| {
        peer.port() == from_port && peer.ip() != source && refused.contains(&local.port())
    };
    Ok(match namespace.connected().find(is_other) {
        Some((socket, asked)) => Holders::Asked { from, asked, socket },
        None => Holders::Answers(from),
    })
}

/// Which sockets have to do with packets that none of them took.
enum Holders {
    /// It was not asked, or the host did not answer: that these packets were refused is all that is sure.
    Unknown,
    /// None: the host has said so.
    Nobody,
    /// Each takes something else alone, and nothing of these packets.
    Others(u16, Vec<Socket>),
    /// One that could have taken them: it began later, or it is bound to an interface.
    Open(u16, Socket),
    /// The packets are answers from there, and the client had asked another address.
    Asked { from: SocketAddr, asked: SocketAddr, socket: SocketAddr },
    /// They look like answers from there, whose clients are not known.
    Answers(SocketAddr),
}

impl Holders {
    fn of(port: u16, sockets: Vec<Socket>, rows: &Rows<'_>) -> Self {
        let (to, from, from_port) = (rows.destination(), rows.source(), rows.source_port());
        let is_theirs = |peer: SocketAddr| {
            Some(peer.ip()) == from && from_port.is_none_or(|port| peer.port() == port)
        };
        let is_open = |socket: &Socket| {
            let local = socket.local.ip();
            let of_family = to.is_none_or(|to| local.is_ipv6() || to.is_ipv4());
            let address = local.is_unspecified() && of_family || Some(local) == to;
            address && socket.peer.is_none_or(is_theirs)
        };
        match sockets.iter().find(|socket| is_open(socket)) {
            Some(open) => Self::Open(port, open.clone()),
            None if sockets.is_empty() => Self::Nobody,
            None => Self::Others(port, sockets),
        }
    }

    /// What a title adds to who nobody is.
    fn but(&self) -> Option<String> {
        let Self::Others(_, sockets) = self else { return None };
        let but = |socket: &Socket| {
            let who = who(socket);
            match socket.peer {
                Some(peer) => format!("{who} is connected to {peer} alone"),
                None if socket.local.ip().is_unspecified() => {
                    format!("{who} listens for IPv4 alone")
                }
                None => format!("{who} listens at {} alone", socket.local.ip()),
            }
        };
        let mut buts: Vec<String> = sockets.iter().map(but).collect();
        buts.sort();
        buts.dedup();
        let more = buts.len().saturating_sub(SHOWN);
        buts.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(buts.join(", ") + &more)
    }

    /// Adds what shows the sockets: `all` or, of one port, `one`.
    fn show<'a>(&self, draft: Draft<'a>, all: &str, one: &str) -> Draft<'a> {
        match self {
            Self::Nobody | Self::Unknown => draft.run(all, WHAT_LISTENS),
            Self::Answers(from) => draft.run(
                &format!("{one} dport = :{}", from.port()),
                "who still waits for an answer from that port: these came too late, or from another \
                 address than the client had asked",
            ),
            Self::Others(port, _) => draft.run(
                &format!("{one} sport = :{port}"),
                "the sockets of that port: bind to the address that is asked for, or to all, or have \
                 the sender use theirs",
            ),
            Self::Open(port, _) => draft.run(
                &format!("{one} sport = :{port}"),
                "it began after these packets, is bound to another interface (`%`), or at [::] takes \
                 IPv6 alone",
            ),
            Self::Asked { from, .. } => draft.run(
                &format!("{one} dport = :{}", from.port()),
                "while clients wait: a connected socket takes packets of that one address. The server is \
                 to answer from the address that was asked: bind to each one, or IP_PKTINFO",
            ),
        }
    }
}

/// Most sockets that a title names.
const SHOWN: usize = 3;

fn who(socket: &Socket) -> String {
    socket.owner.as_ref().map_or_else(|| "a socket".to_owned(), |owner| owner.comm.clone())
}

fn draft<'a>(
    facts: &'a Facts<'a>,
    namespace: NetnsFacts<'a>,
    protocol: &str,
    refused: u64,
    rows: &Rows<'a>,
    holders: &Holders,
) -> Draft<'a> {
    let (name, port) = (namespace.name(), rows.port());
    let unknown = if rows.shows_ports() { "" } else { "; which ones is not known" };
    let title = match (port, holders) {
        (Some(port), Holders::Open(_, socket)) => format!(
            "{protocol} port {port} in {name} refused {refused} packets, although {} has it",
            who(socket)
        ),
        (Some(port), Holders::Unknown) => {
            format!("{protocol} port {port} in {name} refused {refused} packets")
        }
        (Some(port), _) => {
            let but = holders.but().map(|but| format!(", but {but}")).unwrap_or_default();
            format!(
                "nobody listens at {protocol} port {port} in {name}{but}: {refused} packets refused"
            )
        }
        (None, Holders::Asked { from, asked, .. }) => format!(
            "{refused} answers from {} port {} refused in {name}, which had asked {}",
            from.ip(),
            from.port(),
            asked.ip()
        ),
        (None, _) => {
            format!("{refused} packets for closed {protocol} ports refused in {name}{unknown}")
        }
    };
    let subject = match port {
        Some(port) => format!("{protocol} port {port}"),
        None => format!("{protocol} ports"),
    };
    let main = rows.main_port();
    let missed = !rows.shows_ports() || main.is_some_and(|port| !CLIENTS.contains(&port));
    let is_known = matches!(holders, Holders::Others(..) | Holders::Asked { .. });
    let severity = if missed || is_known { Severity::Warning } else { Severity::Notice };
    let mut draft = Draft::new(facts, "closed_port", severity, subject, title).at(namespace);
    if let Some(main) = main.filter(|_| port.is_none()) {
        draft = draft.state("most for port", u64::from(main), "samples");
    }
    if let Some(sender) = rows.source() {
        draft = draft.state("sender", sender.to_string(), "samples");
    }
    let sockets: &[Socket] = match holders {
        Holders::Others(_, sockets) => sockets,
        Holders::Open(_, socket) => std::slice::from_ref(socket),
        Holders::Unknown | Holders::Nobody | Holders::Answers(_) | Holders::Asked { .. } => &[],
    };
    if let Holders::Asked { asked, socket, .. } = holders {
        draft = draft
            .state("socket", format!("at {socket} to {asked}"), "/proc/net/udp")
            .names(Object::socket("udp", Local::Whole(*socket), None));
    }
    if let [only] = sockets {
        let (protocol, local) = (protocol.to_lowercase(), Local::Whole(only.local));
        draft = draft.names(Object::socket(&protocol, local, only.owner.as_ref()));
    }
    for socket in sockets.iter().take(SHOWN) {
        let pid = socket.owner.as_ref().map(|it| format!(" (pid {})", it.pid)).unwrap_or_default();
        let peer = socket.peer.map(|peer| format!(" to {peer}")).unwrap_or_default();
        let waiting = match socket.queued {
            0 => String::new(),
            queued => format!(", {queued} in its queue"),
        };
        let text = format!("{}{pid} at {}{peer}{waiting}", who(socket), socket.local);
        draft = draft.state("socket", text, "/proc/net");
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        facts::Owner,
        flow::Flow,
        question::{Answer, Question},
    };

    fn flow(kind: Option<&'static str>, port: Option<u16>) -> Flow {
        let src = Some("192.0.2.7".parse().unwrap());
        Flow { src, dst_port: port, kind: kind.map(Into::into), ..Flow::default() }
    }

    /// Nobody has a socket with the port.
    fn udp(drops: u64, port: Option<u16>) -> TestHost {
        let host = unanswered(drops, port);
        let nobody = Answer::Sockets(Vec::new());
        port.into_iter().fold(host, |host, port| host.answer(asked(port), nobody.clone()))
    }

    fn unanswered(drops: u64, port: Option<u16>) -> TestHost {
        TestHost::new().row(drops, "__udp4_lib_rcv", "NO_SOCKET").flow(flow(None, port))
    }

    fn tcp(drops: u64, kind: &'static str) -> TestHost {
        let question = Question::Sockets(SocketPort { transport: Transport::Tcp, port: 80 });
        let host = TestHost::new().row(drops, "tcp_v4_rcv", "NO_SOCKET");
        host.flow(flow(Some(kind), Some(80))).answer(question, Answer::Sockets(Vec::new()))
    }

    #[test]
    fn without_an_answer_nobody_is_said_to_listen() {
        let found = unanswered(50, Some(53)).counted("Udp.NoPorts", 50).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "UDP port 53 in gw refused 50 packets");
        assert_eq!((finding.severity, &finding.object), (Severity::Warning, &None));
        let tcp = TestHost::new().row(50, "tcp_v4_rcv", "NO_SOCKET");
        let tcp = tcp.flow(flow(Some("SYN"), Some(80))).counted("Tcp.OutRsts", 50);
        assert_eq!(tcp.run(&RULE)[0].title, "TCP port 80 in gw refused 50 packets");
    }

    #[test]
    fn one_port_is_a_service_that_somebody_misses() {
        let found = udp(50, Some(53)).counted("Udp.NoPorts", 50).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "nobody listens at UDP port 53 in gw: 50 packets refused");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.explains.map(|e| e.drops), Some(50));
        assert!(
            finding.evidence.iter().any(|e| e.name == "sender" && e.value == "192.0.2.7".into())
        );
        assert_eq!(finding.actions[0].command, "ip netns exec gw ss -uln");
    }

    #[test]
    fn many_ports_are_worth_a_notice() {
        let ports: Vec<Flow> = (1000..1010).map(|port| flow(None, Some(port))).collect();
        let found = udp(50, None).flows(&ports).counted("Udp.NoPorts", 50).run(&RULE);
        assert_eq!(found[0].title, "50 packets for closed UDP ports refused in gw");
        assert_eq!(found[0].severity, Severity::Notice);
    }

    #[test]
    fn a_port_is_named_if_nearly_all_were_for_it() {
        let to = |port| flow(None, Some(port));
        let udp = || TestHost::new().row(90, "__udp4_lib_rcv", "NO_SOCKET");
        let two = udp().flows(&[to(53), to(53), to(99)]).counted("Udp.NoPorts", 90).run(&RULE);
        assert_eq!(two[0].title, "90 packets for closed UDP ports refused in gw");
        assert_eq!(two[0].severity, Severity::Warning);
        assert!(two[0].evidence.iter().any(|it| it.name == "most for port"), "{two:?}");
    }

    #[test]
    fn late_answers_to_a_client_are_no_missing_service() {
        let severity = |port| udp(50, Some(port)).counted("Udp.NoPorts", 50).run(&RULE)[0].severity;
        assert_eq!(severity(32_767), Severity::Warning);
        assert_eq!(severity(32_768), Severity::Notice);
    }

    #[test]
    fn without_samples_the_counter_still_proves_it_as_severely() {
        for host in [udp(50, Some(53)).unsampled(), udp(50, None)] {
            let found = host.counted("Udp.NoPorts", 50).run(&RULE);
            assert_eq!(
                found[0].title,
                "50 packets for closed UDP ports refused in gw; which ones is not known"
            );
            assert_eq!(
                (found[0].severity, found[0].subject.as_str()),
                (Severity::Warning, "UDP ports")
            );
        }
        assert_eq!(udp(50, Some(53)).run(&RULE), [], "another namespace's");
        assert_eq!(udp(2, Some(53)).counted("Udp.NoPorts", 2).run(&RULE), [], "a few are nothing");
    }

    #[test]
    fn connection_attempts_are_answered_with_resets() {
        let found = tcp(50, "SYN").counted("Tcp.OutRsts", 49).run(&RULE);
        assert_eq!(found[0].title, "nobody listens at TCP port 80 in gw: 49 packets refused");
        assert_eq!(found[0].explains.map(|e| e.drops), Some(49));
        assert_eq!(tcp(50, "SYN").run(&RULE), [], "not one reset");
    }

    #[test]
    fn late_segments_of_closed_connections_are_usual() {
        assert_eq!(tcp(50, "FIN ACK").counted("Tcp.OutRsts", 50).run(&RULE), []);
        assert_eq!(tcp(50, "SYN").unsampled().counted("Tcp.OutRsts", 50).run(&RULE), []);
    }

    fn socket(local: &str, peer: Option<&str>) -> Socket {
        let owner = Some(Owner { comm: "dnsmasq".into(), pid: 812, cgroup: None });
        let (local, peer) = (local.parse().unwrap(), peer.map(|it| it.parse().unwrap()));
        Socket { local, peer, queued: 0, buffer: None, owner }
    }

    fn asked(port: u16) -> Question {
        Question::Sockets(SocketPort { transport: Transport::Udp, port })
    }

    /// What is found of packets for 198.18.2.2, whose port these sockets have.
    fn found(sockets: &[Socket]) -> Finding {
        let to = Some("198.18.2.2".parse().unwrap());
        let host = unanswered(50, Some(53)).flow(Flow { dst: to, ..flow(None, Some(53)) });
        let host = host.counted("Udp.NoPorts", 50);
        let found = host.answer(asked(53), Answer::Sockets(sockets.to_vec())).run(&RULE);
        found.into_iter().next().unwrap()
    }

    #[test]
    fn a_socket_that_is_bound_elsewhere_is_named() {
        let finding = found(&[socket("127.0.0.1:53", None)]);
        assert_eq!(
            finding.title,
            "nobody listens at UDP port 53 in gw, but dnsmasq listens at 127.0.0.1 alone: 50 packets \
             refused"
        );
        assert_eq!(finding.actions[0].command, "ip netns exec gw ss -uanp sport = :53");
        let value = "dnsmasq (pid 812) at 127.0.0.1:53".into();
        assert!(finding.evidence.iter().any(|it| it.name == "socket" && it.value == value));
        let connected = found(&[socket("198.18.2.2:53", Some("192.0.2.99:5353"))]);
        let says = ", but dnsmasq is connected to 192.0.2.99:5353 alone: ";
        assert!(connected.title.contains(says), "{}", connected.title);
    }

    #[test]
    fn a_socket_that_could_have_taken_them_contradicts_nobody() {
        let says = "UDP port 53 in gw refused 50 packets, although dnsmasq has it";
        for local in ["0.0.0.0:53", "[::]:53", "198.18.2.2:53"] {
            let other = socket("127.0.0.1:53", None);
            assert_eq!(found(&[other, socket(local, None)]).title, says, "{local}");
        }
    }

    #[test]
    fn answers_from_another_address_than_the_one_asked() {
        let answer = |port| Flow { src_port: Some(53), ..flow(None, Some(port)) };
        let ports = [40_001, 40_002, 40_003, 40_004, 40_005];
        let host = || {
            let host = udp(50, None).flows(&ports.map(answer)).counted("Udp.NoPorts", 50);
            host.details(|it| it.flow.as_mut().unwrap().flow.dst_port = None)
        };
        let of = |local: &str, peer: &str, begin: bool| {
            let mut host = host();
            let ends = (local.parse().unwrap(), peer.parse().unwrap());
            let at = if begin { &mut host.before } else { &mut host.now };
            at.namespaces.get_mut(&GW).unwrap().connected = vec![ends];
            host.run(&RULE).remove(0)
        };
        for begin in [true, false] {
            let finding = of("198.18.1.2:40005", "198.18.9.9:53", begin);
            assert_eq!(
                finding.title,
                "50 answers from 192.0.2.7 port 53 refused in gw, which had asked 198.18.9.9"
            );
            assert_eq!(finding.severity, Severity::Warning);
        }
        let unproved = "50 packets for closed UDP ports refused in gw";
        for (local, peer) in
            [("198.18.1.2:40009", "198.18.9.9:53"), ("198.18.1.2:40005", "192.0.2.7:53")]
        {
            let finding = of(local, peer, false);
            assert_eq!(finding.title, unproved, "{local} {peer}");
            assert_eq!(finding.actions[0].command, "ip netns exec gw ss -uanp dport = :53");
        }
    }
}
