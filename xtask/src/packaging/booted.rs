//! The unit and its drop-ins under a real systemd: in a container whose PID 1 is this machine's own,
//! and whose /usr, read-only, too. Nothing is downloaded, and it boots within a second.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testbed::{command::die_with_parent, undo::Undo};

use super::{
    Packaging, cgroups,
    checks::{Checks, read},
    fleet::dropwatch,
    unit::{DROP_INS, UNIT, recipe},
};

const NAME: &str = "booted";
const SCRIPT: &str = include_str!("booted.sh");
/// Thirty seconds are usual.
const PATIENCE: Duration = Duration::from_secs(150);
/// What the script sends while the service records, and while it writes to the journal.
const RECORDED: u64 = 200 + 100;
const LOGGED: u64 = 50;
/// Any: without one, systemd takes the boot for the first and enables whatever is installed.
const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef\n";
/// Runs the script once the system is up, and ends the container.
const CHECK: &str = "\
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash /check.sh
StandardOutput=append:/out/told
StandardError=inherit
";
/// Somebody who listens on the unit's port.
const BUSY: [(&str, &str); 2] = [
    ("busy.socket", "[Socket]\nListenStream=127.0.0.1:9435\n"),
    ("busy.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
];

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    if !checks.selects(NAME) {
        return;
    }
    if let Err(error) = testbed::need_root() {
        return checks.skip(NAME, &format!("{error:#}"));
    }
    let Some(nspawn) = checks.program(NAME, "systemd-nspawn") else { return };
    let printed = dropwatch(packaging).and_then(|binary| {
        let root = packaging.scratch(NAME)?;
        let printed = System::prepare(packaging, &root, &binary)?.run(&nspawn);
        let sums = printed.as_ref().is_ok().then(|| sums(&root.join("root/out")));
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        Ok((printed?, sums))
    });
    let (printed, sums) = match printed {
        Ok((printed, Some(sums))) => (printed, sums),
        Ok((_, None)) => return,
        Err(error) => return checks.check(NAME, || Err(error)),
    };
    for (step, result) in steps(&printed) {
        checks.check(&format!("{NAME}: {step}"), || result);
    }
    checks.check(&format!("{NAME}: the script came to its end"), || {
        ensure!(printed.lines().last() == Some("end"), "{printed}");
        Ok(())
    });
    checks.check(&format!("{NAME}: what is recorded and logged is what was dropped"), || sums);
}

/// What the script says of each step: what follows a failure is why.
fn steps(printed: &str) -> Vec<(String, Result<()>)> {
    let mut steps: Vec<(String, Option<Vec<&str>>)> = Vec::new();
    for line in printed.lines() {
        if let Some(step) = line.strip_prefix("passed: ") {
            steps.push((step.to_owned(), None));
        } else if let Some(step) = line.strip_prefix("failed: ") {
            steps.push((step.to_owned(), Some(Vec::new())));
        } else if let Some((_, Some(why))) = steps.last_mut() {
            why.push(line);
        }
    }
    let result = |why: Option<Vec<&str>>| match why {
        None => Ok(()),
        Some(why) => bail!("\n{}", why.join("\n")),
    };
    steps.into_iter().map(|(step, why)| (step, result(why))).collect()
}

/// A root file system to boot.
struct System {
    root: PathBuf,
    /// Programs that this machine's /usr/bin has not.
    programs: PathBuf,
    /// Folders of this machine that it sees, read-only.
    seen: Vec<PathBuf>,
}

impl System {
    fn prepare(packaging: &Packaging<'_>, folder: &Path, binary: &Path) -> Result<Self> {
        let (root, programs) = (folder.join("root"), folder.join("programs"));
        let mut system = Self { root, programs, seen: vec!["/usr".into()] };
        for below in ["dev", "etc/systemd/system", "out", "proc", "recipes", "root", "run", "sys"] {
            system.make(below)?;
        }
        for below in ["tmp", "usr", "var/lib", "var/log"] {
            system.make(below)?;
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            let here = Path::new("/").join(name);
            if let Ok(target) = fs::read_link(&here) {
                symlink(target, system.root.join(name)).context("cannot make a link")?;
            } else if here.is_dir() {
                system.make(name)?;
                system.seen.push(here);
            }
        }
        system.write("etc/machine-id", MACHINE_ID)?;
        system.write("etc/os-release", &read("/etc/os-release")?)?;
        system.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        system.write("etc/group", "root:x:0:\n")?;
        system.write("check.sh", SCRIPT)?;
        system.write("etc/systemd/system/check.service", CHECK)?;
        for (name, text) in BUSY {
            system.write(&format!("etc/systemd/system/{name}"), text)?;
        }
        let unit = read(packaging.path("systemd").join(UNIT))?;
        system.write(&format!("etc/systemd/system/{UNIT}"), &unit)?;
        let page = read(packaging.project.root.join("docs/logging.md"))?;
        for name in DROP_INS {
            system.write(&format!("recipes/{name}"), recipe(&page, name)?)?;
        }
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/"));
        let command = command.and_then(|line| line.split(' ').next());
        let place = system.programs.join(command.context("the unit starts nothing in /usr/bin")?);
        fs::create_dir_all(&system.programs).context("cannot make a folder")?;
        fs::copy(binary, &place).with_context(|| format!("cannot copy {}", binary.display()))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        Ok(system)
    }

