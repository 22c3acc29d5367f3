//! Whoever pastes a line of any text that dropwatch prints gets an answer: every line of every golden
//! text is fed to `explain`.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{explained, words::replayed};

/// Golden texts that stand in files of their own, and what live runs have printed into a pipe.
const TEXTS: [&str; 13] = [
    "tests/fixtures/printed/by.txt",
    "tests/fixtures/printed/conntrack.txt",
    "tests/fixtures/printed/run.txt",
    "tests/fixtures/printed/stacks.txt",
    "tests/fixtures/printed/troubles.txt",
    "tests/snapshots/conntrack__page_of_a_full_table_beside_an_empty_one.snap",
    "tests/snapshots/tui__detail.snap",
    "tests/snapshots/tui__large.snap",
    "tests/snapshots/tui__small.snap",
    "tests/tui/snapshots/tui__namespaces__listed.snap",
    "tests/tui/snapshots/tui__namespaces__page.snap",
    "tests/tui/snapshots/tui__search__search_large.snap",
    "tests/tui/snapshots/tui__search__search_small.snap",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts that stand in the tests themselves: `@"…"`, `@r"…"`.
fn inline(source: &str) -> Vec<&str> {
    let begins = source.match_indices(", @").filter_map(|(at, comma)| {
        let rest = source[at + comma.len()..].trim_start_matches('r');
        let text = rest.trim_start_matches('#');
        let end = format!("\"{}", "#".repeat(rest.len() - text.len()));
        text.strip_prefix('"')?.split(&end).next()
    });
    begins.collect()
}

pub(crate) fn lines() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut add = |text: &str| {
        let shown = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.extend(shown.map(str::to_owned));
    };
    for path in TEXTS {
        let text = read(path);
        // A head of insta's.
        add(text.split_once("\n---\n").map_or(text.as_str(), |(_, text)| text));
    }
    for path in ["golden", "details", "each", "summary"] {
        let source = read(&format!("tests/replay/{path}.rs"));
        let texts = inline(&source);
        assert!(!texts.is_empty(), "{path}");
        texts.into_iter().for_each(&mut add);
    }
    for options in [&["--all", "--top", "0"][..], &["--diff", "FILE"], &["--classic"]] {
        add(&replayed(options));
    }
    assert!(NOTES.iter().all(|note| lines.contains(*note)), "a note that is printed no more");
    lines
}

/// Below a command stands what it does in this case, in a sentence that says all there is to say; those of
/// explanations are known by what they explain.
const NOTES: [&str; 7] = [
    "loose, for this interface alone; 0 off, 1 strict, 2 loose: any route back will do; less protection from forged source addresses",
    "programs of cgroups; a program's own filters: its code",
    "rules of all tables with their packet counters; look at INPUT",
    "the rules with their handles; look at those of this hook",
    "what listens, at which address: start the service, or stop the sender",
    "where the way back leads",
    "who sends them; while it runs they are received, and no drops",
];

/// What no answer is to be expected of.
fn is_no_line(line: &str) -> bool {
    // The last branch of a tree of call paths is a function by itself: a name like any other, of which
    // nothing is known where it drops nothing.
    let is_function = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    line.chars().all(is_function) || NOTES.contains(&line)
}

#[test]
fn every_line_of_every_golden_text_is_known() {
    let lines = lines();
    assert!(lines.len() > 200, "{}", lines.len());
    let asked = lines.iter().filter(|line| !is_no_line(line));
    let unknown: Vec<String> = asked
        .filter_map(|line| explained(line).err().map(|why| format!("{line}\n        {why}")))
        .collect();
    assert!(unknown.is_empty(), "{} lines:\n{}", unknown.len(), unknown.join("\n"));
}
