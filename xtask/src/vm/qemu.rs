//! Boots a guest in QEMU and watches over it until it has reported its status, or has died.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testbed::command::die_with_parent;

use super::image;
use crate::{process::CommandExt, project::find_command};

const QEMU: &str = "qemu-system-x86_64";
const CPUS: &str = "2";
const MEMORY: &str = "1024M";
/// An old processor, which is less work to emulate. With a random number generator, or whoever
/// needs one waits for ever; without `cmpxchg16b`, which QEMU 7.2 leaves with wrong flags when an
/// interrupt follows: 6.12 and later use it for every allocation, and died of double faults.
const EMULATED: &str = "Nehalem,+rdrand,-cx16";
/// QEMU's own network, which `restrict` keeps from everything outside: what the card sends is taken
/// and goes nowhere. So it would on a hub or on nothing, of which QEMU warns.
const NETWORK: &str = "user,id=nowhere,restrict=on,ipv6=off";
/// A card whose driver frees what it has sent by the call for drops. Without firmware: it is not to
/// boot from.
const CARD: &str = "vmxnet3,netdev=nowhere,romfile=";
/// A guest with hardware's help boots in two or three seconds, or hangs.
const PROBE: Duration = Duration::from_secs(15);
/// Lines of the console that a failure quotes.
const LAST_LINES: usize = 50;
/// What the kernel says when it can no longer be trusted.
const TROUBLE: [&str; 4] = ["Kernel panic", "Oops", "BUG: ", "general protection fault"];

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    /// QEMU's own translator; works everywhere, ten to fifty times slower.
    Tcg,
}

impl Accelerator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => EMULATED,
        }
    }

    /// How many times longer things may take than on the machine itself.
    pub(super) fn slowness(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 20,
        }
    }

    /// Boots `guest` with hardware's help, which may hang although `/dev/kvm` is there. The answer
    /// is kept below `folder` until the machine is started again.
    pub(super) fn probe(guest: &Guest<'_>, folder: &Path) -> Result<Self> {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let answer = folder.join("accelerator");
        let known = fs::read_to_string(&answer).unwrap_or_default();
        if let Some(name) = known.strip_prefix(boot.trim()) {
            return Ok(if name.trim() == "kvm" { Self::Kvm } else { Self::Tcg });
        }
        eprintln!("==> trying KVM (at most {} s)", PROBE.as_secs());
        let probe = Guest {
            name: "probe",
            accelerator: Self::Kvm,
            task: "#!/bin/sh\nexit 0\n",
            limit: PROBE,
            silence: PROBE,
            ..*guest
        };
        let accelerator = match probe.run(&mut |_| {})? {
            End::Status(0) => Self::Kvm,
            _ => Self::Tcg,
        };
        eprintln!("    {}", accelerator.name());
        image::write_whole(&answer, format!("{} {}", boot.trim(), accelerator.name()).as_bytes())?;
        Ok(accelerator)
    }
}

/// A guest to be run.
#[derive(Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a image::Kernel,
    pub(super) accelerator: Accelerator,
    /// Initramfs that all guests share.
    pub(super) tools: &'a Path,
    /// Script that the guest runs.
    pub(super) task: &'a str,
    /// More for the kernel's command line.
    pub(super) append: &'a str,
    /// Where its files go.
    pub(super) folder: &'a Path,
    /// All it may take.
    pub(super) limit: Duration,
    /// The longest that it may print nothing, neither task nor kernel.
    pub(super) silence: Duration,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The task's exit status.
    Status(i32),
    /// It never reported one.
    Died {
        cause: String,
        /// The console's last lines.
        log: String,
    },
}

