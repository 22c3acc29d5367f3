//! Real drops on the running kernel: what dropwatch reports, against what the kernel's own
//! counters say.
//!
//! dropwatch runs as its users run it, a child process that is driven by its command line and its
//! signals. The drops happen in network namespaces that each test makes and removes. Beside them
//! the host drops what it always does, and what `noise` adds to that: so a test compares rows that
//! are restricted to its own namespaces, addresses or ethertype, or groups of which one is its own.
//! Some settings are the whole host's, so the tests run one at a time.
//!
//! What a test must not do to somebody's host is in `guest`, for machines of the tests' own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod answers;
mod asked;
mod capture;
mod captured;
mod collectors;
mod conntrack;
mod counting;
mod details;
mod elsewhere;
mod ends;
mod environment;
mod every;
mod expression;
mod files;
mod findings;
mod gate;
mod guest;
mod harmless;
mod harness;
mod input;
mod lifecycle;
mod metrics;
mod names;
mod namespaces;
mod nat;
mod noise;
mod output;
mod pcapng;
mod privileges;
mod properties;
mod reach;
mod recipes;
mod rules;
mod run;
mod selecting;
mod service;
mod several;
mod shares;
mod top;
mod turns;
mod unsaid;
