//! A host that changes while it is watched.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use dropwatch::{
    kernel::{
        self, HostNames, HostRoot,
        status::{self, Status, Tracefs},
    },
    report::{Names, model::Host},
};
use dropwatch_common::NO_REASON;
use testbed::unproved::unproved;

use crate::{folder, root};

const CORE: &str = "\
ffffffff81000000 T _stext
ffffffff81001000 T tcp_v4_rcv
ffffffff81002000 T _etext
";
const TCP: u64 = 0xffff_ffff_8100_1010;
/// In the module area.
const SPOT: u64 = 0xffff_ffff_c010_0010;

/// A folder that looks like a host, removed at the end.
struct Machine(PathBuf);

impl Machine {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let machine = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        machine.load("");
        machine.write("proc/sys/kernel/kptr_restrict", "1\n");
        machine.write("proc/sys/net/core/bpf_jit_kallsyms", "1\n");
        machine
    }

    /// Rewrites a file in place: who has it open sees the new text.
    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Loads one module at [`SPOT`] with the function `name_rx`, or none.
    fn load(&self, name: &str) {
        let (mut kallsyms, mut modules) = (CORE.to_owned(), String::new());
        if !name.is_empty() {
            kallsyms += &format!("ffffffffc0100000 t {name}_rx\t[{name}]\n");
            modules += &format!("{name} 4096 0 - Live 0xffffffffc0100000\n");
        }
        self.write("proc/kallsyms", kallsyms);
        self.write("proc/modules", modules);
    }

    fn copy(&self, host: &str, path: &str) {
        self.write(path, fs::read(folder(host).join(path)).unwrap());
    }

    fn open(&self) -> HostNames {
        HostNames::open(&HostRoot::new(&self.0))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A report, from its begin until its places are to be named.
fn begin_report(names: &mut HostNames) {
    names.begin_report();
    names.counted();
}

fn name(names: &mut HostNames, location: u64) -> Option<String> {
    names.symbol(location).map(|symbol| symbol.name)
}

fn reads(names: &mut HostNames) -> u64 {
    match names.status().symbols {
        status::Symbols::Known { reads, .. } => reads,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_that_came_later_is_named() {
    let machine = Machine::new();
    let mut names = machine.open();
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT), None);
    machine.load("veth");
    begin_report(&mut names);
    let symbol = names.symbol(SPOT).unwrap();
    assert_eq!((symbol.name.as_str(), symbol.offset), ("veth_rx", 0x10));
    assert_eq!(symbol.module.as_deref(), Some("veth"));
}

#[test]
fn a_name_outlives_its_module_until_another_takes_the_place() {
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    // The files are read on a thread of their own, and must not change under it.
    names.status();
    for (loaded, expected) in
        [("veth", "veth_rx"), ("", "veth_rx"), ("tun", "tun_rx"), ("", "tun_rx")]
    {
        machine.load(loaded);
        begin_report(&mut names);
        assert_eq!(name(&mut names, SPOT).as_deref(), Some(expected), "{loaded:?} is loaded");
    }
}

#[test]
fn a_new_location_does_not_trust_the_old_list() {
    // veth is in the list read at the start; it went and tun came before its first drop.
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    assert_eq!(name(&mut names, TCP).as_deref(), Some("tcp_v4_rcv"));
    machine.load("tun");
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT), None, "either module may have dropped it");
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("tun_rx"), "settled by a later reading");
}

/// From Linux 6.4 on a module's size is that of all its sections, wherever they are. When the module
/// above it goes, the one below seems to reach over its place.
#[test]
fn a_neighbour_that_was_there_before_takes_no_place() {
    let machine = Machine::new();
    let veth = ("veth 16384 0 - Live 0xffffffffc00ff000\n", "ffffffffc00ff000 t veth_rx\t[veth]\n");
    let tun = ("tun 4096 0 - Live 0xffffffffc0100000\n", "ffffffffc0100000 t tun_rx\t[tun]\n");
    machine.write("proc/modules", [tun.0, veth.0].concat());
    machine.write("proc/kallsyms", [CORE, veth.1, tun.1].concat());
    let mut names = machine.open();
    names.status();
    machine.write("proc/modules", veth.0);
    machine.write("proc/kallsyms", [CORE, veth.1].concat());
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("tun_rx"));

    // Nor does it keep the place from one that comes.
    let mut names = machine.open();
    names.status();
    machine.write("proc/modules", [tun.0, veth.0].concat());
    machine.write("proc/kallsyms", [CORE, veth.1, tun.1].concat());
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("tun_rx"));
}

