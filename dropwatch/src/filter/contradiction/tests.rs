use clap::Parser;

use super::*;
use crate::cli::Filters;

#[derive(Parser)]
struct FilterArgs {
    #[command(flatten)]
    filters: Filters,
}

/// Every namespace has the length of its name as its number, but `?` which is to come.
fn checked(line: &str) -> Result<Vec<String>, NothingPasses> {
    let FilterArgs { filters } =
        FilterArgs::parse_from([""].into_iter().chain(line.split_whitespace()));
    let packets = filters.packets(None);
    let place = |it: &Choice<String>| match it.value.as_str() {
        "?" => (None, "?".to_owned()),
        name => (Some(name.len() as u32), String::new()),
    };
    let netns: Vec<_> = packets.netns.iter().map(place).collect();
    check(&filters.keys(), &packets, &netns, &filters.typed(None))
}

#[test]
fn what_lets_nothing_through_is_refused() {
    for line in [
        "--netns a --netns !a",
        "--netns abc --netns !cba",
        "--netns ? --netns !?",
        "--proto 60 --host ::1",
        "--proto 44 --proto !ip",
        "--symbol f.constprop.0 --symbol !f",
        "--symbol f.c* --symbol !f",
        "--symbol f.constprop.0+0x7e6 --symbol !f+0x7e6",
        "--netns a --netns bb --netns !a --netns !bb",
        "--iface lo --iface !lo",
        "--reason NO_SOCKET --reason !no_socket",
        "--reason TCP_RESET --reason TCP_CSUM --reason !tcp_*",
        "--reason TCP_C* --reason !TCP_*",
        "--reason !*",
        "--symbol !*",
        "--symbol tcp_v4_rcv --symbol !tcp*rcv",
        "--symbol tcp_v4_rcv+0x91 --symbol !tcp_v4_rcv",
        "--symbol nft_do_chain+0x7 --symbol !nft_do_chain+0x7",
        "--proto tcp --proto !tcp",
        "--proto tcp --proto !6",
        "--proto icmp --proto !ip",
        "--proto arp --proto !0x0806",
        "--host 10.0.0.1 --host !10.0.0.0/8",
        "--host 10.0.0.0/8 --host !10.0.0.0/9 --host !10.128.0.0/9",
        "--port 80 --port !1-1024",
        "--port 1-100 --port !1-50 --port !51-200",
        "--port 0-65535 --port !0-65535",
        "--port 80 --proto icmp",
        "--port 80 --proto arp",
        "--port 53 --proto gre --proto icmpv6",
        "--port 80 --proto !tcp --proto !udp --proto !sctp --proto !dccp --proto !udplite",
        "--host 10.0.0.1 --proto arp",
        "--host 10.0.0.1 --proto ip6",
        "--host fd00::1 --proto icmp",
        "--host ::/0 --proto icmp",
        "--host ::/64 --proto ip",
        "--host fd00::1 --host !::/0",
        "--host ::/0 --proto lldp",
        "--host fd00::1 --proto !ip6",
        "--port 80 --proto ip --host fd00::/8",
        "--proto ip --proto icmpv6 --host fd00::1 --port 80",
        "--host !0.0.0.0/0 --proto icmp",
        "--tcp-flags syn --tcp-flags !syn",
        "--tcp-flags syn,ack --tcp-flags !ack",
        "--tcp-flags none --tcp-flags !none/syn,rst",
        "--tcp-flags syn --proto udp",
        "--tcp-flags syn --proto arp",
        "--tcp-flags syn --proto !tcp",
        "--tcp-flags syn --host !0.0.0.0/0 --host !::/0",
        "--proto tcp --tcp-flags !syn --tcp-flags !none/syn",
        "--length 100 --length !64-1500",
        "--length 64-128 --length !0-100 --length !101-",
        "--length !0-",
        "--mark 7 --mark !7",
        "--mark 0x11/0xff --mark 0x31/0xff --mark !0x1/0xf",
        "--direction in --direction !in",
        "--direction !in --direction !out",
    ] {
        let error = checked(line).unwrap_err();
        let last = line.rsplit("--").next().unwrap();
        assert!(error.to_string().contains(last), "{line}: {error}");
        let alone = matches!(error, NothingPasses::Excluded(_));
        assert_eq!(alone, line.ends_with(" !*"), "{line}: {error}");
    }
}

