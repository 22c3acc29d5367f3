//! Packets that a rule leaves to a program (NFQUEUE), which is not there or does not decide.

use std::{
    net::UdpSocket,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::{
    Cause, PORT,
    network::{CLIENT, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// A server whose rule hands datagrams to [`Queued::QUEUE`].
#[derive(Debug)]
pub struct Queued {
    network: Network,
    listener: Option<Listener>,
    /// Takes what passes.
    _reader: UdpSocket,
}

impl Queued {
    pub const QUEUE: u16 = 5;
    /// Packets that may wait for the program.
    pub const ROOM: u32 = 10;

    /// Nobody listens at the queue.
    ///
    /// # Errors
    /// As [`Network::direct`], and without iptables-legacy or NFQUEUE; so for all of them.
    pub fn unheard() -> Result<Self> {
        Self::of("")
    }

    /// Nobody listens, and the rule lets packets pass then.
    pub fn bypassed() -> Result<Self> {
        Self::of(" --queue-bypass")
    }

    /// A program listens, and decides about none.
    pub fn full() -> Result<Self> {
        let queued = Self::of("")?;
        let listener = Some(queued.network.server().enter(Listener::open)?);
        Ok(Self { listener, ..queued })
    }

    fn of(options: &str) -> Result<Self> {
        let network = Network::direct()?;
        let reader =
            network.server().enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind"))?;
        let queued = Self { network, listener: None, _reader: reader };
        queued.rule("-A INPUT", options)?;
        Ok(queued)
    }

    fn rule(&self, what: &str, options: &str) -> Result<()> {
        let rule = format!(
            "-w {what} -p udp --dport {PORT} -j NFQUEUE --queue-num {}{options}",
            Self::QUEUE
        );
        output(self.network.server().command("iptables-legacy").args(rule.split(' '))).map(drop)
    }

    /// Has the rule let packets pass that nobody listens for.
    ///
    /// # Errors
    /// When iptables fails.
    pub fn bypass(&self) -> Result<()> {
        self.rule("-R INPUT 1", " --queue-bypass")
    }

    /// Has the program let packets pass that it has no room for.
    ///
    /// # Errors
    /// The kernel's, and where no program listens.
    pub fn fail_open(&self) -> Result<()> {
        self.listener.as_ref().context("no program listens")?.fail_open()
    }

    /// Packets lost since the queue was full, by its own counter.
    ///
    /// # Errors
    /// Where no program listens.
    pub fn dropped(&self) -> Result<u64> {
        let queues = self.network.server().proc_net("netfilter/nfnetlink_queue")?;
        let line = queues.lines().next().context("no program listens")?;
        line.split_whitespace().nth(5).context("no such column")?.parse().context("no number")
    }
}

impl Cause for Queued {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.network.source(CLIENT)?;
        self.network.datagrams(&source, (SERVER, PORT), packets)
    }
}

/// A program that listens at the queue of the namespace that it was opened in, and never reads.
#[derive(Debug)]
struct Listener(OwnedFd);

/// `NFNL_SUBSYS_QUEUE` and its `NFQNL_MSG_CONFIG`.
const CONFIG: u16 = (3 << 8) | 2;
/// `NLM_F_REQUEST` and `NLM_F_ACK`.
const FLAGS: u16 = 5;

impl Listener {
    fn open() -> Result<Self> {
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netfilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("cannot bind")?;
        let listener = Self(socket);
        // NFQA_CFG_CMD: bind. NFQA_CFG_PARAMS: 64 bytes of each packet. NFQA_CFG_QUEUE_MAXLEN.
        listener.configure(1, &[1, 0, 0, 2])?;
        listener.configure(2, &[0, 0, 0, 64, 2])?;
        listener.configure(3, &Queued::ROOM.to_be_bytes())?;
        Ok(listener)
    }

    /// `NFQA_CFG_F_FAIL_OPEN`
    fn fail_open(&self) -> Result<()> {
        let one = 1_u32.to_be_bytes();
        // NFQA_CFG_MASK and NFQA_CFG_FLAGS in one message.
        self.send(&[attribute(4, &one), attribute(5, &one)].concat())
    }

    fn configure(&self, kind: u16, value: &[u8]) -> Result<()> {
        self.send(&attribute(kind, value))
    }

    fn send(&self, attributes: &[u8]) -> Result<()> {
        let queue = [&[0, 0][..], &Queued::QUEUE.to_be_bytes()].concat();
        let length = u32::try_from(16 + queue.len() + attributes.len())?;
        let message = [
            &length.to_ne_bytes()[..],
            &CONFIG.to_ne_bytes(),
            &FLAGS.to_ne_bytes(),
            &[0; 8],
            &queue,
            attributes,
        ]
        .concat();
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())
            .context("cannot configure the queue")?;
        // What waits may come first: an acknowledgement is of type NLMSG_ERROR, 2.
        let mut answer = [0; 4096];
        loop {
            recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            if answer[4..6] == 2_u16.to_ne_bytes() {
                ensure!(answer[16..20] == [0; 4], "the kernel refuses to configure the queue");
                return Ok(());
            }
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
