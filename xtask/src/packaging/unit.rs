//! The unit and its drop-in, by systemd-analyze.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    Packaging,
    checks::{Checks, read},
};
use crate::process::CommandExt;

const UNIT: &str = "dropwatch.service";
/// Highest exposure that `systemd-analyze security` may find, in tenths: what remains is what
/// dropwatch is for. systemd 252 says 34.
const EXPOSURE: u32 = 36;

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    let (verify, security) = ("unit: systemd-analyze verify", "unit: systemd-analyze security");
    if !checks.wants(verify) && !checks.wants(security) {
        return;
    }
    let Some(analyze) = checks.program("unit: systemd-analyze", "systemd-analyze") else { return };
    checks.check(verify, || {
        clean(&analyze, &copy(packaging, "unit", false)?)?;
        clean(&analyze, &copy(packaging, "unit", true)?)
    });
    if !offers(&analyze, "--offline") {
        return checks.skip(security, "this systemd-analyze has no --offline (systemd 250)");
    }
    checks.check(security, || {
        let unit = copy(packaging, "unit", false)?;
        Command::new(&analyze)
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={EXPOSURE}"))
            .arg(unit)
            .read()
            .map(drop)
            .context("more exposed than it should be")
    });
}

/// The unit with a program that is there in place of dropwatch, for it may not be installed.
fn copy(packaging: &Packaging<'_>, scratch: &str, drop_in: bool) -> Result<PathBuf> {
    let folder = packaging.scratch(scratch)?;
    let write = |from: &str, to: &Path| -> Result<()> {
        let text = read(packaging.path("systemd").join(from))?;
        let text = text.replace("=/usr/bin/dropwatch", "=/bin/true");
        fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
    };
    let unit = folder.join(UNIT);
    write(UNIT, &unit)?;
    if drop_in {
        let folder = folder.join(format!("{UNIT}.d"));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write("listen.conf", &folder.join("listen.conf"))?;
    }
    Ok(unit)
}

/// systemd-analyze succeeds on directives that it does not know: it must have nothing to say. Of
/// other units of this machine, which it loads as well, it may.
fn clean(analyze: &Path, unit: &Path) -> Result<()> {
    let output = Command::new(analyze)
        .args(["verify", "--man=no"])
        .arg(unit)
        .output()
        .context("cannot run systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if let Some(line) = said.lines().find(|line| line.contains(UNIT)) {
        bail!("{line}");
    }
    Ok(())
}

fn offers(program: &Path, option: &str) -> bool {
    Command::new(program).arg("--help").read().is_ok_and(|help| help.contains(option))
}
