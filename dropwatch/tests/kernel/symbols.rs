//! Addresses to functions.

use std::collections::HashMap;

use dropwatch::kernel::{
    kallsyms::KallsymsLine,
    modules::Modules,
    symbols::{MAX_GENERATED, SymbolTable},
};
use proptest::prelude::*;

use crate::{folder, hosts, read};

fn table(kallsyms: &[u8], modules: &[u8]) -> SymbolTable {
    SymbolTable::read(kallsyms, &Modules::read(modules).unwrap()).unwrap()
}

fn host_files(host: &str) -> (Vec<u8>, Vec<u8>) {
    // A kernel without module support has no /proc/modules.
    let modules = folder(host).join("proc/modules");
    let modules = if modules.exists() { read(host, "proc/modules") } else { Vec::new() };
    (read(host, "proc/kallsyms"), modules)
}

fn host_table(host: &str) -> SymbolTable {
    let (kallsyms, modules) = host_files(host);
    table(&kallsyms, &modules)
}

/// Lines of a host's kallsyms, read independently of the table.
fn lines(kallsyms: &[u8]) -> Vec<KallsymsLine<'_>> {
    kallsyms.split(|&byte| byte == b'\n').filter_map(KallsymsLine::parse).collect()
}

fn address(kallsyms: &[u8], name: &str) -> u64 {
    lines(kallsyms).iter().find(|line| line.name == name).unwrap().address
}

/// `name+offset [module]`, or `-`.
fn show(table: &SymbolTable, address: u64) -> String {
    match table.resolve(address) {
        None => "-".into(),
        Some(found) => match found.module {
            None => format!("{}+{:#x}", found.name, found.offset),
            Some(module) => format!("{}+{:#x} [{module}]", found.name, found.offset),
        },
    }
}

#[test]
fn real_kernels_name_their_functions() {
    for host in hosts::with("proc/kallsyms") {
        let (kallsyms, _) = host_files(&host);
        let table = host_table(&host);
        for function in ["nf_hook_slow", "tcp_v4_rcv", "enqueue_to_backlog"] {
            let found = table.resolve(address(&kallsyms, function) + 0x7d).unwrap();
            assert_eq!((found.name, found.offset, found.module), (function, 0x7d, None), "{host}");
        }
        assert_eq!((table.skipped(), table.is_restricted()), (0, false), "{host}");
    }
    let (kallsyms, _) = host_files("6.12");
    let xmit = address(&kallsyms, "veth_xmit") + 5;
    assert_eq!(show(&host_table("6.12"), xmit), "veth_xmit+0x5 [veth]");
}

#[test]
fn unsorted_modules_get_their_own_names() {
    for host in hosts::with("proc/modules") {
        let (kallsyms, _) = host_files(&host);
        let table = host_table(&host);
        let lines = lines(&kallsyms);
        let modules = lines.iter().filter(|line| line.module.is_some() && line.names_code());
        let modules: Vec<_> = modules.collect();
        assert!(modules.len() > 200, "{host}");
        assert!(!modules.is_sorted_by_key(|line| line.address), "{host}: the fixture is unsorted");
        for line in modules {
            let found = table.resolve(line.address).unwrap();
            assert_eq!((found.offset, found.module), (0, line.module), "{host} {}", line.name);
        }
    }
}

#[test]
fn the_first_name_at_an_address_wins() {
    for host in hosts::with("proc/kallsyms") {
        let (kallsyms, _) = host_files(&host);
        let table = host_table(&host);
        let lines = lines(&kallsyms);
        let (mut first, mut aliases) = (HashMap::new(), 0);
        for line in lines.iter().filter(|line| line.names_code() && line.address != 0) {
            aliases += usize::from(first.contains_key(&line.address));
            first.entry(line.address).or_insert(line.name);
        }
        assert!(aliases > 0, "{host}: the fixture has aliases");
        for (address, name) in first {
            if let Some(found) = table.resolve(address) {
                assert_eq!(found.name, name, "{host}");
            }
        }
    }
}

#[test]
fn nothing_beyond_a_section_gets_a_huge_offset() {
    for host in hosts::with("proc/kallsyms") {
        let (kallsyms, modules) = host_files(&host);
        let table = host_table(&host);
        let mark = |name| address(&kallsyms, name);
        let last_module = Modules::read(&modules[..]).unwrap().list.last().cloned();
        let beyond = [
            0,
            1,
            0xffff_8880_0000_1000, // the direct map
            mark("_stext") - 1,
            mark("_etext"),
            mark("_etext") + 0x1000,
            // Init text is freed after boot, its symbols stay in the list.
            mark("set_reset_devices"),
            mark("_sinittext") + 0x100,
            last_module.map_or(u64::MAX, |module| module.base + module.size),
            u64::MAX,
        ];
        for address in beyond {
            assert_eq!(show(&table, address), "-", "{host} {address:#x}");
        }
        assert_ne!(show(&table, mark("_etext") - 1), "-", "{host}");
    }
}

