//! What the kernel's own files say of other hosts, and of damaged ones: no test here needs root.
//!
//! The hosts are excerpts of real kernels' files (`tests/fixtures/hosts/README.md`). Each complaint
//! that users of other tools have about wrong names and wrong reasons has a test that shows it
//! impossible here.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

mod btf;
#[path = "../fixtures/hosts.rs"]
mod hosts;
mod names;
mod offsets;
mod reasons;
mod symbols;

use std::fs;

use dropwatch::kernel::HostRoot;

use hosts::folder;

/// The types of a kernel.
const VMLINUX: &str = "sys/kernel/btf/vmlinux";

fn root(host: &str) -> HostRoot {
    HostRoot::new(folder(host))
}

fn read(host: &str, path: &str) -> Vec<u8> {
    let path = folder(host).join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
