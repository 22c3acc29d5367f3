//! Counts that are exact, against the kernel's own.

use std::{collections::BTreeMap, num::NonZero, process::Stdio, thread, time::Duration};

use aya::{
    maps::{HashMap, Map, MapData, MapError},
    util::nr_cpus,
};
use dropwatch::report::model::Lost;
use dropwatch_common::{
    Counter, CpuKey, DropKey,
    count::{Slot, tag},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use testbed::{
    flood::Wire,
    machine::fewer,
    nested::NestedFlood,
    pid1::Pid1Drops,
    udp::{ClosedPort, Family},
};

use crate::harness::{
    ETHERTYPE, Held, RECEIVE_PATH, Recording, Run, UDP4, UDP6, dropwatch, has_reasons, is_in,
    skips_nested,
};

const FLOOD: u64 = 2_000_000;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flood_is_counted_to_the_packet() {
    let wire = Wire::new().unwrap();
    let before = wire.received().unwrap().rx_dropped;
    let whole_host = Run::start(&["-i", "200ms", "--by", "protocol"]);
    let run = Run::start(&["-i", "200ms", "--proto", ETHERTYPE]);
    let frames = fewer(FLOOD);
    let sent = wire.flood(frames, None).unwrap();
    let (whole_host, recording) = (whole_host.stop(), run.stop());
    let dropped = wire.received().unwrap().rx_dropped - before;

    assert_eq!((sent.accepted, sent.refused), (frames, 0));
    assert_eq!(dropped, frames, "every frame dies in the receive path");
    assert_eq!(whole_host.grouped(|row| row.protocol.as_deref() == Some(ETHERTYPE)), dropped);
    assert_eq!((recording.count(RECEIVE_PATH), recording.end.drops), (dropped, dropped));
    for recording in [&whole_host, &recording] {
        expect_nothing_lost(recording);
    }
    assert!(recording.reports.len() > 2, "counted over several reports");
}

/// For a run that has counted every drop of its test: what the kernel skipped, of whomever, was
/// another's then.
fn expect_nothing_lost(recording: &Recording) {
    let lost = recording.lost();
    assert_eq!(lost, Lost { recursion: lost.recursion, ..Lost::default() });
}

/// The tool measures itself, and knows when there is nothing to measure.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn doctor_tells_what_counting_costs() {
    let wire = Wire::new().unwrap();
    let mut doctor = dropwatch(&["doctor", "--cost=3s"]);
    let mut doctor = doctor.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut frames = 0;
    // It does not tell when it has attached: so there are floods for as long as it runs.
    for _ in 0..600 {
        frames += wire.flood(fewer(FLOOD) / 200, None).unwrap().accepted;
        thread::sleep(Duration::from_millis(100));
        if doctor.try_wait().unwrap().is_some() {
            break;
        }
    }
    let page = doctor.wait_with_output().unwrap();
    assert!(page.status.success(), "{page:?}");
    let page = String::from_utf8(page.stdout).unwrap();
    let number = |what: &str| -> u64 {
        let line = page.lines().find_map(|line| line.split_once(what)).unwrap_or_else(|| {
            panic!("no {what} in {page}");
        });
        line.1.split_whitespace().next().unwrap().parse().unwrap()
    };
    let counted = number("dropped meanwhile");
    assert!(counted > 0, "no flood was counted: {page}");
    assert!(counted <= frames + frames / 10, "more than was dropped, by far: {page}, {frames}");
    assert!(number("to count one") > 0, "{page}");
}

/// The map behind the front caches, its keys and values as bytes.
pub(crate) type CounterMap =
    HashMap<MapData, [u8; size_of::<CpuKey>()], [u8; size_of::<Counter>()]>;

/// Puts an entry into the map, unless it is there or there is no room.
pub(crate) fn insert(
    map: &mut CounterMap,
    key: DropKey,
    cpu: u32,
    counter: Counter,
) -> Result<(), MapError> {
    // `BPF_NOEXIST` (include/uapi/linux/bpf.h).
    let key: [u8; size_of::<CpuKey>()] = zerocopy::transmute!(CpuKey::new(key, cpu));
    let counter: [u8; size_of::<Counter>()] = zerocopy::transmute!(counter);
    map.insert(key, counter, 1)
}

