//! dropwatch tells, exactly and while a load test runs, where the Linux kernel drops packets, why,
//! and how many.
//!
//! The map of the code, and the rules that its numbers obey, are in `docs/architecture.md`.

pub mod app;
mod asked;
mod awaited;
mod capture;
pub mod cli;
pub mod complete;
pub mod conntrack;
pub mod cost;
mod create;
pub mod diagnose;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod filter;
pub mod kernel;
mod launch;
mod notify;
mod output;
mod outputs;
mod pace;
pub mod privilege;
pub mod probe;
mod record;
pub mod recording;
pub mod render;
pub mod replay;
pub mod report;
mod serve;
mod session;
pub mod settings;
mod signals;
mod supervise;
pub mod top;
mod user;
pub mod verbose;
mod wanted;
