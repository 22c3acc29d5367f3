//! The arrows of `docs/architecture.md`, enforced on the sources of every crate.
//!
//! What names what is a table here, crate by crate: an arrow that is not in it fails, and so does one
//! that is in it and not in the sources.

mod circles;
mod code;
mod lints;
mod sabotage;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use circles::circles;
use code::{File, read};

/// What a folder, or a file that stands alone, may name of its own crate.
type Arrows = &'static [(&'static str, &'static str)];

const CRATES: &[(&str, Arrows)] = &[
    ("dropwatch", DROPWATCH),
    ("dropwatch-common", COMMON),
    ("dropwatch-ebpf", EBPF),
    ("manual", MANUAL),
    ("testbed", TESTBED),
    ("xtask", XTASK),
];

const DROPWATCH: Arrows = &[
    ("cli", "exit filter render report settings"),
    (
        "command",
        "cli diagnose exit kernel notify privilege probe recording render report session \
         settings sink supervise verbose",
    ),
    ("diagnose", "report"),
    ("filter", "report"),
    ("kernel", "programs report"),
    ("main", "cli command exit settings verbose"),
    ("notify", "verbose"),
    ("privilege", "exit"),
    ("probe", "exit filter report"),
    ("recording", "exit"),
    ("render", "diagnose report"),
    (
        "session",
        "diagnose exit filter kernel privilege probe programs render report settings verbose",
    ),
    ("settings", "exit filter render report"),
    ("sink", "exit render report settings supervise verbose"),
    ("supervise", "exit notify privilege report settings verbose"),
];

const COMMON: Arrows = &[("typed", "offsets")];

const EBPF: Arrows = &[
    ("count", "fields maps netns sample"),
    ("direction", "fields netns"),
    ("expression", "direction fields netns skb"),
    ("filter", "direction fields netns packet"),
    ("group", "count direction fields maps netns packet"),
    ("main", "count expression fields filter group netns"),
    ("netns", "fields"),
    ("packet", "fields"),
    ("sample", "count maps skb"),
    ("skb", "fields netns"),
];

const MANUAL: Arrows = &[("main", "completions name page")];

const TESTBED: Arrows = &[
    ("conntrack", "command netns undo"),
    ("counters", "command netns"),
    (
        "drops",
        "command conntrack counters flood host_value link machine missing_page netns \
         scenario socket udp",
    ),
    ("flood", "command link netns socket"),
    ("host_value", "undo"),
    ("link", "command netns"),
    ("load", "machine netns"),
    ("machine", "socket"),
    ("missing_page", "machine"),
    ("nested", "flood pid1"),
    ("netns", "command undo"),
    ("noise", "command drops flood link netns"),
    ("pid1", "tracepoint"),
    (
        "scenario",
        "command counters drops flood host_value link load machine netns pid1 tracepoint \
         udp undo unproved watch",
    ),
    ("udp", "counters netns"),
    ("watch", "command machine"),
];

const XTASK: Arrows = &[
    ("bench", "measure project root"),
    ("bless", "process project"),
    ("build_ebpf", "object process project test toolchain"),
    ("ci", "build_ebpf dist least_rust packaging process project setup test vm"),
    ("dist", "process project setup"),
    ("figures", "measure project root"),
    ("least_rust", "process project version"),
    (
        "main",
        "bench bless build_ebpf ci dist figures packaging picture project scenario setup \
         test vm",
    ),
    ("packaging", "ci dist locks process project root test"),
    ("picture", "process project root"),
    ("root", "locks process project"),
    ("scenario", "project root"),
    ("setup", "locks process project toolchain version"),
    ("test", "ci locks process project setup"),
    ("toolchain", "process project setup version"),
    ("vm", "ci locks process project setup test"),
];

fn sources(name: &str) -> Vec<File> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = read(&workspace.join(name).join("src"));
    assert!(!files.is_empty(), "{name} has no sources");
    files
}

/// What each room of a crate names of the others, with a file that does.
fn arrows(files: &[File]) -> BTreeMap<(String, String), String> {
    let rooms: BTreeSet<&str> = files.iter().map(File::room).collect();
    let mut found = BTreeMap::new();
    for file in files {
        for room in file.rooms().filter(|room| rooms.contains(room)) {
            found.insert((file.room().to_owned(), room.to_owned()), file.name.clone());
        }
    }
    found
}

