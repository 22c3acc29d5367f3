//! What the kernel makes of translated code, beside what tcpdump makes of the expression, for the same
//! frames.

use std::{
    ffi::c_long,
    fs::File,
    io::{Cursor, Read as _, Seek as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::{Command, Stdio},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};
use dropwatch_common::expression::{LINK, READ};
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use testbed::unproved::unproved;
use zerocopy::IntoBytes as _;

use super::{
    super::{
        attach::OBJECT,
        sys::{self, Arguments, Code, MapSpec},
    },
    *,
};
use crate::filter::expression::MOST;

#[test]
fn the_object_has_a_function_for_an_expression() {
    let mut object = Object::parse(OBJECT).unwrap();
    assert!(insert(&mut object, &[]));
    let replaced = object.functions.values().filter(|function| function.instructions.is_empty());
    assert_eq!(replaced.count(), 1);
}

/// Whatever can be read can be translated, into jumps that lead forward and within the code.
fn holds(text: &str) {
    let Ok(program) = ExpressionCode::parse(text.as_bytes()) else { return };
    let code = translate(&program).unwrap();
    assert!(code.len() <= 20 + 10 * program.instructions().len());
    for (number, instruction) in code.iter().enumerate() {
        let class = u32::from(instruction.code) & 7;
        if class == BPF_JMP || class == BPF_JMP32 {
            let target = number as i64 + 1 + i64::from(instruction.off);
            assert!(instruction.off >= 0 && target <= code.len() as i64, "{number} to {target}");
        }
    }
    assert_eq!(u32::from(code.last().unwrap().code), BPF_JMP | BPF_EXIT);
}

proptest! {
    #[test]
    fn whatever_is_read_is_translated(
        lines in prop::collection::vec((0_u16..0xc0, 0_u8..6, 0_u8..6, prop_oneof![0_u32..40, any::<u32>()]), 0..20),
    ) {
        let mut text = format!("{}\n", lines.len() + 1);
        for (code, yes, no, constant) in lines {
            text.push_str(&format!("{code} {yes} {no} {constant}\n"));
        }
        text.push_str("6 0 0 1\n");
        holds(&text);
    }
}

#[test]
fn the_longest_code_is_in_reach_of_its_jumps() {
    // The longest translation of one instruction, and a jump over all of them.
    let body = "72 0 0 3\n".repeat(MOST - 3);
    holds(&format!("{MOST}\n5 0 0 {}\n{body}6 0 0 1\n6 0 0 0\n", MOST - 3));
    holds(&format!("{MOST}\n21 0 1 0\n{}6 0 0 1\n", "21 200 100 7\n".repeat(MOST - 2)));
}

/// A translated expression in this kernel.
struct Loaded {
    program: OwnedFd,
    view: OwnedFd,
}

impl Loaded {
    /// `None` where this user may not load programs.
    fn new(function: &[bpf_insn]) -> Option<Self> {
        let spec = MapSpec {
            name: "view",
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            key_size: 4,
            value_size: size_of::<View>() as u32,
            max_entries: 1,
            flags: 0,
        };
        let view = match sys::create_map(&spec) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return None,
            view => view.unwrap(),
        };
        // Loads the address of the map's value, calls the function, and returns what it does.
        let mut writer = Writer::default();
        let fd = view.as_raw_fd().cast_unsigned();
        writer.push(0x18, VIEW, 2, 0, fd);
        writer.push(0, 0, 0, 0, 0);
        writer.push(BPF_JMP | 0x80, 0, 1, 0, 1);
        writer.push(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        writer.code.extend(function);
        let code = Code {
            name: "expression",
            arguments: Arguments::Raw,
            instructions: &writer.code,
            license: c"GPL",
        };
        let mut log = vec![0; 1 << 16];
        let program = sys::load(&code, &mut log).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&log).trim_end_matches('\0'))
        });
        Some(Self { program, view })
    }

    fn verdict(&self, view: &View) -> u32 {
        // SAFETY: the map is an array of views.
        unsafe { sys::update_only(self.view.as_fd(), view.as_bytes()) }.unwrap();
        // SAFETY: a union of structures of integers.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        attributes.test.prog_fd = self.program.as_raw_fd().cast_unsigned();
        // SAFETY: a run of a raw tracepoint's program (Linux 5.10) takes and leaves no memory.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_PROG_TEST_RUN as c_long,
                &raw mut attributes,
                size_of::<bpf_attr>(),
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: an integer, which the command has written.
        unsafe { attributes.test.retval }
    }
}

