//! From counters to output and back: golden files of every format, the JSON Schema, and `replay` on
//! good, bad and hostile recordings. Needs neither root nor a kernel.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compressed;
mod details;
mod each;
mod errors;
mod golden;
mod media;
mod metrics;
mod namespaces;
mod properties;
mod schema;
mod summary;
mod support;
mod told;
