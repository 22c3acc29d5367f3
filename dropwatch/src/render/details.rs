//! The details of a row from its samples, as the lines under it in the text format.
//!
//! ```text
//! 4500 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 81.8%
//!        gw · eth0 · tcp 192.168.0.2:* → 192.168.0.30:8080 SYN  (64 samples)
//!        ip_rcv ← __netif_receive_skb_one_core
//! ```
//!
//! No line of these can be taken for a row: none begins with a number before a space.

use std::net::IpAddr;

use super::{
    clean, words,
    wrap::{columns, wrap, wrap_pieces},
};
use crate::report::{
    cgroup::unit,
    facts::{Callers, Details, Fact, Field, Netns, Owner, Pattern},
    flow::Flow,
    model::Location,
    namespaces::{MoreNamespaces, NamespaceDrops, SampledFlow},
    nat::Ends,
    precision::{Precision, rounded},
};

/// Longest name shown of a namespace, an interface or a process, characters.
const NAME: usize = 40;

/// Share from which on a fact is shown without its share.
const NEARLY_ALL: f64 = 0.95;

/// The lines under a row, without indentation, `room` columns wide: whose its drops are, and what samples
/// show of them. `width` is the columns that callers are to fit.
pub(super) fn lines(row: &Location, room: usize, width: usize) -> Vec<String> {
    // A drawn tree of call paths makes the callers superfluous.
    let path = row.stacks.is_empty().then_some(width);
    match (row.namespaces.as_slice(), &row.details) {
        ([], None) => Vec::new(),
        ([], Some(details)) => of_samples(details, room, path),
        ([_], None) if row.more == MoreNamespaces::default() => namespaces(row, room),
        ([netns], Some(details)) if row.more == MoreNamespaces::default() => {
            of_samples(&of_one(details, netns), room, path)
        }
        (_, details) => {
            let mut lines = namespaces(row, room);
            if let (Some(details), Some(width)) = (details, path)
                && let Some(callers) = &details.path
            {
                lines.extend(wrap(&callers_line(callers, details.precision(), width), room));
            }
            lines
        }
    }
}

/// The lines that describe `details`, with the callers if `path` asks for them.
fn of_samples(details: &Details, room: usize, path: Option<usize>) -> Vec<String> {
    let mut lines = wrap_pieces(facts(details), room);
    if let (Some(callers), Some(width)) = (&details.path, path) {
        lines.extend(wrap(&callers_line(callers, details.precision(), width), room));
    }
    lines
}

/// What the lines under a row describe, where its drops are counted by namespace and are all of one:
/// what is said of interface, flow and path is of the same packets, those of the flow that has the most;
/// each with its own share of all samples, which is that of the flow for nothing but the flow.
fn of_one(details: &Details, netns: &NamespaceDrops) -> Details {
    let Some(SampledFlow { interface, flow, path, share, .. }) = netns.flows.first() else {
        return details.clone();
    };
    Details {
        interface: interface.clone().map(|is| share_of(is, &details.interface, *share)),
        flow: flow.clone().map(|flow| Pattern { share: *share, ..flow }),
        path: path.clone().map(|is| share_of(is, &details.path, 1.0)),
        ..details.clone()
    }
}

/// What holds for a flow, with the share of all samples that it holds for; `otherwise` where these do not
/// say, because another thing holds for most of them.
fn share_of<T: PartialEq>(is: T, most: &Option<Fact<T>>, otherwise: f64) -> Fact<T> {
    let share = most.as_ref().filter(|most| most.is == is).map_or(otherwise, |most| most.share);
    Fact { is, share }
}

/// The lines that give each of the listed namespaces of a row its count, and all others theirs, without
/// indentation.
fn namespaces(row: &Location, width: usize) -> Vec<String> {
    let MoreNamespaces { namespaces: more, count } = row.more;
    let counts = row.namespaces.iter().map(|it| it.count).chain([count]);
    let digits = counts.max().unwrap_or(0).to_string().len();
    let line = |it: &NamespaceDrops| {
        let mut pieces = vec![("", format!("{:>digits$}  {}", it.count, named(it)))];
        let flow = it.flows.first().map(|flow| flow_of(flow, it.precision()));
        pieces.extend(flow.unwrap_or_default());
        wrap_pieces(pieces, width)
    };
    let mut lines: Vec<String> = row.namespaces.iter().flat_map(line).collect();
    if more > 0 {
        let more = words::count(more, "more namespace");
        lines.push(format!("{count:>digits$}  in {more}"));
    }
    lines
}

