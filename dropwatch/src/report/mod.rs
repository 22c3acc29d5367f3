//! From counters to a report: snapshot → delta → named, ranked [`model::Report`] → view of it.
//! Samples say whose packets they were: sample → [`flow`], call [`path`] → [`details`] of a row.
//!
//! Pure: no clock, no files, no kernel. What it needs to know of the host comes in as values or
//! through [`Names`], so every rule that the numbers obey is tested without root.

mod address;
pub mod build;
pub mod cgroup;
pub mod compare;
pub mod conntrack;
pub mod decode;
pub mod delta;
pub mod details;
pub mod evidence;
pub mod facts;
pub mod finding;
pub mod flow;
pub mod frequent;
pub mod groups;
mod hex;
pub mod keys;
pub mod model;
pub mod near;
pub mod options;
pub mod path;
pub mod pattern;
pub mod place;
pub mod protocol;
pub mod question;
pub mod sample;
pub mod shell;
pub mod snapshot;
pub mod summary;
mod timestamp;
pub mod totals;
pub mod view;

use facts::Owner;
use model::{Reason, Symbol};

/// What the report asks of the host to name a drop.
///
/// `None` means "cannot be proved", never "guess": the renderers have a way to say unknown. Names
/// of namespaces, interfaces and processes are anyone's choice: they are passed on as they are, cut
/// to a sane length, and cleaned where a terminal shows them.
pub trait Names {
    /// Function that contains the drop location, with the offset into it.
    fn symbol(&mut self, location: u64) -> Option<Symbol>;
    /// Name of a raw reason number, never empty: unknown numbers print as `subsystem:0xNNNN`.
    /// `None` only for [`dropwatch_common::NO_REASON`].
    fn reason(&mut self, reason: u32) -> Option<Reason>;

    /// Name of the network namespace with this inode number: `gw`, or `nginx (pid 812)` where only
    /// a process that lives there is known.
    fn netns(&mut self, _inum: u32) -> Option<String> {
        None
    }

    /// Name of a device, by its index in the network namespace `netns`.
    fn interface(&mut self, _netns: u32, _index: u32) -> Option<String> {
        None
    }

    /// The process that holds the socket with this inode number.
    fn owner(&mut self, _socket: u64) -> Option<Owner> {
        None
    }
}
