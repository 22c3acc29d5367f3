//! What this folder's files share, and questions to the running kernel.

use std::{net::SocketAddr, sync::mpsc};

use super::*;
use crate::{
    kernel::{HostRoot, Namespaces},
    report::{
        device::{Frame, GroupHook, Hook},
        question::{
            Leads, NatPorts, Neighbour, NextHop, Packet, PolicyDirection, PortsInUse, Refusal,
            Route, Secured, Sought, Tuple,
        },
    },
};

const VIA6: [u16; 8] = [0xfd00, 1, 0, 0, 0, 0, 0, 2];

const fn leads(device: u32, via: Option<IpAddr>, table: u32) -> Route {
    Route::Leads(Leads {
        local: false,
        device: Some(device),
        via,
        table: Some(table),
        above: false,
    })
}

const fn local(device: u32, table: u32) -> Route {
    Route::Leads(Leads {
        local: true,
        device: Some(device),
        via: None,
        table: Some(table),
        above: false,
    })
}

const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 1, 2));
const ROUTER6: IpAddr = {
    let [a, b, c, d, e, f, g, h] = VIA6;
    IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h))
};

/// Answers of Linux 6.18 (x86-64) to `RTM_GETROUTE`, without their `RTA_CACHEINFO`.
pub(super) const ROUTES: &[(&[u8], Route)] = &[
    // 203.0.113.9, via a router.
    (
        &[
            2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0, 8, 0, 15, 0, 254, 0, 0, 0, 8, 0, 1, 0, 203, 0,
            113, 9, 8, 0, 4, 0, 3, 0, 0, 0, 8, 0, 7, 0, 198, 18, 1, 1, 8, 0, 5, 0, 198, 18, 1, 2,
            8, 0, 25, 0, 0, 0, 0, 0,
        ],
        leads(3, Some(ROUTER), 254),
    ),
    // 192.0.2.1, via a router that is known by its IPv6 address.
    (
        &[
            2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0, 8, 0, 15, 0, 254, 0, 0, 0, 8, 0, 1, 0, 192, 0,
            2, 1, 8, 0, 4, 0, 3, 0, 0, 0, 8, 0, 7, 0, 198, 18, 1, 1, 22, 0, 18, 0, 10, 0, 253, 0,
            0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 8, 0, 25, 0, 0, 0, 0, 0,
        ],
        leads(3, Some(ROUTER6), 254),
    ),
    // 198.18.1.1, the host's own.
    (
        &[
            2, 32, 0, 0, 254, 0, 0, 2, 0, 2, 0, 128, 8, 0, 15, 0, 254, 0, 0, 0, 8, 0, 1, 0, 198,
            18, 1, 1, 8, 0, 4, 0, 1, 0, 0, 0, 8, 0, 7, 0, 198, 18, 1, 1, 8, 0, 25, 0, 0, 0, 0, 0,
        ],
        local(1, 254),
    ),
    // fd00:2::9, via a router.
    (
        &[
            10, 128, 128, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 15, 0, 254, 0, 0, 0, 20, 0, 1, 0, 253,
            0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 20, 0, 5, 0, 253, 0, 0, 1, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 2, 8, 0, 4, 0, 3, 0, 0, 0, 5, 0, 20, 0, 0, 0, 0, 0,
        ],
        leads(3, Some(ROUTER6), 254),
    ),
    // 203.0.113.9 from 198.18.1.9, which came in by the device 2.
    (
        &[
            2, 32, 32, 0, 254, 0, 0, 1, 0, 2, 0, 0, 8, 0, 15, 0, 254, 0, 0, 0, 8, 0, 1, 0, 203, 0,
            113, 9, 8, 0, 2, 0, 198, 18, 1, 9, 8, 0, 4, 0, 3, 0, 0, 0, 8, 0, 5, 0, 198, 18, 1, 2,
            8, 0, 3, 0, 2, 0, 0, 0,
        ],
        leads(3, Some(ROUTER), 254),
    ),
];

fn own() -> NetnsToAsk {
    let root = HostRoot::default();
    let path = root.path("proc/self/ns/net").read_link().expect("our own");
    let text = path.to_string_lossy().into_owned();
    let inum = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    let netns = Namespaces::new(&root).reach(inum).expect("our own");
    let namespaces = [(7, netns.file(&root))].into();
    let host = HostToAsk { root, number: 7, inum, namespaces };
    NetnsToAsk { netns, cookie: cookie(), host }
}

fn route(to: [u8; 4]) -> Question {
    Question::Route(Packet::to(to.into()))
}

