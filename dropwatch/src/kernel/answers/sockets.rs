//! The sockets of a port, from `/proc/net/udp` and `/proc/net/tcp`, and whose they are.
//!
//! Of TCP those that listen, which come before all others there (`tcp_seq_start`, net/ipv4/tcp_ipv4.c).
//! The files show neither which interface a socket is bound to, nor its buffer. `ss` asks by netlink, which may
//! load a module; where that is there, it is asked for buffers.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind::NotFound, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::super::{
    HostRoot,
    netlink::{Netlink, NetlinkError, attributes, number},
    owner::Owners,
    root::OSRELEASE,
};
use crate::report::{
    facts::Owner,
    protocol::number::UDP,
    question::{ReceiveBuffer, Socket, SocketPort, Transport, Unanswered},
};

/// Type of a question (include/uapi/linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// An attribute of the answer (include/uapi/linux/inet_diag.h).
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Most bytes read of one file: some thirty thousand sockets.
const MAX_FILE: u64 = 4 << 20;
/// Bytes that a line has at most, with room to spare (`udp4_seq_show`, `udp6_seq_show`).
const LINE: u64 = 1024;
/// Most sockets in an answer.
const MOST: usize = 16;
/// Most connected sockets of a namespace that are remembered.
const MOST_CONNECTED: usize = 1024;
/// Most descriptors looked at for their owners; each costs about a microsecond.
const DESCRIPTORS: usize = 32 << 10;
/// `TCP_LISTEN` (include/net/tcp_states.h), as the files have it.
const LISTEN: &str = "0A";

/// The sockets with such a port in the calling thread's namespace, at most [`MOST`].
///
/// # Errors
/// None was found, and not all could be looked at.
pub(super) fn ask(root: &HostRoot, port: &SocketPort) -> Result<Vec<Socket>, Unanswered> {
    let files = match port.transport {
        Transport::Udp => ["udp", "udp6"],
        Transport::Tcp => ["tcp", "tcp6"],
    };
    let (mut found, mut whole) = (Vec::new(), true);
    for name in files {
        match root.open(format!("proc/thread-self/net/{name}")) {
            Ok(file) => whole &= add(&mut found, file, port),
            // A kernel without IPv6.
            Err(error) => whole &= error.kind() == NotFound && name.ends_with('6'),
        }
    }
    if found.is_empty() && !whole {
        return Err(Unanswered::Failed);
    }
    let buffers = match port.transport {
        Transport::Udp if !found.is_empty() => buffers(root, port.port).unwrap_or_default(),
        _ => BTreeMap::new(),
    };
    Ok(owned(root, found, &buffers))
}

/// The connections of TCP in the calling thread's namespace that have the most unread, the most first, at
/// most [`MOST`].
pub(super) fn unread(root: &HostRoot) -> Vec<Socket> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        if let Ok(file) = root.open(format!("proc/thread-self/net/{name}")) {
            add_unread(&mut found, file);
        }
    }
    owned(root, found, &BTreeMap::new())
}

/// Sockets, with the processes that hold them.
fn owned(
    root: &HostRoot,
    found: Vec<(u64, Socket)>,
    buffers: &BTreeMap<u64, ReceiveBuffer>,
) -> Vec<Socket> {
    let mut owners = Owners::looking_at(root, DESCRIPTORS);
    owners.find(found.iter().map(|(inode, _)| *inode));
    let owned = found.into_iter().map(|(inode, socket)| {
        let buffer = buffers.get(&inode).copied();
        let owner = owners.owner(inode).map(|process| Owner {
            comm: process.comm,
            pid: process.pid,
            cgroup: process.cgroup,
        });
        Socket { owner, buffer, ..socket }
    });
    owned.collect()
}

/// The ends of UDP sockets that take packets of one other alone, in the calling thread's namespace, at most
/// [`MOST_CONNECTED`].
pub(in crate::kernel) fn connected(root: &HostRoot) -> Vec<(SocketAddr, SocketAddr)> {
    let files = ["udp", "udp6"].into_iter();
    let files = files.filter_map(|name| root.open(format!("proc/thread-self/net/{name}")).ok());
    files.flat_map(connected_of).take(MOST_CONNECTED).collect()
}

fn connected_of(file: impl Read) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
    lines(file).filter_map(|line| {
        let (_, _, socket) = parse(&line)?;
        Some((socket.local, socket.peer?))
    })
}

fn lines(file: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(file.take(MAX_FILE)).lines().map_while(Result::ok).skip(1)
}

/// Adds the sockets of one file with their inode numbers; false where it has more than is looked at.
fn add(found: &mut Vec<(u64, Socket)>, file: impl Read, port: &SocketPort) -> bool {
    let mut read = 0;
    for line in lines(file) {
        read += line.len() as u64 + 1;
        let Some((state, inode, socket)) = parse(&line) else { continue };
        if port.transport == Transport::Tcp && state != LISTEN {
            return true;
        }
        if socket.local.port() == port.port && found.len() < MOST {
            found.push((inode, socket));
        }
    }
    // The first line, which has their names, is as long as any.
    read < MAX_FILE - LINE
}

