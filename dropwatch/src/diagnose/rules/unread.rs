//! A program does not read its connection of TCP.
//!
//! Its receive queue is full, so the host has told the sender that there is no room (a window of zero). The
//! sender asks ever more rarely whether that is still so: by a segment without data, from before what is expected
//! (`tcp_xmit_probe_skb`, net/ipv4/tcp_output.c), or by data that was sent already or finds no room. The
//! kernel answers it, and frees it the way it frees dropped ones (`tcp_validate_incoming`, `tcp_data_queue`,
//! net/ipv4/tcp_input.c). Nothing is lost by that: the sender keeps its data. The cause is the reader.
//!
//! Probes of idle connections (keep-alive) look just so. What tells them apart is what waits unread in the
//! connection of the sampled packet, and that no window of the namespace went up again meanwhile: a server
//! under heavy load closes its windows for a moment, too.

use super::{Counts, Draft, Facts, Kept, LEAST_DROPS, Makes, Rule, Verdict};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        named::Local,
    },
    report::{
        cgroup::unit,
        facts::Owner,
        finding::{Finding, Severity},
        flow::Flow,
        model::Location,
        object::Object,
        question::{Ask, Socket, Tuple},
    },
};

/// What probes of a closed window are freed for, without data and from before what is expected. Before 6.6,
/// those are called out of sequence. They begin when the window has been closed for some hundred milliseconds
/// (`tcp_probe_timer`, net/ipv4/tcp_timer.c), which data that meets a closed window says nothing of.
const PROBES: &[&str] = &["TCP_OLD_SEQUENCE", "TCP_INVALID_SEQUENCE"];
/// These, and what data is freed for that a closed window does not take.
const REASONS: &[&str] = &[
    "TCP_OLD_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_ZEROWINDOW",
    "TCP_OLD_DATA",
    "TCP_OVERWINDOW",
];
/// How often a window went to zero (`tcp_select_window`, net/ipv4/tcp_output.c).
const CLOSED: &str = "TcpExt.TCPToZeroWindowAdv";
/// How often one went up again: a program has read (the same function).
const REOPENED: &str = "TcpExt.TCPFromZeroWindowAdv";
const THROWN_AWAY: &str = "TcpExt.TCPZeroWindowDrop";
/// Fewest unread bytes of a window that is closed: half of the least that a receive buffer has
/// (`SOCK_MIN_RCVBUF`, include/net/sock.h).
const LEAST_UNREAD: u64 = 1024;
/// `TCP` (include/uapi/linux/in.h).
const TCP: u8 = 6;
/// Most connections that are shown.
const SHOWN: usize = 3;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "unread_connection",
        severity: "notice, a warning from three probes in a report on",
        says: "a program does not read its TCP connection, whose sender asks for room",
        rests_on: "rows with `TCP_OLD_SEQUENCE` and others, what waits unread in their connections",
    }],
    counters: &[CLOSED, REOPENED, THROWN_AWAY],
    counts: &[Counts::of(Kept::Netns(&[THROWN_AWAY]), &["TCP_ZEROWINDOW"], &[])],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for namespace in facts.namespaces() {
        match unread(facts, namespace) {
            Ok(found) => verdicts.extend(found.into_iter().map(Verdict::Found)),
            Err(ask) => verdicts.push(Verdict::Ask(ask)),
        }
    }
    verdicts
}

