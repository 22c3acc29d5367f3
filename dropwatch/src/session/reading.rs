//! Reading on a thread of its own, while the event loop acts on signals, scrapes, keys and names.

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

    /// The reader, for calls that take no time. Waits while a reading is under way.
    pub fn held(&self) -> MutexGuard<'_, R> {
        held(&self.0)
    }

    /// Reads on another thread, and meanwhile has `act` act on whatever `next` waits for. Both work
    /// on `state`, which the reading does not touch.
    ///
    /// A thread is started with the capabilities that the event loop's has by then. A panic of the
    /// reading is one of the caller.
    ///
    /// # Errors
    /// Those of `act`, at once; the reading goes on to its end then, and nobody learns what was
    /// read.
    pub async fn read<T: Send + 'static, S, E, F>(
        &self,
        read: impl FnOnce(&mut R) -> T + Send + 'static,
        state: &mut S,
        next: impl AsyncFn(&mut S) -> E,
        mut act: impl FnMut(&mut S, E) -> Result<(), F>,
    ) -> Result<T, F> {
        let shared = Arc::clone(&self.0);
        let mut reading = pin!(spawn_blocking(move || read(&mut held(&shared))));
        loop {
            let event = tokio::select! {
                biased;
                event = next(state) => event,
                read = &mut reading => return match read {
                    Ok(read) => Ok(read),
                    Err(error) => panic::resume_unwind(error.into_panic()),
                },
            };
            act(state, event)?;
        }
    }
}

fn held<R>(shared: &Mutex<R>) -> MutexGuard<'_, R> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        sync::mpsc::{self, SendError},
        time::Duration,
    };

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
            let nothing = async |(): &mut ()| pending::<()>().await;
            let act = |(): &mut (), ()| Ok::<_, Infallible>(());
            let read = |it: &mut i32| std::mem::replace(it, 2);
            assert_eq!(reading.read(read, &mut (), nothing, act).await, Ok(1));
            assert_eq!(*reading.held(), 2);
        });
    }

    #[test]
    fn events_are_acted_on_while_a_reader_blocks() {
        event_loop().block_on(async {
            let (reading, release) = blocked();
            let read = |it: &mut mpsc::Receiver<()>| it.recv_timeout(BOUND).is_ok();
            // The reading ends only because the event was acted on: its release comes from there.
            let mut events = vec![release];
            let next = async |events: &mut Vec<mpsc::Sender<()>>| match events.pop() {
                Some(event) => {
                    // Only after the reading has begun, or this would pass without a thread.
                    while reading.0.try_lock().is_ok() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    event
                }
                None => pending().await,
            };
            let act = |_: &mut Vec<_>, event: mpsc::Sender<()>| event.send(());
            let read = reading.read(read, &mut events, next, act);
            let in_time = timeout(BOUND * 2, read).await.unwrap();
            assert_eq!(in_time, Ok::<_, SendError<()>>(true), "nothing was acted on meanwhile");
        });
    }

    #[test]
    fn what_cannot_be_acted_on_ends_the_wait() {
        event_loop().block_on(async {
            let (reading, release) = blocked();
            let read = |it: &mut mpsc::Receiver<()>| it.recv_timeout(BOUND).is_ok();
            let act = |(): &mut (), ()| Err("cannot");
            let state = &mut ();
            let failed = reading.read(read, state, async |(): &mut ()| (), act);
            assert_eq!(timeout(BOUND / 2, failed).await.unwrap(), Err("cannot"));
            drop(release);
        });
    }
}
