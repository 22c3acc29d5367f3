//! The commands that findings print, run as printed: each ends well, and shows or changes what it
//! says.
//!
//! They are run by a shell, as the user who reads them would, within a bound of time. What one
//! changes in a namespace ends with the namespace; a setting of the whole host is put back.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::found::Printed;
use crate::{
    command::output,
    host_value::{HostValue, is_changed},
};

/// A command that shows something has shown it after so long, on any machine.
const SECONDS: &str = "20";
/// What commands for a namespace begin with.
const INSIDE: &str = "ip netns exec ";
/// Words that make a command one that changes something.
const CHANGES: [&str; 12] =
    ["-A", "-D", "-F", "-I", "-K", "-P", "add", "change", "del", "delete", "replace", "set"];
/// What a program's name ends with that changes all rules at once, and how nft is told to.
const RESTORES: &str = "-restore";
const LOADS: &str = "nft -f ";
/// In a note, of a command that may have nothing to show.
const NOTHING: &str = "shows nothing";
const SETS: &str = "sysctl -w ";

/// Whether a command changes something; else it shows something.
pub(super) fn changes(command: &str) -> bool {
    let (_, command) = split(command);
    let mut words = command.split_whitespace();
    let is_whole = command.starts_with(SETS) || command.contains(LOADS);
    is_whole || words.any(|it| CHANGES.contains(&it) || it.ends_with(RESTORES))
}

/// Runs a command that shows something.
///
/// # Errors
/// When it fails, does not end, or shows nothing and does not say so.
pub(super) fn show(printed: &Printed) -> Result<()> {
    let Printed { command, note } = printed;
    let shown = run(command)?;
    ensure!(!shown.trim().is_empty() || note.contains(NOTHING), "`{command}` shows nothing");
    Ok(())
}

/// Whether a command shows packets as they come, until it has as many as it says.
pub(super) fn follows(command: &str) -> bool {
    let command = split(command).1;
    let bounded = command.strip_prefix("timeout ").and_then(|rest| rest.split_once(' '));
    bounded.map_or(command, |(_, command)| command).starts_with("tcpdump ")
}

/// Runs a command that shows packets, while they come.
///
/// # Errors
/// When it fails, does not end although they have come, or shows nothing.
pub(super) fn follow(command: &str, happen: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut child = bounded(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{command}`"))?;
    let mut words = BufReader::new(child.stderr.take().context("no standard error")?);
    // What it says once it sees packets; whatever else it says is quoted below.
    let mut said = String::new();
    while words.read_line(&mut said)? > 0 && !said.contains("listening on") {}
    let happened = happen();
    let ended = child.wait_with_output()?;
    words.read_to_string(&mut said)?;
    happened?;
    ensure!(ended.status.success(), "`{command}` as printed ({}): {}", ended.status, said.trim());
    ensure!(!ended.stdout.is_empty(), "`{command}` shows nothing");
    Ok(())
}

/// Runs a command that changes something, and returns what puts it back.
///
/// # Errors
/// When it fails, does not end, or the setting has another value afterwards; when it would change
/// this host in a way that nobody could put back.
pub(super) fn change(command: &str) -> Result<Option<HostValue>> {
    let (prefix, rest) = split(command);
    let setting = rest.strip_prefix(SETS).and_then(|setting| setting.split_once('='));
    let kept = match setting {
        _ if !prefix.is_empty() => None,
        Some((name, _)) => {
            let key = path(name);
            if is_changed(&key) { None } else { Some(HostValue::keep(&key)?) }
        }
        None => bail!("`{command}` would change this host"),
    };
    run(command)?;
    if let Some((name, value)) = setting {
        let now = run(&format!("{prefix}sysctl -n {name}"))?;
        let words = |text: &str| Vec::from_iter(text.split_whitespace().map(str::to_owned));
        let value = value.trim_matches('\'');
        ensure!(words(&now) == words(value), "`{command}` leaves {name} at {now}");
    }
    Ok(kept)
}

/// What leads into a namespace, and the command proper.
fn split(command: &str) -> (&str, &str) {
    let inside = command.strip_prefix(INSIDE).and_then(|rest| rest.split_once(' '));
    match inside {
        Some((_, rest)) => command.split_at(command.len() - rest.len()),
        None => ("", command),
    }
}

/// The file of a setting, below `/proc/sys`. A name with slashes has the dots of a device's name.
fn path(name: &str) -> String {
    let name = name.trim_matches('\'');
    if name.contains('/') { name.to_owned() } else { name.replace('.', "/") }
}

/// As a shell runs it, but not for ever.
fn bounded(command: &str) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.args(["-k", "1", SECONDS, "sh", "-c", command]);
    bounded
}

fn run(command: &str) -> Result<String> {
    output(&mut bounded(command)).with_context(|| format!("as printed: {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_from_what_shows() {
        for shows in [
            "ip netns exec a nft -a list chain ip t c | grep '# handle 4$'",
            "ip route get 198.18.9.9",
            "iptables-legacy -t filter -nvL INPUT 3",
            "conntrack -L -d 192.0.2.1",
            "sysctl net.ipv4.ip_forward",
        ] {
            assert!(!changes(shows), "{shows}");
        }
        for change in [
            "sysctl -w net.ipv4.ip_forward=1",
            "ip netns exec a conntrack -D -p udp",
            "ip netns exec a ip route del blackhole 198.18.9.9",
            "ip netns exec a bridge link set dev p0 hairpin on",
        ] {
            assert!(changes(change), "{change}");
        }
    }

    #[test]
    fn a_command_is_told_from_what_leads_to_its_namespace() {
        assert_eq!(split("ip netns exec a sysctl -w b=c"), ("ip netns exec a ", "sysctl -w b=c"));
        assert_eq!(split("ip netns exec a"), ("", "ip netns exec a"));
        assert_eq!(split("ip route"), ("", "ip route"));
    }

    #[test]
    fn names_of_settings_lead_to_their_files() {
        assert_eq!(path("net.core.rmem_max"), "net/core/rmem_max");
        assert_eq!(path("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
    }

    #[test]
    fn what_fails_shows_nothing_or_would_change_this_host_is_an_error() {
        let printed = |command: &str, note: &str| Printed {
            command: command.to_owned(),
            note: note.to_owned(),
        };
        show(&printed("echo shown", "")).unwrap();
        show(&printed("true", "shows nothing until then")).unwrap();
        for (command, error) in [("true", "shows nothing"), ("exit 3", "status: 3")] {
            let text = format!("{:#}", show(&printed(command, "")).unwrap_err());
            assert!(text.contains(error), "{text}");
        }
        // It says that it listens, and what it sees.
        follow("echo listening on >&2; echo seen", || Ok(())).unwrap();
        for (command, error) in [("true", "shows nothing"), ("echo seen; exit 3", "status: 3")] {
            let text = format!("{:#}", follow(command, || Ok(())).unwrap_err());
            assert!(text.contains(error), "{text}");
        }
        let error = change("ip route del default").unwrap_err().to_string();
        assert!(error.contains("would change this host"), "{error}");
    }
}
