//! A small host to report about, and shorthands for rendering.

use std::time::Duration;

use dropwatch::{
    diagnose::knowledge::is_benign,
    render::{Format, Style},
    replay::{ReplayError, replay},
    report::{
        Names,
        build::{Options, Reporter},
        model::{Host, Line, Lost, Reason, Symbol},
        snapshot::{Counters, Snapshot},
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
/// Locations from here on have no name.
pub(crate) const UNNAMED: u64 = FUNCTIONS.len() as u64;

const TEXT: u64 = 0xffff_ffff_8100_0000;

/// Address of the n-th location; functions are 64 KiB apart.
pub(crate) fn address(location: u64) -> u64 {
    let named = usize::try_from(location).ok().and_then(|n| FUNCTIONS.get(n));
    TEXT + (location << 16) + named.map_or(0, |(_, offset, _)| *offset)
}

pub(crate) struct Table;

impl Names for Table {
    fn symbol(&mut self, address: u64) -> Option<Symbol> {
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
    Snapshot { since_attach, wall: attach + since_attach, counters: Counters { drops, lost } }
}

/// The lines of a run whose reports end at the given snapshots, each with the nominal intervals
/// that it covers.
pub(crate) fn run(options: Options, notices: &[&str], snapshots: &[(Snapshot, u64)]) -> Vec<Line> {
    let mut reporter = Reporter::new(host(), options, is_benign);
    let notices = notices.iter().map(|notice| (*notice).to_owned()).collect();
    let attach = snapshot(0, &[], Lost::default()).wall;
    let mut lines = vec![Line::Start(reporter.start(attach, Duration::from_secs(5), notices))];
    for (snapshot, intervals) in snapshots {
        lines.push(Line::Report(reporter.report(snapshot, *intervals, &[], &mut Table)));
    }
    let stop = snapshots.last().map_or(attach, |(snapshot, _)| snapshot.wall);
    lines.push(Line::End(reporter.end(stop)));
    lines
}

pub(crate) fn render(lines: &[Line], format: Format, view: &View, color: bool) -> String {
    let renderer = format.renderer(Style { color, time_zone: TimeZone::UTC });
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
    let renderer = format.renderer(Style { color: false, time_zone: TimeZone::UTC });
    let mut out = Vec::new();
    let result = replay(recording, view, &*renderer, &mut out);
    (String::from_utf8(out).unwrap(), result)
}