    fn make(&self, below: &str) -> Result<()> {
        let path = self.root.join(below);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
    }

    fn write(&self, below: &str, text: &str) -> Result<()> {
        let path = self.root.join(below);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Boots, and returns what the script said.
    ///
    /// # Errors
    /// When it does not boot, or not end in time; then it is killed, with all that runs in it.
    fn run(&self, nspawn: &Path) -> Result<String> {
        let _undo = Undo::new(cgroups::remover()?)?;
        let said = self.root.with_file_name("nspawn");
        let log = File::create(&said).context("cannot make a file")?;
        // Killed, systemd-nspawn leaves the container running. So all of it has a process namespace
        // of its own, which ends with whoever made it.
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--kill-child", "--mount-proc"]).arg(nspawn);
        // Units in containers have the one hierarchy alone; so has this one.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]);
        command.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        // A network of its own; dropwatch counts the host's drops as well.
        command.arg("--private-network");
        // The unit's own limits are the subject, not those of the container.
        command.args(["--capability=all", "--system-call-filter=@keyring bpf"]);
        command.arg("--directory").arg(&self.root);
        command.args(self.seen.iter().map(|path| format!("--bind-ro={}", path.display())));
        command.arg(format!("--overlay-ro=/usr/bin:{}:/usr/bin", self.programs.display()));
        command.arg("systemd.unit=check.service");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        die_with_parent(&mut command);
        let child = command.spawn().context("cannot run systemd-nspawn")?;
        let ended = end(child);
        let printed = read(self.root.join("out/told")).unwrap_or_default();
        if let Err(error) = ended {
            let said = read(&said).unwrap_or_default();
            bail!("{error:#}: {} {}", said.trim(), printed.trim());
        }
        Ok(printed)
    }
}

fn end(mut child: Child) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for systemd-nspawn")? {
            ensure!(status.success(), "systemd-nspawn: {status}");
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            // And everything in the process namespace with it.
            child.kill().context("cannot end systemd-nspawn")?;
            child.wait().context("cannot wait for systemd-nspawn")?;
            bail!("not done after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// That both drop-ins have what was dropped, all of it and nothing else.
fn sums(out: &Path) -> Result<()> {
    let old = read(out.join("dropwatch.ndjson.1"))?;
    let new = read(out.join("dropwatch.ndjson"))?;
    ensure!(!old.is_empty() && !new.is_empty(), "SIGHUP has not opened the file anew");
    for (whose, text, sent) in
        [("the files", old + &new, RECORDED), ("the journal", read(out.join("journal"))?, LOGGED)]
    {
        let dropped = dropped(&text).with_context(|| whose.to_owned())?;
        ensure!(dropped == sent, "{whose}: {dropped} drops, and {sent} packets were sent");
    }
    Ok(())
}

/// The drops of a recording, between lines of others; it must be whole.
fn dropped(text: &str) -> Result<u64> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> = lines.filter(|line| line.is_object()).collect();
    let kind =
        |line: Option<&Value>| line.and_then(|line| line["type"].as_str()).map(str::to_owned);
    ensure!(kind(lines.first()).as_deref() == Some("start"), "no start line");
    ensure!(kind(lines.last()).as_deref() == Some("end"), "no end line");
    let mut drops = 0;
    let reports = lines.iter().filter(|line| line["type"] == "report");
    for (seq, report) in (1_u64..).zip(reports) {
        ensure!(report["seq"] == seq, "report {} instead of {seq}", report["seq"]);
        let rows = report["locations"].as_array().context("a report without locations")?;
        drops += rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>();
    }
    Ok(drops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_valid_shell() {
        use crate::process::CommandExt;
        Command::new("bash").args(["-n", "-c", SCRIPT]).check().unwrap();
    }

    #[test]
    fn a_failure_has_its_reason() {
        let steps = steps("passed: a\nfailed: b\n    why\npassed: c\nend\n");
        let printed: Vec<String> = steps
            .iter()
            .map(|(step, result)| match result {
                Ok(()) => step.clone(),
                Err(error) => format!("{step}:{error}"),
            })
            .collect();
        assert_eq!(printed, ["a", "b:\n    why", "c"]);
    }

    #[test]
    fn a_recording_is_whole_or_refused() {
        let (start, end) = (r#"{"type":"start"}"#, r#"{"type":"end"}"#);
        let report = |seq: u64, count: u64| {
            format!(r#"{{"type":"report","seq":{seq},"locations":[{{"count":{count}}}]}}"#)
        };
        let join = |lines: &[&str]| lines.join("\n");
        let (one, two) = (report(1, 3), report(2, 4));
        let all = join(&["Started x.", start, &one, &two, end]);
        assert_eq!(dropped(&all).unwrap(), 7);
        for (lines, why) in [
            (join(&[&one, &two, end]), "no start line"),
            (join(&[start, &one]), "no end line"),
            (join(&[start, &two, end]), "report 2 instead of 1"),
            (String::new(), "no start line"),
        ] {
            assert_eq!(dropped(&lines).unwrap_err().to_string(), why);
        }
    }
}
