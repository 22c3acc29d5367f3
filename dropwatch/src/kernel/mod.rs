//! Read-only facts about a host: what its addresses and numbers are called.
//!
//! Every parser here takes bytes or a reader and returns values; only [`HostRoot`] opens files, so
//! a folder of fixtures stands in for any host. Nothing is compiled in and no kernel version is
//! asked for: symbols come from kallsyms, reasons from the running kernel's BTF or tracefs. What a
//! host lacks is never an error of its own: it is recorded in [`Status`], and [`Status::notices`]
//! says what it costs and the way out.
//!
//! Kernel text is untrusted: sizes are bounded, malformed parts are skipped and counted, and names
//! are cleaned of control characters before anything else sees them.

mod addresses;
mod answers;
mod births;
mod bpf;
pub mod btf;
pub mod conntrack;
pub mod counters;
pub mod evidence;
mod inside;
mod interfaces;
pub mod kallsyms;
pub mod lines;
mod links;
mod listeners;
pub mod live;
pub mod modules;
pub mod names;
mod netlink;
pub mod netns;
pub mod offsets;
pub mod owner;
mod packet_filter;
pub mod processes;
mod queues;
pub mod reasons;
pub mod root;
pub mod status;
pub mod surroundings;
pub mod symbols;
pub mod tracefs;
mod trackers;

pub use names::{HostNames, Known, NoTypes};
pub use netns::{
    Namespaces, NetnsFile, ReachableNetns, Unfound, netns_file, netns_named, short_name,
};
pub use owner::Owners;
pub use processes::Process;
pub use root::HostRoot;
pub use status::Status;
pub use surroundings::Surroundings;

use crate::report::model::Host;

/// Which machine, and which boot of it, `root` belongs to. What cannot be read is `unknown`.
pub fn host(root: &HostRoot) -> Host {
    let read = |path| root.read_word(path).unwrap_or_else(|_| "unknown".into());
    Host { host: read(root::HOSTNAME), boot_id: read(root::BOOT_ID), kernel: read(root::OSRELEASE) }
}

/// `text` with every control character replaced by U+FFFD, safe to print on a terminal. The result can be
/// told from any name that people can type.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
