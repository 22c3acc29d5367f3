//! The program itself on terminals of several sizes, in pipes and in several locales. Needs neither
//! root nor a kernel.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    io::Read,
    process::{Command, Output, Stdio},
};

use nix::pty::{Winsize, openpty};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/replay/v1.ndjson");

/// The program with nothing in its environment but `environment`.
fn dropwatch(environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
    command
}

fn piped(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    dropwatch(environment, arguments).output().unwrap()
}

fn text(environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = piped(environment, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the program writes to a terminal so wide, both streams.
fn on_terminal(width: u16, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let size = Winsize { ws_row: 24, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut command = dropwatch(environment, arguments);
    command.stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
    let mut child = command.spawn().unwrap();
    // The command holds this side of the terminal open, and reading would never end.
    drop(command);
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    let mut screen = File::from(pty.master);
    // Once the program has ended, reading fails (EIO).
    while let Ok(read @ 1..) = screen.read(&mut part) {
        bytes.extend(&part[..read]);
    }
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap()
}

const UTF8: (&str, &str) = ("LC_ALL", "C.UTF-8");
const XTERM: (&str, &str) = ("TERM", "xterm");
const NO_COLOR: (&str, &str) = ("NO_COLOR", "1");

/// Every kind of text that takes no privileges, and that would be wider than a narrow screen.
const TEXTS: [&[&str]; 6] = [
    &["replay", RECORDING],
    &["replay", RECORDING, "--diff", RECORDING],
    &["explain", "NETFILTER_DROP"],
    &["explain", "TCP_OVERWINDOW"],
    &["run", "--help"],
    &["replay", "/no/such/recording/with/a/name.ndjson"],
];

#[test]
fn text_is_as_wide_as_the_terminal() {
    for (screen, width) in [(60, 60), (80, 80), (100, 100), (200, 120)] {
        for arguments in TEXTS {
            let text = on_terminal(screen, &[UTF8, XTERM, NO_COLOR], arguments);
            for line in text.lines() {
                let fits = line.chars().count() <= width || !line.trim().contains(' ');
                assert!(fits, "{screen} columns, {arguments:?}: {line}");
            }
        }
        let page = on_terminal(screen, &[UTF8, XTERM, NO_COLOR], TEXTS[2]);
        assert!(widest(&page) > width - 12, "{screen} columns:\n{page}");
    }
}

#[test]
fn the_wish_of_the_reader_comes_first() {
    let page = |columns| on_terminal(100, &[UTF8, XTERM, NO_COLOR, ("COLUMNS", columns)], TEXTS[2]);
    assert!((48..=60).contains(&widest(&page("60"))));
    assert_eq!(page("nonsense"), page("100"));
    assert_eq!(page("1"), page("100"));
    // Into a pipe: 80, or as one wishes.
    assert!((68..=80).contains(&widest(&text(&[UTF8], TEXTS[2]))));
    assert!((108..=120).contains(&widest(&text(&[UTF8, ("COLUMNS", "500")], TEXTS[2]))));
}

#[test]
fn rows_and_messages_are_whole_lines_in_a_pipe() {
    let note = "Note: no capability CAP_SYSLOG: addresses instead of names; run as root\n";
    assert!(text(&[UTF8], TEXTS[0]).contains(note));
    let failed = piped(&[UTF8], &["replay", &"/no/such/recording ".repeat(10)]);
    assert_eq!(String::from_utf8(failed.stderr).unwrap().lines().count(), 1);
}

/// A page that cannot be written is a failure, and one that nobody reads to its end is none.
#[test]
fn a_full_disk_fails_every_page() {
    let help = ["--help", "-h", "--version", "-V"].map(|option| vec![option]);
    let others =
        [TEXTS[0], TEXTS[1], TEXTS[2], &["run", "--help"], &["explain"], &["__complete", "proto"]];
    for arguments in help.into_iter().chain(others.map(<[&str]>::to_vec)) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = dropwatch(&[UTF8], &arguments).stdout(full).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {printed}");
        assert!(printed.contains("No space left on device"), "{arguments:?}: {printed}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = dropwatch(&[UTF8], &arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    }
}

#[test]
fn nothing_but_ascii_in_a_locale_without_utf_8() {
    let german = ("LANG", "de_DE.UTF-8");
    for (environment, utf8) in [
        (&[][..], false),
        (&[("LC_ALL", "C")], false),
        (&[("LC_ALL", "POSIX"), german], false),
        (&[("LC_CTYPE", "de_DE.ISO-8859-1"), german], false),
        (&[german], true),
        (&[("LC_ALL", ""), german], true),
        (&[("LC_CTYPE", "C.utf8"), ("LANG", "C")], true),
    ] {
        let failed = piped(environment, &["replay", "/no/such/Zürich"]);
        let printed = String::from_utf8(failed.stderr).unwrap();
        let name = if utf8 { "/no/such/Zürich:" } else { "/no/such/Z?rich:" };
        assert!(printed.contains(name), "{environment:?}: {printed}");
        // A list in a page, with the sign for what it leaves out.
        let page = text(environment, &["explain", "nft_do_chain"]);
        assert!(utf8 || page.is_ascii(), "{page}");
        for arguments in [&["--help"][..], &["-h"], &["explain"], TEXTS[0], TEXTS[1]] {
            assert!(utf8 || text(environment, arguments).is_ascii(), "{arguments:?}");
        }
    }
    let json = text(&[("LC_ALL", "C")], &["explain", "--json"]);
    assert!(json.contains('×'), "JSON is UTF-8 in every locale");
}

#[test]
fn colours_are_for_whoever_asks_for_them() {
    let styled = |environment: &[_]| text(environment, TEXTS[2]).contains('\x1b');
    assert!(!styled(&[UTF8, XTERM]));
    assert!(styled(&[UTF8, XTERM, ("CLICOLOR_FORCE", "1")]));
    assert!(!styled(&[UTF8, XTERM, ("CLICOLOR_FORCE", "1"), NO_COLOR]));
    assert!(text(&[UTF8, NO_COLOR], &["explain", "XDP", "--color", "always"]).contains('\x1b'));
    let shown = |environment: &[_]| on_terminal(80, environment, TEXTS[2]).contains('\x1b');
    assert!(shown(&[UTF8, XTERM]));
    assert!(!shown(&[UTF8, ("TERM", "dumb")]));
    assert!(!shown(&[UTF8, XTERM, NO_COLOR]));
    assert!(
        !on_terminal(80, &[UTF8, XTERM], &["explain", "XDP", "--color", "never"]).contains('\x1b')
    );
    // Help has headings.
    assert!(on_terminal(80, &[UTF8, XTERM], &["--help"]).contains("\x1b["));
    assert!(!on_terminal(80, &[UTF8, XTERM, NO_COLOR], &["--help"]).contains('\x1b'));
}
