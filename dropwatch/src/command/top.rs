//! `dropwatch top`: the same counts as a picture that changes.

use std::{future::pending, io, thread, time::Duration};

use anyhow::{Context, anyhow};
use jiff::tz::TimeZone;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    runtime,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::sleep_until,
};

use crate::{
    diagnose::knowledge,
    exit::Failure,
    probe::KernelLog,
    render::tui::{
        state::{Key, TopState},
        view::{self, Look},
    },
    session::{Session, awaited::Awaited, reading::Reading},
    settings::{Show, Top},
    supervise::signals::Stop,
    verbose,
};

/// Watches drops on the whole screen until the user has seen enough.
///
/// # Errors
/// Why nothing can be counted or shown. The terminal is as it was before, whatever happens.
pub fn watch(settings: Top) -> Result<(), Failure> {
    let Top { attached, reported, show } = settings;
    let (mut session, awaited) = Session::attach(attached, &reported)?;
    session.give_up_privileges(&[])?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // Messages on standard error would spoil the picture, so they are held back until it is gone.
    verbose::hold();
    // Restores the terminal in a panic, too.
    let terminal = ratatui::try_init().context("cannot use the terminal");
    let result = match terminal {
        Ok(terminal) => {
            runtime.block_on(follow(session, awaited, terminal, reported.interval, show))
        }
        Err(error) => Err(error.into()),
    };
    ratatui::restore();
    verbose::release();
    // The thread that waits for keys does not end by itself.
    runtime.shutdown_background();
    result
}

async fn follow(
    mut session: Session,
    awaited: Awaited,
    mut terminal: DefaultTerminal,
    interval: Duration,
    show: Show,
) -> Result<(), Failure> {
    let mut stop = Stop::new().context("cannot listen to signals")?;
    let mut log: Option<KernelLog> = session.take_log()?;
    let start = session.start();
    for notice in &start.notices {
        verbose::to_stderr(notice);
    }
    let look = Look {
        medium: show.medium,
        time_zone: TimeZone::system(),
        interval_s: interval.as_secs_f64(),
    };
    // The whole of what is known, for the page about a row.
    let table = knowledge::table().ok();
    let mut draw =
        |state: &TopState| terminal.draw(|frame| view::draw(state, table, &look, frame)).map(drop);
    let session = Reading::new(session);
    let state = TopState::new(start.host, !show.view.fold_benign);
    let mut user = TopUser { keys: keys(), state, failed: None, awaited };
    while !user.state.over {
        draw(&user.state).context("cannot draw on the terminal")?;
        if let Some(error) = user.failed {
            return Err(anyhow!(error).context("cannot read the terminal").into());
        }
        let due = {
            let session = session.held();
            session.moment(session.due())
        };
        tokio::select! {
            biased;
            () = stop.requested() => break,
            incident = user.next() => user.act(incident)?,
            () = sleep_until(due) => {
                let read = |session: &mut Session| {
                    session.read(false)?;
                    session.report(0)
                };
                let report = user.read(&session, read, &mut draw).await??;
                user.state.report(report);
            }
        }
    }
    session.held().detach(log.as_mut());
    Ok(())
}

/// What the user sees and does, and what else is acted on whenever it comes.
struct TopUser {
    keys: UnboundedReceiver<io::Result<Option<Key>>>,
    state: TopState,
    /// Why no more keys come.
    failed: Option<io::Error>,
    awaited: Awaited,
}

/// What has come.
enum Incident {
    /// A key, or a new size of the screen.
    Key(io::Result<Option<Key>>),
    /// It is time to look for namespaces that are still to come.
    Look,
}