/// The receive buffers of the UDP sockets with a port, by inode number (`udp_dump`, net/ipv4/udp_diag.c). Asked
/// only where the module is there: it is not to be loaded for this.
fn buffers(root: &HostRoot, port: u16) -> Result<BTreeMap<u64, ReceiveBuffer>, NetlinkError> {
    let mut found = BTreeMap::new();
    if !has_udp_diag(root) {
        return Ok(found);
    }
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        netlink.ask_all(SOCK_DIAG_BY_FAMILY, &question(family, port), |message| {
            if found.len() < MOST {
                found.extend(buffer(message));
            }
        })?;
    }
    Ok(found)
}

/// Whether the kernel can be asked without loading a module: it is loaded, it is part of the kernel, or there are
/// no modules at all.
fn has_udp_diag(root: &HostRoot) -> bool {
    let is_part = || {
        let release = root.read_word(OSRELEASE).unwrap_or_default();
        let list = root.open(format!("lib/modules/{release}/modules.builtin"));
        list.is_ok_and(|list| lines(list).any(|line| line.ends_with("/udp_diag.ko")))
    };
    root.path("sys/module/udp_diag").exists() || !root.path("proc/modules").exists() || is_part()
}

/// `struct inet_diag_req_v2` (include/uapi/linux/inet_diag.h): UDP sockets in any state with a port.
fn question(family: i32, port: u16) -> [u8; 56] {
    let mut question = [0; 56];
    let extensions = 1 << (INET_DIAG_SKMEMINFO - 1);
    question[0] = u8::try_from(family).unwrap_or(0);
    question[1] = UDP;
    question[2] = extensions;
    question[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    question[8..10].copy_from_slice(&port.to_be_bytes());
    question
}

/// Inode number and receive buffer of one `struct inet_diag_msg`, whose memory is told as
/// `SK_MEMINFO_RMEM_ALLOC`, `SK_MEMINFO_RCVBUF` and more (include/uapi/linux/sock_diag.h).
fn buffer(message: &[u8]) -> Option<(u64, ReceiveBuffer)> {
    let (head, rest) = message.split_first_chunk::<72>()?;
    let inode = number(head.get(68..)?)?;
    let memory = attributes(rest).find(|(kind, _)| *kind == INET_DIAG_SKMEMINFO)?.1;
    // The last one is `SK_MEMINFO_DROPS` (Linux 4.6).
    let buffer =
        ReceiveBuffer { bytes: number(memory.get(4..)?)?, lost: number(memory.get(32..)?)? };
    Some((inode.into(), buffer))
}

/// Adds the connections of one file that have something unread, and keeps those with the most.
fn add_unread(found: &mut Vec<(u64, Socket)>, file: impl Read) {
    for line in lines(file) {
        let Some((state, inode, socket)) = parse(&line) else { continue };
        // Of one that listens, connections wait.
        if state == LISTEN || socket.peer.is_none() || socket.queued == 0 {
            continue;
        }
        found.push((inode, socket));
        if found.len() > MOST {
            found.sort_by_key(|(_, socket)| Reverse(socket.queued));
            found.truncate(MOST);
        }
    }
    found.sort_by_key(|(_, socket)| Reverse(socket.queued));
}

/// State, inode number and socket of a line (`udp4_format_sock`, net/ipv4/udp.c; `get_tcp4_sock`,
/// net/ipv4/tcp_ipv4.c; the same of IPv6).
fn parse(line: &str) -> Option<(&str, u64, Socket)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, peer, state, queues) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (_, queued) = queues.split_once(':')?;
    // Timer, retransmissions, user, time-out.
    let inode = words.nth(4)?.parse().ok()?;
    let peer = endpoint(peer)?;
    let socket = Socket {
        local: endpoint(local)?,
        peer: (peer.port() != 0).then_some(peer),
        queued: u64::from_str_radix(queued, 16).ok()?,
        buffer: None,
        owner: None,
    };
    Some((state, inode, socket))
}