#[test]
fn a_module_ends_where_the_next_begins() {
    // 7.2 packs module text tightly, while /proc/modules adds up all sections: veth's 40,960 bytes
    // from c0600000 reach over llc at c0605000, nsh at c0653000 over nf_nat at c0654000.
    let table = host_table("7.2");
    assert_eq!(show(&table, 0xffff_ffff_c060_5010), "llc_sap_close+0x0 [llc]");
    assert_eq!(show(&table, 0xffff_ffff_c060_4620), "veth_exit+0x0 [veth]");
    assert_eq!(table.resolve(0xffff_ffff_c060_5000), None, "padding before llc's first function");
    // On 5.10 nsh's text, c02d3000 on, is followed by its data from c02d4024.
    let table = host_table("5.10");
    assert_eq!(show(&table, 0xffff_ffff_c02d_3230), "nsh_pop+0x10 [nsh]");
    assert_eq!(show(&table, 0xffff_ffff_c02d_4024), "-");
}

const MODULES: &str = "\
late 8192 0 - Loading 0xffffffffc0100000
early 8192 0 - Live 0xffffffffc0200000
";

#[test]
fn init_symbols_never_take_another_modules_address() {
    // `late` still lists its init section, whose memory `early` got before it was read.
    let kallsyms = "\
ffffffff81000000 T _stext
ffffffff81002000 T _etext
ffffffffc0200800 t late_init\t[late]
ffffffffc0100000 t late_rx\t[late]
ffffffffc0200000 t early_rx\t[early]
ffffffffc0200900 t other_init\t[gone]
ffffffff81001000 t stray\t[late]
";
    let table = table(kallsyms.as_bytes(), MODULES.as_bytes());
    assert_eq!(show(&table, 0xffff_ffff_c020_0810), "early_rx+0x810 [early]");
    assert_eq!(show(&table, 0xffff_ffff_c020_0910), "early_rx+0x910 [early]");
    assert_eq!(show(&table, 0xffff_ffff_c010_0010), "late_rx+0x10 [late]");
    assert_eq!(show(&table, 0xffff_ffff_8100_1010), "_stext+0x1010");
    assert_eq!(show(&table, 0xffff_ffff_c020_2000), "-");
}

#[test]
fn generated_code_is_named_within_reach() {
    let kallsyms = "\
ffffffff81000000 T _stext
ffffffff81002000 T _etext
ffffffffc0201000 t early_rx\t[early]
ffffffffc01f0000 t bpf_prog_6deef7357e7b4530_classifier\t[bpf]
ffffffffc0300000 t bpf_prog_0000000000000000_last\t[bpf]
ffffffffc0400000 t ftrace_trampoline\t[__builtin__ftrace]
";
    let table = table(kallsyms.as_bytes(), MODULES.as_bytes());
    assert_eq!(
        show(&table, 0xffff_ffff_c01f_0010),
        "bpf_prog_6deef7357e7b4530_classifier+0x10 [bpf]"
    );
    assert_eq!(show(&table, 0xffff_ffff_c020_0010), "-", "a module begins between");
    let last = 0xffff_ffff_c030_0000;
    assert_ne!(show(&table, last + MAX_GENERATED - 1), "-");
    assert_eq!(show(&table, last + MAX_GENERATED), "-");
    assert_eq!(show(&table, last + 0x10_0000), "ftrace_trampoline+0x0 [__builtin__ftrace]");
    assert_eq!(table.modules(), 2);
}

#[test]
fn padding_and_type_hashes_are_not_functions() {
    let kallsyms = "\
ffffffff81000000 T _stext
ffffffff81000ff0 T __cfi_tcp_v4_rcv
ffffffff81000ff0 T __pfx_tcp_v4_rcv
ffffffff81001000 T tcp_v4_rcv
ffffffff81001000 T tcp_v4_rcv_alias
ffffffff81001800 d tcp_data
ffffffff81001900 t tcp_v4_fill_cb.constprop.0.isra.0
ffffffff81002000 T _etext
";
    let table = table(kallsyms.as_bytes(), b"");
    assert_eq!(show(&table, 0xffff_ffff_8100_1000), "tcp_v4_rcv+0x0", "not moved back by one");
    assert_eq!(show(&table, 0xffff_ffff_8100_1801), "tcp_v4_rcv+0x801");
    assert_eq!(show(&table, 0xffff_ffff_8100_1904), "tcp_v4_fill_cb.constprop.0.isra.0+0x4");
}

#[test]
fn hidden_addresses_are_told_from_an_empty_list() {
    let hidden = "0000000000000000 T _stext\n0000000000000000 t veth_xmit\t[veth]\n";
    let hidden = table(hidden.as_bytes(), b"veth 40960 0 - Live 0x0000000000000000\n");
    assert!(hidden.is_restricted() && hidden.is_empty());
    assert_eq!(hidden.resolve(0), None);

    // Per-CPU symbols are at zero on every kernel.
    let shown = "0000000000000000 A fixed_percpu_data\n0000000000000000 T zero\n\
                 ffffffff81000000 T _stext\nffffffff81002000 T _etext\n";
    assert!(!table(shown.as_bytes(), b"").is_restricted());
    assert!(!table(b"", b"").is_restricted());
}