impl Guest<'_> {
    /// Boots it; `output` gets what the task prints, as it comes.
    ///
    /// # Errors
    /// When QEMU cannot be run. A guest that dies is an [`End`].
    pub(super) fn run(&self, output: &mut dyn FnMut(&[u8])) -> Result<End> {
        let folder = self.folder.join(self.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (console, status) = (folder.join("console.log"), folder.join("status"));
        for file in [&console, &status] {
            fs::write(file, "")?;
        }
        let initramfs = self.initramfs(&folder)?;
        let mut command = self.command(&initramfs, &console, &status);
        die_with_parent(&mut command);
        let quoted = command.quoted();
        let mut child = Machine(command.spawn().with_context(|| format!("cannot run `{quoted}`"))?);
        let incoming = read_output(&mut child.0)?;
        let cause = self.watch(&mut child, &incoming, &console, output)?;
        drop(child);
        let _gone_or_never_there = fs::remove_file(initramfs);
        let status = fs::read_to_string(&status).unwrap_or_default();
        let reported = status.trim().strip_prefix("status ").and_then(|status| status.parse().ok());
        Ok(match (cause, reported) {
            (None, Some(status)) => End::Status(status),
            (cause, _) => {
                let log = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
                let cause = cause.unwrap_or_else(|| died_of(&log));
                End::Died { cause, log: last_lines(&log) }
            }
        })
    }

    /// Passes output on until the guest is gone, which is `None`, or has to be given up.
    fn watch(
        &self,
        child: &mut Machine,
        incoming: &Receiver<Vec<u8>>,
        console: &Path,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<String>> {
        let started = Instant::now();
        let mut heard = started;
        let mut console_length = 0;
        let mut troubled = None;
        loop {
            match incoming.recv_timeout(Duration::from_millis(200)) {
                Ok(bytes) => {
                    heard = Instant::now();
                    output(&bytes);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // QEMU has closed its output: it ends.
                Err(RecvTimeoutError::Disconnected) => {
                    let status = child.0.wait()?;
                    return Ok((!status.success()).then(|| format!("QEMU failed: {status}")));
                }
            }
            let length = fs::metadata(console).map_or(0, |metadata| metadata.len());
            if length > console_length {
                heard = Instant::now();
                if troubled.is_none() && trouble(&read_from(console, console_length)?).is_some() {
                    troubled = Some(Instant::now());
                }
                console_length = length;
            }
            // A moment, so that the whole of its last words is in the log.
            if troubled.is_some_and(|since| since.elapsed() > Duration::from_secs(2)) {
                return Ok(Some(died_of(&read_from(console, 0)?)));
            }
            if started.elapsed() > self.limit {
                return Ok(Some(format!("not done after {} s", self.limit.as_secs())));
            }
            if heard.elapsed() > self.silence {
                return Ok(Some(format!("silent for {} s: it hangs", self.silence.as_secs())));
            }
        }
    }

    /// Modules, tools and task one after another: the kernel unpacks them all.
    fn initramfs(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("initramfs");
        let mut file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        for part in [&self.kernel.modules, self.tools] {
            let mut part =
                File::open(part).with_context(|| format!("cannot read {}", part.display()))?;
            std::io::copy(&mut part, &mut file)?;
        }
        file.write_all(&image::pack_task(self.task))?;
        Ok(path)
    }

    fn command(&self, initramfs: &Path, console: &Path, status: &Path) -> Command {
        let file = |path: &Path| format!("file:{}", path.display());
        // An oops is the end: what is counted after it proves nothing.
        // Defences against other guests cost an emulated processor half of its speed: each system
        // call would throw its translations away.
        let append =
            format!("console=ttyS0 loglevel=4 oops=panic panic=-1 mitigations=off {}", self.append);
        let qemu = find_command(QEMU).unwrap_or_else(|| QEMU.into());
        let mut command = Command::new(qemu);
        command
            .args(["-accel", self.accelerator.option(), "-cpu", self.accelerator.processor()])
            .args(["-smp", CPUS, "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-netdev", NETWORK, "-device", CARD])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", append.trim()])
            .args(["-serial", &file(console), "-serial", "stdio", "-serial", &file(status)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// A running QEMU; it ends with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_output(child: &mut Child) -> Result<Receiver<Vec<u8>>> {
    let mut stdout = child.stdout.take().context("a child without the output asked for")?;
    let (sender, receiver) = channel();
    thread::Builder::new().name("guest".into()).spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn read_from(path: &Path, offset: u64) -> Result<String> {
    let mut file = File::open(path)?;
    // A little earlier: a marker may have come in two pieces.
    file.seek(SeekFrom::Start(offset.saturating_sub(64)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first line that speaks of trouble.
fn trouble(log: &str) -> Option<&str> {
    log.lines().find(|line| TROUBLE.iter().any(|marker| line.contains(marker)))
}

/// In one line. The panic itself says more than what led to it.
fn died_of(log: &str) -> String {
    let panic = log.lines().find(|line| line.contains("Kernel panic"));
    match panic.or_else(|| trouble(log)) {
        Some(line) => clean(line),
        None => "the guest is gone without a word".to_owned(),
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    last.iter().map(|line| clean(line)).collect::<Vec<_>>().join("\n")
}

/// Without control characters: the text goes to a terminal.
fn clean(line: &str) -> String {
    line.trim_end().chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_death_is_the_kernels_own_word() {
        let log = "[1.0] BUG: kernel NULL pointer dereference\n[1.1] Call Trace:\n\
            [1.2] Kernel panic - not syncing: Fatal exception\u{1b}[0m\r\n";
        assert_eq!(died_of(log), "[1.2] Kernel panic - not syncing: Fatal exception [0m");
        assert_eq!(trouble(log), Some("[1.0] BUG: kernel NULL pointer dereference"));
        assert!(trouble("[0.0] Linux version\n[0.1] Debugging\n").is_none());
        assert!(died_of("").contains("without a word"));
    }

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: String = (0..200).map(|n| format!("line {n}\n")).collect();
        let last = last_lines(&log);
        assert_eq!(last.lines().count(), LAST_LINES);
        assert!(last.starts_with("line 150") && last.ends_with("line 199"));
    }
}
