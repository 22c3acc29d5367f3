//! Another tenant of the host: a client and a server in namespaces of their own, whose packets are
//! dropped for a dozen causes.
//!
//! They die where the packets of the tests do, on a link and for ports with the same names: what
//! tells the two apart is the namespace, the address or the ethertype.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt,
    socket, sockopt::RcvBuf,
};

use crate::{
    command::output,
    drops::{PORT, frame::Frame, network::LINK, socket_filter::refuse_all},
    flood::{ETHERTYPE, PacketSocket, frame},
    link,
    netns::Netns,
};

/// Addresses set aside for documentation (RFC 5737, RFC 3849).
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The client has it, and the server no way back to it.
const ASTRAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Locally administered addresses (IEEE 802).
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// Ports of the server: behind a rule of iptables, behind one of nft, of a socket that is full, and
/// of one whose filter refuses all.
const IPTABLES: u16 = 7_101;
const NFT: u16 = 7_102;
const FULL: u16 = 7_103;
const REFUSING: u16 = 7_104;
/// More datagrams than the smallest buffer holds.
const ENOUGH: usize = 100;

/// Packets that are dropped in a round.
pub(super) const PACKETS: u64 = 16;

/// The namespaces, and the sockets that send and refuse.
#[derive(Debug)]
pub(super) struct Tenant {
    client: Netns,
    server: Netns,
    ipv4: UdpSocket,
    ipv6: UdpSocket,
    astray: UdpSocket,
    icmp: OwnedFd,
    frames: PacketSocket,
    /// Held for its queue and for its filter.
    _refuse: [UdpSocket; 2],
}

impl Tenant {
    pub(super) fn new() -> Result<Self> {
        let (client, server) = (Netns::new("visitor")?, Netns::new("tenant")?);
        link::veth(&client, LINK, &server, LINK)?;
        for (netns, address, address6, mac) in
            [(&client, CLIENT, CLIENT6, CLIENT_MAC), (&server, SERVER, SERVER6, SERVER_MAC)]
        {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            // 1: no link-local address, so nobody asks for routers (IN6_ADDR_GEN_MODE_NONE).
            netns.sysctl(&format!("net/ipv6/conf/{LINK}/addr_gen_mode"), "1")?;
            netns.sysctl(&format!("net/ipv6/conf/{LINK}/disable_ipv6"), "0")?;
            netns.ip(&format!("address add {address}/24 dev {LINK}"))?;
            netns.ip(&format!("link set {LINK} address {mac} up"))?;
            netns.ip(&format!("address add {address6}/64 dev {LINK} nodad"))?;
        }
        client.ip(&format!("address add {ASTRAY}/32 dev lo"))?;
        server.sysctl(&format!("net/ipv4/conf/{LINK}/rp_filter"), "1")?;
        let rule = format!("-w -A INPUT -p udp --dport {IPTABLES} -j DROP");
        output(server.command("iptables-legacy").args(rule.split(' ')))?;
        let rules = format!(
            "add table ip t; add chain ip t c {{ type filter hook input priority 0; }}; \
             add rule ip t c udp dport {NFT} drop"
        );
        output(server.command("nft").arg(rules))?;
        let refuse = server.enter(|| {
            let [full, refusing] =
                [FULL, REFUSING].map(|port| UdpSocket::bind((SERVER, port)).context("cannot bind"));
            let (full, refusing) = (full?, refusing?);
            // Too small: the kernel makes it the smallest there is (SOCK_MIN_RCVBUF).
            setsockopt(&full, RcvBuf, &1).context("cannot make the buffer small")?;
            refuse_all(&refusing)?;
            Ok([full, refusing])
        })?;
        let (ipv4, ipv6, astray, icmp, frames) = client.enter(|| {
            let bind = |address: SocketAddr| {
                UdpSocket::bind(address).with_context(|| format!("cannot bind to {address}"))
            };
            let icmp = socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Icmp,
            )
            .context("cannot open a raw socket")?;
            Ok((
                bind((CLIENT, 0).into())?,
                bind((CLIENT6, 0).into())?,
                bind((ASTRAY, 0).into())?,
                icmp,
                PacketSocket::open(LINK)?,
            ))
        })?;
        for _ in 0..ENOUGH {
            ipv4.send_to(b"noise", (SERVER, FULL)).context("cannot fill a socket")?;
        }
        Ok(Self { client, server, ipv4, ipv6, astray, icmp, frames, _refuse: refuse })
    }

    /// Name of the namespace in which most is dropped.
    pub(super) fn name(&self) -> &str {
        self.server.name()
    }

    /// Runs `rounds` in the client's namespace.
    pub(super) fn stay(&self, rounds: impl FnOnce() + Send) -> Result<()> {
        self.client.enter(|| {
            rounds();
            Ok(())
        })
    }

    /// Has a packet dropped for each cause. What the kernel says to their sender does not matter.
    pub(super) fn round(&self) {
        for port in [PORT, IPTABLES, NFT, FULL, REFUSING] {
            let _lost = self.ipv4.send_to(b"noise", (SERVER, port));
        }
        let _lost = self.ipv6.send_to(b"noise", (SERVER6, PORT));
        let _lost = self.astray.send_to(b"noise", (SERVER, PORT));
        for server in [SocketAddr::from((SERVER, PORT)), (SERVER6, PORT).into()] {
            let _refused = TcpStream::connect_timeout(&server, Duration::from_millis(100));
        }
        // An echo request (RFC 792) with a checksum that is none.
        let echo = [8, 0, 0xba, 0xad, 0, 1, 0, 1];
        let server = SockaddrIn::from(SocketAddrV4::new(SERVER, 0));
        let _lost = sendto(self.icmp.as_raw_fd(), &echo, &server, MsgFlags::empty());
        let datagram = |vlan| Frame {
            source: CLIENT_MAC,
            destination: SERVER_MAC,
            vlan,
            from: SocketAddrV4::new(CLIENT, PORT),
            to: SocketAddrV4::new(SERVER, PORT),
        };
        for mut bytes in [
            // Local experimental ethertype 2, and that of private protocols (RFC 9542).
            frame(CLIENT_MAC, ETHERTYPE + 1).to_vec(),
            frame(CLIENT_MAC, ETHERTYPE + 2).to_vec(),
            datagram(None).damaged(),
            datagram(Some(7)).bytes(),
        ] {
            let _lost = self.frames.send(&mut bytes, 1);
        }
        self.leave_unread();
    }

    /// A socket that is closed with a datagram in its queue, which has no device any more.
    fn leave_unread(&self) {
        let Ok(unread) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return };
        let to = unread.local_addr().ok();
        let _lost = to.map(|to| unread.send_to(b"noise", to));
    }
}
