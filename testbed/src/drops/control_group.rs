//! A service whose control group has a program that refuses what it sends.

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Cause, PORT,
    network::{Network, SERVER},
    xdp,
};
use crate::{
    command::{die_with_parent, output},
    netns::Netns,
};

/// `BPF_PROG_TYPE_CGROUP_SKB` and `BPF_CGROUP_INET_EGRESS` (include/uapi/linux/bpf.h).
const CGROUP_SKB: u32 = 8;
const EGRESS: u32 = 1;
/// `r0 = 0`, which refuses; `exit`.
const REFUSE: [u64; 2] = [0xb7, 0x95];

/// A client that belongs to a control group.
#[derive(Debug)]
pub struct Service {
    network: Network,
    _inbox: UdpSocket,
    group: Group,
    /// The program is attached as long as this is open.
    program: Option<OwnedFd>,
}

impl Service {
    /// What its program is called, as systemd would.
    pub const PROGRAM: &str = "sd_fw_egress";

    /// Nothing is attached to its group.
    ///
    /// # Errors
    /// As [`Network::direct`], and where no unified hierarchy of control groups is mounted.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let inbox = network
            .server()
            .enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind the server's socket"))?;
        Ok(Self { network, _inbox: inbox, group: Group::new()?, program: None })
    }

    /// A program refuses all that it sends.
    ///
    /// # Errors
    /// As [`Service::new`], and when the kernel refuses the program.
    pub fn refused() -> Result<Self> {
        let mut this = Self::new()?;
        let program = xdp::load(CGROUP_SKB, Self::PROGRAM, &REFUSE)?;
        let folder = File::open(&this.group.0)?;
        let target = folder.as_raw_fd().cast_unsigned();
        this.program = Some(xdp::attach(&program, target, EGRESS, 0)?);
        Ok(this)
    }

    /// Takes the program away.
    pub fn end(&mut self) {
        self.program = None;
    }
}

impl Cause for Service {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    /// By a process of the group, which lives until a report has seen it.
    fn send(&self, packets: u64) -> Result<u64> {
        let send = format!(
            "echo $$ > {}/cgroup.procs; exec ip netns exec {} bash -c 'exec 3<>/dev/udp/{SERVER}/{PORT}; \
             for ((i = 0; i < {packets}; i++)); do echo x >&3; done 2>/dev/null; sleep 2'",
            self.group.0.display(),
            self.network.client().name(),
        );
        output(die_with_parent(Command::new("bash").args(["-c", &send])))?;
        Ok(packets)
    }
}

/// A control group that is removed when dropped.
#[derive(Debug)]
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let mounted = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let top = mounted.into_iter().find(|path| path.join("cgroup.controllers").exists());
        let top = top.context("no unified hierarchy of control groups is mounted")?;
        let folder = top.join(format!("dwt-{}.service", std::process::id()));
        fs::create_dir_all(&folder).context("cannot make a control group")?;
        Ok(Self(folder))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _left = fs::remove_dir(&self.0);
    }
}