/// On a host with more places than the front cache has room for, the others count in the hash map.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_front_cache_leaves_the_map() {
    let wire = Wire::new().unwrap();
    // Nothing but the flood claims a slot while they are filled.
    let run = Run::start(&["-i", "200ms", "--proto", ETHERTYPE]);
    let held = Held::by(run.0.pid());
    fill_front_cache(&held.map(".bss.fronts").unwrap());
    let frames = fewer(FLOOD / 4);
    let sent = wire.flood(frames, None).unwrap();
    assert_eq!((sent.accepted, sent.refused), (frames, 0));
    let drops = held.map("DROPS").unwrap();
    let drops = CounterMap::try_from(Map::HashMap(drops)).unwrap();
    assert!(drops.keys().count() > 0, "the map had nothing to count");
    let recording = run.stop();
    assert_eq!(recording.count(RECEIVE_PATH), frames);
    expect_nothing_lost(&recording);
}

/// Claims every free slot for a key of its own, at which nothing drops.
pub(crate) fn fill_front_cache(map: &MapData) {
    let length = map.info().unwrap().value_size() as usize;
    let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    let size = NonZero::new(length).unwrap();
    // SAFETY: a new place in memory, as long as the map's value.
    let slots = unsafe { mmap(None, size, protection, flags, map.fd(), 0) }.unwrap();
    for index in 0..length / size_of::<Slot>() {
        // SAFETY: within that memory, of which any bytes are valid; nothing is counted meanwhile.
        let slot = unsafe { slots.cast::<Slot>().add(index).as_mut() };
        if slot.key().is_none() {
            (slot.location, slot.tag) = (index as u64 + 1, tag(0, 0));
        }
    }
    // SAFETY: the same memory, which nothing has an address of any more.
    unsafe { munmap(slots, length) }.unwrap();
}

/// No host drops packets at a thousand places at will, and few have hundreds of CPUs: so keys are
/// counted from outside, with another count on each CPU that can be (`possible_cpus=256` gives a kernel
/// more than it has).
#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_cpu_of_every_key_is_added_up() {
    const KEYS: u64 = 1_000;
    const FIRST: u64 = 0x1000;
    let run = Run::start(&["-i", "1s", "-n", "0", "--addresses", "--no-findings"]);
    let map = Held::by(run.0.pid()).map("DROPS").unwrap();
    let mut drops = CounterMap::try_from(Map::HashMap(map)).unwrap();
    let cpus = nr_cpus().unwrap() as u64;
    for (number, cpu) in (0..KEYS).flat_map(|number| (0..cpus).map(move |cpu| (number, cpu))) {
        let counter = Counter { count: cpu + 1, ..Counter::default() };
        insert(&mut drops, DropKey::new(FIRST + number, 2), cpu as u32, counter).unwrap();
    }
    let recording = run.stop();
    let mut counted = BTreeMap::<u64, u64>::new();
    for location in recording.locations() {
        let Some(address) = location.address.known() else { continue };
        if (FIRST..FIRST + KEYS).contains(&address) {
            *counted.entry(address).or_default() += location.count;
        }
    }
    let expected = (FIRST..FIRST + KEYS).map(|address| (address, (1..=cpus).sum()));
    assert_eq!(counted, expected.collect());
}

/// What the program is not run for, because it interrupts itself, is counted by the kernel. Older
/// kernels (before 6.0) run it nested instead, and every drop is at its place.
///
/// The kernel's count is of the program, not of a test: where others drop on the same CPU, one of
/// those may have come in between, at most as many as there were. So the floods meet again until
/// none has.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn nested_flood_is_counted_to_the_packet() {
    const MEETINGS: u64 = 10;
    let flood = NestedFlood::new().unwrap();
    let skips = skips_nested();
    let mut frames = fewer(FLOOD / 4);
    for _ in 0..MEETINGS {
        match meet(&flood, frames) {
            (skipped, 0) if skips == (skipped > 0) => return,
            (_, 0) if skips => frames *= 2,
            (_, 0) => panic!("this kernel counts what it does not skip"),
            // The shorter, the fewer others come in between.
            _ => frames = (frames / 2).max(1_000),
        }
    }
    panic!("{MEETINGS} times the floods did not meet, or others were among them");
}