/// The frame, of which so many bytes are read.
fn view(frame: &[u8], read: usize) -> View {
    let readable = read.min(frame.len()).min(READ);
    let mut view = View { length: frame.len() as u32, readable: readable as u32, ..View::EMPTY };
    view.bytes[..readable].copy_from_slice(&frame[..readable]);
    view
}

/// A packet without a link-layer header, as the kernel side lays it out; what stands in the place of the
/// addresses is no matter.
fn without_link(frame: &[u8]) -> View {
    let mut view = view(frame, READ);
    view.first = ADDRESSES as u32;
    view.bytes[..ADDRESSES].fill(0x5a);
    view
}

/// A file in memory.
fn empty_file() -> File {
    memfd_create("capture", MFdFlags::MFD_CLOEXEC).unwrap().into()
}

/// Which of the frames tcpdump prints; `Err` is its message.
fn tcpdump(expression: &str, frames: &[Vec<u8>]) -> Result<Vec<bool>, String> {
    let mut file = empty_file();
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 1 << 18, 1];
    file.write_all(header.as_bytes()).unwrap();
    for (number, frame) in frames.iter().enumerate() {
        // The second is the number.
        let record = [number as u32, 0, frame.len() as u32, frame.len() as u32];
        file.write_all(record.as_bytes()).unwrap();
        file.write_all(frame).unwrap();
    }
    file.rewind().unwrap();
    let mut command = Command::new("tcpdump");
    command.args(["-r", "-", "-w", "-", "--", expression]).stdin(Stdio::from(file));
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut printed = Cursor::new(output.stdout);
    let mut matched = vec![false; frames.len()];
    printed.read_exact(&mut [0; 24]).unwrap();
    let mut record = [0_u32; 4];
    while printed.read_exact(record.as_mut_bytes()).is_ok() {
        matched[record[0] as usize] = true;
        printed.read_exact(&mut vec![0; record[2] as usize]).unwrap();
    }
    Ok(matched)
}