/// Arrows that the sources have and the table has not, and the other way round.
fn strange(files: &[File], allowed: Arrows) -> Vec<String> {
    let found = arrows(files);
    let listed: BTreeSet<(String, String)> = allowed
        .iter()
        .flat_map(|(from, to)| to.split_whitespace().map(|to| ((*from).to_owned(), to.to_owned())))
        .collect();
    let new = found.iter().filter(|(arrow, _)| !listed.contains(*arrow));
    let gone = listed.iter().filter(|arrow| !found.contains_key(*arrow));
    new.map(|((from, to), file)| format!("{from} → {to} is not in the table: {file}"))
        .chain(gone.map(|(from, to)| format!("{from} → {to} is only in the table")))
        .collect()
}

/// Files of dropwatch below `folders`, or all where there are none, that name one of `prefixes`.
fn naming(files: &[File], folders: &[&str], prefixes: &[&str]) -> Vec<String> {
    let within = |file: &&File| folders.is_empty() || folders.contains(&file.room());
    files.iter().filter(within).flat_map(|file| file.naming(prefixes)).collect()
}

const NONE: Vec<String> = Vec::new();

#[test]
fn every_arrow_is_in_the_table() {
    for (name, allowed) in CRATES {
        assert_eq!(strange(&sources(name), allowed), NONE, "{name}");
    }
}

/// The types that are serialised stand on the ground floor, and what makes them above: a file that
/// led back to itself could be read, tested or moved only with all that lies between.
#[test]
fn no_files_of_the_report_name_each_other_in_a_circle() {
    assert_eq!(circles(&sources("dropwatch"), "report"), NONE);
}

/// `report/number.rs` divides and rounds, so no two outputs round differently.
#[test]
fn one_file_makes_the_numbers_of_all_outputs() {
    assert_eq!(dividing(&sources("dropwatch")), NONE);
}

/// Files that divide or round, other than the one that may.
fn dividing(files: &[File]) -> Vec<String> {
    let shown = files.iter().filter(|file| SHOWING.contains(&file.room()));
    let others = shown.filter(|file| !NUMBERS.contains(&file.name.as_str()));
    let found = others.filter(|file| file.makes_floats || file.methods.contains("round"));
    found.map(|file| format!("{} makes numbers of its own", file.name)).collect()
}

/// Rooms whose numbers somebody sees.
const SHOWING: &[&str] =
    &["command", "notify", "render", "report", "session", "settings", "sink", "supervise"];

/// What may divide: besides the file for it, how exact shares are, colours, the widths of words, and the
/// units of memory.
const NUMBERS: &[&str] = &[
    "report/number.rs",
    "report/precision.rs",
    "render/palette.rs",
    "render/wrap.rs",
    "render/words.rs",
];

#[test]
fn only_the_probe_knows_aya() {
    let mut files = sources("dropwatch");
    files.retain(|file| file.room() != "probe");
    assert_eq!(naming(&files, &[], AYA), NONE);
    assert!(!naming(&sources("dropwatch"), &["probe"], AYA).is_empty());
}

const AYA: &[&str] = &["aya", "aya_log", "aya_obj"];

#[test]
fn reports_rules_and_renderers_have_no_clock_and_no_files() {
    assert_eq!(naming(&sources("dropwatch"), &["report", "render", "diagnose"], EFFECTS), NONE);
}

/// What reads a clock, a file, the environment or the network.
const EFFECTS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "libc",
    "nix",
    "tokio",
];

/// The host is read, and nothing of it changed.
#[test]
fn the_kernel_folder_writes_nothing() {
    let files = sources("dropwatch");
    assert_eq!(writing(&files, "kernel"), NONE);
}

fn writing(files: &[File], folder: &str) -> Vec<String> {
    let methods = files.iter().filter(|file| file.room() == folder).flat_map(|file| {
        let writes = file.methods.iter().filter(|name| WRITING_METHODS.contains(&name.as_str()));
        writes.map(|name| format!("{}: .{name}()", file.name)).collect::<Vec<_>>()
    });
    naming(files, &[folder], WRITING).into_iter().chain(methods).collect()
}

