//! Captures read back by a second implementation of the format: tshark. Guests have none.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use dropwatch::{
    render::pcapng::{Pcapng, SNAPLEN},
    report::{
        facts::{Interface, Netns},
        model::{Line, Place, Sampled},
    },
};
use jiff::Timestamp;

const TIME: i128 = 1_795_332_905_123_456_789;

/// What tshark makes of a file: a row of `fields` for each packet.
pub(crate) fn dissected(file: &[u8], fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "fields", "-E", "separator=;"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let mut tshark = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tshark.stdin.take().unwrap().write_all(file).unwrap();
    let output = tshark.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("cut short"), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().map(|line| line.split(';').map(str::to_owned).collect()).collect()
}

fn ipv4(protocol: u8, payload: &[u8], length: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend([192, 168, 0, 2, 192, 168, 0, 30]);
    packet.extend(payload);
    packet
}

fn udp(from: u16, to: u16, length: u16) -> Vec<u8> {
    [from, to, length, 0].into_iter().flat_map(u16::to_be_bytes).collect()
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One packet of every kind that can be dropped: with and without a link header, IP and not, whole
/// and cut.
fn samples() -> Vec<Sampled> {
    let base = Sampled {
        time: Timestamp::from_nanosecond(TIME).unwrap(),
        place: Place {
            symbol: Some("nf_hook_slow".into()),
            offset: Some(0x7d),
            reason: Some("NETFILTER_DROP".into()),
            ..Place::default()
        },
        netns: Some(Netns::new(Some("gw".into()), 7)),
        interface: Some(Interface { name: Some("eth0".into()), index: 2 }),
        weight: 1,
        outgoing: Some(false),
        ..Sampled::default()
    };
    let raw =
        |ethertype, packet: Vec<u8>, length| Sampled { ethertype, length, packet, ..base.clone() };
    let mut tcp = vec![0x9c, 0x40, 0x1f, 0x90]; // 40000 → 8080
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]); // SYN
    let mut ipv6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    ipv6.extend([0; 15]);
    ipv6.push(1);
    ipv6.extend([0; 15]);
    ipv6.push(1);
    ipv6.extend(udp(5000, 53, 8));
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
    arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
    vec![
        raw(0x0800, ipv4(17, &udp(1234, 9, 1000), 1020), 1000),
        Sampled { link_header: true, ..raw(0x0800, ethernet(0x0800, &ipv4(6, &tcp, 40)), 40) },
        Sampled { outgoing: Some(true), ..raw(0x86dd, ipv6, 48) },
        raw(0x0806, arp, 28),
    ]
}

/// The file after each packet.
fn files() -> Vec<Vec<u8>> {
    let (mut capture, mut file) = (Pcapng::new(SNAPLEN), Vec::new());
    let mut after = |sample| {
        capture.line(&Line::Sample(Box::new(sample)), &mut file);
        file.clone()
    };
    samples().into_iter().map(&mut after).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tshark_dissects_every_packet() {
    let file = files().pop().unwrap();
    let fields = [
        "frame.interface_name",
        "frame.time_epoch",
        "frame.comment",
        "frame.len",
        "frame.cap_len",
        "frame.packet_flags_direction",
        "_ws.malformed",
    ];
    for (row, lengths) in dissected(&file, &fields).iter().zip([
        ["1020", "28", "1"],
        ["54", "54", "1"],
        ["48", "48", "2"],
        ["44", "44", "1"],
    ]) {
        assert_eq!(row[..2], ["gw/eth0", "1795332905.123456789"]);
        assert_eq!(row[2], "dropped at nf_hook_slow+0x7d (NETFILTER_DROP), netns gw");
        assert_eq!([&row[3], &row[4], row[5].trim_start_matches("0x0000000")], lengths);
        assert_eq!(row[6], "", "nothing is malformed: {row:?}");
    }
    let fields =
        ["ip.dst", "udp.dstport", "tcp.dstport", "tcp.flags.syn", "ipv6.dst", "arp.dst.proto_ipv4"];
    assert_eq!(
        dissected(&file, &fields),
        [
            ["192.168.0.30", "9", "", "", "", ""],
            ["192.168.0.30", "", "8080", "1", "", ""],
            ["", "53", "", "", "::1", ""],
            ["", "", "", "", "", "10.0.0.9"],
        ]
    );
}

/// A run that is killed leaves what it had written, one call after the other.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_file_is_valid_after_every_packet() {
    for (file, packets) in files().iter().zip(1..) {
        assert_eq!(dissected(file, &["frame.number"]).len(), packets);
    }
}
