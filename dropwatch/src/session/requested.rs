//! From settings and what this kernel says of itself to what the probe is to attach.

use dropwatch_common::{
    filter::{LATER, MOST, NetnsValue, part},
    offsets::Offsets,
};

use super::{awaited::Meant, tcpdump};
use crate::{
    exit::Failure,
    kernel::{HostNames, NoTypes, offsets},
    probe::{Requested, plan::Grouping},
    report::model::groups::By,
    settings::{Attached, Samples},
};

/// What to attach. `netns` are the namespaces to filter by, in the order of the options.
///
/// # Errors
/// Usage, where an option has too many values, or the expression is none; kernel, where this kernel's
/// types do not show what a filter or a group is about, with the reason.
pub fn requested(
    attached: &Attached,
    netns: &[Meant],
    names: &mut HostNames,
) -> Result<Requested, Failure> {
    let grouping = grouping(&attached.by);
    let parts = attached.packets.parts();
    let offsets = names.offsets();
    check("the packet filter", parts, &offsets)?;
    check("--by", grouping.parts, &offsets)?;
    if attached.samples == Samples::Packets {
        check("--pcap", part::HEADERS, &offsets)?;
    }
    let expression = attached.packets.expression.as_ref().map(tcpdump::compile).transpose()?;
    let mut later = [NetnsValue::any(LATER); MOST];
    let netns = netns.iter().zip(0..).map(|(it, index)| match *it {
        Meant::One(inum) => {
            // With the cookie: whichever namespace gets the number later is not what was asked for.
            NetnsValue::new(names.namespaces().having(inum))
        }
        Meant::Whichever(now) => {
            if let (Some(it), Some(inum)) = (later.get_mut(index), now) {
                *it = NetnsValue::new(names.namespaces().having(inum));
            }
            NetnsValue::any(LATER)
        }
    });
    let filter = attached.packets.compile(netns);
    let filter = filter.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Requested {
        offsets: offsets.unwrap_or(Offsets::NONE),
        netns: true,
        samples: attached.samples != Samples::None,
        every: attached.every,
        later,
        reasons: attached.reasons,
        log: attached.verbose,
        filter: (filter, parts),
        expression,
        grouping,
    })
}

fn grouping(by: &[By]) -> Grouping {
    let parts = by.iter().fold(0, |parts, by| parts | by.parts());
    Grouping { parts, by_cpu: by.contains(&By::Cpu) }
}

/// Whether this kernel's types show all that `what` needs.
fn check(what: &str, parts: u32, offsets: &Result<Offsets, NoTypes>) -> Result<(), Failure> {
    let why = match offsets {
        _ if parts == 0 => return Ok(()),
        Err(error) => error.to_string(),
        Ok(offsets) => match offsets::missing(offsets, parts) {
            Some(field) => format!("its BTF has no field {field}"),
            None => return Ok(()),
        },
    };
    Err(Failure::Kernel(format!(
        "{what} cannot work on this kernel ({why}); without it dropwatch can"
    )))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        process::Command,
    };

    use dropwatch_common::filter::{Lengths, Ports, direction};
    use testbed::unproved::unproved;

    use super::*;
    use crate::{
        filter::{Packets, TypedExpression, bits},
        kernel::HostRoot,
        probe::Prepared,
        report::keys::{Choice, Keys},
    };

    #[test]
    fn what_the_kernels_types_do_not_show_is_refused_with_the_reason() {
        let nothing = Err(NoTypes::Absent("not there".to_owned()));
        assert!(check("--by", 0, &nothing).is_ok());
        for (offsets, why) in [(nothing, "(no BTF: not there)"), (Ok(Offsets::NONE), "sk_buff.dev")]
        {
            match check("--by", part::NETNS, &offsets) {
                Err(Failure::Kernel(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Drops that these filters let through while `send` makes some: with arguments that have types, and
    /// without. `None` where this user may not load programs.
    fn counted(packets: &Packets, send: impl Fn()) -> Option<[u64; 2]> {
        let mut counted = [0; 2];
        for (netns, counted) in [true, false].into_iter().zip(&mut counted) {
            let mut names = HostNames::open(&HostRoot::default());
            let attached = Attached {
                packets: packets.clone(),
                keys: Keys::default(),
                filters: Vec::new(),
                later: false,
                by: Vec::new(),
                samples: Samples::None,
                every: None,
                reasons: None,
                verbose: false,
            };
            let requested = Requested { netns, ..requested(&attached, &[], &mut names).unwrap() };
            let mut probe = match Prepared::new().unwrap().attach(&requested) {
                Err(error) if error.is_permission() => return None,
                probe => probe.unwrap(),
            };
            send();
            *counted = probe.read(|netns| netns.inum).unwrap().drops.values().sum();
        }
        Some(counted)
    }

    /// What one kernel never does, another may have to.
    #[test]
    fn both_ways_to_read_a_packet_say_the_same() {
        const SENT: u64 = 10;
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = sender.local_addr().unwrap().port();
        let matching = format!(
            "ether src 0:0:0:0:0:0 and ip and udp src port {port} and udp dst port {}",
            closed.port()
        );
        if Command::new("tcpdump").arg("--version").output().is_err() {
            return unproved("tcpdump is not installed");
        }
        let expression = Some(TypedExpression { text: matching, is_free: true });
        let packets = Packets { expression, ..Packets::default() };
        let send = || {
            for _ in 0..SENT {
                sender.send_to(b"", closed).unwrap();
            }
        };
        match counted(&packets, send) {
            Some(counted) => assert_eq!(counted, [SENT; 2]),
            None => unproved("this user may not load programs"),
        }
    }

    #[test]
    fn both_ways_to_read_what_the_kernel_notes_say_the_same() {
        const SENT: u64 = 10;
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fn only<T>(value: T) -> Vec<Choice<T>> {
            vec![Choice { exclude: false, value }]
        }
        let port = closed.port();
        let packets = Packets {
            port: only(Ports { first: port, last: port }),
            tcp_flags: only(bits::tcp_flags("syn/syn,ack,rst").unwrap()),
            // TCP's header without IP's: 20 bytes and options.
            length: only(Lengths { first: 20, last: 60 }),
            mark: only(bits::mark("0").unwrap()),
            direction: only(direction::IN),
            ..Packets::default()
        };
        let send = || {
            for _ in 0..SENT {
                assert!(TcpStream::connect(closed).is_err(), "nobody listens");
            }
        };
        let sent = Packets { direction: only(direction::OUT), ..packets.clone() };
        match (counted(&packets, send), counted(&sent, send)) {
            (Some(received), Some(sent)) => assert_eq!((received, sent), ([SENT; 2], [0; 2])),
            _ => unproved("this user may not load programs"),
        }
    }

    #[test]
    fn cpus_are_told_apart_without_looking_at_packets() {
        assert_eq!(grouping(&[By::Cpu]), Grouping { parts: 0, by_cpu: true });
        let both = grouping(&[By::Iface, By::Protocol]);
        assert_eq!(both, Grouping { parts: part::IFACE | part::HEADERS, by_cpu: false });
    }
}
