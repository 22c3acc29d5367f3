//! What a card has sent is no drop, although its driver frees it by the call for drops. Every guest
//! has such a card, VMware's vmxnet3, whose sent packets end nowhere.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use testbed::{
    link,
    machine::longer,
    netns::Netns,
    udp::{ClosedPort, Family},
    undo::Undo,
};

use super::{need_guest, run};
use crate::{
    gate,
    harness::{Recording, Run, function, text, wait_until},
    run::Recording as Recorded,
};

const DRIVER: &str = "vmxnet3";
/// Where the driver frees what was sent; some kernels have it under its name with a suffix.
const FREES: &str = "vmxnet3_tq_tx_complete";
/// More than the card's ring has room for (512), so it goes around.
const N: u64 = 1200;
/// Real drops beside what is sent.
const LOST: u64 = 70;

/// Of TEST-NET-1 (RFC 5737): the card's address, and one that nobody has.
const OWN: &str = "192.0.2.1";
const NOBODY: &str = "192.0.2.2";

/// The card, alone in a namespace with nothing to say but what a test sends.
struct Card {
    link: String,
    /// Before the namespace goes: the link goes with its driver, from wherever it is.
    _undo: Undo,
    netns: Netns,
}

impl Card {
    fn new() -> Self {
        need_guest();
        let netns = Netns::new("card").unwrap();
        let undo = Undo::new(|| {
            run("rmmod", DRIVER);
            Ok(())
        })
        .unwrap();
        run("modprobe", DRIVER);
        let link = link_of_driver().expect("the guest has no card of this driver");
        run("ip", &format!("link set {link} netns {}", netns.name()));
        // What is sent needs no answer, and none is asked for.
        for command in [
            format!("addr add {OWN}/24 dev {link}"),
            format!("link set {link} up"),
            format!("neigh add {NOBODY} lladdr 02:00:00:00:00:02 nud permanent dev {link}"),
        ] {
            netns.ip(&command).unwrap();
        }
        // It is said to be up when its queues take packets.
        wait_until(longer(Duration::from_secs(5)), "the card is up", || {
            netns.ip(&format!("link show dev {link}")).unwrap().contains("state UP")
        });
        Self { link, _undo: undo, netns }
    }

    /// Sends `n` datagrams and waits until each has been freed. The card itself counts what it has
    /// sent: it must be as many, and none lost.
    fn send(&self, n: u64) {
        let before = link::stats(&self.netns, &self.link).unwrap();
        self.netns
            .enter(|| {
                let socket = UdpSocket::bind((OWN, 0))?;
                let nobody: SocketAddr = format!("{NOBODY}:9").parse()?;
                for _ in 0..n {
                    socket.send_to(b"to nobody", nobody)?;
                }
                wait_until(longer(Duration::from_secs(5)), "all is freed", all_is_freed);
                Ok(())
            })
            .unwrap();
        let now = link::stats(&self.netns, &self.link).unwrap();
        assert_eq!((now.sent - before.sent, now.tx_dropped - before.tx_dropped), (n, 0), "{now:?}");
    }
}

/// The link of the first namespace that the driver has made.
fn link_of_driver() -> Option<String> {
    let links = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap());
    let mut made = links.filter(|link| {
        let driver = fs::read_link(link.path().join("device/driver"));
        driver.is_ok_and(|driver| driver.ends_with(DRIVER))
    });
    Some(made.next()?.file_name().into_string().unwrap())
}

/// Whether no UDP socket of the calling thread's namespace has a packet that is not freed yet: the
/// column `tx_queue` of `/proc/net/udp`, bytes in hexadecimal, which a packet counts in until then.
fn all_is_freed() -> bool {
    let table = fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let queues = table.lines().skip(1).map(|line| line.split_whitespace().nth(4).unwrap());
    let unsent: Vec<_> = queues.map(|queues| queues.split_once(':').unwrap().0).collect();
    assert_eq!(unsent.len(), 1, "{table}");
    unsent == ["00000000"]
}

/// Drops where the driver frees what was sent: the harmless ones, and the others.
fn at_driver(recording: &Recording) -> (u64, u64) {
    let rows = recording.locations().filter(|row| function(row) == FREES);
    rows.fold((0, 0), |(harmless, others), row| match row.benign {
        true => (harmless + row.count, others),
        false => (harmless, others + row.count),
    })
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn all_that_a_card_sends_is_harmless() {
    let card = Card::new();
    let own = Run::within(&[&card.netns], &["-i", "200ms"]);
    let all = Run::start(&[]);
    // Neither samples nor counters are needed to know it.
    let counts = Run::start(&["--no-samples"]);
    card.send(N);
    let (own, all, counts) = (own.stop(), all.stop(), counts.stop());
    for recording in [&own, &all, &counts] {
        assert_eq!(at_driver(recording), (N, 0), "{recording:#?}");
    }
    assert_eq!((own.end.drops, own.end.benign, own.undecided()), (N, N, 0), "{own:#?}");
    assert!(own.reports.iter().all(|report| report.findings.is_empty()), "{own:#?}");
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn what_a_card_sends_fails_no_run() {
    let card = Card::new();
    let recorded = Recorded::new("transmitted");
    let options = ["--no-baseline", "--fail-over", "0", "-o", recorded.0.to_str().unwrap()];
    let mut run = gate::start(&[&card.netns], &options);
    gate::runs(&mut run);
    card.send(N);
    let ended = gate::end(run);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(!said.contains("--fail-over"), "{said}");
    // It has seen them all.
    let (_, end) = recorded.reports_and_end();
    let summary = &end.run.as_ref().unwrap().summary;
    assert_eq!((summary.drops, summary.benign), (N, N), "{end:#?}");
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn what_is_lost_beside_it_fails_a_run() {
    let (card, closed) = (Card::new(), ClosedPort::new().unwrap());
    let limits = [LOST - 1, LOST].map(|limit| limit.to_string());
    let mut runs = limits.each_ref().map(|limit| {
        gate::start(&[&card.netns, closed.netns()], &["--no-baseline", "--fail-over", limit])
    });
    runs.iter_mut().for_each(gate::runs);
    card.send(N);
    closed.send(Family::V4, LOST).unwrap();
    let [fails, passes] = runs.map(gate::end);
    let (failed, passed) = (text(&fails.stderr), text(&passes.stderr));
    assert_eq!((fails.status.code(), passes.status.code()), (Some(5), Some(0)), "{failed}{passed}");
    let expected = format!("{LOST} packets dropped, more than --fail-over {}", LOST - 1);
    assert!(failed.contains(&expected), "{failed}");
}
