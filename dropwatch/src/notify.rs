//! What a service manager learns of a run, where it asks for it (systemd: `Type=notify`).
//!
//! The protocol is that of sd_notify(3): a datagram to the socket that `NOTIFY_SOCKET` names.
//! Without that variable nobody asks, and nothing is sent.

use sd_notify::NotifyState;

use crate::verbose;

/// What the manager tells its service's main process alone (sd_notify(3), sd_watchdog_enabled(3)).
/// A command that dropwatch starts is another process: what it sent would be refused, or taken for
/// dropwatch's.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// From here on every drop is counted, and every signal heeded.
pub fn ready() {
    send(&NotifyState::Ready);
}

/// The run ends: what follows is the last report.
pub fn stopping() {
    send(&NotifyState::Stopping);
}

fn send(state: &NotifyState<'_>) {
    // Counting goes on all the same; the manager will say that it waits in vain.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        verbose::to_stderr(&format!("cannot notify the service manager ({state}): {error}"));
    }
}
