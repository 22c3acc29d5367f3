//! A web server and a client that asks it for pages, for machines that have neither nginx nor ab.
//!
//! One connection a request, many at once, as `ab` does without keep-alive: what fills a table of
//! tracked connections.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{Backlog, listen};

use crate::{machine::longer, netns::Netns};

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// Connections that wait to be accepted: all of a load's, so that none is refused for that.
const BACKLOG: i32 = 4096;
/// A client is a thread that does little.
const STACK: usize = 64 << 10;

/// Answers every connection with one line and closes it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    netns_path: std::path::PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in `netns`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(netns: &Netns, address: SocketAddr) -> Result<Self> {
        // A socket stays in the namespace that it was made in, whoever uses it.
        let listener = netns.enter(|| {
            TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
        })?;
        // Listening again only sets the backlog.
        listen(&listener, Backlog::new(BACKLOG)?).context("cannot lengthen the queue")?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::Builder::new().name("web".into()).spawn(move || {
                for connection in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that went away is the client's loss.
                    let _ = connection.and_then(answer);
                }
            })?
        };
        Ok(Self { address, netns_path: netns.path(), stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One last connection wakes it up.
        let woken = Netns::enter_path(&self.netns_path, || {
            Ok(TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?)
        });
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            // It has not panicked: it does nothing that could.
            let _ = thread.join();
        }
    }
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(longer(Duration::from_secs(2))))?;
    let _request = connection.read(&mut [0; 256])?;
    connection.write_all(ANSWER)
}

/// What became of a load's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    pub answered: u64,
    /// Not answered in time. A client to whom that happens makes no new request.
    pub failed: u64,
}

/// Asks for `requests` pages from inside `netns`, `at_once` at a time, and waits for each at most
/// for `patience`.
///
/// # Errors
/// When threads cannot be started.
pub fn ask(
    netns: &Netns,
    address: SocketAddr,
    requests: u64,
    at_once: u64,
    patience: Duration,
) -> Result<Answers> {
    let (left, answered, failed) = (AtomicU64::new(requests), AtomicU64::new(0), AtomicU64::new(0));
    let client = || {
        let take = |left: u64| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let in_time = one(&address, patience).is_ok();
            let counter = if in_time { &answered } else { &failed };
            counter.fetch_add(1, Ordering::Relaxed);
            // A full table lets nobody through. One late answer on a slow machine is no full table:
            // the others go on.
            if !in_time {
                return;
            }
        }
    };
    // Threads inherit the namespace of the one that starts them.
    netns.enter(|| {
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, client)
                    .context("cannot start a client")?;
            }
            Ok(())
        })
    })?;
    Ok(Answers { answered: answered.into_inner(), failed: failed.into_inner() })
}

fn one(address: &SocketAddr, patience: Duration) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(address, patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.write_all(REQUEST)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    if answer == ANSWER { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
