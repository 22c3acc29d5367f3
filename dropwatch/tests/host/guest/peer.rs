//! Agreement with the tool that dropwatch replaces: Debian's `dropwatch -l kas`, which asks the
//! kernel's drop monitor, watches the same drops.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    flood::Wire,
    machine::longer,
    udp::{ClosedPort, Family},
};

use super::{need_guest, run};
use crate::harness::Run;

const PEER: &str = "/project/debian-dropwatch";

/// What a program prints, as it comes.
struct Lines(Arc<Mutex<String>>);

impl Lines {
    fn of(output: File) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let lines = Self(Arc::clone(&text));
        // Ends with the program's output.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                text.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        lines
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Waits until it has printed something; whoever looks at the text later sees if it has not.
    fn wait(&self, has: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + longer(Duration::from_secs(3));
        while !has(&self.text()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Drops by function and offset, of those that this test made.
type Places = BTreeMap<(String, u64), u64>;

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn the_same_places_and_counts_as_debians_dropwatch() {
    need_guest();
    run("modprobe", "drop_monitor");
    let (wire, closed) = (Wire::new().unwrap(), ClosedPort::new().unwrap());
    // To a pipe it would print nothing before its end.
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut peer = Command::new(PEER)
        .args(["-l", "kas"])
        .env("LD_LIBRARY_PATH", format!("{PEER}.lib"))
        .stdin(Stdio::piped())
        .stdout(terminal.slave)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commands = peer.stdin.take().unwrap();
    let output = Lines::of(terminal.master.into());
    // It reads its commands one by one, and the drop monitor reports once a second.
    commands.write_all(b"start\n").unwrap();
    output.wait(|text| text.contains("activated"));
    let ours = Run::start(&[]);
    closed.send(Family::V4, 70).unwrap();
    closed.send(Family::V6, 80).unwrap();
    wire.flood(90, None).unwrap();
    output.wait(|text| of_this_test(parse(text)).len() == 3);
    let ours = ours.stop();
    // While it monitors it listens to Ctrl-C alone, and to commands after that.
    kill(Pid::from_raw(peer.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    std::thread::sleep(longer(Duration::from_millis(300)));
    commands.write_all(b"exit\n").unwrap();
    drop(commands);
    let ended = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        peer.try_wait().unwrap().is_some()
    });
    if !ended {
        peer.kill().unwrap();
    }
    let errors = peer.wait_with_output().unwrap().stderr;
    let (text, errors) = (output.text(), String::from_utf8_lossy(&errors).into_owned());

    let mut counted = Places::new();
    for row in ours.locations() {
        let place = (row.place.symbol.clone().unwrap(), row.place.offset.unwrap());
        *counted.entry(place).or_insert(0) += row.count;
    }
    let (counted, theirs) = (of_this_test(counted), of_this_test(parse(&text)));
    // The answers to the datagrams may be dropped as well.
    assert!(counted.len() >= 3, "{ours:#?}");
    assert_eq!(counted, theirs, "{text}\n{errors}\nended by itself: {ended}");
}

fn of_this_test(mut places: Places) -> Places {
    places.retain(|_, count| [70, 80, 90].contains(count));
    places
}

/// `2 drops at ip_rcv_finish_core.constprop.0+191 (0xffffffffbba35f41) [software]`; the offset is
/// hexadecimal.
fn parse(text: &str) -> Places {
    let mut places = Places::new();
    for line in text.lines() {
        let Some((count, rest)) = line.split_once(" drops at ") else { continue };
        let Some((symbol, offset)) = rest.split(" (").next().and_then(|p| p.rsplit_once('+'))
        else {
            continue;
        };
        // The prompt stands before the first one.
        let count = count.rsplit(' ').next().unwrap_or_default().parse::<u64>();
        if let (Ok(count), Ok(offset)) = (count, u64::from_str_radix(offset, 16)) {
            *places.entry((symbol.to_owned(), offset)).or_insert(0) += count;
        }
    }
    places
}
