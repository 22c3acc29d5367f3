//! The kernel boundary: loads the eBPF object, attaches it, reads its counters.
//!
//! The only folder that knows aya. Nothing here names, ranks or prints; what the kernel refuses
//! comes back as a [`AttachRefusal`](plan::AttachRefusal) in words.

mod attach;
mod cost;
mod counters;
pub mod cpus;
mod expression;
mod fronts;
mod info;
mod later;
mod load;
mod log;
mod maps;
pub mod plan;
pub mod programs;
mod samples;
pub mod sums;
mod sys;
pub mod turns;
mod typed;
mod verifier;

pub use self::{
    attach::{AttachError, Attempt, Prepared, Probe, Requested, give_back_memory},
    cost::{RunTime, measure_run_time},
    later::Later,
    log::KernelLog,
};
