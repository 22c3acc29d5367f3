//! What tracefs tells of `skb:kfree_skb`: an oracle that dropwatch has no part in.

use std::fs;

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const TRACEFS: &str = "/sys/kernel/tracing";

/// The tracepoint as the kernel describes it.
#[derive(Clone, Debug)]
pub struct Tracepoint {
    /// The number that perf knows it by.
    pub id: u64,
    /// Its fields, and the names of the reasons.
    format: String,
}

impl Tracepoint {
    /// Tracefs need not be mounted, so a thread of its own mounts it where nothing else sees it.
    ///
    /// # Errors
    /// Without tracefs in the kernel, or without root.
    pub fn read() -> Result<Self> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    mount_private_tracefs()?;
                    let read = |file: &str| {
                        let path = format!("{TRACEFS}/events/skb/kfree_skb/{file}");
                        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
                    };
                    let id = read("id")?.trim().parse().context("tracepoint id")?;
                    Ok(Self { id, format: read("format")? })
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Whether drops have a reason on this kernel.
    pub fn has_reasons(&self) -> bool {
        self.format.contains("reason;")
    }

    /// Whether drops tell the socket that was to receive them (Linux 6.11).
    pub fn has_receiver(&self) -> bool {
        self.format.contains("rx_sk;")
    }

    /// Finds `{ 8, "NETFILTER_DROP" }` in the format's list of reasons.
    pub fn reason_number(&self, reason: &str) -> Option<u32> {
        let before = self.format.split_once(&format!(", \"{reason}\" }}"))?.0;
        before.rsplit_once("{ ")?.1.parse().ok()
    }
}

/// Gives the calling thread a mount namespace of its own with tracefs in it.
/// Programs that it starts see it, too.
///
/// # Errors
/// Without root, or tracefs in the kernel.
pub fn mount_private_tracefs() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none)
        .context("cannot mount tracefs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracepoint(format: &str) -> Tracepoint {
        Tracepoint { id: 1, format: format.into() }
    }

    #[test]
    fn reasons_are_numbered_by_the_kernels_own_list() {
        let with = tracepoint(
            "\tfield:enum skb_drop_reason reason;\toffset:28;\n\
             print fmt: \"%s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 8, \"NETFILTER_DROP\" })",
        );
        assert!(with.has_reasons());
        assert_eq!(with.reason_number("NETFILTER_DROP"), Some(8));
        assert_eq!(with.reason_number("NETFILTER"), None);
        let without = tracepoint("\tfield:unsigned short protocol;\toffset:24;\n");
        assert!(!without.has_reasons());
        assert_eq!(without.reason_number("NETFILTER_DROP"), None);
    }
}