fn named(netns: &NamespaceDrops) -> String {
    netns.netns().map_or_else(|| "netns unknown".to_owned(), |netns| called(&netns))
}

/// What a namespace is called, cleaned, and that it has ended.
fn called(netns: &Netns) -> String {
    let name = label(&netns.to_string());
    if netns.ended { format!("{name} (ended)") } else { name }
}

/// ` · eth0 · udp 10.0.0.1:* → 10.0.0.2:53  (31 samples, 54%)`
fn flow_of(of: &SampledFlow, precision: Precision) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    if let Some(interface) = &of.interface {
        let number = format!("ifindex {}", interface.index);
        pieces.push((" · ", interface.name.as_deref().map_or(number, label)));
    }
    if let Some(pattern) = of.flow.as_ref().filter(|pattern| !is_blank(pattern)) {
        let (from, to) = flow(pattern);
        pieces.push((" · ", from));
        pieces.extend(to.map(|to| (" ", to)));
    }
    pieces.push(("  ", samples(of.samples, part(of.share, precision))));
    pieces
}

/// `(64 samples)`, and of which part of them something is said.
fn samples(samples: u64, share: Option<String>) -> String {
    let samples = words::count(samples, "sample");
    match share {
        Some(share) => format!("({samples}, {share})"),
        None => format!("({samples})"),
    }
}

