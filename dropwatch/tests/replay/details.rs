//! What samples add to the reports of a run, in every format.

use dropwatch::{
    render::{Format, Medium},
    report::{
        facts::Field,
        model::{Line, Lost, Report},
        options::Options,
        sample::Sample,
    },
};
use insta::assert_snapshot;

use crate::{
    golden::is_location_line,
    schema::assert_valid,
    support::{Step, again, render, render_on, run_sampled, sample, show, snapshot, tcp},
};

const CLIENT: [u8; 4] = [192, 168, 0, 2];
const SERVER: [u8; 4] = [192, 168, 0, 30];
const HOOK: (u64, u32) = (0, 2);
const RECEIVED: &[u64] = &[0, 1, 2, 3, 4, 5];
const SENT: &[u64] = &[6, 7, 8, 9];

/// A load test through a gateway, a closed port, and what is known of least.
fn samples() -> Vec<Sample> {
    let mut samples: Vec<_> = (0..64)
        .map(|n| sample(HOOK, 70, RECEIVED, tcp(CLIENT, 40_000 + n, SERVER, 8080, 2)))
        .collect();
    let closed = (1, 1);
    samples.extend([
        sample(closed, 50, RECEIVED, tcp(CLIENT, 50_000, SERVER, 81, 2)),
        sample(closed, 20, RECEIVED, tcp(CLIENT, 50_001, SERVER, 81, 2)),
        Sample { socket: Some(1), ..sample(closed, 10, SENT, tcp(SERVER, 9, CLIENT, 9, 16)) },
        Sample { netns: None, ..sample(closed, 20, SENT, tcp(SERVER, 9, CLIENT, 10, 16)) },
    ]);
    let long = "6000000000140640fd000000000000000000000000000002fd001111222233334444555566667777";
    let mut ipv6: Vec<u8> =
        (0..80).step_by(2).map(|at| u8::from_str_radix(&long[at..at + 2], 16).unwrap()).collect();
    ipv6.extend(&tcp(CLIENT, 65_000, SERVER, 65_001, 0x18)[20..]);
    let unspecified = (4, 0);
    samples.push(Sample {
        netns: Some(7),
        ifindex: Some(9),
        socket: Some(2),
        protocol: 0x86dd,
        ..sample(unspecified, 3, &[3], ipv6)
    });
    samples.push(Sample {
        netns: None,
        ifindex: None,
        network: None,
        protocol: 0x88b5,
        stack: Vec::new(),
        ..sample((5, 1), 1, &[], Vec::new())
    });
    samples
}

pub(crate) fn story(stacks: bool) -> Vec<Line> {
    let drops = [(0, 2, 4480), (1, 1, 100), (4, 0, 3), (5, 1, 1), (6, 2, 1)];
    let step = Step {
        snapshot: snapshot(5_000, &drops, Lost::default()),
        intervals: 1,
        samples: samples(),
    };
    run_sampled(Options { addresses: false, stacks, ..Options::default() }, &[], &[step])
}

fn report(lines: &[Line]) -> &Report {
    lines
        .iter()
        .find_map(|line| match line {
            Line::Report(report) => Some(report),
            Line::Start(_) | Line::Sample(_) | Line::End(_) => None,
        })
        .unwrap()
}

