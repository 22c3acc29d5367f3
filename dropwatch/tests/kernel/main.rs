//! What the kernel's own files say of other hosts, and of damaged ones: no test here needs root.
//!
//! The hosts are excerpts of real kernels' files (`tests/fixtures/hosts/README.md`). Each complaint
//! that users of other tools have about wrong names and wrong reasons has a test that shows it
//! impossible here.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

mod btf;
mod names;
mod offsets;
mod reasons;
mod symbols;

use std::{fs, path::PathBuf};

use dropwatch::kernel::HostRoot;

/// Fixtures, oldest kernel first.
const HOSTS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];

fn folder(host: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hosts").join(host)
}

fn root(host: &str) -> HostRoot {
    HostRoot::new(folder(host))
}

fn read(host: &str, path: &str) -> Vec<u8> {
    let path = folder(host).join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
