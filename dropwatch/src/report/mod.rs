//! From counters to a report: snapshot → delta → named, ranked [`model::Report`] → view of it.
//!
//! Pure: no clock, no files, no kernel. What it needs to know of the host comes in as values or
//! through [`Names`], so every rule that the numbers obey is tested without root.

mod address;
pub mod build;
pub mod decode;
pub mod delta;
pub mod model;
pub mod sample;
pub mod snapshot;
mod timestamp;
pub mod view;

use model::{Reason, Symbol};

/// What the report asks of the host to name a drop.
///
/// `None` means "cannot be proved", never "guess": the renderers have a way to say unknown.
pub trait Names {
    /// Function that contains the drop location, with the offset into it.
    fn symbol(&mut self, location: u64) -> Option<Symbol>;
    /// Name of a raw reason number, never empty: unknown numbers print as `subsystem:0xNNNN`.
    /// `None` only for [`dropwatch_common::NO_REASON`].
    fn reason(&mut self, reason: u32) -> Option<Reason>;
}
