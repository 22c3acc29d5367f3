//! Reading on a thread of its own, while the event loop serves signals, scrapes and keys.

use std::{
    panic,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::spawn_blocking;

/// What is read from, shared between the event loop and the thread that reads.
///
/// A reading keeps it for as long as it takes, so nobody sees it between two steps of a report.
pub struct Reading<R>(Arc<Mutex<R>>);

impl<R: Send + 'static> Reading<R> {
    pub fn new(reader: R) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    /// For what takes no time. Waits while a reading is under way.
    pub fn held(&self) -> MutexGuard<'_, R> {
        held(&self.0)
    }

    /// Reads on another thread; what awaits this may serve others meanwhile. A thread is started
    /// with the capabilities that the event loop's has by then. A reading that nobody awaits any
    /// more goes on to its end. A panic of the reading is one of the caller.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut R) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(&self.0);
        match spawn_blocking(move || read(&mut held(&shared))).await {
            Ok(read) => read,
            Err(error) => panic::resume_unwind(error.into_panic()),
        }
    }
}

fn held<R>(shared: &Mutex<R>) -> MutexGuard<'_, R> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Awaits `reading`, and meanwhile has `serve` act on whatever `next` waits for. Both work on
/// `state`, which the reading does not touch.
pub async fn meanwhile<T, S, E>(
    reading: impl Future<Output = T>,
    state: &mut S,
    next: impl AsyncFn(&mut S) -> E,
    mut serve: impl FnMut(&mut S, E),
) -> T {
    let mut reading = pin!(reading);
    loop {
        let event = tokio::select! {
            biased;
            event = next(state) => event,
            read = &mut reading => return read,
        };
        serve(state, event);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::{
        runtime::{Builder, Runtime},
        time::timeout,
    };

    use super::*;

    /// Longer than anything here takes that does not wait for the reading.
    const BOUND: Duration = Duration::from_secs(10);

    fn event_loop() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A reader that blocks until it is released.
    fn blocked() -> (Reading<mpsc::Receiver<()>>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel();
        (Reading::new(released), release)
    }

    #[test]
    fn a_reading_returns_what_was_read_and_keeps_the_reader() {
        event_loop().block_on(async {
            let reading = Reading::new(1);
            assert_eq!(reading.read(|it| std::mem::replace(it, 2)).await, 1);
            assert_eq!(*reading.held(), 2);
        });
    }

    #[test]
    fn events_are_served_while_a_reader_blocks() {
        event_loop().block_on(async {
            let (reading, release) = blocked();
            let read = reading.read(|it| it.recv_timeout(BOUND).is_ok());
            // The reading ends only because the event was served: its release comes from there.
            let mut events = vec![release];
            let next = async |events: &mut Vec<mpsc::Sender<()>>| match events.pop() {
                Some(event) => {
                    // Only after the reading has begun, or this would pass without a thread.
                    while reading.0.try_lock().is_ok() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    event
                }
                None => std::future::pending().await,
            };
            let served = meanwhile(read, &mut events, next, |_, event| event.send(()).unwrap());
            assert!(timeout(BOUND * 2, served).await.unwrap(), "nothing was served meanwhile");
        });
    }
}
