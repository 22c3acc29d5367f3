//! Signals: those that end a run, and those that are handed on to a command.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP, which log rotation sends.
pub struct Hangup(Signal);

impl Hangup {
    pub fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    pub async fn received(&mut self) {
        self.0.recv().await;
    }
}

/// Signals that are meant for a command that runs under this program.
pub struct ForCommand {
    signals: Vec<(SignalKind, Signal)>,
}

impl ForCommand {
    pub fn new() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let signals = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?)));
        Ok(Self { signals: signals.collect::<io::Result<_>>()? })
    }

    /// The next one, by its number.
    pub async fn received(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            let ready = self.signals.iter_mut().find_map(|(kind, signal)| {
                signal.poll_recv(context).is_ready().then(|| kind.as_raw_value())
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}