/// A module can go between the reading of the list of modules and that of the symbols.
#[test]
fn a_module_that_goes_while_it_is_read_keeps_its_name() {
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    names.status();
    machine.write("proc/kallsyms", CORE);
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("veth_rx"));
}

#[test]
fn the_list_is_read_again_only_when_needed_and_once_a_report() {
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    begin_report(&mut names);
    name(&mut names, TCP);
    assert_eq!(reads(&mut names), 1, "the kernel proper never changes");
    name(&mut names, SPOT);
    name(&mut names, SPOT + 1);
    name(&mut names, 0xffff_ffff_c0ff_0000);
    assert_eq!(reads(&mut names), 2, "three new locations, one reading");
    begin_report(&mut names);
    for location in [TCP, SPOT, SPOT + 1] {
        name(&mut names, location);
    }
    assert_eq!(reads(&mut names), 2, "all known");
    for _ in 0..9 {
        begin_report(&mut names);
        assert_eq!(name(&mut names, 0xffff_ffff_c0ff_0000), None);
    }
    assert_eq!(reads(&mut names), 4, "two more for one that stays unknown, then no more");
    machine.load("tun");
    begin_report(&mut names);
    assert_eq!(
        reads(&mut names),
        5,
        "at once: what comes later cannot tell whose drops these were"
    );
    name(&mut names, SPOT);
    assert_eq!(reads(&mut names), 5);
}

#[test]
fn a_module_that_takes_an_empty_place_is_named_at_once() {
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    begin_report(&mut names);
    for (loaded, expected) in [("", None), ("tun", Some("tun_rx"))] {
        machine.load(loaded);
        begin_report(&mut names);
        // Nobody asked about the place while it was empty: the list was read all the same.
        let asked = if loaded.is_empty() { None } else { name(&mut names, SPOT) };
        assert_eq!(asked.as_deref(), expected);
    }
}

#[test]
fn a_file_that_cannot_be_read_again_costs_no_name() {
    let machine = Machine::new();
    machine.load("veth");
    let mut names = machine.open();
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("veth_rx"));
    machine.write("proc/kallsyms", "");
    machine.write("proc/modules", "");
    begin_report(&mut names);
    assert_eq!(name(&mut names, SPOT).as_deref(), Some("veth_rx"));
    assert_eq!(name(&mut names, TCP).as_deref(), Some("tcp_v4_rcv"));
}

#[test]
fn hidden_symbols_are_told_with_their_cause() {
    for (restrict, cause) in [
        ("0\n", "kptr_restrict is 0 and CAP_SYSLOG is missing"),
        ("1\n", "kptr_restrict is 1 and CAP_SYSLOG is missing"),
        ("2\n", "kptr_restrict is 2)"),
    ] {
        let machine = Machine::new();
        machine.copy("6.18", "sys/kernel/btf/vmlinux");
        machine.write("proc/kallsyms", "0000000000000000 T _stext\n0000000000000000 t x\t[m]\n");
        machine.write("proc/sys/kernel/kptr_restrict", restrict);
        let mut names = machine.open();
        begin_report(&mut names);
        assert_eq!(names.symbol(TCP), None);
        assert_eq!(names.symbol(0), None);
        let notices = names.status().notices(true);
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains(cause), "{notices:?}");
    }
}

