//! Has tcpdump compile a filter expression.
//!
//! It reads a capture without packets from its standard input, so it opens no device, and needs no
//! privilege: where dropwatch is root, it runs as nobody. What it prints is not trusted, and it is
//! not waited for without end: a name in an expression may be asked of a server.

use std::{
    io::{self, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::unistd::geteuid;

use crate::{
    exit::Failure,
    filter::{
        TypedExpression,
        expression::{CodeError, ExpressionCode, MOST},
    },
    programs::find_as_typed,
    report::shell::is_hidden,
};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read of each of its outputs: more than the longest code that is taken.
const MOST_BYTES: u64 = MOST as u64 * 64;
/// What its messages end with where the expression cannot hold for the packets of a file (`gen_inbound`,
/// `gen_ifindex`, libpcap's gencode.c).
const OF_FILES: &str = " when reading savefiles";
/// Letters of its message that are shown.
const MOST_LETTERS: usize = 300;
/// The user and the group whom nothing belongs to (`overflowuid`, kernel/sys.c).
const NOBODY: u32 = 65_534;

/// A capture of Ethernet frames, without any: the header of its file (pcap-savefile(5)).
const NO_PACKETS: [u8; 24] = {
    let mut header = [0; 24];
    let fields: [(usize, [u8; 4]); 4] = [
        (0, 0xa1b2_c3d4_u32.to_le_bytes()),
        // Version 2.4.
        (4, 0x0004_0002_u32.to_le_bytes()),
        // Longest packet.
        (16, 0x0004_0000_u32.to_le_bytes()),
        // LINKTYPE_ETHERNET
        (20, 1_u32.to_le_bytes()),
    ];
    let mut field = 0;
    while field < fields.len() {
        let (at, bytes) = fields[field];
        let mut byte = 0;
        while byte < bytes.len() {
            header[at + byte] = bytes[byte];
            byte += 1;
        }
        field += 1;
    }
    header
};

/// Compiles an expression.
///
/// # Errors
/// Usage: tcpdump is not there, or does not take the expression, with its own message; or the code is
/// none that the kernel side can run.
pub(super) fn compile(expression: &TypedExpression) -> Result<ExpressionCode, Failure> {
    let TypedExpression { text: expression, is_free } = expression;
    // A word by itself may have been meant for a command.
    let is_word = *is_free && !expression.contains(char::is_whitespace);
    let word = if is_word { ", which is no command" } else { "" };
    let refused = |why: String| Failure::Usage(format!("the filter expression{word}: {why}"));
    if expression.trim().is_empty() {
        return Err(refused("it is empty, and would select every packet".to_owned()));
    }
    let ended = start("tcpdump", expression).and_then(|child| wait(child, PATIENCE));
    let ended = ended.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused(
            "tcpdump compiles it, and is not installed: install the package tcpdump".to_owned(),
        ),
        _ => refused(format!("cannot run tcpdump ({error})")),
    })?;
    match ended {
        Some(Ended { status, stdout, .. }) if status.success() => {
            ExpressionCode::parse(&stdout).map_err(|error: CodeError| refused(error.to_string()))
        }
        Some(Ended { status, stderr, .. }) => {
            Err(refused(message(&stderr).unwrap_or_else(|| format!("tcpdump failed ({status})"))))
        }
        None => Err(refused(format!(
            "tcpdump takes longer than {} seconds; addresses in the place of names need no server",
            PATIENCE.as_secs()
        ))),
    }
}

/// What became of a program.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Starts `program` as one that compiles the expression.
fn start(program: &str, expression: &str) -> io::Result<Child> {
    let program = find_as_typed(program).ok_or(io::ErrorKind::NotFound)?;
    let command = || {
        let mut command = Command::new(&program);
        // Behind the two dashes nothing is an option.
        command.args(["-ddd", "-r", "-", "--", expression]).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = match geteuid().is_root() {
        false => command().spawn(),
        true => match command().gid(NOBODY).uid(NOBODY).spawn() {
            // A container whose root may not become nobody, or a program that is root's alone.
            Err(error) if is_user_refused(&error) => command().spawn(),
            spawned => spawned,
        },
    }?;
    if let Some(mut stdin) = child.stdin.take() {
        // A pipe has room for it, whether it is read or not; what does not read it says why.
        let _unread = stdin.write_all(&NO_PACKETS);
    }
    Ok(child)
}

fn is_user_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::EACCES))
}