fn unread(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Vec<Finding>, Ask> {
    let rows = facts.rows(REASONS, &[]).within(namespace);
    let closed = namespace.now.counters.get(CLOSED).unwrap_or(0);
    let probes = facts.rows(PROBES, &[]).within(namespace);
    // A window that is open again belongs to a program that reads, only later than others send; which one
    // that was, no counter tells.
    let stands = closed > 0 && namespace.delta(REOPENED) == 0;
    let Some(netns) = namespace.netns().filter(|_| !probes.is_empty() && stands) else {
        return Ok(Vec::new());
    };
    let Ok(sockets) = facts.unread_connections(netns.number())? else { return Ok(Vec::new()) };
    let is_asked = |socket: &&Socket| {
        socket.queued >= LEAST_UNREAD && probes.count_of(|flow| is_of(flow, socket)) > 0
    };
    let mut readers: Vec<(Option<&Owner>, Vec<&Socket>)> = Vec::new();
    for socket in sockets.iter().filter(is_asked) {
        let owner = socket.owner.as_ref();
        let is_same = |known: &Option<&Owner>| known.map(|it| it.pid) == owner.map(|it| it.pid);
        match readers.iter_mut().find(|(known, _)| is_same(known)) {
            Some((_, theirs)) => theirs.push(socket),
            None => readers.push((owner, vec![socket])),
        }
    }
    let found =
        readers.iter().map(|(owner, theirs)| finding(facts, namespace, &rows, *owner, theirs));
    Ok(found.collect())
}

/// Whether a packet came in by this connection.
fn is_of(flow: &Flow, socket: &Socket) -> bool {
    let Some(peer) = socket.peer else { return false };
    Tuple::of(flow) == Some(Tuple { protocol: TCP, from: peer, to: socket.local })
}

/// The finding about a reader, and those of its connections that have probes.
fn finding(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    rows: &Rows<'_>,
    owner: Option<&Owner>,
    sockets: &[&Socket],
) -> Finding {
    let is_theirs = |flow: &Flow| sockets.iter().any(|socket| is_of(flow, socket));
    let has_theirs = |row: &&&Location| Rows(vec![**row]).count_of(is_theirs) > 0;
    let rows = Rows(rows.0.iter().filter(has_theirs).copied().collect());
    let probes = rows.count_of(is_theirs);
    let bytes = sockets.iter().fold(0, |sum: u64, socket| sum.saturating_add(socket.queued));
    let who = match owner {
        Some(Owner { comm, pid, .. }) => format!("{comm} ({pid})"),
        None => "a program".to_owned(),
    };
    let what = match sockets {
        [Socket { local, peer: Some(peer), .. }] => {
            format!("its connection from {peer} to port {}", local.port())
        }
        several => format!("{} of its connections", several.len()),
    };
    let probed = if probes == 1 { "1 probe" } else { &format!("{probes} probes") };
    let title = format!(
        "{who} in {} does not read {what}: {bytes} bytes wait, {probed} for room, nothing is lost",
        namespace.name()
    );
    let severity = if probes < LEAST_DROPS { Severity::Notice } else { Severity::Warning };
    let mut draft = Draft::new(facts, "unread_connection", severity, who, title)
        .at(namespace)
        .explains(probes, &rows);
    for row in &rows.0 {
        let reason = row.place.reason.as_deref().unwrap_or("unknown");
        draft = draft.counted(reason, row.count, "kfree_skb");
    }
    // Data that a closed window could not take, which its sender keeps and sends again.
    draft = draft.counted_too(THROWN_AWAY, namespace.delta(THROWN_AWAY), "netstat");
    for socket in sockets.iter().take(SHOWN) {
        let peer = socket.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
        let text = format!("{} bytes at {}{peer}", socket.queued, socket.local);
        draft = draft.state("unread", text, "/proc/net/tcp");
    }
    if let Some(unit) = owner.and_then(|owner| owner.cgroup.as_deref()).and_then(unit) {
        draft = draft.state("reader in", unit, "/proc");
    }
    let one = sockets.first().filter(|_| sockets.len() == 1);
    let filter = one.map(|it| format!(" sport = :{}", it.local.port())).unwrap_or_default();
    if let Some(it) = one {
        draft = draft.names(Object::socket("tcp", Local::Whole(it.local), it.owner.as_ref()));
    }
    draft
        .run(
            &format!("ss -tmnp{filter}"),
            "Recv-Q: bytes that a program has not read, and whose; while it stays full, the program waits for \
             something else, or stands still. Its sender waits, too",
        )
        .done()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::question::{Answer, Question};

    fn flow(port: u16) -> Flow {
        Flow {
            protocol: Some("tcp".into()),
            src: Some([198, 18, 1, 2].into()),
            src_port: Some(port),
            dst: Some([198, 18, 1, 1].into()),
            dst_port: Some(5000),
            kind: Some("ACK".into()),
            ..Flow::default()
        }
    }

    fn socket(port: u16, queued: u64) -> Socket {
        let owner = Owner { comm: "web".into(), pid: 812, cgroup: Some("/web.service".into()) };
        Socket {
            local: "198.18.1.1:5000".parse().unwrap(),
            peer: Some(([198, 18, 1, 2], port).into()),
            queued,
            buffer: None,
            owner: Some(owner),
        }
    }

    fn host(probes: u64, flows: &[Flow], sockets: Vec<Socket>) -> TestHost {
        TestHost::new()
            .row(probes, "tcp_validate_incoming", "TCP_OLD_SEQUENCE")
            .flows(flows)
            .counted(CLOSED, 1)
            .answer(Question::Unread, Answer::Sockets(sockets))
    }

    #[test]
    fn the_reader_is_named_with_its_connection() {
        let found = host(3, &[flow(9)], vec![socket(9, 65_000), socket(10, 70_000)]).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "web (812) in gw does not read its connection from 198.18.1.2:9 to port 5000: 65000 bytes \
             wait, 3 probes for room, nothing is lost"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.explains.map(|it| it.drops), Some(3));
        assert_eq!(finding.actions[0].command, "ip netns exec gw ss -tmnp sport = :5000");
        assert!(finding.evidence.iter().any(|it| it.value == "web.service".into()), "{finding:?}");
    }

    #[test]
    fn a_pause_is_a_notice() {
        let found = host(1, &[flow(9)], vec![socket(9, 65_000)]).run(&RULE);
        assert_eq!(found[0].severity, Severity::Notice);
        assert!(found[0].title.contains("1 probe for room"), "{found:?}");
    }

    #[test]
    fn connections_of_one_reader_are_one_finding() {
        let found =
            host(4, &[flow(9), flow(10)], vec![socket(9, 60_000), socket(10, 70_000)]).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert!(finding.title.contains("2 of its connections: 130000 bytes wait, 4 probes"));
        assert_eq!(finding.actions[0].command, "ip netns exec gw ss -tmnp");
    }

    #[test]
    fn a_reader_that_reads_is_not_blamed() {
        for sockets in [vec![], vec![socket(9, 10)], vec![socket(10, 65_000)]] {
            assert_eq!(host(3, &[flow(9)], sockets.clone()).run(&RULE), [], "{sockets:?}");
        }
        let never = TestHost::new()
            .row(3, "tcp_validate_incoming", "TCP_OLD_SEQUENCE")
            .flow(flow(9))
            .answer(Question::Unread, Answer::Sockets(vec![socket(9, 65_000)]));
        assert_eq!(never.run(&RULE), [], "no window was ever closed");
    }

    #[test]
    fn a_server_that_is_only_late_is_not_blamed() {
        let late = || host(3, &[flow(9)], vec![socket(9, 65_000)]);
        assert_eq!(late().counted(REOPENED, 1).run(&RULE), [], "it has read meanwhile");
        let met = TestHost::new()
            .row(54, "tcp_data_queue", "TCP_ZEROWINDOW")
            .flow(flow(9))
            .counted(CLOSED, 1)
            .answer(Question::Unread, Answer::Sockets(vec![socket(9, 350_000)]));
        assert_eq!(met.run(&RULE), [], "data met a closed window, which nobody has probed");
    }
}