/// A piece of a line, with what separates it from the piece before it.
type Piece = (&'static str, String);

fn facts(details: &Details) -> Vec<Piece> {
    let precision = details.precision();
    let with_share = |text: String, share| match part(share, precision) {
        Some(part) => format!("{text} {part}"),
        None => text,
    };
    let mut pieces = Vec::new();
    let mut add = |piece| pieces.push((" · ", piece));
    match (&details.netns, &details.interface) {
        (None, None) => add("netns and interface unknown".to_owned()),
        (netns, interface) => {
            add(netns.as_ref().map_or("netns unknown".to_owned(), |fact| {
                with_share(called(&fact.is), fact.share)
            }));
            add(interface.as_ref().map_or("interface unknown".to_owned(), |fact| {
                let number = format!("ifindex {}", fact.is.index);
                with_share(fact.is.name.as_deref().map_or(number, label), fact.share)
            }));
        }
    }
    if let Some(fact) = &details.owner {
        let Owner { comm, pid, cgroup } = &fact.is;
        let unit = cgroup.as_deref().and_then(unit);
        let unit = unit.map(|unit| format!(" in {}", label(&unit))).unwrap_or_default();
        add(with_share(format!("{} (pid {pid}){unit}", label(comm)), fact.share));
    }
    let mut share = None;
    match &details.flow {
        Some(pattern) if !is_blank(pattern) => {
            let (from, to) = flow(pattern);
            add(from);
            pieces.extend(to.map(|to| (" ", to)));
            share = part(pattern.share, precision);
        }
        flow => add(match &details.protocol {
            Some(fact) => with_share(label(&fact.is.name), fact.share),
            None if flow.is_some() => "various protocols".to_owned(),
            None => "protocol unknown".to_owned(),
        }),
    }
    if details.path.is_none() {
        pieces.push((" · ", "caller unknown".to_owned()));
    }
    let samples = match details.samples {
        1 => "1 sample".to_owned(),
        samples => format!("{samples} samples"),
    };
    pieces.push(match share {
        Some(share) => ("  ", format!("({share} of {samples})")),
        None => ("  ", format!("({samples})")),
    });
    pieces
}

/// Everything varies that could be shown.
fn is_blank(pattern: &Pattern) -> bool {
    pattern.flow == Flow::default()
}

/// `tcp 192.168.0.2:*` and `→ 192.168.0.30:8080 SYN`; the second part only if there are addresses.
fn flow(pattern: &Pattern) -> (String, Option<String>) {
    let Flow { protocol, vlan, src, src_port, dst, dst_port, kind, fragment } = &pattern.flow;
    let mut protocol = match protocol {
        Some(protocol) => label(protocol),
        None => "*".to_owned(),
    };
    if let Some(vlan) = vlan {
        protocol += &format!(" vlan {vlan}");
    }
    let varies = |field| pattern.varies(field);
    // A kind that varies is left out: a lone star after a port would not show what varies.
    let mut last = kind.as_ref().map_or(String::new(), |kind| format!(" {}", label(kind)));
    if *fragment {
        last.push_str(" fragment");
    }
    let from = end(*src, *src_port, varies(Field::Src), varies(Field::SrcPort));
    let to = end(*dst, *dst_port, varies(Field::Dst), varies(Field::DstPort));
    match (from, to) {
        (None, None) => (protocol + &last, None),
        (from, to) => {
            let known = |end: Option<String>| end.unwrap_or_else(|| "?".to_owned());
            (format!("{protocol} {}", known(from)), Some(format!("→ {}{last}", known(to))))
        }
    }
}

/// The flow of a packet: `tcp 192.168.0.2:51234 → 192.168.0.30:8080 SYN`.
pub(super) fn one_flow(of: &Flow) -> String {
    let pattern = Pattern { flow: of.clone(), varies: Vec::new(), share: 1.0 };
    match flow(&pattern) {
        (from, Some(to)) => format!("{from} {to}"),
        (protocol, None) => protocol,
    }
}

/// Both ends of a connection: `192.168.0.2:40000 → 198.18.1.1:8080`.
pub(super) fn between(ends: &Ends) -> String {
    let end = |ip, port| end(Some(ip), port, false, false).unwrap_or_default();
    format!("{} → {}", end(ends.src, ends.src_port), end(ends.dst, ends.dst_port))
}

/// One end of a flow: `192.168.0.2:*`, `[fd00::2]:80`, `*`; `None` if it has none.
fn end(ip: Option<IpAddr>, port: Option<u16>, any_ip: bool, any_port: bool) -> Option<String> {
    let port = port.map(|port| port.to_string()).or_else(|| any_port.then(|| "*".to_owned()));
    let ip = match (ip, &port) {
        (Some(IpAddr::V6(ip)), Some(_)) => format!("[{ip}]"),
        (Some(ip), _) => ip.to_string(),
        (None, _) if any_ip || port.is_some() => "*".to_owned(),
        (None, _) => return None,
    };
    Some(port.map_or(ip.clone(), |port| format!("{ip}:{port}")))
}

/// `ip_rcv ← __netif_receive_skb_one_core`, of as many callers as fit.
fn callers_line(fact: &Fact<Callers>, precision: Precision, width: usize) -> String {
    let share = part(fact.share, precision).map_or(String::new(), |part| format!("  ({part})"));
    let names: Vec<_> = fact.is.callers.iter().map(|name| function(name.as_deref())).collect();
    (1..=names.len())
        .rev()
        .map(|callers| names[..callers].join(" ← ") + &share)
        .find(|line| columns(line) <= width)
        .or_else(|| names.first().map(|name| name.clone() + &share))
        .unwrap_or_default()
}

/// A function's name as one word.
pub(super) fn function(name: Option<&str>) -> String {
    name.map_or_else(
        || "[unknown]".to_owned(),
        |name| clean(name).replace(char::is_whitespace, "\u{fffd}"),
    )
}

/// A name that anyone may have chosen: short, and neither a number nor a line that could be taken
/// for a row.
pub(super) fn label(name: &str) -> String {
    let mut name = clean(name).trim().to_owned();
    if name.starts_with(|c: char| c.is_numeric()) {
        name = name.replace(char::is_whitespace, "\u{fffd}");
    }
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None if name.is_empty() => "[blank]".to_owned(),
        None => name,
    }
}

/// A share that is not surely nearly all.
fn part(share: f64, precision: Precision) -> Option<String> {
    (precision.at_least(share) < NEARLY_ALL).then(|| percent(share, precision))
}

/// `83%`; `about 80%`, `<5%` or `>90%` of an estimate, as exactly as it is known.
fn percent(share: f64, precision: Precision) -> String {
    percent_with("about ", share, precision)
}

