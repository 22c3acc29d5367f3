//! What a report takes where a hundred network namespaces lose packets at once, each for a cause that is
//! found.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use testbed::{netns::Netns, watch::Watch};

use super::Figure;
use crate::measure::{cpu_time, kilobytes};

const NAMESPACES: usize = 100;
/// Reports that are measured, once a second. The ones before fill what grows with the first reports.
const REPORTS: u32 = 20;
const BEFORE: u32 = 5;
/// Datagrams to each namespace before each report.
const DATAGRAMS: usize = 20;
/// Nobody listens there.
const CLOSED: u16 = 9;
/// Somebody does, and never reads.
const FULL: u16 = 10;
/// A receive buffer holds fewer datagrams, of the kernel's default size.
const FILLING: usize = 1_000;

const BUDGET: Duration = Duration::from_millis(50);
/// Of memory, MiB; and how much of it the measured reports may add.
const RESIDENT: f64 = 32.0;
const GROWTH: f64 = 2.0;

/// A namespace that loses what it is sent: one half have no such port, the others no room.
struct Lossy {
    _netns: Netns,
    sender: UdpSocket,
    _receiver: Option<UdpSocket>,
    port: u16,
}

impl Lossy {
    fn new(number: usize) -> Result<Self> {
        let netns = Netns::new("lossy")?;
        let port = if number.is_multiple_of(2) { CLOSED } else { FULL };
        let (sender, receiver) = netns.enter(|| {
            let receiver = match port {
                FULL => Some(UdpSocket::bind((Ipv4Addr::LOCALHOST, FULL))?),
                _ => None,
            };
            Ok((UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, receiver))
        })?;
        let lossy = Self { _netns: netns, sender, _receiver: receiver, port };
        if port == FULL {
            lossy.send(FILLING)?;
        }
        Ok(lossy)
    }

    fn send(&self, datagrams: usize) -> Result<()> {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        (0..datagrams)
            .try_for_each(|_| self.sender.send_to(b"lost", to).map(drop).context("cannot send"))
    }
}

pub(super) fn measure(binary: &Path) -> Result<Figure> {
    eprintln!("==> {NAMESPACES} namespaces that lose packets");
    let all: Vec<Lossy> = (0..NAMESPACES).map(Lossy::new).collect::<Result<_>>()?;
    let send = || all.iter().try_for_each(|lossy| lossy.send(DATAGRAMS));
    let mut watch = Watch::start(Command::new(binary).args(["--json", "-i", "1s"]))?;
    let pid = watch.pid();
    let status = format!("/proc/{pid}/status");
    let resident = || anyhow::Ok(kilobytes(&status, "VmRSS:").context("no VmRSS")? / 1024.0);
    let mut report = || -> Result<usize> {
        loop {
            let line = watch.next_line(Duration::from_secs(20))?.context("it ended too soon")?;
            if line.contains("\"type\":\"report\"") {
                // What a report leaves to do is part of it.
                thread::sleep(Duration::from_millis(400));
                let found = ["closed_port", "udp_receive_buffer"];
                let rules = found.map(|rule| format!("\"rule\":\"{rule}\""));
                return Ok(rules.iter().map(|rule| line.matches(rule.as_str()).count()).sum());
            }
        }
    };
    for _ in 0..BEFORE {
        send()?;
        report()?;
    }
    let (before, small) = (cpu_time(pid)?, resident()?);
    for _ in 0..REPORTS {
        send()?;
        let found = report()?;
        ensure!(found >= NAMESPACES, "findings about {found} of {NAMESPACES} namespaces");
    }
    let (each, large) = ((cpu_time(pid)? - before) / REPORTS, resident()?);
    ensure!(watch.stop()?.status.success(), "dropwatch failed");
    let grown = large - small;
    eprintln!("    {grown:.1} MiB more after {REPORTS} reports");
    Ok(Figure {
        what: "a report of 100 lossy namespaces with its findings, CPU time; resident",
        measured: format!("{:.0} ms; {large:.1} MiB", each.as_secs_f64() * 1e3),
        budget: "50 ms; 32 MiB",
        within: each <= BUDGET && large <= RESIDENT && grown <= GROWTH,
    })
}
