//! What users see, character by character.

use dropwatch::{
    render::{Format, Medium, Renderer, Style, Text},
    report::{
        model::{Line, Lost},
        options::Options,
        view::View,
    },
};
use dropwatch_common::NO_REASON;
use insta::assert_snapshot;
use jiff::tz::{Offset, TimeZone};

use crate::support::{UNNAMED, again, render, run, show, snapshot};

const NONE: Lost =
    Lost { map_full: 0, map_busy: 0, recursion: 0, samples: 0, stacks: 0, pcap: 0, unsampled: 0 };

/// The load test through a full connection-tracking table.
pub(crate) fn story(options: Options) -> Vec<Line> {
    let first = [(0, 2, 10_031), (1, 1, 676)];
    let second = [
        (0, 2, 10_031),
        (1, 1, 681),
        (2, 0, 118),
        (3, 4, 9_000),
        (3, 5, 1),
        (4, 5, 90),
        (7, 3, 2),
        (UNNAMED, NO_REASON, 3),
        (UNNAMED, 2, 4),
    ];
    let nested = Lost { recursion: 12, ..NONE };
    run(
        options,
        &["kernel symbols are hidden: kptr_restrict is 2; run `sysctl kernel.kptr_restrict=1`"],
        &[
            (snapshot(5_000, &first, NONE), 1),
            (snapshot(10_000, &first, NONE), 1),
            (snapshot(25_000, &second, nested), 3),
        ],
    )
}

/// One report with more rows than the text format shows.
pub(crate) fn crowd() -> Vec<Line> {
    let drops: Vec<_> = (0..14).map(|n| (n % 8, n as u32 % 6, 1 << (n * 2))).collect();
    run(Options::default(), &[], &[(snapshot(500, &drops, NONE), 1)])
}

/// Whether a line matches `^\s*([0-9]+) packets dropped at (\S+)`.
pub(crate) fn is_location_line(line: &str) -> bool {
    let Some((count, place)) = line.split_once(" packets dropped at ") else { return false };
    let count = count.trim_start();
    !count.is_empty()
        && count.bytes().all(|digit| digit.is_ascii_digit())
        && place.starts_with(|c: char| !c.is_whitespace())
}