/// As [`percent`], with these words for an estimate.
pub(super) fn percent_with(about: &str, share: f64, precision: Precision) -> String {
    let step = precision.step(share);
    match (step, rounded(share, step.unwrap_or(1))) {
        (_, 100) if share >= 1.0 => "100%".to_owned(),
        (None, 0) if share > 0.0 => "<1%".to_owned(),
        (Some(step), 0) => format!("<{step}%"),
        (Some(step), 100) => format!(">{}%", 100 - step),
        (Some(_), percent) => format!("{about}{percent}%"),
        (None, percent) => format!("{percent}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::facts::Interface;

    #[test]
    fn a_share_is_printed_as_exactly_as_it_is_known() {
        let of = |share, samples| percent(share, Precision::Estimated(samples));
        assert_eq!(of(0.549, 30.0), "about 50%");
        assert_eq!(of(0.83, 40.0), "about 80%");
        assert_eq!(of(0.83, 300.0), "about 85%");
        assert_eq!(of(0.834, 1e5), "about 83%");
        assert_eq!((of(0.01, 40.0), of(0.99, 40.0)), ("<5%".to_owned(), ">95%".to_owned()));
        for known in [Precision::Exact, Precision::Unknown] {
            assert_eq!(
                (percent(0.834, known), percent(0.001, known)),
                ("83%".into(), "<1%".into())
            );
        }
        assert_eq!(of(1.0, 2.0), "100%");
    }

    /// A row of a hundred drops of one namespace: a flow of 60 and one of 40, by these interfaces and
    /// on these paths.
    fn row_of_two_flows(interfaces: [&str; 2], paths: [&str; 2]) -> Location {
        let flow = |at: usize, samples: u64| SampledFlow {
            interface: Some(Interface { name: Some(interfaces[at].into()), index: at as u32 + 2 }),
            flow: Some(Pattern {
                flow: Flow { protocol: Some("udp".into()), dst_port: Some(53), ..Flow::default() },
                varies: vec![Field::SrcPort],
                share: 1.0,
            }),
            path: Some(Callers { callers: vec![Some(paths[at].into())] }),
            share: samples as f64 / 100.0,
            samples,
        };
        let mut flows = vec![flow(0, 60), flow(1, 40)];
        let same = |equal: bool| if equal { 1.0 } else { 0.6 };
        if interfaces[0] == interfaces[1] {
            flows[1].interface = flows[0].interface.clone();
        }
        let most = |flow: &SampledFlow| {
            let interface = flow.interface.clone();
            let path = flow.path.clone();
            (
                interface.map(|is| Fact { is, share: same(interfaces[0] == interfaces[1]) }),
                path.map(|is| Fact { is, share: same(paths[0] == paths[1]) }),
            )
        };
        let (interface, path) = most(&flows[0]);
        let netns = Netns::new(Some("bk2".into()), 7);
        let details = Details {
            samples: 100,
            effective_samples: Some(100.0),
            weight: 100,
            netns: Some(Fact { is: netns.clone(), share: 1.0 }),
            interface,
            path,
            ..Details::default()
        };
        let all = std::time::Duration::from_secs(1);
        let of = NamespaceDrops {
            flows,
            effective_samples: Some(100.0),
            ..NamespaceDrops::new(Some(netns), 100, 100, 100, all)
        };
        Location { count: 100, details: Some(details), namespaces: vec![of], ..Location::default() }
    }

    #[test]
    fn each_fact_below_a_row_of_one_namespace_has_its_own_share() {
        let shown = |interfaces, paths| lines(&row_of_two_flows(interfaces, paths), 200, 80);
        let [one, path] = &shown(["v2", "v2"], ["ip_rcv", "ip_rcv"])[..] else { panic!() };
        assert!(one.starts_with("bk2 · v2 · udp "), "all packets came by it: {one}");
        assert!(one.ends_with("  (60% of 100 samples)"), "{one}");
        assert_eq!(path, "ip_rcv");
        let [one, path] = &shown(["v2", "v3"], ["ip_rcv", "ip6_rcv"])[..] else { panic!() };
        assert!(one.starts_with("bk2 · v2 60% · udp "), "{one}");
        assert_eq!(path, "ip_rcv  (60%)");
    }

    #[test]
    fn what_is_not_surely_nearly_all_has_its_share() {
        assert_eq!(part(0.97, Precision::Estimated(40.0)), Some("about 95%".into()));
        assert_eq!(part(0.97, Precision::Estimated(1e4)), None);
        assert_eq!(part(0.97, Precision::Exact), None);
        assert_eq!(part(1.0, Precision::Estimated(3.0)), None, "no sample says otherwise");
    }
}