/// Of a last report.
fn inquiry<F: Fn(u32) -> Option<NetnsToAsk>>(busy: Busy, find: F) -> Inquiry<F> {
    Inquiry::new(busy, LAST_PATIENCE, find)
}

fn ask(question: Question) -> Ask {
    Ask { netns: 7, question }
}

#[test]
fn this_host_answers_every_kind_of_question() {
    let mut inquiry = inquiry(Busy::default(), |_| Some(own()));
    let mut answers = Answers::default();
    let hop = Question::Neighbour(NextHop { address: [127, 255, 0, 9].into(), device: 1 });
    let zero = Packet { iif: Some(1), ..Packet::to([203, 0, 113, 9].into()) };
    let unread = ask(Question::Unread);
    let asks = [ask(route([127, 0, 0, 1])), ask(hop), ask(Question::Route(zero)), unread];
    inquiry.answer(&asks, &mut answers);
    let Some(Ok(Answer::Route(Route::Leads(leads)))) = answers.get(&asks[0]) else {
        panic!("{answers:?}")
    };
    assert!(leads.local, "{leads:?}");
    let neighbour = answers.get(&asks[1]);
    assert_eq!(neighbour, Some(Ok(Answer::Neighbour(Neighbour::Unknown))));
    // It came in from nowhere.
    let refused = answers.get(&asks[2]);
    let blackhole = Route::Refused(Refusal::Blackhole.into());
    assert_eq!(refused, Some(Ok(Answer::Route(blackhole))));
    assert!(matches!(answers.get(&unread), Some(Ok(Answer::Sockets(_)))), "{answers:?}");
}

/// The loopback device is the first of every namespace, and has nothing that decides over packets.
#[test]
fn this_host_answers_about_devices() {
    let mut inquiry = inquiry(Busy::default(), |_| Some(own()));
    let mut answers = Answers::default();
    let frame = Frame { port: 1, to: [2, 0, 0, 0, 0, 9] };
    let hook = GroupHook { pid: Some(std::process::id()), egress: true };
    let asks = [
        Question::Device(1),
        Question::Forwarding(frame),
        Question::Filters(Hook { device: 1, egress: false }),
        Question::Readers(1),
        Question::GroupPrograms(hook),
        Question::PortVlans(1),
        Question::Remote(frame),
    ]
    .map(ask);
    inquiry.answer(&asks, &mut answers);
    let Some(Ok(Answer::Device(lo))) = answers.get(&asks[0]) else { panic!("{answers:?}") };
    assert_eq!((lo.name.as_str(), lo.up, lo.carrier), ("lo", true, true));
    assert_eq!((&lo.peer, &lo.port, &lo.xdp[..]), (&None, &None, &[][..]));
    assert_eq!(answers.get(&asks[1]), Some(Err(Unanswered::Failed)), "it is no port");
    assert_eq!(answers.get(&asks[2]), Some(Ok(Answer::Filters(Vec::new()))));
    assert_eq!(answers.get(&asks[3]), Some(Ok(Answer::Readers(Vec::new()))));
    assert_eq!(answers.get(&asks[5]), Some(Err(Unanswered::Failed)), "it is no port");
    assert_eq!(answers.get(&asks[6]), Some(Err(Unanswered::Failed)), "it is no tunnel");
    // Without root, or without the hierarchy that has programs, there is no answer.
    match answers.get(&asks[4]) {
        Some(Ok(Answer::GroupPrograms(_)) | Err(Unanswered::NotPermitted | Unanswered::Failed)) => {
        }
        other => panic!("{other:?}"),
    }
}

