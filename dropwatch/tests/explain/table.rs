//! The table is whole, and every name in it is one of a kernel's.

use std::{collections::BTreeSet, fs};

use dropwatch::{
    diagnose::knowledge::{BLANKS, Benign, CORE, Quantity, function_name},
    kernel::{HostRoot, btf::Btf, counters},
};
use testbed::unproved::unproved;

use crate::{fixtures, host, hosts, known, unsaid};

/// Longest title that fits beside a name in the list.
const TITLE: usize = 48;

/// Names of the core's drop reasons in a kernel's BTF, without the kernel's prefix.
/// None on kernels without.
fn reasons(btf: &[u8]) -> BTreeSet<String> {
    let btf = Btf::parse(btf).expect("BTF");
    let Some(ty) = btf.find_enum("skb_drop_reason") else { return BTreeSet::new() };
    btf.enumerators(ty)
        .filter_map(|(name, _)| {
            name.strip_prefix("SKB_DROP_REASON_").or_else(|| name.strip_prefix("SKB_"))
        })
        .filter(|name| !matches!(*name, "MAX" | "SUBSYS_MASK"))
        .map(str::to_owned)
        .collect()
}

fn explained() -> BTreeSet<String> {
    let entries = known().entries.iter().filter(|entry| entry.subsystem == CORE);
    entries.flat_map(|entry| entry.reasons.clone()).collect()
}

#[test]
fn every_reason_of_every_known_kernel_is_explained_or_listed_as_not() {
    let (explained, open) = (explained(), &known().not_yet_explained);
    let mut named = BTreeSet::new();
    for name in hosts::with("sys/kernel/btf/vmlinux") {
        let reasons = reasons(&host(&name).vmlinux_btf().expect("fixture"));
        let missing: Vec<_> =
            reasons.iter().filter(|r| !explained.contains(*r) && !open.contains(r)).collect();
        assert!(missing.is_empty(), "{name}: neither explained nor listed: {missing:?}");
        let count = reasons.intersection(&explained).count();
        println!("{name}: {count} of {} reasons explained", reasons.len());
        named.extend(reasons);
    }
    let invented: Vec<_> =
        explained.iter().chain(open).filter(|reason| !named.contains(*reason)).collect();
    assert!(invented.is_empty(), "no known kernel has these: {invented:?}");
    let both: Vec<_> = open.iter().filter(|reason| explained.contains(*reason)).collect();
    assert!(both.is_empty(), "explained, and listed as not: {both:?}");
}

#[test]
fn reasons_of_the_running_kernel_are_counted() {
    let Ok(btf) = HostRoot::default().vmlinux_btf() else {
        return unproved("this kernel has no BTF");
    };
    if Btf::parse(&btf).ok().and_then(|btf| btf.find_enum("skb_drop_reason")).is_none() {
        return unproved("this kernel has no drop reasons");
    }
    let (reasons, explained) = (reasons(&btf), explained());
    let new: Vec<_> = reasons.difference(&explained).collect();
    // A newer kernel than the table is no fault of either.
    println!("{} of {} explained, not: {new:?}", reasons.len() - new.len(), reasons.len());
    assert!(reasons.contains("NOT_SPECIFIED"));
}

#[test]
fn reasons_of_open_vswitch_are_its_own() {
    let vmlinux = host("7.2").vmlinux_btf().expect("fixture");
    let module = host("7.2").module_btf("openvswitch").expect("fixture");
    let base = Btf::parse(&vmlinux).expect("BTF");
    let btf = Btf::parse_split(&module, &base).expect("split BTF");
    let ty = btf.find_enum("ovs_drop_reason").expect("its reasons");
    let theirs: BTreeSet<_> = btf
        .enumerators(ty)
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("__") && !name.ends_with("_MAX"))
        .collect();
    let ovs = known().entries.iter().filter(|entry| entry.subsystem == "OPENVSWITCH");
    let ours: BTreeSet<_> = ovs.flat_map(|entry| &entry.reasons).map(String::as_str).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn every_function_is_one_of_a_kernel() {
    let kallsyms = hosts::with("proc/kallsyms").into_iter().map(|host| {
        fs::read_to_string(hosts::folder(&host).join("proc/kallsyms")).expect("fixture")
    });
    let kallsyms: Vec<String> = kallsyms.collect();
    let symbols = kallsyms.iter().flat_map(|text| text.lines());
    let names = symbols.filter_map(|line| line.split_whitespace().nth(2)).map(function_name);
    // More functions of the kernels behind the fixtures, whose addresses nobody needs.
    let more: Vec<String> = fs::read_dir(fixtures().join("functions"))
        .expect("fixtures")
        .map(|file| fs::read_to_string(file.expect("entry").path()).expect("fixture"))
        .collect();
    let more = more.iter().flat_map(|text| text.lines());
    let unsaid = unsaid::functions();
    let of_sources = unsaid.keys().map(String::as_str);
    let there: BTreeSet<&str> = names.chain(more).chain(of_sources).collect();
    for function in known().functions() {
        assert!(
            there.contains(function) || known().needs.contains_key(function),
            "no known kernel has {function}: add it to tests/fixtures/functions, or to `needs`"
        );
    }
}

