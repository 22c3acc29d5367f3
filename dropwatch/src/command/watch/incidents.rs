//! What a run acts on whenever it comes, also while a report is read.

use std::future::pending;

use crate::{
    exit::Failure,
    session::{awaited::Awaited, reading::Reading},
    sink::outputs::Outputs,
    supervise::{Event, Supervised, signals::Hangup},
};

/// Where incidents come from: a command, log rotation, namespaces that are still to come.
pub(super) struct Incidents<'a> {
    pub(super) command: Option<Supervised<'a>>,
    /// Log rotation, where there is a recording that goes on in a new file.
    pub(super) hangup: Option<Hangup>,
    pub(super) awaited: Awaited,
}

/// What a run has to act on.
pub(super) enum Incident {
    Command(Event),
    Rotated,
    /// It is time to look for namespaces that are still to come.
    Look,
}

impl Incidents<'_> {
    /// Waits for the next one. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Incident {
        let command = async {
            match &mut self.command {
                Some(command) => command.event().await,
                None => pending().await,
            }
        };
        let rotated = async {
            match &mut self.hangup {
                Some(hangup) => hangup.received().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            event = command => Incident::Command(event),
            () = rotated => Incident::Rotated,
            () = self.awaited.due() => Incident::Look,
        }
    }

    /// # Errors
    /// When the run cannot go on.
    pub(super) fn act(
        &mut self,
        incident: &Incident,
        outputs: &Outputs<'_>,
    ) -> Result<(), Failure> {
        match incident {
            Incident::Command(event) => self.command.iter_mut().for_each(|it| it.heed(event)),
            Incident::Rotated => outputs.reopen(),
            Incident::Look => self.awaited.look()?,
        }
        Ok(())
    }

    /// Reads on another thread, and acts on what comes meanwhile.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub(super) async fn read<R: Send + 'static, T: Send + 'static>(
        &mut self,
        reading: &Reading<R>,
        outputs: &Outputs<'_>,
        read: impl FnOnce(&mut R) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        reading.read(read, self, Self::next, |it, incident| it.act(&incident, outputs)).await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        net::TcpStream,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
        sync::{Mutex, PoisonError, mpsc},
        time::Duration,
    };

    use dropwatch_common::filter::{Filter, NetnsValue};
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use tokio::runtime;

    use super::*;
    use crate::{
        filter::Packets,
        kernel::{HostRoot, netns_named},
        render::{Format, Medium},
        report::{keys::Choice, model::Line},
        session::awaited::{Meant, Selected},
        settings::{Metrics, Show, Sinks, WatchedCommand},
        sink::serve::Exporter,
        supervise::launch::Launcher,
    };

    /// Longer than anything here takes that does not wait for the reading.
    const BOUND: Duration = Duration::from_secs(10);

    /// A signal reaches every test of this process that listens to it.
    static SIGNALS: Mutex<()> = Mutex::new(());

    fn event_loop() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// The event loop must have a handler for it.
    fn send(signal: Signal) {
        kill(Pid::this(), signal).unwrap();
    }

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("incidents-{name}-{}", std::process::id()))
    }

    fn sinks(record: Option<&Path>) -> Sinks {
        let format = Format::Text;
        Sinks {
            show: Show {
                format,
                each: false,
                view: format.view(None, false),
                medium: Medium::default(),
            },
            aside: false,
            sample_lines: false,
            record: record.map(Path::to_owned),
            pcap: None,
            metrics: None,
        }
    }

    fn awaited(names: &[&Path], set: impl FnMut(u32) + 'static) -> Awaited {
        let choice = |name: &&Path| Choice {
            exclude: false,
            value: name.to_str().expect("UTF-8").to_owned(),
        };
        let netns: Vec<_> = names.iter().map(choice).collect();
        let meant = vec![Meant::Whichever(None); netns.len()];
        let packets = Packets { netns, ..Packets::default() };
        let mut set = set;
        let set = move |_, netns: NetnsValue| {
            set(netns.inum);
            Ok(())
        };
        let selected = Selected::new(Filter::NONE.netns);
        Awaited::new(HostRoot::default(), &packets, &meant, set, selected)
    }

    /// Reads with a reader that does `first` and then blocks until an incident like `last` was acted
    /// on; whether it was.
    async fn blocks_until(
        last: fn(&Incident) -> bool,
        first: impl FnOnce() + Send + 'static,
        incidents: &mut Incidents<'_>,
        outputs: &Outputs<'_>,
    ) -> bool {
        let (release, released) = mpsc::channel();
        let reading = Reading::new(released);
        let read = move |released: &mut mpsc::Receiver<()>| {
            first();
            released.recv_timeout(BOUND).is_ok()
        };
        let act = |it: &mut Incidents<'_>, incident: Incident| {
            it.act(&incident, outputs)?;
            if last(&incident) {
                release.send(()).unwrap();
            }
            Ok::<_, Failure>(())
        };
        reading.read(read, incidents, Incidents::next, act).await.unwrap()
    }

    #[test]
    fn a_signal_reaches_the_command_while_a_reader_blocks() {
        let _signals = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let command = WatchedCommand {
            program: "sleep".into(),
            arguments: vec!["60".into()],
            user: None,
            baseline: None,
        };
        let launcher = Launcher::new(&command).unwrap();
        event_loop().block_on(async {
            let mut supervised = Supervised::new(&command, launcher).unwrap();
            supervised.start().await;
            let awaited = awaited(&[], |_| {});
            let mut incidents = Incidents { command: Some(supervised), hangup: None, awaited };
            let sinks = sinks(None);
            let outputs = Outputs::open(&sinks).unwrap();
            let ended = |it: &Incident| matches!(it, Incident::Command(Event::Ended(_)));
            let signal = || send(Signal::SIGUSR1);
            let in_time = blocks_until(ended, signal, &mut incidents, &outputs).await;
            assert!(in_time, "the command did not end while the reading was under way");
            assert_eq!(incidents.command.unwrap().code(), 128 + Signal::SIGUSR1 as u8);
        });
    }

    #[test]
    fn what_is_read_while_a_log_is_rotated_goes_to_the_new_file() {
        let _signals = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, old) = (temporary("a.ndjson"), temporary("a.ndjson.1"));
        let sinks = sinks(Some(&path));
        let runtime = event_loop();
        runtime.block_on(async {
            let mut outputs = Outputs::open(&sinks).unwrap();
            let hangup = Some(Hangup::new().unwrap());
            let mut incidents = Incidents { command: None, hangup, awaited: awaited(&[], |_| {}) };
            // Text shows nothing of these lines, and the file has them.
            let line = || vec![Line::Sample(Box::default())];
            outputs.write(line()).await.unwrap();
            outputs.flushed().await.unwrap();
            let (from, to) = (path.clone(), old.clone());
            let rotate = move || {
                fs::rename(from, to).unwrap();
                send(Signal::SIGHUP);
            };
            let rotated = |it: &Incident| matches!(it, Incident::Rotated);
            assert!(blocks_until(rotated, rotate, &mut incidents, &outputs).await);
            outputs.write(line()).await.unwrap();
            outputs.flushed().await.unwrap();
        });
        runtime.shutdown_background();
        let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&old), lines(&path)), (1, 1));
        fs::remove_file(old).unwrap();
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_namespace_that_comes_while_a_reader_blocks_is_counted() {
        let path = temporary("netns");
        event_loop().block_on(async {
            let sinks = sinks(None);
            let outputs = Outputs::open(&sinks).unwrap();
            let (set, found) = mpsc::channel();
            let awaited = awaited(&[&path], move |inum| set.send(inum).unwrap());
            let mut incidents = Incidents { command: None, hangup: None, awaited };
            let reading = Reading::new(found);
            let name = path.clone();
            let read = move |found: &mut mpsc::Receiver<u32>| {
                symlink("/proc/self/ns/net", name).unwrap();
                found.recv_timeout(BOUND)
            };
            let found = incidents.read(&reading, &outputs, read).await.unwrap();
            let inum = netns_named(&HostRoot::default(), path.to_str().unwrap());
            assert_eq!(found.ok(), inum, "it was not looked for while the reading was under way");
        });
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn metrics_are_served_while_a_reader_blocks() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let exporter = Exporter::bind(Metrics { address, namespaces: 1 }, BOUND).unwrap();
        event_loop().block_on(async {
            exporter.serve().unwrap();
            let sinks = sinks(None);
            let outputs = Outputs::open(&sinks).unwrap();
            let awaited = awaited(&[], |_| {});
            let mut incidents = Incidents { command: None, hangup: None, awaited };
            let scrape = move |_: &mut ()| {
                let mut client = TcpStream::connect(address)?;
                client.set_read_timeout(Some(BOUND))?;
                client.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")?;
                let mut first = [0; 15];
                client.read_exact(&mut first).map(|()| first)
            };
            let answer = incidents.read(&Reading::new(()), &outputs, scrape).await.unwrap();
            assert_eq!(&answer.unwrap(), b"HTTP/1.1 200 OK");
        });
    }
}
