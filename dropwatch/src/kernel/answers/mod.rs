//! Answers to what rules ask about one packet, in the namespace that they ask about: over netlink, by
//! bpf(2), and from `/proc`.
//!
//! Nothing is asked that changes the host, or has the kernel load something. Routes and neighbours need no
//! capability but to enter another namespace; connection tracking, rules of the packet filter and policies
//! of IPsec need `CAP_NET_ADMIN` there. The answer is of the namespace whose counters were read: the file has the same number,
//! and where the kernel gives cookies, it has the same one.
//!
//! At most [`MOST`] questions are answered in a report, and it waits no longer than [`patience`] for
//! all of them: they are asked by a thread of its own, since the kernel may be busy with its
//! configuration (the RTNL lock). A thread that is late ends by itself, and until then nothing else is
//! asked.

mod connection;
mod device;
mod filters;
mod forwarding;
mod groups;
mod neighbour;
mod policy;
mod readers;
mod refuser;
mod remote;
mod route;
pub(super) mod sockets;
mod targets;
mod vlans;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use netlink_packet_route::AddressFamily;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    HostRoot, ReachableNetns,
    inside::cookie,
    netlink::{Netlink, NetlinkError},
};
use crate::report::question::{Answer, Answers, Ask, Question, Unanswered};

/// Most questions answered in a report.
const MOST: usize = 32;
/// How long a report waits at least, and at most, for all of its answers.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_millis(500);
/// How long the last one does: a host that is busy with a flood answers late, and no other report comes
/// that could say what this one leaves out.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A namespace to ask. Its cookie when its counters were read proves that it is still the one asked.
pub(super) struct NetnsToAsk {
    pub(super) netns: ReachableNetns,
    pub(super) cookie: Option<u64>,
    pub(super) host: HostToAsk,
}

/// What an answer may need of the host around the namespace.
#[derive(Clone, Debug)]
pub(super) struct HostToAsk {
    pub(super) root: HostRoot,
    /// Number in the run, and inode number, of the namespace that is asked.
    pub(super) number: u32,
    pub(super) inum: u32,
    /// The file of each namespace that was looked into, by its number in the run.
    pub(super) namespaces: Arc<[(u32, PathBuf)]>,
}

/// Whether a thread is still asking.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

/// What one report may still ask.
pub struct Inquiry<F> {
    /// The namespace with an inode number.
    find: F,
    busy: Busy,
    left: usize,
    patience: Duration,
}

impl<F: Fn(u32) -> Option<NetnsToAsk>> Inquiry<F> {
    /// For a report that waits for all of its answers no longer than `patience`.
    pub(super) fn new(busy: Busy, patience: Duration, find: F) -> Self {
        Self { find, busy, left: MOST, patience }
    }

    /// Answers each of `asks`, or says why there is no answer.
    pub fn answer(&mut self, asks: &[Ask], answers: &mut Answers) {
        let mut work: BTreeMap<u32, (NetnsToAsk, Vec<Question>)> = BTreeMap::new();
        for ask in asks {
            answers.insert(*ask, Err(Unanswered::TooLate));
            if self.left == 0 {
                answers.insert(*ask, Err(Unanswered::TooMany));
            } else if let Some((_, questions)) = work.get_mut(&ask.netns) {
                questions.push(ask.question);
                self.left -= 1;
            } else if let Some(to_ask) = (self.find)(ask.netns) {
                work.insert(ask.netns, (to_ask, vec![ask.question]));
                self.left -= 1;
            } else {
                answers.insert(*ask, Err(Unanswered::Gone));
            }
        }
        self.wait_for(work, answers);
    }

    /// Has `work` done, and takes the answers that come in time.
    fn wait_for(
        &mut self,
        work: BTreeMap<u32, (NetnsToAsk, Vec<Question>)>,
        answers: &mut Answers,
    ) {
        if work.is_empty() || self.busy.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let begin = Instant::now();
        let (sender, receiver) = mpsc::channel();
        let busy = self.busy.clone();
        let asking = thread::Builder::new().name("answers".into()).spawn(move || {
            for (netns, (to_ask, questions)) in &work {
                ask_there(*netns, to_ask, questions, &sender);
            }
            busy.0.store(false, Ordering::Release);
        });
        if asking.is_err() {
            self.busy.0.store(false, Ordering::Release);
        }
        // Ends when the thread does: it has the only sender.
        while let Ok((ask, answer)) =
            receiver.recv_timeout(self.patience.saturating_sub(begin.elapsed()))
        {
            answers.insert(ask, answer);
        }
        self.patience = self.patience.saturating_sub(begin.elapsed());
    }
}

