//! `cargo xtask picture`: the README's picture of `dropwatch top`, made of a real run.

mod svg;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        filter::Filtered,
        receive_buffer::FullSocket,
        routing::{ReversePath, TimeToLive},
    },
    udp::Family,
};

use crate::{
    process::{CommandExt, quote},
    project::Project,
    root,
};

/// Where the picture is, from the root of the project.
const PICTURE: &str = "docs/top.svg";
/// Size of the terminal, columns and lines.
const SIZE: (usize, usize) = (110, 18);
/// Reports that the picture shows the trend of, and the time between them.
const REPORTS: u32 = 14;
const INTERVAL: Duration = Duration::from_millis(500);
/// Time between two losses of a kind.
const PAUSE: Duration = Duration::from_millis(40);
/// How long the first report may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Draw docs/top.svg, the README's picture of `dropwatch top`, from a real run.
///
/// Makes packets get lost in network namespaces of its own, watches them in tmux, and draws what
/// the terminal shows. Takes ten seconds; needs root and tmux.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(project: &Project, _: &Args) -> Result<ExitCode> {
    root::with_dropwatch(project, |binary| {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        let (host, release) = (read("hostname")?, read("osrelease")?);
        let screen = of_no_host(&watch(&binary)?, host.trim(), release.trim());
        let picture = svg::draw(&screen, SIZE)?;
        let path = project.root.join(PICTURE);
        fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
        Ok(())
    })
}

/// What the terminal shows after a while, with escape sequences for its colours.
fn watch(binary: &Path) -> Result<String> {
    // The most packets that each loses at once, and how many reports its load takes to swell.
    let causes: [(Box<dyn Cause + Send>, u64, u64); 5] = [
        (Box::new(FullSocket::new()?), 31, 9),
        (Box::new(Filtered::input_by_nft()?), 14, 7),
        (Box::new(Closed::new(Transport::Tcp, Family::V4)?), 9, 5),
        (Box::new(ReversePath::new()?), 3, 8),
        (Box::new(TimeToLive::new()?), 2, 4),
    ];
    // Whatever else happens on this host is no part of the picture.
    let own: Vec<String> =
        causes.iter().map(|(cause, ..)| format!("--netns {}", cause.netns().name())).collect();
    let interval = format!("{}ms", INTERVAL.as_millis());
    let command = format!("{} top -i {interval} {}", quote(binary.as_os_str()), own.join(" "));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let senders: Vec<_> = causes
            .into_iter()
            .map(|(cause, most, period)| {
                let over = &over;
                scope.spawn(move || -> Result<()> {
                    let begin = Instant::now();
                    while !over.load(Ordering::Relaxed) {
                        let report = begin.elapsed().as_millis() / INTERVAL.as_millis();
                        let swell = report as u64 % period;
                        if swell > 0 {
                            cause.send((most * swell / period).max(1))?;
                        }
                        thread::sleep(PAUSE);
                    }
                    Ok(())
                })
            })
            .collect();
        let screen = Terminal::start(&command).and_then(|terminal| {
            terminal.wait_for("none lost")?;
            thread::sleep(INTERVAL * REPORTS);
            terminal.press("Down")?;
            thread::sleep(INTERVAL);
            terminal.screen(&["-e"])
        });
        over.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().ok().context("a sender panicked")??;
        }
        screen
    })
}

/// `screen` with another name in the place of this host's, and no more of its kernel than the
/// version; the clock stays where it is.
fn of_no_host(screen: &str, host: &str, release: &str) -> String {
    let (head, rest) = screen.split_once('\n').unwrap_or((screen, ""));
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let (before, after) =
        (format!(" {host} · Linux {release}"), format!(" gw · Linux {}", &release[..end]));
    let mut head = head.replacen(&before, &after, 1);
    if let Some(gap) = head.find("   ") {
        let missing = before.len().saturating_sub(after.len());
        head.insert_str(gap, &" ".repeat(missing));
    }
    format!("{head}\n{rest}")
}

/// A tmux server of its own, which ends with this.
struct Terminal(String);

impl Terminal {
    fn start(command: &str) -> Result<Self> {
        let terminal = Self(format!("dropwatch-picture-{}", std::process::id()));
        let (columns, lines) = (SIZE.0.to_string(), SIZE.1.to_string());
        let command = format!("LC_ALL=C.UTF-8 TERM=screen-256color TZ=UTC0 {command}; cat");
        terminal.tmux(&[
            "-f/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &lines,
            &command,
        ])?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        // -u: the terminal shows UTF-8, whatever the locale of this process.
        Command::new("tmux").args(["-u", "-L", &self.0]).args(arguments).read()
    }

    fn screen(&self, options: &[&str]) -> Result<String> {
        self.tmux(&[&["capture-pane", "-p"], options].concat())
    }

    fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen(&[])?;
            if screen.contains(text) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the terminal does not show `{text}`:\n{}", screen.trim_end());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_tells_nothing_of_the_host_that_drew_it() {
        let screen = "dropwatch · box.lan · Linux 6.18.44-17-amd64 · every 1s      07:35:14\nrest";
        let expected =
            "dropwatch · gw · Linux 6.18.44 · every 1s                    07:35:14\nrest";
        assert_eq!(of_no_host(screen, "box.lan", "6.18.44-17-amd64"), expected);
        assert_eq!(of_no_host("a", "host", "6.1"), "a\n");
    }

    #[test]
    fn the_readme_shows_a_picture_of_a_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        assert!(readme.contains(&format!("]({PICTURE})")));
        let picture = fs::read_to_string(root.join(PICTURE)).unwrap();
        for text in ["LOCATION (REASON)", "none lost", "(SOCKET_RCVBUFF)", ">critical"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
