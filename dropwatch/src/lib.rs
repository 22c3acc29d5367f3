//! dropwatch tells, exactly and while a load test runs, where the Linux kernel drops packets, why,
//! and how many.

pub mod kernel;
pub mod report;
