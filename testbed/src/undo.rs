//! Puts back what a test changed, whatever ends it.
//!
//! Each change registers how to undo it. The action runs when its [`Undo`] is dropped (a normal
//! end, an early return, a panic), or, newest first, when SIGINT, SIGTERM or SIGHUP arrives; the
//! signal then takes its default effect.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

type Action = Box<dyn FnOnce() -> Result<()> + Send>;

#[derive(Default)]
struct Registry {
    /// A signal has arrived: whatever would be changed now would stay.
    closed: bool,
    next: u64,
    /// In order of registration.
    actions: Vec<(u64, Action)>,
}

static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();

fn registry() -> MutexGuard<'static, Registry> {
    // A poisoned lock still guards a consistent list: actions run outside of it.
    REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs an action once, at the end of its life.
#[must_use = "the change is undone as soon as this is dropped"]
#[derive(Debug)]
pub struct Undo(u64);

impl Undo {
    /// Registers `action`. Call it *before* the change: an interruption between the two then
    /// undoes something that did not happen, which is harmless, where the other order would leave
    /// a change behind.
    ///
    /// # Errors
    /// When signals cannot be watched, or one has already arrived.
    pub fn new(action: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        watch_signals()?;
        let mut registry = registry();
        if registry.closed {
            bail!("interrupted: the testbed is being taken down");
        }
        registry.next += 1;
        let id = registry.next;
        registry.actions.push((id, Box::new(action)));
        Ok(Self(id))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let action = {
            let mut registry = registry();
            registry
                .actions
                .iter()
                .position(|(id, _)| *id == self.0)
                .map(|position| registry.actions.remove(position).1)
        };
        if let Some(action) = action {
            run(action);
        }
    }
}

fn run(action: Action) {
    if let Err(error) = action() {
        eprintln!("testbed: cannot put back: {error:#}");
    }
}

fn watch_signals() -> Result<()> {
    static WATCHING: Mutex<bool> = Mutex::new(false);
    let mut watching = WATCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if *watching {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch signals")?;
    std::thread::Builder::new()
        .name("testbed-undo".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let actions = {
                    let mut registry = registry();
                    registry.closed = true;
                    std::mem::take(&mut registry.actions)
                };
                for (_, action) in actions.into_iter().rev() {
                    run(action);
                }
                // Ends the process; children that hold on to its life die with it.
                if emulate_default_handler(signal).is_err() {
                    std::process::exit(128 + signal);
                }
            }
        })
        .context("cannot start the thread that watches signals")?;
    *watching = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[test]
    fn runs_once_on_drop_and_on_panic() {
        let runs = Arc::new(AtomicU32::new(0));
        let undo = |runs: &Arc<AtomicU32>| {
            let runs = Arc::clone(runs);
            Undo::new(move || {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap()
        };
        drop(undo(&runs));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let guard = undo(&runs);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("a test failed"));
        }))
        .unwrap_err();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}
