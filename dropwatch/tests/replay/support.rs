//! A small host to report about, and shorthands for rendering.

use std::time::Duration;

use dropwatch::{
    command::replay::{ReplayError, replay},
    diagnose::knowledge::is_benign,
    render::{Format, Medium, Style},
    report::{
        Names,
        build::Reporter,
        facts::{Netns, Owner},
        model::{Host, Line, Lost, Reason, Symbol},
        options::Options,
        sample::{Clock, Sample},
        snapshot::{DropCounters, Snapshot},
        view::View,
    },
};
use dropwatch_common::{DropKey, NO_REASON};
use jiff::{Timestamp, tz::TimeZone};

/// Functions of this host, with the offset of the call site in each.
pub(crate) const FUNCTIONS: &[(&str, u64, Option<&str>)] = &[
    ("nf_hook_slow", 0x7d, None),
    ("tcp_v4_rcv", 0x91, None),
    ("inet_sock_destruct", 0x1a3, None),
    ("ovs_dp_process_packet", 0x1c4, Some("openvswitch")),
    ("ip_rcv_finish_core.constprop.0", 0xbf, None),
    ("__udp4_lib_rcv", 0x5d2, None),
    ("nft_do_chain", 0x2e0, Some("nf_tables")),
    ("unix_dgram_disconnected", 0x40, None),
];
pub(crate) const REASONS: &[(&str, &str)] = &[
    ("NOT_SPECIFIED", "CORE"),
    ("NO_SOCKET", "CORE"),
    ("NETFILTER_DROP", "CORE"),
    ("QUEUE_PURGE", "CORE"),
    ("OVS_DROP_LAST_ACTION", "OPENVSWITCH"),
    ("IP_RPFILTER", "CORE"),
];
/// Functions that call those.
pub(crate) const CALLERS: &[&str] = &[
    "ip_rcv",
    "__netif_receive_skb_one_core",
    "process_backlog",
    "__napi_poll",
    "net_rx_action",
    "handle_softirqs",
    "ip_local_out",
    "udp_sendmsg",
    "__sys_sendto",
    "do_syscall_64",
    "evil\u{1b}[2J\u{202e} 5 packets dropped at x",
];

/// Names of network namespaces and of devices, by number. Some are not nice.
pub(crate) const PLACES: &[&str] = &[
    "",
    "gw",
    "nginx (pid 812)",
    "5 packets dropped at x",
    "a\u{1b}[2J\u{202e}\nb\u{9b}",
    " 12 packets dropped at y",
    "a name that is longer than any interface may have, which a namespace may",
];

/// Locations from here on have no name.
pub(crate) const UNNAMED: u64 = FUNCTIONS.len() as u64;

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// Address of the n-th location; functions are 64 KiB apart.
pub(crate) fn address(location: u64) -> u64 {
    let named = usize::try_from(location).ok().and_then(|n| FUNCTIONS.get(n));
    TEXT + (location << 16) + named.map_or(0, |(_, offset, _)| *offset)
}

const CALLERS_TEXT: u64 = 0xffff_ffff_a000_0000;

/// Address of a call in the n-th calling function.
pub(crate) fn caller(n: u64) -> u64 {
    CALLERS_TEXT + (n << 16) + 0x15
}

fn place(number: u32) -> Option<String> {
    PLACES.get(number as usize).map(|name| (*name).to_owned())
}

pub(crate) struct TestNames;

impl Names for TestNames {
    fn symbol(&mut self, address: u64) -> Option<Symbol> {
        if let Some(at) = address.checked_sub(CALLERS_TEXT) {
            let name = CALLERS.get((at >> 16) as usize)?;
            return Some(Symbol { name: (*name).to_owned(), offset: at & 0xffff, module: None });
        }
        let (name, offset, module) = FUNCTIONS.get(((address - TEXT) >> 16) as usize)?;
        assert_eq!(address & 0xffff, *offset, "asked for an address that was never counted");
        let module = module.map(str::to_owned);
        Some(Symbol { name: (*name).to_owned(), offset: *offset, module })
    }

    fn reason(&mut self, reason: u32) -> Option<Reason> {
        if reason == NO_REASON {
            return None;
        }
        let named = REASONS.get(reason as usize).map(|(name, subsystem)| Reason {
            name: (*name).to_owned(),
            subsystem: Some((*subsystem).to_owned()),
        });
        Some(named.unwrap_or_else(|| Reason { name: format!("9:{reason:#06x}"), subsystem: None }))
    }

    fn netns(&mut self, inum: u32) -> Netns {
        Netns::new(place(inum), inum)
    }

    fn interface(&mut self, _netns: u32, index: u32) -> Option<String> {
        if index == 2 { Some("eth0".to_owned()) } else { place(index) }
    }