/// What connection tracking, the packet filter and IPsec know of addresses that nobody has; not everybody
/// may ask.
#[test]
fn this_host_answers_what_administrators_may_ask() {
    let [from, to]: [SocketAddr; 2] =
        ["203.0.113.9:9", "198.51.100.9:9"].map(|address| address.parse().unwrap());
    let packet = Secured {
        direction: PolicyDirection::Forward,
        protocol: 17,
        from: from.ip(),
        from_port: Some(9),
        to: to.ip(),
        to_port: Some(9),
    };
    let server = from;
    let ports = NatPorts { protocol: 17, server, address: to.ip(), first: 9, last: 10 };
    let questions = [
        (Question::Connection(Tuple { protocol: 17, from, to }), Answer::Connection(None)),
        (Question::Targets(Sought::To(from.ip())), Answer::Targets(Vec::new())),
        (Question::Policy(packet), Answer::Policy(None)),
    ];
    for (question, none) in questions {
        let mut answers = Answers::default();
        inquiry(Busy::default(), |_| Some(own())).answer(&[ask(question)], &mut answers);
        let answer = answers.get(&ask(question)).expect("asked");
        assert!(answer == Ok(none) || answer == Err(Unanswered::NotPermitted), "{answer:?}");
    }
    let mut answers = Answers::default();
    let asked = ask(Question::PortsInUse(ports));
    inquiry(Busy::default(), |_| Some(own())).answer(&[asked], &mut answers);
    match answers.get(&asked) {
        Some(Ok(Answer::PortsInUse(PortsInUse { probed: 0 | 2, taken: 0 }))) => {}
        Some(Err(Unanswered::NotPermitted)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_namespace_of_the_same_number_is_not_asked() {
    if cookie().is_none() {
        return testbed::unproved::unproved("this kernel has no cookies of network namespaces");
    }
    let stranger = |_| Some(NetnsToAsk { cookie: cookie().map(|own| own ^ 1), ..own() });
    let (mut answers, asks) = (Answers::default(), [ask(route([127, 0, 0, 1]))]);
    inquiry(Busy::default(), stranger).answer(&asks, &mut answers);
    assert_eq!(answers.get(&asks[0]), Some(Err(Unanswered::Gone)));
}

#[test]
fn one_that_was_never_looked_into_is_not_asked() {
    let (mut answers, asks) = (Answers::default(), [ask(route([127, 0, 0, 1]))]);
    inquiry(Busy::default(), |_| None).answer(&asks, &mut answers);
    assert_eq!(answers.get(&asks[0]), Some(Err(Unanswered::Gone)));
}

#[test]
fn no_more_is_asked_in_a_report_than_is_allowed() {
    let mut inquiry = inquiry(Busy::default(), |_| Some(own()));
    let mut answers = Answers::default();
    // In two rounds, as rules ask.
    let asks: Vec<Ask> = (0..=20).map(|last| ask(route([127, 0, 0, last]))).collect();
    let more: Vec<Ask> = (0..=20).map(|last| ask(route([127, 0, 1, last]))).collect();
    inquiry.answer(&asks, &mut answers);
    inquiry.answer(&more, &mut answers);
    let of = |asks: &[Ask], expected: Option<Unanswered>| {
        asks.iter().filter(|ask| answers.get(ask).and_then(Result::err) == expected).count()
    };
    assert_eq!(of(&asks, None), 21);
    assert_eq!(of(&more, None), MOST - 21);
    assert_eq!(of(&more, Some(Unanswered::TooMany)), 42 - MOST);
}

#[test]
fn while_a_thread_is_late_nothing_is_asked() {
    let busy = Busy(Arc::new(AtomicBool::new(true)));
    let (mut answers, asks) = (Answers::default(), [ask(route([127, 0, 0, 1]))]);
    inquiry(busy.clone(), |_| Some(own())).answer(&asks, &mut answers);
    assert_eq!(answers.get(&asks[0]), Some(Err(Unanswered::TooLate)));
    busy.0.store(false, Ordering::Release);
    inquiry(busy, |_| Some(own())).answer(&asks, &mut answers);
    assert!(answers.get(&asks[0]).is_some_and(|answer| answer.is_ok()));
}

#[test]
fn a_namespace_that_cannot_be_entered_says_why_for_each_question() {
    let asked = NetnsToAsk { cookie: Some(0), ..own() };
    let (sender, receiver) = mpsc::channel();
    let questions = [route([127, 0, 0, 1]), route([127, 0, 0, 2])];
    if cookie().is_some() {
        ask_there(7, &asked, &questions, &sender);
        drop(sender);
        let whys: Vec<_> = receiver.iter().map(|(_, answer)| answer.err()).collect();
        assert_eq!(whys, [Some(Unanswered::Gone); 2]);
    }
    let refused = io::Error::from_raw_os_error(libc::EPERM);
    assert_eq!(unanswered(&refused), Unanswered::NotPermitted);
    let gone = io::Error::from_raw_os_error(libc::ENOENT);
    assert_eq!(unanswered(&gone), Unanswered::Gone);
}

#[test]
fn a_report_waits_a_part_of_its_interval_and_the_last_one_longer() {
    let of = |milliseconds| patience(Duration::from_millis(milliseconds), false).as_millis();
    assert_eq!([10, 1_000, 5_000, 3_600_000].map(of), [100, 250, 500, 500]);
    assert_eq!(patience(Duration::from_millis(10), true), LAST_PATIENCE);
}