#[test]
fn nothing_lost_nothing_said() {
    // BTF gives the reasons, so the tracefs that is not mounted costs nothing.
    let mut names = HostNames::open(&root("6.18"));
    assert_eq!(names.status().notices(true), [""; 0]);
    let Status { symbols, reasons, tracefs, kfree_skb_args, bpf_jit_kallsyms, events } =
        names.status();
    assert!(matches!(symbols, status::Symbols::Known { functions: 50.., modules: 0, .. }));
    let status::ReasonSource::Btf { core, subsystems } = reasons else { panic!("{reasons:?}") };
    assert_eq!(core, 128, "130 enumerators without MAX and SUBSYS_MASK");
    assert_eq!(subsystems, ["CORE", "MAC80211_UNUSABLE", "OPENVSWITCH"]);
    assert_eq!((tracefs, kfree_skb_args), (Tracefs::NotMounted, Some(4)));
    assert_eq!(bpf_jit_kallsyms, Some(1));
    assert_eq!(events, status::Events { tcp: Some(true), listen_overflow: Some(true) });
}

/// The argument is there, and so is a reason that begins with `TCP_`: neither says that TCP's own
/// drops are events.
#[test]
fn tcps_own_drops_are_told_by_its_own_reasons() {
    let events = |host: &str| {
        let status = HostNames::open(&root(host)).status();
        (status.kfree_skb_args, status.events.tcp, status.events.listen_overflow)
    };
    assert_eq!(events("5.10"), (Some(2), Some(false), Some(false)));
    assert_eq!(events("5.15-reasons"), (Some(3), Some(false), Some(false)));
    assert_eq!(events("6.1"), (Some(3), Some(true), Some(false)));
    assert_eq!(events("6.12"), (Some(4), Some(true), Some(false)));
    assert_eq!(events("7.2"), (Some(4), Some(true), Some(true)));
    let notices = |host: &str| HostNames::open(&root(host)).status().notices(true);
    let missed = |host: &str| notices(host).iter().any(|notice| notice.contains("TCP's own drops"));
    assert!(missed("5.15-reasons") && !missed("6.1"));
}

/// Whether the kernel reports TCP's own drops: without BTF by the reasons that tracefs names, and
/// unknown where there is neither.
#[test]
fn tcps_own_drops_are_known_by_tracefs_too() {
    let machine = Machine::new();
    machine.copy("5.15-reasons", FORMAT_BELOW_TRACEFS);
    assert_eq!(machine.open().status().events.tcp, Some(false));
    machine.copy("6.1", FORMAT_BELOW_TRACEFS);
    assert_eq!(machine.open().status().events.tcp, Some(true));
    assert_eq!(Machine::new().open().status().events, status::Events::default());
}

#[test]
fn a_modules_reasons_are_looked_for_when_one_needs_a_name() {
    let machine = Machine::new();
    machine.copy("6.12", "sys/kernel/btf/vmlinux");
    let mut names = machine.open();
    let ovs = |names: &mut HostNames| {
        begin_report(names);
        names.reason(0x3_0005).unwrap().name
    };
    assert_eq!(ovs(&mut names), "OPENVSWITCH:0x0005");
    machine.load("openvswitch");
    machine.copy("6.12", "sys/kernel/btf/openvswitch");
    assert_eq!(ovs(&mut names), "OVS_DROP_METER");
    fs::remove_file(machine.0.join("sys/kernel/btf/openvswitch")).unwrap();
    machine.load("");
    assert_eq!(ovs(&mut names), "OVS_DROP_METER", "a name outlives its module");
    assert_eq!(names.reason(NO_REASON), None);
}

#[test]
fn without_btf_tracefs_serves_below_either_mount_point() {
    let format = fs::read(folder("6.12").join(FORMAT_BELOW_TRACEFS)).unwrap();
    for mount in ["sys/kernel/tracing", "sys/kernel/debug/tracing"] {
        let machine = Machine::new();
        machine.write(&format!("{mount}/events/skb/kfree_skb/format"), &format);
        let mut names = machine.open();
        assert_eq!(names.reason(11).unwrap().name, "NETFILTER_DROP");
        assert_eq!(names.status().tracefs, Tracefs::Mounted(machine.0.join(mount)));
        let notices = names.status().notices(true);
        assert_eq!(notices.len(), 1);
        assert!(notices[0].starts_with("drop reasons of subsystems cannot be named (no BTF"));
    }
}

const FORMAT_BELOW_TRACEFS: &str = "sys/kernel/tracing/events/skb/kfree_skb/format";

