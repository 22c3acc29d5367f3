//! Drops of others, for tests that must not mind them.
//!
//! A host at rest is rare: somebody asks for a port that is closed, a switch announces itself, a
//! container runs into its filter. So the tests run beside such traffic, made here by a process of
//! its own: on the host's loopback, and in the namespaces of a tenant (`tenant`) that drops at
//! the places where tests count, over links and from ports that are named as theirs are.
//!
//! The process ends with the one that started it, however that ends, and after two hours at the
//! latest.

mod tenant;

use std::{
    io::{self, BufRead, BufReader, Lines, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::tenant::Tenant;
use crate::command::quote;

/// No run of the tests takes longer.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// Between two rounds, in each of which every kind of packet is dropped once.
const PAUSE: Duration = Duration::from_millis(40);
/// What stands before the tenant's name in the line that says that the noise has begun.
const BEGUN: &str = "noise of ";
/// Nobody listens at either: the discard service, and tcpmux.
const CLOSED: (u16, u16) = (9, 1);
/// Packets that are dropped in a round by this host itself.
const KNOCKS: u64 = 7;
/// More than the answer of a closed port takes, where no filter swallows it.
const ANSWER: Duration = Duration::from_millis(100);

/// The process that makes the noise.
#[derive(Debug)]
pub struct Noise {
    child: Child,
    /// Its standard input, which ends with this process: that is what it waits for. The kernel's
    /// own way (`PR_SET_PDEATHSIG`) goes by the thread that started it, and a test may be that.
    _life: ChildStdin,
    /// Held open: libtest ends when it cannot say that a test takes long.
    _words: Lines<BufReader<ChildStdout>>,
    tenant: String,
}

impl Noise {
    /// Starts `command`, which is to call [`make`], and waits until the noise has begun.
    ///
    /// # Errors
    /// When it cannot be started, or ends instead.
    pub fn start(command: &mut Command) -> Result<Self> {
        let quoted = quote(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{quoted}`"))?;
        let (Some(life), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("`{quoted}` has no pipes");
        };
        let mut words = BufReader::new(stdout).lines();
        let begun = words.by_ref().map_while(Result::ok);
        let begun = begun.filter_map(|line| Some(line.strip_prefix(BEGUN)?.to_owned())).next();
        match begun {
            Some(tenant) => Ok(Self { child, _life: life, _words: words, tenant }),
            None => bail!("`{quoted}` made no noise ({})", child.wait()?),
        }
    }

    /// Name of the namespace in which the tenant's packets are dropped.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// What it is, in one line.
    pub fn about(&self) -> String {
        format!(
            "beside noise: some {} drops a second, at closed ports of this host and for a dozen causes \
             in {}",
            (KNOCKS + tenant::PACKETS) * 1_000 / PAUSE.as_millis() as u64,
            self.tenant
        )
    }

    /// # Errors
    /// When it has ended: what runs from now on would prove less than it says.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the noise has ended ({status})"),
            None => Ok(()),
        }
    }
}

/// Makes the noise until standard input ends, and says in a line that it has begun.
///
/// # Errors
/// Without root, `ip`, `iptables-legacy` or `nft`, and when interrupted.
pub fn make() -> Result<()> {
    let tenant = Tenant::new()?;
    let over = Arc::new(AtomicBool::new(false));
    let deadline = Instant::now() + LONGEST;
    let goes_on = || {
        thread::sleep(PAUSE);
        !over.load(Ordering::Relaxed) && Instant::now() < deadline
    };
    let ended = Arc::clone(&over);
    // Not in the scope, which would wait for it where the noise ends first.
    thread::spawn(move || {
        let _broken = io::stdin().read_to_end(&mut Vec::new());
        ended.store(true, Ordering::Relaxed);
    });
    // Behind what a test program has printed in the same line.
    println!("\n{BEGUN}{}", tenant.name());
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                knock(Ipv4Addr::LOCALHOST);
                knock(Ipv6Addr::LOCALHOST);
                leave_unsaid();
            }
        });
        let made = tenant.stay(|| {
            while goes_on() {
                tenant.round();
            }
        });
        over.store(true, Ordering::Relaxed);
        made
    })
}

/// Asks for closed ports of this host. Whether that is possible, and is answered, is up to it.
fn knock(loopback: impl Into<IpAddr>) {
    let loopback = loopback.into();
    if let Ok(socket) = UdpSocket::bind((loopback, 0)) {
        let _refused = socket.send_to(b"noise", (loopback, CLOSED.0));
        // Ports that clients get: as answers that come too late.
        let _refused = socket.send_to(b"noise", (loopback, 40_404));
    }
    let _refused = TcpStream::connect_timeout(&(loopback, CLOSED.1).into(), ANSWER);
}

/// A message to a local process that goes before it is read: a packet of no protocol.
fn leave_unsaid() {
    let _lost = UnixDatagram::pair().and_then(|(here, _there)| here.send(b"noise"));
}