impl TopUser {
    /// Waits for the next one. May be dropped and called again.
    async fn next(&mut self) -> Incident {
        let key = async {
            match self.keys.recv().await {
                Some(key) => key,
                // Nothing is there any more that could bring one: as if the user had seen enough.
                None if self.failed.is_none() && !self.state.over => Ok(Some(Key::Quit)),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            key = key => Incident::Key(key),
            () = self.awaited.due() => Incident::Look,
        }
    }

    /// # Errors
    /// When the run cannot go on.
    fn act(&mut self, incident: Incident) -> Result<(), Failure> {
        match incident {
            Incident::Key(Ok(key)) => key.into_iter().for_each(|key| self.state.key(key)),
            Incident::Key(Err(error)) => self.failed = Some(error),
            Incident::Look => self.awaited.look()?,
        }
        Ok(())
    }

    /// Reads on another thread, and meanwhile acts on what comes and draws it.
    ///
    /// # Errors
    /// When the run cannot go on.
    async fn read<R: Send + 'static, T: Send + 'static>(
        &mut self,
        reading: &Reading<R>,
        read: impl FnOnce(&mut R) -> T + Send + 'static,
        mut draw: impl FnMut(&TopState) -> io::Result<()>,
    ) -> Result<T, Failure> {
        let act = |user: &mut Self, incident| {
            user.act(incident)?;
            // What cannot be drawn now cannot after the reading either, which is said then.
            let _said_later = draw(&user.state);
            Ok(())
        };
        reading.read(read, self, Self::next, act).await
    }
}

/// Keys as they are pressed; `None` stands for a new size of the screen.
fn keys() -> UnboundedReceiver<io::Result<Option<Key>>> {
    let (sender, keys) = unbounded_channel();
    // Reading a terminal cannot be waited for together with other things.
    thread::spawn(move || {
        loop {
            let sent = match event::read() {
                Ok(event) => match meaning(&event) {
                    Some(meaning) => sender.send(Ok(meaning)),
                    None => continue,
                },
                Err(error) => {
                    let _gone = sender.send(Err(error));
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    keys
}

/// What an event asks for: a key, a new picture, or nothing.
fn meaning(event: &Event) -> Option<Option<Key>> {
    let key = match event {
        Event::Resize(..) => return Some(None),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let key = match key.code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        KeyCode::Char(letter) if !control => Key::Letter(letter),
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Esc => Key::Escape,
        KeyCode::Enter | KeyCode::Right => Key::Enter,
        KeyCode::Tab | KeyCode::BackTab => Key::List,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    };
    Some(Some(key))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::mpsc::{self, Receiver},
    };

    use dropwatch_common::filter::{Filter, NetnsValue};
    use tokio::sync::mpsc::UnboundedSender;

    use super::*;
    use crate::{
        filter::Packets,
        kernel::HostRoot,
        report::{keys::Choice, model::Host},
        session::awaited::{Meant, Selected},
    };

    /// Longer than anything here takes that does not wait for the reading.
    const BOUND: Duration = Duration::from_secs(10);

    /// A user who waits for a namespace, and what brings the keys.
    fn user(
        netns: Vec<Choice<String>>,
        set: impl FnMut(usize, NetnsValue) -> io::Result<()> + 'static,
    ) -> (TopUser, UnboundedSender<io::Result<Option<Key>>>) {
        let meant = vec![Meant::Whichever(None); netns.len()];
        let packets = Packets { netns, ..Packets::default() };
        let selected = Selected::new(Filter::NONE.netns);
        let awaited = Awaited::new(HostRoot::default(), &packets, &meant, set, selected);
        let (press, keys) = unbounded_channel();
        let state = TopState::new(Host::default(), false);
        (TopUser { keys, state, failed: None, awaited }, press)
    }

    fn event_loop() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn keys_are_obeyed_and_drawn_while_a_reader_blocks() {
        let (mut user, press) = user(Vec::new(), |_, _| Ok(()));
        let (release, released) = mpsc::channel();
        // Pressed by the reader, so after the reading has begun.
        let read = move |released: &mut Receiver<()>| {
            press.send(Ok(Some(Key::Quit))).unwrap();
            let in_time = released.recv_timeout(BOUND).is_ok();
            (in_time, press)
        };
        let draw = |state: &TopState| {
            if state.over {
                release.send(()).unwrap();
            }
            Ok(())
        };
        let read = event_loop().block_on(user.read(&Reading::new(released), read, draw));
        assert!(read.unwrap().0, "the key was not obeyed while the reading was under way");
        assert!(user.state.over);
    }

    #[test]
    fn a_namespace_that_comes_while_a_reader_blocks_is_counted() {
        let path = std::env::temp_dir().join(format!("top-netns-{}", std::process::id()));
        let value = path.to_str().unwrap().to_owned();
        let (set, found) = mpsc::channel();
        let set = move |index, _| {
            set.send(index).unwrap();
            Ok(())
        };
        let (mut user, _press) = user(vec![Choice { exclude: false, value }], set);
        let name = path.clone();
        let read = move |found: &mut Receiver<usize>| {
            symlink("/proc/self/ns/net", name).unwrap();
            found.recv_timeout(BOUND)
        };
        let read = event_loop().block_on(user.read(&Reading::new(found), read, |_| Ok(())));
        std::fs::remove_file(path).unwrap();
        assert_eq!(read.unwrap(), Ok(0), "it was not looked for while the reading was under way");
    }

    #[test]
    fn a_keyboard_that_fails_is_an_error_and_one_that_is_gone_an_end() {
        let nothing = |_: &mut ()| ();
        let (mut failing, press) = user(Vec::new(), |_, _| Ok(()));
        press.send(Err(io::ErrorKind::Other.into())).unwrap();
        drop(press);
        event_loop().block_on(failing.read(&Reading::new(()), nothing, |_| Ok(()))).unwrap();
        assert!(failing.failed.is_some() && !failing.state.over);
        let (mut gone, press) = user(Vec::new(), |_, _| Ok(()));
        drop(press);
        event_loop().block_on(gone.read(&Reading::new(()), nothing, |_| Ok(()))).unwrap();
        assert!(gone.failed.is_none() && gone.state.over);
    }
}
