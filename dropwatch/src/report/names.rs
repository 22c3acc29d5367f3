//! What reports ask of the host to name a drop.

use super::{
    facts::{Netns, Owner},
    place::{Reason, Symbol},
};

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

    /// The network namespace with this number in the run. It is called `gw`, or `nginx (pid 812)` where
    /// only a process that lives there is known.
    fn netns(&mut self, number: u32) -> Netns {
        Netns::new(None, number)
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