#[test]
fn text() {
    assert_snapshot!(show(&story(Options::default()), Format::Text), @r"
    Monitoring for dropped packets
    Note: kernel symbols are hidden: kptr_restrict is 2; run `sysctl kernel.kptr_restrict=1`

    07:35:05  10707 drops in 5.0s (2141/s) at 2 locations, none lost
    10031 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 93.7%
      676 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 6.3%

    07:35:10  no drops in 5.0s, none lost

    07:35:25  9235 drops in 15.0s (616/s) at 8 locations, 12 not located: 12 nested
              covers 3 intervals: it was held back
    9000 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (OVS_DROP_LAST_ACTION) 97.5%
      90 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (IP_RPFILTER) 1.0%
       5 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 0.1%
       4 packets dropped at 0xffffffff81080000 (NETFILTER_DROP) <0.1%
       3 packets dropped at 0xffffffff81080000 <0.1%
       1 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (IP_RPFILTER) <0.1%
     120 benign drops at 2 locations not shown (--all shows them)

    Total: 19942 drops in 25.0s, 120 of them benign, 12 not located: 12 nested
    Stopping dropped packet monitor
    ");
}

#[test]
fn text_with_everything() {
    let lines = story(Options { addresses: true, stacks: false, ..Options::default() });
    let view = Format::Text.view(Some(0), true);
    assert_snapshot!(render(&lines, Format::Text, &view, false), @r"
    Monitoring for dropped packets
    Note: kernel symbols are hidden: kptr_restrict is 2; run `sysctl kernel.kptr_restrict=1`

    07:35:05  10707 drops in 5.0s (2141/s) at 2 locations, none lost
    10031 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 93.7% 0xffffffff8100007d
      676 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 6.3% 0xffffffff81010091

    07:35:10  no drops in 5.0s, none lost

    07:35:25  9235 drops in 15.0s (616/s) at 8 locations, 12 not located: 12 nested
              covers 3 intervals: it was held back
    9000 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (OVS_DROP_LAST_ACTION) 97.5% 0xffffffff810301c4
     118 packets dropped at inet_sock_destruct+0x1a3 (NOT_SPECIFIED) 1.3% 0xffffffff810201a3 benign
      90 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (IP_RPFILTER) 1.0% 0xffffffff810400bf
       5 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 0.1% 0xffffffff81010091
       4 packets dropped at 0xffffffff81080000 (NETFILTER_DROP) <0.1%
       3 packets dropped at 0xffffffff81080000 <0.1%
       2 packets dropped at unix_dgram_disconnected+0x40 (QUEUE_PURGE) <0.1% 0xffffffff81070040 benign
       1 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (IP_RPFILTER) <0.1% 0xffffffff810301c4

    Total: 19942 drops in 25.0s, 120 of them benign, 12 not located: 12 nested
    Stopping dropped packet monitor
    ");
}

#[test]
fn text_in_colour() {
    let lines = story(Options::default());
    let view = Format::Text.view(Some(3), false);
    let shown = render(&lines, Format::Text, &view, true).replace('\x1b', "ESC");
    assert_snapshot!(shown, @r"
    Monitoring for dropped packets
    Note: kernel symbols are hidden: kptr_restrict is 2; run `sysctl kernel.kptr_restrict=1`

    07:35:05  ESC[1m10707 drops in 5.0sESC[0m (2141/s) at 2 locations, none lost
    10031 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 93.7%
      676 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 6.3%

    07:35:10  ESC[1mno drops in 5.0sESC[0m, none lost

    07:35:25  ESC[1m9235 drops in 15.0sESC[0m (616/s) at 8 locations, ESC[1mESC[31m12 not located: 12 nestedESC[0m
              ESC[2mcovers 3 intervals: it was held backESC[0m
    9000 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (OVS_DROP_LAST_ACTION) 97.5%
      90 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (IP_RPFILTER) 1.0%
       5 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 0.1%
    ESC[2m   8 more at 3 other locations 0.1%ESC[0m
    ESC[2m 120 benign drops at 2 locations not shown (--all shows them)ESC[0m

    Total: 19942 drops in 25.0s, 120 of them benign, ESC[1mESC[31m12 not located: 12 nestedESC[0m
    Stopping dropped packet monitor
    ");
}

#[test]
fn text_sums_what_is_below_the_top() {
    assert_snapshot!(show(&crowd(), Format::Text), @r"
    Monitoring for dropped packets

    07:35:00  89478485 drops in 500ms (178956970/s) at 14 locations, none lost
    67108864 packets dropped at __udp4_lib_rcv+0x5d2 (NO_SOCKET) 75.0%
    16777216 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (NOT_SPECIFIED) 18.8%
     4194304 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch] (IP_RPFILTER) 4.7%
     1048576 packets dropped at inet_sock_destruct+0x1a3 (OVS_DROP_LAST_ACTION) 1.2%
       65536 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 0.1%
       16384 packets dropped at unix_dgram_disconnected+0x40 (NO_SOCKET) <0.1%
        4096 packets dropped at nft_do_chain+0x2e0 [nf_tables] (NOT_SPECIFIED) <0.1%
        1024 packets dropped at __udp4_lib_rcv+0x5d2 (IP_RPFILTER) <0.1%
         256 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (OVS_DROP_LAST_ACTION) <0.1%
          16 packets dropped at inet_sock_destruct+0x1a3 (NETFILTER_DROP) <0.1%
           5 more at 2 other locations <0.1%
      262208 benign drops at 2 locations not shown (--all shows them)
    Stopping dropped packet monitor
    ");
}

#[test]
fn text_shows_local_time() {
    let [_, report, ..] = &story(Options::default())[..] else { panic!("no report") };
    let time_zone = TimeZone::fixed(Offset::constant(-5));
    let mut page = Vec::new();
    Text::new(Style { medium: Medium::default(), time_zone }).render(report, &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("\n02:35:05  10707 drops"), "{page}");
}

#[test]
fn text_and_classic_keep_the_form_that_scripts_read() {
    let lines = story(Options::default());
    for format in [Format::Text, Format::Classic] {
        for top in [0, 1, 3] {
            let view = View { top: Some(top), ..format.view(None, false) };
            let shown = render(&lines, format, &view, false);
            let rows = shown.lines().filter(|line| is_location_line(line)).count();
            let expected: usize = lines
                .iter()
                .map(|line| match view.line(line.clone()) {
                    Line::Report(report) => report.locations.len(),
                    Line::Start(_) | Line::Sample(_) | Line::End(_) => 0,
                })
                .sum();
            assert_eq!(rows, expected, "{format:?}, top {top}:\n{shown}");
        }
    }
}

#[test]
fn text_fits_eighty_columns_unless_a_name_is_long() {
    for shown in [show(&story(Options::default()), Format::Text), show(&crowd(), Format::Text)] {
        let own = |line: &&str| {
            !line.starts_with("Note: ") && !line.contains(" [") && !line.contains(".constprop.0")
        };
        for line in shown.lines().filter(own) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn classic() {
    assert_snapshot!(show(&story(Options::default()), Format::Classic), @r"
    Monitoring for dropped packets

    10031 packets dropped at nf_hook_slow
    676 packets dropped at tcp_v4_rcv


    9001 packets dropped at ovs_dp_process_packet
    118 packets dropped at inet_sock_destruct
    90 packets dropped at ip_rcv_finish_core.constprop.0
    7 packets dropped at 0xffffffff81080000
    5 packets dropped at tcp_v4_rcv
    2 packets dropped at unix_dgram_disconnected
    Stopping dropped packet monitor
    ");
}

#[test]
fn json() {
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    let shown = show(&story(Options::default()), Format::Json).replace(&version, "\"VERSION\"");
    assert_snapshot!(shown);
}

#[test]
fn json_with_addresses() {
    let lines = story(Options { addresses: true, stacks: false, ..Options::default() });
    let view = Format::Json.view(Some(1), false);
    assert_snapshot!(render(&lines[1..2], Format::Json, &view, false));
}

#[test]
fn a_recording_without_addresses_replays_unnamed_locations_as_unknown() {
    let recording = show(&story(Options::default()), Format::Json);
    let (shown, result) =
        again(recording.as_bytes(), Format::Classic, &Format::Classic.view(None, false));
    result.unwrap();
    assert!(shown.contains("\n4 packets dropped at [unknown]\n3 packets dropped at [unknown]\n"));
    assert!(!recording.contains("0xffffffff"));
}

/// A recording of schema version 1 that must stay readable for as long as version 1 is read.
#[test]
fn an_old_recording_replays() {
    let recording = include_bytes!("../fixtures/replay/v1.ndjson");
    let (shown, result) = again(recording, Format::Text, &Format::Text.view(None, false));
    result.unwrap();
    assert_snapshot!(shown, @r"
    Monitoring for dropped packets
    Note: no capability CAP_SYSLOG: addresses instead of names; run as root

    07:35:05  10712 drops in 5.0s (2142/s) at 4 locations, 3 not located: 2 nested, 1 map full
    10031 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 93.6%
      676 packets dropped at ovs_dp_upcall+0x40 [openvswitch] 6.3% 0xffffffffc0123456
        1 more at 1 other location <0.1%
        1 benign drop at 1 location not shown (--all shows it)

    07:35:05  1 drop in 400ms (2.5/s) at 1 location, 4 samples lost
    1 packets dropped at [unknown] (NO_SOCKET) 100.0%

    Total: 10713 drops in 5.4s, 3 not located: 2 nested, 1 map full; 4 samples lost
    Stopping dropped packet monitor
    ");
    let (shown, result) = again(recording, Format::Json, &Format::Json.view(None, false));
    result.unwrap();
    assert_eq!(shown.as_bytes(), recording);
}