fn compile(expression: &str) -> Result<ExpressionCode, String> {
    let mut file = empty_file();
    file.write_all([0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 1 << 18, 1].as_bytes()).unwrap();
    file.rewind().unwrap();
    let mut command = Command::new("tcpdump");
    let output = command.args(["-ddd", "-r", "-", "--", expression]).stdin(file).output().unwrap();
    match output.status.success() {
        true => ExpressionCode::parse(&output.stdout).map_err(|error| error.to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Compares all frames; how many match. `None` where the expression is refused, or programs are.
fn compare(expression: &str, frames: &[Vec<u8>]) -> Option<usize> {
    let code = compile(expression).ok()?;
    let loaded = Loaded::new(&translate(&code).unwrap())?;
    let expected = tcpdump(expression, frames).unwrap();
    // The same packets between other stations.
    let elsewhere: Vec<Vec<u8>> = frames.iter().map(|frame| between_others(frame)).collect();
    let elsewhere = tcpdump(expression, &elsewhere).unwrap();
    for ((frame, expected), elsewhere) in frames.iter().zip(&expected).zip(&elsewhere) {
        let said = if *expected { verdict::YES } else { verdict::NO };
        assert_eq!(loaded.verdict(&view(frame, READ)), said, "{expression}: {frame:02x?}");
        // Where less can be told, less is said, and nothing else.
        for read in [LINK, LINK + 20, 60] {
            let cut = loaded.verdict(&view(frame, read));
            assert!(cut == said || cut == verdict::UNDECIDED, "{expression}: {frame:02x?}");
        }
        if frame.len() > LINK {
            let without = loaded.verdict(&without_link(frame));
            let decided = expected == elsewhere && without == said;
            assert!(decided || without == verdict::UNDECIDED, "{expression}: {frame:02x?}");
        }
    }
    Some(expected.iter().filter(|matched| **matched).count())
}

fn between_others(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.iter_mut().take(ADDRESSES).for_each(|byte| *byte = !*byte);
    frame
}

/// IPv4 with a header of that many words, that fragment field, protocol, and content.
fn ipv4(words: u8, fragment: u16, protocol: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::from(words) * 4 + content.len() as u16;
    let mut packet = vec![0x40 | words, words / 8];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 1, 2, 3, 192, 168, 0, 2]);
    packet.resize(usize::from(words) * 4, 1);
    packet.extend(content);
    packet
}

fn ipv6(next: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((content.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(content);
    packet
}

fn ethernet(kinds: &[[u8; 4]], kind: u16, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kinds.concat());
    frame.extend(kind.to_be_bytes());
    frame.extend(content);
    frame
}

/// Frames of many kinds: with tags, fragments, options, extension headers, too short ones.
fn frames() -> Vec<Vec<u8>> {
    let segment = |port: u16| {
        let mut segment = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(b"GET / HTTP/1.1\r\n");
        segment
    };
    let datagram = |port: u16| {
        [40_000_u16.to_be_bytes(), port.to_be_bytes(), [0, 12], [0, 0], [1, 2], [3, 4]].concat()
    };
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let packets = [
        (0x0800, ipv4(5, 0, 6, &segment(443))),
        (0x0800, ipv4(5, 0x4000, 6, &segment(80))),
        (0x0800, ipv4(8, 0, 6, &segment(443))),
        (0x0800, ipv4(15, 0, 17, &datagram(53))),
        (0x0800, ipv4(5, 0x2000, 17, &datagram(53))),
        (0x0800, ipv4(5, 0x20b9, 17, &datagram(53))),
        (0x0800, ipv4(5, 0, 1, &echo)),
        (0x0800, ipv4(5, 0, 132, &datagram(9))),
        (0x0800, ipv4(0, 0, 6, &segment(443))),
        (0x86dd, ipv6(6, &segment(443))),
        (0x86dd, ipv6(17, &datagram(53))),
        (0x86dd, ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0, 7], &datagram(53)[..]].concat())),
        (0x86dd, ipv6(58, &[128, 0, 0, 0, 0, 1, 0, 1])),
        (0x0806, [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat()),
        (0x88b5, vec![7; 40]),
        (0x8847, [&[0, 0, 0x11, 0x40][..], &ipv4(5, 0, 17, &datagram(53))].concat()),
        (0x0026, vec![0x42; 38]),
    ];
    let mut frames = Vec::new();
    for (kind, packet) in &packets {
        let whole = ethernet(&[], *kind, packet);
        for length in [14, 17, 20, 33, 34, 36, 38, 54] {
            frames.push(whole[..whole.len().min(length)].to_vec());
        }
        frames.push(ethernet(&[[0x81, 0, 0, 5]], *kind, packet));
        frames.push(ethernet(&[[0x88, 0xa8, 0x60, 7], [0x81, 0, 0, 5]], *kind, packet));
        frames.push(whole);
    }
    frames.push(vec![1]);
    frames.push(vec![0xff; 250]);
    frames
}

fn is_possible() -> bool {
    let installed = Command::new("tcpdump").arg("--version").output().is_ok();
    let everything = ExpressionCode::parse(b"1\n6 0 0 1\n").unwrap();
    let loads = installed && Loaded::new(&translate(&everything).unwrap()).is_some();
    if !loads {
        unproved("tcpdump is not installed, or this user may not load programs");
    }
    loads
}

