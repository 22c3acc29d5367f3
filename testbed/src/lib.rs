//! Real packet drops for tests, scenarios and benchmarks, with an independent count of each.
//!
//! Everything here happens in network namespaces of its own, so that nothing else adds to the
//! counters and no frame leaves the machine. What a run changes is undone when its value is
//! dropped, when a test panics, and on SIGINT, SIGTERM and SIGHUP ([`undo`]). What a killed run
//! (SIGKILL, power) left behind is found and removed by the next one.
//!
//! | module | drops | counted independently by |
//! |---|---|---|
//! | [`flood`] | millions of frames that no protocol handles | the receiving link's `rx_dropped` |
//! | [`nested`] | two floods, one interrupting the other | both links' dropped counters |
//! | [`udp`] | datagrams to a closed port | `Udp NoPorts`, `Udp6NoPorts` |
//! | [`noise`] | what is dropped beside a test, for tests that must not mind | nobody |
//! | [`drops`] | packets that die of one known cause each | the number sent |
//! | [`scenario`] | a NAT gateway with a full conntrack table | conntrack's `drop` counter |
//!
//! Needs root, and the programs `ip` (iproute2) and, for the NAT scenario, `iptables-legacy` and
//! `conntrack`; `nginx` and `ab` for its demonstration.

pub mod command;
pub mod conntrack;
pub mod counters;
pub mod drops;
pub mod flood;
pub mod folder;
pub mod host_value;
pub mod link;
pub mod load;
pub mod machine;
mod missing_page;
pub mod nested;
pub mod netns;
pub mod noise;
pub mod pid1;
pub mod scenario;
mod socket;
pub mod tracepoint;
pub mod udp;
pub mod undo;
pub mod unproved;
pub mod watch;

use anyhow::{Result, ensure};

/// Refuses to go on without root, before anything is half built.
pub fn need_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "needs root: network namespaces cannot be made");
    Ok(())
}
