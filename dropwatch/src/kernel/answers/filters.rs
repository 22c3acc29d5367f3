//! The filters of traffic control at a device, with their actions: `RTM_GETTFILTER` (`tc_dump_tfilter`,
//! net/sched/cls_api.c), and the programs that stand before them (tcx, Linux 6.6).

use libc::RTM_GETTFILTER;
use netlink_packet_core::Emitable as _;
use netlink_packet_route::tc::{
    TcHeader, TcMessageBuffer, TcMirror, TcMirrorActionType, TcStatsQueue,
};

use super::{HostToAsk, device, device::text};
use crate::{
    kernel::{
        bpf::{self, AttachedTo},
        netlink::{Netlink, NetlinkError, attributes, number},
    },
    report::{
        device::{Action, Filter, Hook, Program, Target},
        question::Unanswered,
    },
};

/// Before the attributes, `struct tcmsg`.
const HEADER: usize = size_of::<TcMessageBuffer>();
/// Most filters of one device that are looked at.
const MOST: usize = 256;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` (include/uapi/linux/pkt_sched.h).
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// Attributes of a filter and of an action (include/uapi/linux/rtnetlink.h, pkt_cls.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_INDEX: u16 = 3;
const TCA_ACT_STATS: u16 = 4;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// `TCA_BPF_FLAG_ACT_DIRECT`.
const DIRECT: u32 = 1;

pub(super) fn ask(
    netlink: &mut Netlink,
    host: &HostToAsk,
    hook: &Hook,
) -> Result<Vec<Filter>, Unanswered> {
    let mut parsed = Vec::new();
    let asked = netlink.ask_all(RTM_GETTFILTER, &question(hook), |message| {
        if parsed.len() < MOST {
            parsed.extend(filter(message));
        }
    });
    asked.map_err(|error| match error {
        NetlinkError::Io(error) => super::unanswered(&error),
        NetlinkError::Malformed => Unanswered::Failed,
    })?;
    // Where the kernel has no such programs, there are none.
    let programs = bpf::attached(&AttachedTo::Device(hook.device), hook.egress).unwrap_or_default();
    let mut filters: Vec<Filter> = programs
        .into_iter()
        .map(|id| Filter {
            name: "tcx".to_owned(),
            kind: "tcx".to_owned(),
            decides: true,
            program: Some(bpf::program(id)),
            ..Filter::default()
        })
        .collect();
    for (mut filter, targets) in parsed {
        filter.program = filter.program.map(|program| bpf::program(program.id));
        for (action, index) in filter.actions.iter_mut().zip(targets) {
            if let (Some(target), Some(index)) = (&mut action.target, index) {
                target.device = device::ask(netlink, host, index).ok();
            }
        }
        filters.push(filter);
    }
    Ok(filters)
}

fn question(hook: &Hook) -> Vec<u8> {
    let header = TcHeader {
        index: hook.device.cast_signed(),
        parent: if hook.egress { EGRESS } else { INGRESS }.into(),
        ..TcHeader::default()
    };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    message
}

/// One `RTM_NEWTFILTER`, and the index of each action's target, 0 where that device is gone. `None` for
/// what only holds filters together.
fn filter(message: &[u8]) -> Option<(Filter, Vec<Option<u32>>)> {
    let header = TcHeader::parse(message).ok()?;
    let (mut kind, mut options) = (String::new(), &[][..]);
    for (attribute, value) in attributes(message.get(HEADER..)?) {
        match attribute {
            TCA_KIND => kind = text(value),
            TCA_OPTIONS => options = value,
            _ => {}
        }
    }
    let handle: u32 = header.handle.into();
    // A priority without a filter, and the hash table of u32.
    if handle == 0 || kind.is_empty() || (kind == "u32" && handle & 0x000f_ffff == 0) {
        return None;
    }
    let (preference, handle) = (header.info >> 16, self::handle(&kind, handle));
    let name = format!("{kind} pref {preference} handle {handle}");
    let handle = Some(handle);
    let mut filter = Filter { name, kind: kind.clone(), preference, handle, ..Filter::default() };
    let mut targets = Vec::new();
    for (attribute, value) in attributes(options) {
        if Some(attribute) == actions_of(&kind) {
            for (action, target) in attributes(value).filter_map(|(_, value)| action(value)) {
                filter.actions.push(action);
                targets.push(target);
            }
        } else if kind == "bpf" && attribute == TCA_BPF_FLAGS {
            filter.decides = number(value).is_some_and(|flags| flags & DIRECT != 0);
        } else if kind == "bpf" && attribute == TCA_BPF_ID {
            filter.program = number(value).map(|id| Program { id, name: None });
        }
    }
    Some((filter, targets))
}

/// A filter's handle as `tc` writes it.
fn handle(kind: &str, handle: u32) -> String {
    match kind {
        "u32" => {
            let (table, bucket, node) = (handle >> 20, handle >> 12 & 0xff, handle & 0xfff);
            let bucket = if bucket == 0 { String::new() } else { format!("{bucket:x}") };
            format!("{table:x}:{bucket}:{node:x}")
        }
        _ => format!("{handle:#x}"),
    }
}

/// The attribute that holds the actions of a filter of this kind (include/uapi/linux/pkt_cls.h).
fn actions_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "bpf" => 1,
        "matchall" => 2,
        "flower" | "basic" => 3,
        "fw" => 4,
        "u32" => 7,
        _ => return None,
    })
}

/// One action, and the index of its target.
fn action(bytes: &[u8]) -> Option<(Action, Option<u32>)> {
    let (mut action, mut options) = (Action::default(), &[][..]);
    for (attribute, value) in attributes(bytes) {
        match attribute {
            TCA_ACT_KIND => action.kind = text(value),
            TCA_ACT_OPTIONS => options = value,
            TCA_ACT_INDEX => action.index = number(value).unwrap_or(0),
            TCA_ACT_STATS => {
                let queue = attributes(value).find(|(kind, _)| *kind == TCA_STATS_QUEUE);
                if let Some(queue) = queue.and_then(|(_, value)| TcStatsQueue::parse(value).ok()) {
                    (action.dropped, action.overlimits) =
                        (queue.drops.into(), queue.overlimits.into());
                }
            }
            _ => {}
        }
    }
    let mut target = None;
    if action.kind == "mirred"
        && let Some((_, value)) = attributes(options).find(|(kind, _)| *kind == TCA_MIRRED_PARMS)
        && let Ok(mirred) = TcMirror::parse(value)
    {
        use TcMirrorActionType::{EgressRedir, IngressRedir};
        let redirects = matches!(mirred.eaction, EgressRedir | IngressRedir);
        action.index = mirred.generic.index;
        action.target = Some(Target { redirects, device: None });
        target = (mirred.ifindex != 0).then_some(mirred.ifindex);
    }
    (!action.kind.is_empty()).then_some((action, target))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::fixture::attribute;

    /// A filter of u32 that redirects to the device 9, with 50 packets over limit.
    fn redirecting() -> Vec<u8> {
        let header = [0, 2, 0x8000_0800, INGRESS, 0xc000_0008_u32].map(u32::to_ne_bytes).concat();
        let parms = [1_u32, 0, 4, 1, 1, 1, 9].map(u32::to_ne_bytes).concat();
        let queue = [0_u32, 0, 0, 0, 50].map(u32::to_ne_bytes).concat();
        let action = [
            attribute(TCA_ACT_KIND, b"mirred\0"),
            attribute(TCA_ACT_STATS, &attribute(TCA_STATS_QUEUE, &queue)),
            attribute(TCA_ACT_OPTIONS, &attribute(TCA_MIRRED_PARMS, &parms)),
        ];
        let actions = attribute(1, &action.concat());
        let options = attribute(7, &actions);
        [header, attribute(TCA_KIND, b"u32\0"), attribute(TCA_OPTIONS, &options)].concat()
    }

    #[test]
    fn a_redirection_has_a_target_and_what_it_could_not_hand_on() {
        let (filter, targets) = filter(&redirecting()).unwrap();
        assert_eq!(filter.name, "u32 pref 49152 handle 800::800");
        assert_eq!(targets, [Some(9)]);
        let [action] = &filter.actions[..] else { panic!("{filter:?}") };
        assert_eq!((action.kind.as_str(), action.index, action.overlimits), ("mirred", 1, 50));
        assert!(action.target.as_ref().unwrap().redirects);
    }

    #[test]
    fn what_holds_filters_together_is_none() {
        for table in [0_u32, 0x8000_0000] {
            let mut message = redirecting();
            message[8..12].copy_from_slice(&table.to_ne_bytes());
            assert_eq!(filter(&message), None);
        }
    }

    #[test]
    fn a_program_that_decides_by_itself_is_told_from_one_that_classifies() {
        let of = |flags: u32| {
            let header = [0, 2, 1, INGRESS, 0xc000_0008_u32].map(u32::to_ne_bytes).concat();
            let options = [
                attribute(TCA_BPF_FLAGS, &flags.to_ne_bytes()),
                attribute(TCA_BPF_ID, &7_u32.to_ne_bytes()),
            ];
            let options = attribute(TCA_OPTIONS, &options.concat());
            filter(&[header, attribute(TCA_KIND, b"bpf\0"), options].concat()).unwrap().0
        };
        assert_eq!((of(1).decides, of(0).decides), (true, false));
        assert_eq!(of(1).name, "bpf pref 49152 handle 0x1");
        assert_eq!(of(1).program.unwrap().id, 7);
    }

    #[test]
    fn handles_are_written_as_tc_does() {
        assert_eq!(handle("u32", 0x8000_0800), "800::800");
        assert_eq!(handle("u32", 0x0010_1002), "1:1:2");
        assert_eq!(handle("flower", 0x11), "0x11");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = filter(&bytes);
            let _ = action(&bytes);
        }
    }
}
