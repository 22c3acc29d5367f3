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
        state::{Key, State},
        view::{self, Look},
    },
    session::{
        Session,
        reading::{Reading, meanwhile},
    },
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
    let mut session = Session::attach(attached, &reported)?;
    session.give_up_privileges(&[])?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // What is told on standard error would spoil the picture: it comes after it.
    verbose::hold();
    // Restores the terminal in a panic, too.
    let terminal = ratatui::try_init().context("cannot use the terminal");
    let result = match terminal {
        Ok(terminal) => runtime.block_on(follow(session, terminal, reported.interval, show)),
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
    mut terminal: DefaultTerminal,
    interval: Duration,
    show: Show,
) -> Result<(), Failure> {
    let mut stop = Stop::new().context("cannot listen to signals")?;
    let keys = keys();
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
        |state: &State| terminal.draw(|frame| view::draw(state, table, &look, frame)).map(drop);
    let session = Reading::new(session);
    let state = State::new(start.host, !show.view.fold_benign);
    let mut user = User { keys, state, failed: None };
    while !user.state.over {
        draw(&user.state).context("cannot draw on the terminal")?;
        if let Some(error) = user.failed {
            return Err(anyhow!(error).context("cannot read the terminal").into());
        }
        let (due, look_due) = {
            let session = session.held();
            (session.moment(session.due()), session.look_due())
        };
        tokio::select! {
            biased;
            () = stop.requested() => break,
            event = user.keys.recv() => match event {
                Some(event) => user.heed(event),
                None => break,
            },
            () = sleep_until(look_due.unwrap_or(due)), if look_due.is_some() => session.held().look()?,
            () = sleep_until(due) => {
                let reading = session.read(|session| {
                    let taken = session.samples(false)?;
                    session.report(&taken.samples, 0)
                });
                let report = meanwhile(reading, &mut user, User::next, |user, event| {
                    user.heed(event);
                    // What cannot be drawn now cannot after the reading either, which is said then.
                    let _said_later = draw(&user.state);
                });
                let report = report.await?;
                user.state.report(report);
            }
        }
    }
    session.held().detach(log.as_mut());
    Ok(())
}

/// What the user sees and does.
struct User {
    keys: UnboundedReceiver<io::Result<Option<Key>>>,
    state: State,
    /// Why no more keys come.
    failed: Option<io::Error>,
}

impl User {
    /// Waits for the next key; for ever where none can come any more.
    async fn next(&mut self) -> io::Result<Option<Key>> {
        match self.keys.recv().await {
            Some(event) => event,
            None => pending().await,
        }
    }

    fn heed(&mut self, event: io::Result<Option<Key>>) {
        match event {
            Ok(key) => key.into_iter().for_each(|key| self.state.key(key)),
            Err(error) => self.failed = Some(error),
        }
    }
}

/// Keys as they are pressed; `None` stands for a new size of the screen.
fn keys() -> UnboundedReceiver<io::Result<Option<Key>>> {
    let (tell, keys) = unbounded_channel();
    // Reading a terminal cannot be waited for together with other things.
    thread::spawn(move || {
        loop {
            let told = match event::read() {
                Ok(event) => match meaning(&event) {
                    Some(meaning) => tell.send(Ok(meaning)),
                    None => continue,
                },
                Err(error) => {
                    let _gone = tell.send(Err(error));
                    return;
                }
            };
            if told.is_err() {
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
