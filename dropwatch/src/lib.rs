//! dropwatch tells, exactly and while a load test runs, where the Linux kernel drops packets, why,
//! and how many.
//!
//! The map of the code, and the rules that its numbers obey, are in `docs/architecture.md`.

#[macro_use]
mod every;

pub mod cli;
pub mod command;
pub mod diagnose;
pub mod exit;
pub mod filter;
pub mod kernel;
mod notify;
pub mod privilege;
pub mod probe;
mod programs;
pub mod recording;
pub mod render;
pub mod report;
mod session;
pub mod settings;
mod sink;
mod supervise;
pub mod verbose;
