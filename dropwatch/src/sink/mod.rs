//! Everyone who reads a run: standard output, recordings, captures, the exporter of metrics. Each may
//! stall, fill up or go away, and none of them holds up the others or the reports.

pub mod capture;
pub mod create;
pub mod output;
pub mod outputs;
pub mod record;
pub mod serve;
