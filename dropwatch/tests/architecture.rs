//! The arrows of `docs/architecture.md`, enforced on the source text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file below `src/`, by its path from there, with its code: no comments, no tests.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("source folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 20, "found only {} source files", found.len());
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code: Vec<&str> =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let name = path.strip_prefix(&root).expect("below src").display().to_string();
            (name, code.join("\n"))
        })
        .collect()
}

/// Files outside `allowed` that contain one of `words`.
fn offenders(allowed: &[&str], words: &[&str]) -> Vec<String> {
    sources()
        .into_iter()
        .filter(|(name, _)| !allowed.iter().any(|prefix| name.starts_with(prefix)))
        .flat_map(|(name, code)| {
            words
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{name}: {word}"))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Files below one of `folders` that contain one of `words`.
fn inside(folders: &[&str], words: &[&str]) -> Vec<String> {
    offenders(&[], words)
        .into_iter()
        .filter(|found| folders.iter().any(|folder| found.starts_with(folder)))
        .collect()
}

const NONE: Vec<String> = Vec::new();

#[test]
fn only_the_probe_knows_aya() {
    assert_eq!(offenders(&["probe/"], &["aya::", "aya_log::", "aya_obj::", "use aya"]), NONE);
}

#[test]
fn reports_and_renderers_have_no_clock_and_no_files() {
    let effects = ["std::fs", "fs::", "File::", "Instant::now", "SystemTime", "Timestamp::now"];
    assert_eq!(inside(&["report/", "render/", "diagnose/"], &effects), NONE);
}

#[test]
fn only_renderers_and_main_print() {
    assert_eq!(offenders(&["render/", "main.rs"], &["println!", "print!(", "dbg!"]), NONE);
}

#[test]
fn the_core_does_not_know_its_surroundings() {
    let outer = ["crate::app", "crate::probe", "crate::cli", "crate::settings", "crate::privilege"];
    assert_eq!(inside(&["report/", "diagnose/", "kernel/"], &outer), NONE);
    assert_eq!(inside(&["report/", "kernel/", "probe/"], &["crate::render"]), NONE);
}

#[test]
fn nothing_points_at_the_loop() {
    assert_eq!(offenders(&["main.rs"], &["crate::app", "app::"]), NONE);
}

#[test]
fn main_is_a_table_of_contents() {
    let (_, main) = sources().into_iter().find(|(name, _)| name == "main.rs").expect("main.rs");
    assert!(main.lines().count() <= 60);
}
