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
pub mod device;
pub mod evidence;
pub mod facts;
pub mod filter_rules;
pub mod finding;
pub mod flow;
pub mod frequent;
pub mod groups;
mod hex;
pub mod keys;
pub mod late;
pub mod model;
mod names;
pub mod namespaces;
pub mod nat;
pub mod near;
pub mod number;
pub mod object;
pub mod offsets;
pub mod options;
pub mod packet;
pub mod path;
pub mod pattern;
pub mod place;
pub mod precision;
pub mod protocol;
pub mod question;
pub mod runs;
pub mod sample;
pub mod shell;
pub mod snapshot;
pub mod summary;
mod timestamp;
pub mod totals;
pub mod tunnel;
pub mod view;
pub mod weighed;

pub use names::Names;
