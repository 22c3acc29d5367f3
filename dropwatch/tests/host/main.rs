//! Real drops on the running kernel: what dropwatch reports, against what the kernel's own
//! counters say.
//!
//! dropwatch runs as its users run it, a child process that is driven by its command line and its
//! signals. The drops happen in network namespaces that each test makes and removes. dropwatch
//! counts for the whole host, so the tests run one at a time, and other traffic that is dropped
//! at the same places would show: run them on a machine at rest.
//!
//! A stepped wall clock is not here: `CLOCK_REALTIME` has no namespace, and stepping the host's
//! is not a test's right. That no rate depends on it is proved where reports are built, which get
//! their times as values.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod counting;
mod environment;
mod harness;
mod input;
mod lifecycle;
mod names;
mod nat;
mod output;
mod pcapng;
mod privileges;
mod several;
