//! A line for each drop.

use dropwatch::{
    render::{Format, Medium, Style},
    report::{
        facts::{Context, Task},
        model::Line,
    },
};
use insta::assert_snapshot;
use jiff::tz::TimeZone;

use crate::details::story;

/// A run with samples, each of another task.
fn lines() -> Vec<Line> {
    let tasks = [
        Some(("nginx", 812, Some(Context::Softirq))),
        Some(("ab", 4711, Some(Context::Task))),
        Some(("swapper/1", 0, Some(Context::Interrupt))),
        Some(("1 packets dropped at\u{1b}[2J", 3, None)),
        None,
    ];
    let mut tasks = tasks.into_iter().cycle();
    let mut lines = story(false);
    for line in &mut lines {
        if let Line::Sample(sample) = line {
            let task =
                |(comm, pid, context): (&str, _, _)| Task { comm: comm.to_owned(), pid, context };
            sample.task = tasks.next().flatten().map(task);
        }
    }
    lines
}

fn shown(columns: Option<usize>) -> String {
    let medium = Medium { columns, ..Medium::default() };
    let renderer = Format::Text.drops(Style { medium, time_zone: TimeZone::UTC });
    let mut page = Vec::new();
    // One line of the flood is like the other.
    let lines = lines().into_iter().skip(60);
    lines.for_each(|line| renderer.render(&line, &mut page).expect("renders"));
    String::from_utf8(page).expect("text")
}

#[test]
fn each_sample_is_one_line_and_nothing_else_is() {
    assert_snapshot!(shown(None), @r"
    07:35:01.500000  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:40059 → 192.168.0.30:8080 SYN · after 69 drops not shown
    07:35:01.500000  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:40060 → 192.168.0.30:8080 SYN · on CPU: nginx/812 · after 69 drops not shown
    07:35:01.500000  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:40061 → 192.168.0.30:8080 SYN · by ab/4711 · after 69 drops not shown
    07:35:01.500000  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:40062 → 192.168.0.30:8080 SYN · on CPU: idle · after 69 drops not shown
    07:35:01.500000  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:40063 → 192.168.0.30:8080 SYN · on CPU: 1�packets�dropped�at�[2J/3 · after 69 drops not shown
    07:35:01.500000  tcp_v4_rcv+0x91 (NO_SOCKET) · gw · eth0 · tcp 192.168.0.2:50000 → 192.168.0.30:81 SYN · after 49 drops not shown
    07:35:01.500000  tcp_v4_rcv+0x91 (NO_SOCKET) · gw · eth0 · tcp 192.168.0.2:50001 → 192.168.0.30:81 SYN · on CPU: nginx/812 · after 19 drops not shown
    07:35:01.500000  tcp_v4_rcv+0x91 (NO_SOCKET) · gw · eth0 · tcp 192.168.0.30:9 → 192.168.0.2:9 ACK · by ab/4711 · after 9 drops not shown
    07:35:01.500000  tcp_v4_rcv+0x91 (NO_SOCKET) · netns and interface unknown · tcp 192.168.0.30:9 → 192.168.0.2:10 ACK · on CPU: idle · after 19 drops not shown
    07:35:01.500000  ip_rcv_finish_core.constprop.0+0xbf (NOT_SPECIFIED) · netns 7 · ifindex 9 · tcp [fd00::2]:65000 → [fd00:1111:2222:3333:4444:5555:6666:7777]:65001 PSH ACK · on CPU: 1�packets�dropped�at�[2J/3 · after 2 drops not shown
    07:35:01.500000  __udp4_lib_rcv+0x5d2 (NO_SOCKET) · netns and interface unknown · 0x88b5
    ");
}

#[test]
fn on_a_screen_lines_are_broken_between_words() {
    let (whole, broken) = (shown(None), shown(Some(80)));
    assert!(broken.lines().all(|line| line.chars().count() <= 80), "{broken}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&whole), words(&broken), "nothing is cut");
    // What goes on begins under what it goes on from.
    assert!(broken.lines().any(|line| line.starts_with("                 ")), "{broken}");
}