#[test]
fn damaged_btf_falls_back_to_tracefs() {
    let machine = Machine::new();
    machine.write("sys/kernel/btf/vmlinux", "\u{7f}not BTF");
    machine.copy("6.1", FORMAT_BELOW_TRACEFS);
    let mut names = machine.open();
    assert_eq!(names.reason(7).unwrap().name, "NETFILTER_DROP");
    assert!(
        names.status().notices(true)[0].contains("not BTF"),
        "{:?}",
        names.status().notices(true)
    );
}

#[test]
fn without_any_source_reasons_are_numbers_and_the_way_out_is_said() {
    let mut names = Machine::new().open();
    assert_eq!(names.reason(7).unwrap().name, "CORE:0x0007");
    let notices = names.status().notices(true);
    assert!(notices[0].starts_with("drop reasons cannot be named (no BTF"), "{notices:?}");
    assert!(notices[0].ends_with("mount -t tracefs tracefs /sys/kernel/tracing"), "{notices:?}");
}

#[test]
fn a_kernel_without_reasons_is_told_from_one_that_hides_them() {
    let mut names = HostNames::open(&root("5.10"));
    assert_eq!(names.status().reasons, status::ReasonSource::Absent);
    assert_eq!(names.status().kfree_skb_args, Some(2));
    assert_eq!(names.reason(NO_REASON), None);
}

#[test]
fn an_empty_folder_is_a_host_that_tells_nothing() {
    let machine = Machine::new();
    let nowhere = HostRoot::new(machine.0.join("nowhere"));
    let mut names = HostNames::open(&nowhere);
    begin_report(&mut names);
    assert_eq!(names.symbol(TCP), None);
    assert!(names.status().notices(true)[0].starts_with("kernel symbols cannot be read ("));
    assert_eq!(kernel::host(&nowhere).kernel, "unknown");
}

#[test]
fn the_host_is_told() {
    let host = kernel::host(&root("7.2"));
    let expected = Host {
        host: "host-7.2".into(),
        boot_id: "00000000-0000-4000-8000-000000000000".into(),
        kernel: "7.2.13+deb14-cloud-amd64".into(),
    };
    assert_eq!(host, expected);
}

#[test]
fn an_empty_list_of_symbols_is_said() {
    let machine = Machine::new();
    machine.copy("6.18", "sys/kernel/btf/vmlinux");
    machine.write("proc/kallsyms", "");
    let notices = machine.open().status().notices(true);
    assert!(notices[0].contains("proc/kallsyms: it lists no functions)"), "{notices:?}");
}

#[test]
fn modules_that_cannot_be_read_are_said() {
    let machine = Machine::new();
    machine.copy("6.18", "sys/kernel/btf/vmlinux");
    // A link to itself: an error that is not absence, for root too.
    fs::remove_file(machine.0.join("proc/modules")).unwrap();
    std::os::unix::fs::symlink("modules", machine.0.join("proc/modules")).unwrap();
    let mut names = machine.open();
    assert_eq!(name(&mut names, TCP).as_deref(), Some("tcp_v4_rcv"));
    let notices = names.status().notices(true);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("kernel modules cannot be followed ("), "{notices:?}");
}

/// This machine's own files, whatever it is: what is claimed must hold together.
#[test]
fn the_running_host_is_consistent() {
    let mut names = HostNames::open(&HostRoot::default());
    begin_report(&mut names);
    let status = names.status();
    let symbols = matches!(status.symbols, status::Symbols::Known { .. });
    if !symbols && !matches!(status.reasons, status::ReasonSource::Btf { .. }) {
        return unproved("this kernel shows neither symbols nor BTF");
    }
    if let status::Symbols::Known { functions, .. } = status.symbols {
        assert!(functions > 0);
        assert_eq!(names.symbol(0), None);
        assert_eq!(names.symbol(0x1000), None, "user space");
        assert_eq!(reads(&mut names), 2, "the kernel's files are read again from their start");
    }
    if let status::ReasonSource::Btf { core, .. } = status.reasons {
        let named = (0..=0xffff)
            .filter(|&reason| !names.reason(reason).unwrap().name.starts_with("CORE:0x"));
        assert_eq!(named.count(), core);
    }
}