/// Has the floods meet once, and returns how many drops the kernel skipped, and how many of those
/// were others'.
///
/// Steered frames are handled in whatever task they interrupt, and there are hosts that hide those
/// which interrupt PID 1 from every tracing program (see `testbed::pid1`). Whether this one does
/// cannot be asked; so either all drops are there, or exactly those in PID 1's context are missing,
/// which perf counts.
fn meet(flood: &NestedFlood, frames: u64) -> (u64, u64) {
    let run = Run::start(&["-i", "200ms", "--proto", ETHERTYPE]);
    let nested = flood.run(frames).unwrap();
    let recording = run.stop();

    let in_process = recording.count(&[
        ("__dev_direct_xmit", "NOT_SPECIFIED"),
        ("dev_direct_xmit", "NOT_SPECIFIED"),
        // Up to 6.1 a list of packets is freed by this one function, whoever drops it.
        ("kfree_skb_list", "NOT_SPECIFIED"),
        ("kfree_skb_list_reason", "NOT_SPECIFIED"),
        ("packet_direct_xmit", "NOT_SPECIFIED"),
        ("packet_xmit", "NOT_SPECIFIED"),
    ]);
    let in_softirq = recording.count(RECEIVE_PATH);
    let Lost { recursion, .. } = recording.lost();
    let counted = in_process + in_softirq + recursion;
    println!("{nested:?}, counted {in_process} + {in_softirq}, {recursion} nested");
    assert_eq!(recording.lost(), Lost { recursion, ..Lost::default() });
    let missing = if counted < nested.total() { nested.in_pid1 } else { 0 };
    let others = (counted + missing).checked_sub(nested.total());
    let others = others.filter(|others| *others <= nested.others.min(recursion));
    let others = others
        .unwrap_or_else(|| panic!("{counted} counted of {nested:?}: {:#?}", recording.reports));
    (recursion, others)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn closed_port_is_counted_to_the_datagram() {
    const N: u64 = 1_000;
    let closed = ClosedPort::new().unwrap();
    for (family, places) in [(Family::V4, UDP4), (Family::V6, UDP6)] {
        let before = closed.counted(family).unwrap();
        let whole_host = Run::start(&["-i", "1s", "--by", "netns"]);
        let run = Run::within(&[closed.netns()], &["-i", "1s"]);
        closed.send(family, N).unwrap();
        let (whole_host, recording) = (whole_host.stop(), run.stop());
        assert_eq!(closed.counted(family).unwrap() - before, N, "{family:?}");
        assert_eq!(
            whole_host.grouped(|row| is_in(row, closed.netns())),
            recording.end.drops,
            "{family:?}"
        );
        assert_eq!(recording.count(places), N, "{family:?}: {recording:#?}");
        expect_nothing_lost(&recording);
    }
}

/// The counter that the nested flood leans on, proved on a thread that can be made to drop.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn perf_counts_the_drops_of_the_given_threads_alone() {
    let this = nix::unistd::gettid().as_raw().try_into().unwrap();
    let kthreadd = 2;
    let own = Pid1Drops::of_threads(vec![this], Some("NO_SOCKET")).unwrap();
    let other = Pid1Drops::of_threads(vec![kthreadd], Some("NO_SOCKET")).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..10 {
        socket.send_to(b"nobody listens", "127.0.0.1:9").unwrap();
    }
    let (own, other) = (own.sum().unwrap(), other.sum().unwrap());
    // Without reasons, whatever else this thread has dropped on the way is in its sum as well.
    assert!(own == 10 || (!has_reasons() && own > 10), "{own}");
    assert_eq!(other, 0);
}