/// How long a report may wait that is made every `interval`, or that is the last one.
pub(super) fn patience(interval: Duration, is_last: bool) -> Duration {
    match is_last {
        true => LAST_PATIENCE,
        false => (interval / 4).clamp(*PATIENCE.start(), *PATIENCE.end()),
    }
}

/// A question to a namespace, and what came of it.
type Reply = (Ask, Result<Answer, Unanswered>);

/// Asks all of `questions` in one namespace.
fn ask_there(netns: u32, to_ask: &NetnsToAsk, questions: &[Question], to: &Sender<Reply>) {
    let send = |question: &Question, answer| {
        // Nobody waits any more for what comes too late.
        let _ = to.send((Ask { netns, question: *question }, answer));
    };
    let entered = to_ask.netns.enter(|| {
        if let (Some(then), Some(now)) = (to_ask.cookie, cookie())
            && then != now
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        for question in questions {
            send(question, answer(&mut netlink, &to_ask.host, question));
        }
        Ok(())
    });
    if let Err(error) = entered {
        let why = unanswered(&error);
        questions.iter().for_each(|question| send(question, Err(why)));
    }
}

/// Answers in the calling thread's namespace.
fn answer(
    netlink: &mut Netlink,
    host: &HostToAsk,
    question: &Question,
) -> Result<Answer, Unanswered> {
    match question {
        Question::Route(packet) => route::ask(netlink, packet).map(Answer::Route),
        Question::Neighbour(hop) => neighbour::ask(netlink, hop).map(Answer::Neighbour),
        // What netlink answers is of this host, too, whatever root the rest is read below.
        Question::Sockets(port) => sockets::ask(&HostRoot::default(), port).map(Answer::Sockets),
        Question::Unread => Ok(Answer::Sockets(sockets::unread(&HostRoot::default()))),
        Question::Device(index) => {
            device::ask(netlink, host, *index).map(|device| Answer::Device(Box::new(device)))
        }
        Question::Forwarding(frame) => {
            forwarding::ask(netlink, host, frame).map(Answer::Forwarding)
        }
        Question::PortVlans(port) => vlans::ask(netlink, *port).map(Answer::PortVlans),
        Question::Remote(frame) => remote::ask(netlink, frame).map(Answer::Remote),
        Question::Filters(hook) => filters::ask(netlink, host, hook).map(Answer::Filters),
        Question::Readers(index) => readers::ask(host, *index).map(Answer::Readers),
        Question::GroupPrograms(hook) => groups::ask(host, hook).map(Answer::GroupPrograms),
        Question::Connection(reply) => connection::ask(*reply).map(Answer::Connection),
        Question::PortsInUse(ports) => connection::ports_in_use(ports).map(Answer::PortsInUse),
        Question::Targets(sought) => targets::ask(*sought).map(Answer::Targets),
        Question::Policy(packet) => policy::ask(packet).map(Answer::Policy),
    }
}

fn unanswered(error: &io::Error) -> Unanswered {
    match error.kind() {
        io::ErrorKind::NotFound => Unanswered::Gone,
        io::ErrorKind::PermissionDenied => Unanswered::NotPermitted,
        _ => Unanswered::Failed,
    }
}

/// Sends one question, and returns the content of the answer or the kernel's error number.
fn ask_kernel(
    netlink: &mut Netlink,
    message_type: u16,
    content: &[u8],
) -> Result<Result<Vec<u8>, i32>, Unanswered> {
    let mut answer = None;
    match netlink.ask(message_type, content, |message| answer = Some(message.to_vec())) {
        Ok(()) => answer.map(Ok).ok_or(Unanswered::Failed),
        Err(NetlinkError::Malformed) => Err(Unanswered::Failed),
        Err(NetlinkError::Io(error)) => error.raw_os_error().map(Err).ok_or(Unanswered::Failed),
    }
}

/// Family and bytes of an address, as they stand in messages.
fn octets(address: IpAddr) -> (AddressFamily, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AddressFamily::Inet, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::Inet6, address.octets().to_vec()),
    }
}

#[cfg(test)]
mod tests;
