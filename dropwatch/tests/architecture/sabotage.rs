//! Wrong arrows, planted in every way that the language has for them: the rules see each.

use std::sync::LazyLock;

use crate::{
    AYA, EFFECTS, NONE, arrows, between_formats,
    circles::circles,
    code::{File, parse},
    dividing, naming, sources, strange, writing,
};

/// The sources of dropwatch, and one file more.
fn with(name: &str, text: &str) -> Vec<File> {
    static SOURCES: LazyLock<Vec<File>> = LazyLock::new(|| sources("dropwatch"));
    let mut files = SOURCES.clone();
    files.push(parse(name, text));
    files
}

#[test]
fn an_arrow_is_seen_however_it_is_written() {
    for text in [
        "use crate::probe::Probe;",
        "use crate::{report::model::Report, probe::{Probe, plan}};",
        "use crate::{probe};",
        "use crate::probe as counters;",
        "use crate::probe::*;",
        "pub use crate::probe::Probe;",
        "use super::super::probe::Probe;",
        "use crate as root; fn f() { root::probe::give_back_memory(); }",
        "use crate::{self as root}; type P = root::probe::Probe;",
        "fn f() { crate::probe::give_back_memory(); }",
        "fn f(p: &crate::probe::Probe) {}",
        "fn f() -> Option<Vec<crate::probe::Probe>> { None }",
        "impl From<crate::probe::Error> for u8 { fn from(_: crate::probe::Error) -> u8 { 0 } }",
        "fn f() { println!(\"{}\", crate::probe::name()); }",
        "fn f() { use crate::probe::Probe; }",
        "mod inner { use super::super::super::probe::Probe; }",
        "fn f() { let g = |p: crate::probe::Probe| p; }",
        "macro_rules! m { () => { $crate::probe::name() } }",
        "const C: u8 = match crate::probe::A { _ => 0 };",
        "#[cfg(not(test))] use crate::probe::Probe;",
        "#[cfg(any(test, unix))] use crate::probe::Probe;",
    ] {
        let files = with("report/planted.rs", text);
        let arrow = ("report".to_owned(), "probe".to_owned());
        assert!(arrows(&files).contains_key(&arrow), "{text}");
        let found = strange(&files, crate::DROPWATCH);
        assert_eq!(found, ["report → probe is not in the table: report/planted.rs"], "{text}");
    }
}

#[test]
fn what_is_no_arrow_is_not_taken_for_one() {
    for text in [
        "// use crate::probe::Probe;",
        "/// Like [`crate::probe`].\nfn f() {}",
        "const TEXT: &str = \"crate::probe::Probe\";",
        "#[cfg(test)] mod tests { use crate::probe::Probe; }",
        "#[cfg(test)] use crate::probe::Probe;",
        "use super::model::Report;",
        "use crate::report::probe;",
        "fn f() { other::probe::name(); }",
    ] {
        let files = with("report/planted.rs", text);
        assert_eq!(strange(&files, crate::DROPWATCH), NONE, "{text}");
    }
}

#[test]
fn an_arrow_that_nothing_needs_any_more_is_told() {
    let found = strange(&sources("dropwatch-common"), &[("lib", "filter sample")]);
    let gone = "lib → sample is only in the table";
    assert!(found.iter().any(|arrow| arrow == gone), "{found:?}");
}

#[test]
fn effects_are_seen_where_they_may_not_be() {
    for text in [
        "use std::fs; fn f() { fs::read(\"x\"); }",
        "use std::{fs::File, io};",
        "fn f() { std::time::Instant::now(); }",
        "use std::time::{Duration, Instant};",
        "use jiff::Timestamp; fn f() { Timestamp::now(); }",
        "use std as s; fn f() { s::fs::read(\"x\"); }",
        "fn f() { format!(\"{:?}\", std::env::var(\"HOME\")); }",
        "use tokio::net::TcpStream;",
    ] {
        for name in ["report/planted.rs", "diagnose/rules/planted.rs", "render/planted.rs"] {
            let files = [parse(name, text)];
            let found = naming(&files, &["report", "render", "diagnose"], EFFECTS);
            assert!(!found.is_empty(), "{name}: {text}");
        }
    }
    let harmless = parse("report/planted.rs", "use std::time::Duration; use jiff::Timestamp;");
    assert_eq!(naming(&[harmless], &["report"], EFFECTS), NONE);
}

