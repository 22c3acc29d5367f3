//! Real drops on the running kernel: what dropwatch reports, against what the kernel's own
//! counters say.
//!
//! dropwatch runs as its users run it, a child process that is driven by its command line and its
//! signals. The drops happen in network namespaces that each test makes and removes. dropwatch
//! counts for the whole host, so the tests run one at a time, and other traffic that is dropped
//! at the same places would show: run them on a machine at rest.
//!
//! What a test must not do to somebody's host is in `guest`, for machines of the tests' own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod capture;
mod captured;
mod collectors;
mod conntrack;
mod counting;
mod details;
mod environment;
mod findings;
mod guest;
mod harness;
mod input;
mod lifecycle;
mod metrics;
mod names;
mod nat;
mod output;
mod pcapng;
mod privileges;
mod recipes;
mod run;
mod selecting;
mod service;
mod several;
mod top;