#[test]
fn text_names_place_flow_and_path() {
    assert_snapshot!(show(&story(false), Format::Text), @r"
    Monitoring for dropped packets

    07:35:05  4585 drops in 5.0s (917/s) at 5 locations, none lost
    4480 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 97.7%
           gw · eth0 · tcp 192.168.0.2:* → 192.168.0.30:8080 SYN  (64 samples)
           ip_rcv ← __netif_receive_skb_one_core
     100 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 2.2%
           gw about 75% · eth0 about 75% · tcp *:* → *:*  (4 samples)
           ip_rcv ← __netif_receive_skb_one_core  (about 75%)
       3 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (NOT_SPECIFIED) 0.1%
           netns 7 · ifindex 9 · nginx (pid 812) (pid 2) in nginx.service · tcp [fd00::2]:65000 → [fd00:1111:2222:3333:4444:5555:6666:7777]:65001 PSH ACK  (1 sample)
           __napi_poll
       1 packets dropped at __udp4_lib_rcv+0x5d2 (NO_SOCKET) <0.1%
           netns and interface unknown · 0x88b5 · caller unknown  (1 sample)
       1 packets dropped at nft_do_chain+0x2e0 [nf_tables] (NETFILTER_DROP) <0.1%
    Stopping dropped packet monitor
    ");
}

#[test]
fn text_draws_call_paths_as_a_tree() {
    assert_snapshot!(show(&story(true), Format::Text), @r"
    Monitoring for dropped packets

    07:35:05  4585 drops in 5.0s (917/s) at 5 locations, none lost
    4480 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 97.7%
           gw · eth0 · tcp 192.168.0.2:* → 192.168.0.30:8080 SYN  (64 samples)
           |
           ---nf_hook_slow
              ip_rcv
              __netif_receive_skb_one_core
              process_backlog
              __napi_poll
              net_rx_action
              handle_softirqs
     100 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 2.2%
           gw about 75% · eth0 about 75% · tcp *:* → *:*  (4 samples)
           |
           ---tcp_v4_rcv
              |
              |--~75%--ip_rcv
              |        __netif_receive_skb_one_core
              |        process_backlog
              |        __napi_poll
              |        net_rx_action
              |        handle_softirqs
              |
               --~25%--ip_local_out
                       udp_sendmsg
                       __sys_sendto
                       do_syscall_64
       3 packets dropped at ip_rcv_finish_core.constprop.0+0xbf (NOT_SPECIFIED) 0.1%
           netns 7 · ifindex 9 · nginx (pid 812) (pid 2) in nginx.service · tcp [fd00::2]:65000 → [fd00:1111:2222:3333:4444:5555:6666:7777]:65001 PSH ACK  (1 sample)
           |
           ---ip_rcv_finish_core.constprop.0
              __napi_poll
       1 packets dropped at __udp4_lib_rcv+0x5d2 (NO_SOCKET) <0.1%
           netns and interface unknown · 0x88b5 · caller unknown  (1 sample)
       1 packets dropped at nft_do_chain+0x2e0 [nf_tables] (NETFILTER_DROP) <0.1%
    Stopping dropped packet monitor
    ");
}

#[test]
fn details_are_dim() {
    let shown = render(&story(false), Format::Text, &Format::Text.view(Some(1), false), true);
    let details: Vec<_> = shown.lines().skip(4).take(2).collect();
    for line in details {
        let line = line.trim_start();
        assert!(line.starts_with("\u{1b}[2m") && line.ends_with("\u{1b}[0m"), "{line:?}");
    }
}

#[test]
fn details_fit_eighty_columns_and_look_like_no_row() {
    for stacks in [false, true] {
        let lines = story(stacks);
        let view = Format::Text.view(None, false);
        let screen = Medium { columns: Some(80), ..Medium::default() };
        let shown = render_on(screen, &lines, Format::Text, &view);
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let rows = shown.lines().filter(|line| is_location_line(line)).count();
        assert_eq!(rows, report(&lines).locations.len());
    }
}

#[test]
fn classic_shows_none_of_it() {
    let with = show(&story(true), Format::Classic);
    let without = story(true).into_iter().map(|mut line| {
        if let Line::Report(report) = &mut line {
            report.locations.iter_mut().for_each(|row| {
                row.details = None;
                row.stacks.clear();
            });
        }
        line
    });
    let without: Vec<_> = without.filter(|line| !matches!(line, Line::Sample(_))).collect();
    assert_eq!(with, show(&without, Format::Classic));
}

#[test]
fn json_carries_the_same_structured() {
    let lines = story(true);
    let recording = show(&lines, Format::Json);
    assert_valid(&recording);
    assert_eq!(recording.matches("\"type\":\"sample\"").count(), samples().len());
    let row = &report(&lines).locations[0];
    let details = row.details.as_ref().unwrap();
    assert_eq!((details.samples, details.weight), (64, 4480));
    assert_eq!(details.flow.as_ref().unwrap().varies, [Field::SrcPort]);
    let netns = details.netns.as_ref().unwrap();
    assert_eq!((netns.is.name.as_deref(), netns.share), (Some("gw"), 1.0));
    let interface = details.interface.as_ref().unwrap();
    assert_eq!((interface.is.name.as_deref(), interface.share), (Some("eth0"), 1.0));
    assert_eq!(row.stacks.len(), 1);
    assert_eq!(row.stacks[0].frames.len(), 7);
}

#[test]
fn json_of_a_sampled_run() {
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    let mut lines = story(true);
    // One sample line is like the other.
    lines.retain(|line| !matches!(line, Line::Sample(sample) if sample.weight == 70));
    assert_snapshot!(show(&lines, Format::Json).replace(&version, "\"VERSION\""));
}

#[test]
fn a_recording_with_details_replays() {
    let lines = story(true);
    let recording = show(&lines, Format::Json);
    for format in [Format::Text, Format::Classic, Format::Json] {
        let (shown, result) = again(recording.as_bytes(), format, &format.view(None, false));
        result.unwrap();
        assert_eq!(shown, show(&lines, format));
    }
}