#[test]
fn every_number_is_there_or_says_what_it_needs() {
    let host = host("6.18");
    let counters = counters::read(&host);
    for entry in &known().entries {
        for quantity in entry.quantities() {
            let there = match &quantity {
                Quantity::Counter(name) => counters.get(name).is_some(),
                Quantity::Sysctl(name) => host.sysctl(name).is_ok(),
            };
            let name = quantity.name();
            assert!(there || known().needs.contains_key(name), "{}: {name}", entry.title);
        }
    }
}

#[test]
fn nothing_is_said_to_need_what_no_entry_names() {
    let quantities = known().entries.iter().flat_map(|entry| entry.quantities());
    let mut names: BTreeSet<String> = quantities.map(|q| q.name().to_owned()).collect();
    names.extend(known().functions().map(str::to_owned));
    for name in known().needs.keys() {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn entries_are_whole() {
    assert!(known().entries.len() >= 60, "{}", known().entries.len());
    for entry in &known().entries {
        let title = &entry.title;
        assert!((1..=TITLE).contains(&title.chars().count()), "{title}");
        assert!(entry.meaning.ends_with(['.', ')']), "{title}: a whole sentence");
        assert_eq!(entry.reasons.is_empty(), entry.unseen, "{title}");
        assert!(entry.at.is_empty() || entry.seen_at.is_empty(), "{title}: either, not both");
        assert!(!entry.unseen || !entry.at.is_empty(), "{title}: found by a function");
        assert!(!entry.source.is_empty(), "{title}: what does it rest on?");
        for source in &entry.source {
            assert!(
                [".c", ".h", ".rst"].iter().any(|end| source.ends_with(end)),
                "{title}: {source}"
            );
        }
        if let Benign::When(text) | Benign::Always(text) = &entry.benign {
            assert!(!text.starts_with("when ") && !text.ends_with('.'), "{title}: {text}");
        }
        for reason in &entry.reasons {
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(reason.chars().all(plain), "{title}: {reason}");
        }
    }
}

#[test]
fn no_two_entries_claim_the_same() {
    let mut claims = BTreeSet::new();
    for entry in &known().entries {
        let places =
            if entry.at.is_empty() { vec![""] } else { entry.at.iter().map(|f| &**f).collect() };
        for reason in &entry.reasons {
            for place in &places {
                let claim = (&entry.subsystem, reason, *place);
                assert!(claims.insert(claim), "{reason} at {place:?}: {}", entry.title);
            }
        }
    }
}

/// A reader must be able to tell what is a name and what is to be filled in.
#[test]
fn words_in_capitals_are_blanks_that_are_explained_or_the_programs_own() {
    const OWN: [&str; 7] =
        ["FORWARD", "NOTRACK", "NOT_SPECIFIED", "PREROUTING", "RST", "SYN", "TCPMSS"];
    let mut used = BTreeSet::new();
    let of_entries = known().entries.iter().flat_map(|entry| entry.commands());
    let of_rules = known().rules.iter().flat_map(|rule| rule.commands());
    for command in of_entries.chain(of_rules) {
        let command = command.split("  # ").next().unwrap_or_default();
        let words = command.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.chars().any(|c| c.is_ascii_uppercase())) {
            let is_capital = !word.chars().any(|c| c.is_ascii_lowercase());
            let is_blank = BLANKS.iter().any(|(blank, _)| *blank == word);
            let is_option = word.len() == 1 && command.contains(&format!("-{word}"));
            assert!(!is_capital || is_blank || OWN.contains(&word) || is_option, "{command}");
            used.insert(word.to_owned());
        }
    }
    for (blank, _) in BLANKS {
        assert!(used.contains(blank), "{blank} is in no command");
    }
}
