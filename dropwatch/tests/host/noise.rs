//! Others whose packets are dropped beside this suite, from its first run of dropwatch to its end.
//!
//! So each test has to tell its own drops from theirs, as on any host that is in use. Guests of the
//! tests' own are left in peace: emulated, some are fifty times slower, and nobody else is there.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use testbed::{
    machine::{is_guest, longer},
    noise::{self, Noise},
};

use crate::harness::Run;

/// Set in the process that makes the noise, and in others that a test has started of this program:
/// they run beside that already.
pub(crate) const MADE: &str = "DROPWATCH_TEST_NOISE";
const MAKER: &str = "maker";

/// The noise, where this process has it made.
type Surroundings = Option<Mutex<Noise>>;

static SURROUNDINGS: LazyLock<Surroundings> = LazyLock::new(|| {
    if is_guest() || std::env::var_os(MADE).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", TEST, "--nocapture"]).env(MADE, MAKER);
    let noise = Noise::start(&mut command).unwrap();
    // Not by `eprintln!`, whose words libtest keeps to itself. It has begun a line of its own.
    let mut terminal = io::stderr();
    writeln!(terminal, "\n{}", noise.about()).unwrap();
    Some(Mutex::new(noise))
});

/// Has others drop packets from now on, and proves that they still do.
pub(crate) fn surround() {
    if let Some(noise) = &*SURROUNDINGS {
        noise.lock().unwrap_or_else(PoisonError::into_inner).expect_running().unwrap();
    }
}

const TEST: &str = "noise::others_drop_beside_this_suite";

/// Drops of each protocol, on the host and in the tenant's namespace.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn others_drop_beside_this_suite() {
    if std::env::var(MADE).is_ok_and(|made| made == MAKER) {
        noise::make().unwrap();
        // Whom libtest would tell the result to has gone.
        std::process::exit(0);
    }
    let recording = {
        let run = Run::start(&["--by", "netns,protocol"]);
        std::thread::sleep(longer(Duration::from_secs(1)));
        run.stop()
    };
    let noise = SURROUNDINGS.as_ref().expect("a host");
    let tenant = noise.lock().unwrap().tenant().to_owned();
    let mut drops: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for row in recording.groups().flat_map(|groups| &groups.rows) {
        let netns = row.netns.as_ref().and_then(|netns| netns.name.as_deref());
        let protocol = row.protocol.as_deref();
        if let (Some(netns), Some(protocol)) = (netns, protocol) {
            *drops.entry((netns, protocol)).or_default() += row.count;
        }
    }
    let of = |netns: &str, protocol: &str| drops.get(&(netns, protocol)).copied().unwrap_or(0);
    for protocol in ["udp", "tcp"] {
        assert!(of("host", protocol) >= 10, "{protocol}: {drops:#?}");
    }
    for protocol in ["udp", "tcp", "icmp", "0x88b6", "0x88b7"] {
        assert!(of(&tenant, protocol) >= 10, "{protocol}: {drops:#?}");
    }
}