#[test]
fn aya_is_seen_outside_the_probe() {
    for text in ["use aya::maps::HashMap;", "use {aya_obj::generated, log};", "type E = aya::Ebpf;"]
    {
        assert!(!naming(&[parse("session/planted.rs", text)], &[], AYA).is_empty(), "{text}");
    }
}

#[test]
fn writing_is_seen_in_the_kernel_folder() {
    for text in [
        "fn f() { std::fs::write(\"/proc/sys/net/ipv4/ip_forward\", \"1\"); }",
        "use std::fs::{self, File}; fn f() { fs::write(\"x\", \"1\"); }",
        "use std::fs::File; fn f() { File::create(\"x\"); }",
        "use std::fs::OpenOptions; fn f() { OpenOptions::new().append(true).open(\"x\"); }",
        "use std::io::Write; fn f(mut to: std::fs::File) { to.write_all(b\"1\"); }",
        "use std::process::Command; fn f() { Command::new(\"sysctl\").status(); }",
    ] {
        let files = [parse("kernel/planted.rs", text)];
        assert!(!writing(&files, "kernel").is_empty(), "{text}");
    }
}

#[test]
fn a_format_that_knows_another_is_seen() {
    for text in ["use super::json::Json;", "use crate::render::{json, words};"] {
        let files = [parse("render/text.rs", text)];
        assert!(!between_formats(&files).is_empty(), "{text}");
    }
    let shared = [parse("render/text.rs", "use super::words::Bytes; use super::text::x;")];
    assert_eq!(between_formats(&shared), NONE);
}

#[test]
fn a_circle_within_a_room_is_seen_however_long_it_is() {
    let file = |(name, text): (&str, &str)| parse(name, text);
    let two = [
        ("report/one.rs", "use super::two::Two;"),
        ("report/two.rs", "fn f(one: &super::one::One) {}"),
    ];
    assert_eq!(
        circles(&two.map(file), "report"),
        ["report/one.rs → report/two.rs → report/one.rs"]
    );
    let through_the_folder = [
        ("report/mod.rs", "pub use self::model::{Line, groups::Groups};"),
        ("report/model/mod.rs", "pub mod groups; use self::groups::Groups;"),
        ("report/model/groups.rs", "use crate::{report::tree as t}; fn f() { t::leaf() }"),
        ("report/tree.rs", "use super::Names;"),
        ("diagnose/facts.rs", "use crate::report::tree;"),
    ];
    let found = circles(&through_the_folder.map(file), "report");
    let circle = "report/mod.rs → report/model/groups.rs → report/tree.rs → report/mod.rs";
    assert!(found.iter().any(|it| it == circle), "{found:?}");

    let none = [
        ("report/mod.rs", "pub use self::model::Line; mod one;"),
        ("report/model/mod.rs", "use super::one::One; use self::inner::X; mod inner { struct X; }"),
        (
            "report/one.rs",
            "use super::leaf::Leaf; #[cfg(test)] mod tests { use super::super::model; }",
        ),
        ("report/leaf.rs", "use std::fmt;"),
    ];
    assert_eq!(circles(&none.map(file), "report"), NONE);
    let planted = with("report/place.rs", "use super::model::Location;");
    let found = circles(&planted, "report");
    assert!(found.iter().any(|it| it.contains("report/place.rs")), "{found:?}");
}

#[test]
fn a_number_made_elsewhere_is_seen() {
    for text in [
        "fn f(count: u64) -> f64 { count as f64 / 3.0 }",
        "fn f(count: u32) -> f64 { f64::from(count) / 3.0 }",
        "fn f(rate: f64) -> f64 { rate.round() }",
    ] {
        assert!(!dividing(&[parse("render/planted.rs", text)]).is_empty(), "{text}");
        assert_eq!(dividing(&[parse("report/number.rs", text)]), NONE);
    }
}