    fn owner(&mut self, socket: u64) -> Option<Owner> {
        let pid = u32::try_from(socket).ok()?;
        let cgroup = (pid % 2 == 0).then(|| "/system.slice/nginx.service".to_owned());
        Some(Owner { comm: place(pid % 8)?, pid, cgroup })
    }
}

pub(crate) fn host() -> Host {
    Host {
        host: "gw".to_owned(),
        boot_id: "9c4e0d3a-2f5b-4d8e-8f4d-0a6f1f1f7a11".to_owned(),
        kernel: "6.18.44".to_owned(),
    }
}

/// Cumulative counters of (location, reason, count) at `millis` after attach, which was at 07:35:00.
pub(crate) fn snapshot(millis: u64, drops: &[(u64, u32, u64)], lost: Lost) -> Snapshot {
    let attach: Timestamp = "2026-11-22T07:35:00Z".parse().unwrap();
    let since_attach = Duration::from_millis(millis);
    let drops =
        drops.iter().map(|(at, why, count)| (DropKey::new(address(*at), *why), *count)).collect();
    Snapshot {
        since_attach,
        wall: attach + since_attach,
        counters: DropCounters { drops, lost, ..DropCounters::default() },
    }
}

/// The lines of a run whose reports end at the given snapshots, each with the nominal intervals
/// that it covers.
pub(crate) fn run(options: Options, notices: &[&str], snapshots: &[(Snapshot, u64)]) -> Vec<Line> {
    let step = |(snapshot, intervals): &(Snapshot, u64)| Step {
        snapshot: snapshot.clone(),
        intervals: *intervals,
        samples: Vec::new(),
    };
    run_sampled(options, notices, &snapshots.iter().map(step).collect::<Vec<_>>())
}

/// What is there at the end of an interval.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) snapshot: Snapshot,
    pub(crate) intervals: u64,
    pub(crate) samples: Vec<Sample>,
}

/// A run's lines, with the samples of each interval, whose lines come before its report.
pub(crate) fn run_sampled(options: Options, notices: &[&str], steps: &[Step]) -> Vec<Line> {
    let mut reporter = Reporter::new(host(), options, is_benign);
    let notices = notices.iter().map(|notice| (*notice).to_owned()).collect();
    let attach = snapshot(0, &[], Lost::default()).wall;
    let mut lines =
        vec![Line::Start(reporter.start(attach, Duration::from_secs(5), notices, Vec::new()))];
    for Step { snapshot, intervals, samples } in steps {
        let Snapshot { since_attach, wall, .. } = *snapshot;
        let clock = Clock { attached: 1_000, since_attach, wall };
        for sample in samples {
            lines.push(Line::Sample(Box::new(reporter.sampled(sample, &clock, &mut TestNames))));
        }
        lines.push(Line::Report(reporter.report(snapshot, *intervals, samples, &mut TestNames)));
    }
    let stop = steps.last().map_or(attach, |step| step.snapshot.wall);
    lines.push(Line::End(reporter.end(stop)));
    lines
}

/// The first bytes of a TCP segment over IPv4, without a link header.
pub(crate) fn tcp(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(src);
    packet.extend(dst);
    packet.extend(src_port.to_be_bytes());
    packet.extend(dst_port.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet
}

/// A sampled drop at a location, which `path` led to, of an IPv4 packet in namespace 1, device 2.
pub(crate) fn sample(
    (location, reason): (u64, u32),
    weight: u64,
    path: &[u64],
    packet: Vec<u8>,
) -> Sample {
    let at = address(location);
    Sample {
        time: 1_500_001_000,
        key: DropKey::new(at, reason),
        weight,
        netns: Some(1),
        ifindex: Some(2),
        conntrack: Some(false),
        length: 40,
        protocol: 0x800,
        stack: std::iter::once(at).chain(path.iter().map(|n| caller(*n))).collect(),
        network: Some(0),
        packet,
        ..Sample::default()
    }
}

pub(crate) fn render(lines: &[Line], format: Format, view: &View, color: bool) -> String {
    render_on(Medium { color, ..Medium::default() }, lines, format, view)
}

pub(crate) fn render_on(medium: Medium, lines: &[Line], format: Format, view: &View) -> String {
    let renderer = format.renderer(Style { medium, time_zone: TimeZone::UTC });
    let mut out = Vec::new();
    for line in lines {
        renderer.line(&view.line(line.clone()), &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

/// What the format shows by default.
pub(crate) fn show(lines: &[Line], format: Format) -> String {
    render(lines, format, &format.view(None, false), false)
}

/// What `replay` writes, and how it ends.
pub(crate) fn again(
    recording: &[u8],
    format: Format,
    view: &View,
) -> (String, Result<(), ReplayError>) {
    let renderer = format.renderer(Style { medium: Medium::default(), time_zone: TimeZone::UTC });
    let mut out = Vec::new();
    let result = replay(recording, view, &*renderer, &mut out);
    (String::from_utf8(out).unwrap(), result)
}