/// An address of words in the machine's order of bytes, and a port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].map(u32::to_ne_bytes);
            // An IPv4 address that a socket of IPv6 has.
            Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                        uid  timeout inode ref pointer drops\n";

    /// As the machine writes an address.
    fn hex(bytes: &[u8]) -> String {
        let words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        words.map(|word| format!("{word:08X}")).collect()
    }

    fn line(local: &[u8], port: u16, peer: &[u8], peer_port: u16, state: &str) -> String {
        let (local, peer) = (hex(local), hex(peer));
        format!(
            " 410: {local}:{port:04X} {peer}:{peer_port:04X} {state} 00000000:00000900 00:00000000 \
             00000000     0        0 4711 2 0000000000000000 0\n"
        )
    }

    fn found(transport: Transport, port: u16, text: &str) -> Vec<Socket> {
        let mut found = Vec::new();
        add(&mut found, text.as_bytes(), &SocketPort { transport, port });
        assert!(found.iter().all(|(inode, _)| *inode == 4711));
        found.into_iter().map(|(_, socket)| socket).collect()
    }

    #[test]
    fn sockets_are_found_by_their_port() {
        let text = [
            HEAD.to_owned(),
            line(&[127, 0, 0, 1], 53, &[0; 4], 0, "07"),
            line(&[198, 18, 1, 2], 40_000, &[198, 18, 2, 2], 53, "01"),
            "broken\n".to_owned(),
            line(&[0; 4], 54, &[0; 4], 0, "07"),
        ];
        let text = text.concat();
        let [local] = &found(Transport::Udp, 53, &text)[..] else { panic!() };
        assert_eq!((local.local, local.peer), ("127.0.0.1:53".parse().unwrap(), None));
        assert_eq!(local.queued, 0x900);
        let connected: Vec<_> = connected_of(text.as_bytes()).collect();
        let ends = ["198.18.1.2:40000", "198.18.2.2:53"].map(|end| end.parse().unwrap());
        assert_eq!(connected, [ends.into()]);
        assert_eq!(found(Transport::Udp, 55, &text), []);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_known_whole() {
        let port = SocketPort { transport: Transport::Udp, port: 53 };
        let other = line(&[127, 0, 0, 1], 54, &[0; 4], 0, "07");
        let whole = |lines: usize| {
            let text = [HEAD.to_owned(), other.repeat(lines)].concat();
            add(&mut Vec::new(), text.as_bytes(), &port)
        };
        assert!(whole(9));
        assert!(!whole(usize::try_from(MAX_FILE).unwrap() / other.len() + 1));
        let nowhere = HostRoot::new("/nowhere");
        assert_eq!(ask(&nowhere, &port), Err(Unanswered::Failed));
    }

    #[test]
    fn ipv6_addresses_may_be_those_of_ipv4() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 198, 18, 1, 2];
        let text = [HEAD.to_owned(), line(&mapped, 53, &[0; 16], 0, "07")].concat();
        let found = found(Transport::Udp, 53, &text);
        assert_eq!(found[0].local, "198.18.1.2:53".parse().unwrap());
    }

    #[test]
    fn of_tcp_those_that_listen_come_first() {
        let listens = |port| line(&[127, 0, 0, 1], port, &[0; 4], 0, "0A");
        let open = line(&[127, 0, 0, 1], 80, &[127, 0, 0, 1], 9, "01");
        let text = [HEAD.to_owned(), listens(80), open, listens(80)].concat();
        assert_eq!(found(Transport::Tcp, 80, &text).len(), 1);
    }

    #[test]
    fn connections_with_the_most_unread_come_first() {
        let peer = [198, 18, 1, 2];
        let open = |port| line(&[127, 0, 0, 1], port, &peer, 9, "01");
        let most: String = (100..120).map(open).collect();
        let text = [
            HEAD.to_owned(),
            line(&[127, 0, 0, 1], 80, &[0; 4], 0, "0A"),
            open(81).replace(":00000900", ":00000000"),
            most,
            open(82).replace(":00000900", ":00010000"),
        ];
        let mut found = Vec::new();
        add_unread(&mut found, text.concat().as_bytes());
        assert_eq!(found.len(), MOST);
        assert_eq!((found[0].1.local.port(), found[0].1.queued), (82, 0x10000));
        assert!(found[1..].iter().all(|(_, socket)| (100..120).contains(&socket.local.port())));
    }

    #[test]
    fn this_host_knows_whose_a_socket_is() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let port = SocketPort { transport: Transport::Udp, port };
        let found = ask(&HostRoot::default(), &port).unwrap();
        let own = |it: &&Socket| it.owner.as_ref().is_some_and(|it| it.pid == std::process::id());
        assert!(found.iter().any(|it| own(&it) && it.local == socket.local_addr().unwrap()));
    }

    #[test]
    fn a_buffer_is_what_the_socket_says_itself() {
        let memory = [768_u32, 8192, 0, 212_992, 0, 0, 0, 0, 7].map(u32::to_ne_bytes);
        let mut message = vec![0; 72];
        message[68..72].copy_from_slice(&4711_u32.to_ne_bytes());
        message.extend([40, 0, 7, 0]);
        message.extend(memory.concat());
        assert_eq!(buffer(&message), Some((4711, ReceiveBuffer { bytes: 8192, lost: 7 })));
        assert_eq!(buffer(&message[..72]), None);
        // Which the module answers on a real host, where it is loaded.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, RcvBuf, &6000).unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = buffers(&HostRoot::default(), port).unwrap().into_values();
        let found: Vec<u32> = found.map(|it| it.bytes).collect();
        let is_there = has_udp_diag(&HostRoot::default());
        assert!(found == if is_there { vec![12_000] } else { Vec::new() }, "{found:?}");
    }

    proptest! {
        #[test]
        fn no_line_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = buffer(&bytes);
        }
    }
}