#[test]
fn garbage_is_skipped_and_counted() {
    let mut kallsyms =
        b"ffffffff81000000 T _stext\n\xff\xfe\nffffffff81000010 T \xc3\x28\n".to_vec();
    kallsyms.extend([b'f'; 5000]);
    kallsyms.extend(b"\nffffffff81000020 T evil\x1b[31m\nffffffff81002000 T _etext\nffffffff8100");
    let table = table(&kallsyms, b"nonsense\n");
    assert_eq!(table.skipped(), 4, "two not text, one overlong, one cut");
    assert_eq!(show(&table, 0xffff_ffff_8100_0021), "evil\u{fffd}[31m+0x1");
}

#[test]
fn a_list_without_markers_ends_at_its_last_symbol() {
    let table = table(b"ffffffff81000000 T first\nffffffff81001000 T last\n", b"");
    assert_eq!(show(&table, 0xffff_ffff_8100_0800), "first+0x800");
    assert_eq!(show(&table, 0xffff_ffff_8100_1000), "-");
}

#[test]
fn a_second_reading_replaces_modules_and_keeps_the_kernel() {
    let (kallsyms, modules) = host_files("6.1");
    let mut table = host_table("6.1");
    let (veth, tcp) = (address(&kallsyms, "veth_xmit"), address(&kallsyms, "tcp_v4_rcv"));
    table.reread_loaded(&b""[..], &Modules::default()).unwrap();
    assert_eq!(show(&table, veth), "veth_xmit+0x0 [veth]", "it may have dropped before it went");
    table.reread_loaded(&b""[..], &Modules::default()).unwrap();
    assert_eq!((show(&table, veth), show(&table, tcp)), ("-".into(), "tcp_v4_rcv+0x0".into()));
    table.reread_loaded(&kallsyms[..], &Modules::read(&modules[..]).unwrap()).unwrap();
    assert_eq!(show(&table, veth), "veth_xmit+0x0 [veth]");
    table.reread_loaded(&b"0000000000000000 T _stext\n"[..], &Modules::default()).unwrap();
    assert_eq!(show(&table, veth), "veth_xmit+0x0 [veth]", "hidden later: nothing is lost");
}

/// Between two readings one module went and another took its place: who dropped is not known.
#[test]
fn a_place_that_changed_hands_has_no_name_until_that_is_settled() {
    let kernel = "ffffffff81000000 T _stext\nffffffff81002000 T _etext\n";
    let list = |name: &str| {
        let line = format!("{name} 8192 0 - Live 0xffffffffc0000000\n");
        Modules::read(line.as_bytes()).unwrap()
    };
    let symbols = |name: &str| {
        format!(
            "{kernel}ffffffffc0000000 t {name}_rx\t[{name}]\nffffffffc0001000 t {name}_z\t[{name}]\n"
        )
    };
    let mut table = SymbolTable::read(symbols("old").as_bytes(), &list("old")).unwrap();
    assert_eq!(show(&table, 0xffff_ffff_c000_0010), "old_rx+0x10 [old]");
    table.reread_loaded(symbols("new").as_bytes(), &list("new")).unwrap();
    assert_eq!(show(&table, 0xffff_ffff_c000_0010), "-");
    table.reread_loaded(symbols("new").as_bytes(), &list("new")).unwrap();
    assert_eq!(show(&table, 0xffff_ffff_c000_0010), "new_rx+0x10 [new]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(kallsyms: Vec<u8>, modules: Vec<u8>, address: u64) {
        table(&kallsyms, &modules).resolve(address);
    }

    #[test]
    fn no_lines_panic(
        kallsyms in "([0-9a-f]{1,17} [tTdDwa] [a-z_$]{0,8}(\t\\[(bpf|m)\\])?\n?){0,20}",
        modules in "(m [0-9]{1,22} 0 - Live 0x[0-9a-f]{1,17}\n){0,3}",
        address: u64,
    ) {
        table(kallsyms.as_bytes(), modules.as_bytes()).resolve(address);
    }

    /// However a list is cut, no name comes out that the whole does not have.
    #[test]
    fn a_cut_list_invents_no_name(cut in 0usize..50_000, pick: prop::sample::Index) {
        let (kallsyms, modules) = host_files("5.10");
        let lines = lines(&kallsyms);
        let address = lines[pick.index(lines.len())].address;
        let table = table(&kallsyms[..cut.min(kallsyms.len())], &modules);
        if let Some(found) = table.resolve(address) {
            prop_assert!(lines.iter().any(|line| line.name == found.name));
        }
    }
}