/// Expressions as people type them, each of which some frames match and others do not.
const EXPRESSIONS: &[&str] = &[
    "tcp dst port 443 and net 10.0.0.0/8",
    "ip",
    "ip6",
    "arp",
    "not ip and not ip6 and not arp",
    "udp port 53",
    "udp portrange 50-60",
    "icmp or icmp6",
    "host 10.1.2.3 and not src host 192.168.0.2",
    "src net 10.0.0.0/8",
    "ip6 host fd00::1",
    "ip6 net fd00::/16",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:02 and tcp",
    "ether proto 0x88b5",
    "vlan",
    "vlan 5",
    "vlan 5 and tcp port 443",
    "vlan 7 and vlan 5 and udp",
    "mpls",
    "ip[6:2] & 0x1fff != 0",
    "ip[6:2] & 0x3fff != 0 or ip6[6] = 44",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "ip[0] & 0xf > 5",
    "less 40",
    "greater 60",
    "len > 40 and len % 2 = 0",
    "ip proto 132 or sctp",
    "ip broadcast or ether multicast or ip multicast",
    "ip[8] < 65 and ip[9] / ip[1] > 1",
    "ether[0] & 1 = 1",
    "ether[60] = 1 or ether[5] >= 1",
    "ip[ip[0] & 0xf] << 3 = 416",
    "icmp[icmptype] = icmp-echo",
    "llc or stp",
];

#[test]
fn the_kernel_says_what_tcpdump_says() {
    if !is_possible() {
        return;
    }
    let frames = frames();
    for expression in EXPRESSIONS {
        let matched = compare(expression, &frames).expect("tcpdump takes it");
        assert!((1..frames.len()).contains(&matched), "{expression}: {matched}");
    }
}

/// What is computed of bytes of the packet.
fn number() -> impl Strategy<Value = String> {
    let constant = prop_oneof![0_u32..70, Just(0xffff_ffff), any::<u32>()];
    let leaf = prop_oneof![
        constant.prop_map(|constant| constant.to_string()),
        Just("len".to_owned()),
        ("ether|ip|ip6|tcp|udp", 0_u32..70, prop_oneof![Just(1), Just(2), Just(4)])
            .prop_map(|(protocol, at, bytes)| format!("{protocol}[{at}:{bytes}]")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            4 => (inner.clone(), "[-+*/%&|^]|<<|>>", inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            1 => inner.clone().prop_map(|inner| format!("(-{inner})")),
            1 => ("ether|ip", inner).prop_map(|(protocol, inner)| format!("{protocol}[{inner}]")),
        ]
    })
}

fn expression() -> impl Strategy<Value = String> {
    let known = prop::sample::select(EXPRESSIONS).prop_map(|known| format!("({known})"));
    let computed = (number(), "=|!=|<|>|<=|>=", number())
        .prop_map(|(left, comparison, right)| format!("{left} {comparison} {right}"));
    prop_oneof![1 => known, 2 => computed].prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), "and|or|and not|or not", inner)
            .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})"))
    })
}

#[test]
fn the_kernel_says_what_tcpdump_says_of_whatever_is_asked() {
    if !is_possible() {
        return;
    }
    let frames = frames();
    let (mut taken, mut decisive) = (0, 0);
    let mut runner = TestRunner::default();
    // Many are refused: nothing can be IPv4 and IPv6.
    for _ in 0..5_000 {
        if taken == 80 {
            break;
        }
        let expression = expression().new_tree(&mut runner).unwrap().current();
        if let Some(matched) = compare(&expression, &frames) {
            taken += 1;
            decisive += usize::from((1..frames.len()).contains(&matched));
        }
    }
    assert!(taken == 80 && decisive >= 25, "{taken} taken, {decisive} decisive");
}