const WRITING: &[&str] = &[
    "std::fs::File::create",
    "std::fs::File::create_new",
    "std::fs::File::options",
    "std::fs::copy",
    "std::fs::create_dir",
    "std::fs::create_dir_all",
    "std::fs::hard_link",
    "std::fs::remove_dir",
    "std::fs::remove_dir_all",
    "std::fs::remove_file",
    "std::fs::rename",
    "std::fs::set_permissions",
    "std::fs::write",
    "std::os::unix::fs::symlink",
    "std::process",
    "nix::mount",
    "libc::mount",
    "libc::write",
];

/// Those of files, and of what opens them.
const WRITING_METHODS: &[&str] =
    &["append", "create", "create_new", "set_len", "set_permissions", "write_all", "write_at"];

/// What is written goes to a writer that somebody gave, or through `verbose`.
#[test]
fn nothing_prints() {
    let printing = ["print", "println", "eprint", "eprintln", "dbg"];
    for file in sources("dropwatch") {
        let found: Vec<_> = file.macros.iter().filter(|it| printing.contains(&&***it)).collect();
        assert!(found.is_empty(), "{}: {found:?}", file.name);
    }
}

/// A format is a rendering of the report, never of what another format makes of it.
#[test]
fn no_format_knows_another() {
    assert_eq!(between_formats(&sources("dropwatch")), NONE);
}

/// A format that is not in the list could lean on another, and nobody would see it.
#[test]
fn every_renderer_is_a_format() {
    let files = sources("dropwatch");
    let renders = |file: &&File| {
        file.name.starts_with("render/")
            && file.name != "render/mod.rs"
            && !file.naming(&["crate::render::Renderer"]).is_empty()
    };
    let renderers: Vec<_> = files.iter().filter(renders).map(|file| file.name.as_str()).collect();
    assert!(renderers.contains(&"render/text.rs"), "{renderers:?}");
    let listed = |name: &&&str| {
        let name = name.trim_start_matches("render/").trim_end_matches(".rs");
        FORMATS.contains(&name.split('/').next().unwrap_or_default())
    };
    let forgotten: Vec<_> = renderers.iter().filter(|name| !listed(name)).collect();
    assert!(forgotten.is_empty(), "not among FORMATS: {forgotten:?}");
}

fn between_formats(files: &[File]) -> Vec<String> {
    let formats: Vec<String> =
        FORMATS.iter().map(|format| format!("crate::render::{format}")).collect();
    let format_of = |file: &File| {
        let name = file.name.strip_prefix("render/")?.trim_end_matches(".rs");
        let name = name.split('/').next()?;
        FORMATS.contains(&name).then(|| format!("crate::render::{name}"))
    };
    let known = files.iter().filter_map(|file| Some((file, format_of(file)?)));
    known
        .flat_map(|(file, own)| {
            let others: Vec<&str> =
                formats.iter().filter(|format| **format != own).map(String::as_str).collect();
            file.naming(&others)
        })
        .collect()
}

/// The files and folders of `render/` that are formats, or pages of commands; the others are what
/// they share.
const FORMATS: &[&str] = &[
    "classic",
    "compare",
    "conntrack",
    "doctor",
    "each",
    "explain",
    "json",
    "metrics",
    "pcapng",
    "text",
    "tui",
];

/// Files, folders and tests that docs/adding.md sends people to.
#[test]
fn the_guide_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/adding.md")).expect("the guide");
    let quoted = || page.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = quoted().filter(|it| it.contains('/') && !it.contains(' ')).collect();
    assert!(paths.len() > 30, "{paths:?}");
    let gone: Vec<_> = paths.iter().filter(|path| !root.join(path).exists()).collect();
    assert!(gone.is_empty(), "no such file: {gone:?}");
    let code: String = ["dropwatch/src", "dropwatch/tests"]
        .iter()
        .flat_map(|folder| texts(&root.join(folder)))
        .collect();
    let tests = quoted().filter(|it| it.matches('_').count() > 2 && !it.contains(['/', ' ']));
    for test in tests {
        assert!(code.contains(&format!("fn {test}()")), "no test {test}");
    }
}

fn texts(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    code::walk(folder, &mut found);
    found.iter().map(|path| std::fs::read_to_string(path).expect("source file")).collect()
}

#[test]
fn main_is_a_table_of_contents() {
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    let text = std::fs::read_to_string(main).expect("main.rs");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    assert!(code.count() <= 60);
}
