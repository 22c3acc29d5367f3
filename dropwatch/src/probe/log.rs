//! The kernel side's own diagnostics, carried by aya-log's ring buffer.

use std::io;

use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// Reads diagnostics as they arrive and hands them to the [`log`] crate.
pub struct KernelLog(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl KernelLog {
    /// Needs a tokio runtime with I/O.
    pub(super) fn new(logger: EbpfLogger<&'static dyn log::Log>) -> io::Result<Self> {
        // SAFETY: the logger owns the ring buffer's descriptor and keeps it open, the same one, for
        // as long as it lives; it lives inside the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for diagnostics and logs them. May be dropped and called again.
    pub async fn log_next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
        Ok(())
    }

    /// Logs what is there.
    pub fn flush(&mut self) {
        self.0.get_mut().flush();
    }
}