#[test]
fn what_may_let_something_through_is_taken() {
    for line in [
        "",
        "--netns a --netns !bb",
        "--netns ? --netns !??",
        "--iface lo --iface !eth0",
        "--reason TCP_* --reason !TCP_CSUM",
        "--reason *_CSUM --reason !TCP_*",
        "--symbol tcp_* --symbol !tcp_v4_rcv",
        "--symbol tcp_v4_rcv --symbol !tcp_v4_rcv+0x91",
        "--symbol f --symbol f+0x1",
        "--symbol x --symbol !x+0x7",
        "--symbol *f.cold --symbol !*f",
        "--proto 51 --proto !ipv6",
        "--proto tcp --proto !udp",
        "--proto ip --proto !tcp --proto !udp",
        "--proto !ip --proto !ip6",
        "--host !0.0.0.0/0 --host !::/0",
        "--host 10.0.0.0/8 --host !10.0.0.0/9",
        "--host ::/0 --proto icmpv6",
        "--host 10.0.0.1 --host !::/0",
        "--host ::ffff:10.0.0.0/104 --proto icmp",
        "--host fd00::1 --proto tcp --port 80",
        "--host fd00::/8 --host !10.0.0.0/8 --proto icmpv6",
        "--port 80 --port !1-79",
        "--port !80 --proto icmp",
        "--port 80 --proto !tcp --proto !udp",
        "--port 80 --proto !arp",
        "--port 80 --host 10.0.0.1 --netns a --iface lo --proto ip",
        "--tcp-flags syn/syn,ack --port 80 --proto tcp --host fd00::1",
        "--tcp-flags syn --tcp-flags !ack",
        "--tcp-flags !syn --proto udp",
        "--tcp-flags !syn --tcp-flags !none/syn",
        "--length 64-128 --length !64-127",
        "--length 1401- --length !1401-65535",
        "--mark 1/1 --mark !3/3",
        "--mark !1/1",
        "--direction in --direction out",
        "--direction !in",
    ] {
        assert_eq!(checked(line), Ok(vec![]), "{line}");
    }
}

#[test]
fn a_value_in_vain_gives_a_notice() {
    for (line, notice) in [
        ("--proto tcp --proto icmp --port 80", "--proto icmp counts nothing beside --port 80"),
        (
            "--host 10.0.0.1 --host fd00::1 --proto icmp",
            "--host fd00::1 counts nothing beside --proto icmp",
        ),
        ("--netns a --netns bb --netns !a", "--netns a counts nothing beside --netns !a"),
        ("--length 5 --length 9 --length !0-5", "--length 5 counts nothing beside --length !0-5"),
        ("--mark 1 --mark 2 --mark !1/1", "--mark 1 counts nothing beside --mark !1/1"),
        (
            "--direction in --direction out --direction !in",
            "--direction in counts nothing beside --direction !in",
        ),
        (
            "--tcp-flags syn,ack --tcp-flags rst --tcp-flags !syn",
            "--tcp-flags syn,ack counts nothing beside --tcp-flags !syn",
        ),
        (
            "--proto udp --proto tcp --tcp-flags syn",
            "--proto udp counts nothing beside --tcp-flags syn",
        ),
        ("--port 80 --port 443 --port !1-99", "--port 80 counts nothing beside --port !1-99"),
        (
            "--reason TCP_CSUM --reason UDP_CSUM --reason !TCP*",
            "--reason TCP_CSUM counts nothing beside --reason !TCP*",
        ),
    ] {
        assert_eq!(checked(line), Ok(vec![notice.to_owned()]), "{line}");
    }
}