/// Waits for its end, and ends it itself if that takes too long: then `None`.
fn wait(mut child: Child, patience: Duration) -> io::Result<Option<Ended>> {
    let deadline = Instant::now() + patience;
    let stdout = child.stdout.take().map(read);
    let stderr = child.stderr.take().map(read);
    let output = |read: Option<mpsc::Receiver<Vec<u8>>>| {
        let left = deadline.saturating_duration_since(Instant::now());
        read.map_or(Some(Vec::new()), |read| read.recv_timeout(left).ok())
    };
    if let (Some(stdout), Some(stderr)) = (output(stdout), output(stderr)) {
        // Both are closed, or have said more than is read: its end is near.
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Ended { status, stdout, stderr }));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Reads the begin of an output, on a thread of its own; then closes it.
fn read(output: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tell, read) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all there is.
        let _failed = output.take(MOST_BYTES).read_to_end(&mut bytes);
        let _gone = tell.send(bytes);
    });
    read
}

/// What tcpdump says is wrong, on one line.
fn message(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    // Before it, a line says what is read.
    let line = text.lines().find(|line| line.starts_with("tcpdump: "))?;
    // Nobody reads a file of packets but tcpdump here; what it says of Ethernet holds for dropped packets.
    let line = line.strip_suffix(OF_FILES).unwrap_or(line);
    let clean = line.chars().take(MOST_LETTERS);
    Some(clean.map(|letter| if is_hidden(letter) { '\u{fffd}' } else { letter }).collect())
}

#[cfg(test)]
mod tests {
    use testbed::unproved::unproved;

    use super::*;

    fn sh(script: &str, patience: Duration) -> Option<Ended> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        wait(command.spawn().expect("a shell"), patience).unwrap()
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let brief = Duration::from_millis(100);
        for script in ["exec sleep 60", "exec >&- 2>&-; exec sleep 60", "exec yes"] {
            let began = Instant::now();
            // What says more than is read ends by that.
            assert_eq!(sh(script, brief).is_some(), script == "exec yes", "{script}");
            assert!(began.elapsed() < Duration::from_secs(30), "{script}");
        }
    }

    #[test]
    fn both_outputs_are_read_to_their_bound() {
        let ended = sh("echo out; echo err >&2; exit 3", PATIENCE).unwrap();
        assert_eq!(
            (ended.status.code(), &*ended.stdout, &*ended.stderr),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        let ended = sh("exec head -c 1000000 /dev/zero", PATIENCE).unwrap();
        assert_eq!(ended.stdout.len() as u64, MOST_BYTES);
    }

    #[test]
    fn its_message_is_one_line_that_moves_no_cursor() {
        let said = b"reading from file -, link-type EN10MB\ntcpdump: unknown host '\x1b[2J'\nmore";
        assert_eq!(message(said).as_deref(), Some("tcpdump: unknown host '\u{fffd}[2J'"));
        let of_file = b"tcpdump: ifindex not supported on Ethernet when reading savefiles\n";
        let said = "tcpdump: ifindex not supported on Ethernet";
        assert_eq!(message(of_file).as_deref(), Some(said));
        assert_eq!(message(b"Segmentation fault"), None);
        let long = ["tcpdump: ", &"x".repeat(10_000)].concat();
        assert_eq!(message(long.as_bytes()).unwrap().len(), MOST_LETTERS);
    }

    #[test]
    fn what_is_not_installed_is_said() {
        let error = start("no-such-program", "tcp").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// What is wrong with an expression is in tcpdump's own words, and nothing in it is an option.
    #[test]
    fn tcpdump_compiles_expressions_and_nothing_else() {
        if start("tcpdump", "tcp").is_err() {
            return unproved("tcpdump is not installed");
        }
        let compile =
            |text: &str, is_free| compile(&TypedExpression { text: text.to_owned(), is_free });
        let https = compile("tcp dst port 443 and net 10.0.0.0/8", true);
        assert!(!https.unwrap().instructions().is_empty());
        for (is_free, begin) in [
            (true, "the filter expression, which is no command: tcpdump: "),
            (false, "the filter expression: tcpdump: "),
        ] {
            let Err(Failure::Usage(said)) = compile("inbound", is_free) else {
                panic!("there are no directions in it")
            };
            assert!(said.starts_with(begin) && !said.contains("savefile"), "{said}");
        }
        for (wrong, why) in [
            ("tcp and and", "tcpdump: can't parse filter expression: syntax error"),
            ("-w/tmp/nothing", "syntax error"),
            ("$(id)", "tcpdump: "),
            ("ifindex 3", "tcpdump: ifindex not supported"),
            ("ip protochain 6", "protochain"),
            (" ", "it is empty"),
        ] {
            match compile(wrong, false) {
                Err(Failure::Usage(text)) => assert!(text.contains(why), "{wrong}: {text}"),
                other => panic!("{wrong}: {other:?}"),
            }
        }
    }
}
