//! The unit and its drop-ins, by systemd-analyze.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Packaging,
    checks::{Checks, read},
};
use crate::{dist::PACKAGED, process::CommandExt};

pub(super) const UNIT: &str = "dropwatch.service";
/// Those of `docs/logging.md`; listen.conf is a file.
pub(super) const DROP_INS: [&str; 2] = ["record.conf", "journal.conf"];
/// Highest exposure that `systemd-analyze security` may find, in tenths: what remains is what
/// dropwatch is for. systemd 252 says 34.
const EXPOSURE: u32 = 36;

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    let (verify, security) = ("unit: systemd-analyze verify", "unit: systemd-analyze security");
    if !checks.selects(verify) && !checks.selects(security) {
        return;
    }
    let Some(analyze) = checks.program("unit: systemd-analyze", "systemd-analyze") else { return };
    let all = || std::iter::once(None).chain(["listen.conf"].into_iter().chain(DROP_INS).map(Some));
    checks.check(verify, || {
        all().try_for_each(|drop_in| clean(&analyze, &copy(packaging, "unit", drop_in)?))
    });
    checks.check("unit: it starts the command of the Debian package", || {
        let unit = read(packaging.path("systemd").join(UNIT))?;
        all().try_for_each(|drop_in| starts_packaged(&with(packaging, &unit, drop_in)?))
    });
    checks.check("unit: errors reach the journal", || {
        let unit = read(packaging.path("systemd").join(UNIT))?;
        all().try_for_each(|drop_in| errors_are_seen(&with(packaging, &unit, drop_in)?))
    });
    if !offers(&analyze, "--offline") {
        return checks.skip(security, "this systemd-analyze has no --offline (systemd 250)");
    }
    checks.check(security, || {
        all().try_for_each(|drop_in| {
            let unit = copy(packaging, "unit", drop_in)?;
            Command::new(&analyze)
                .args(["security", "--no-pager", "--offline=true"])
                .arg(format!("--threshold={EXPOSURE}"))
                .arg(unit)
                .read()
                .map(drop)
                .with_context(|| format!("more exposed than it should be, with {drop_in:?}"))
        })
    });
}

/// What the unit starts, and what it starts with each drop-in, as `dropwatch ARGUMENTS`.
///
/// # Errors
/// When one cannot be read.
pub(super) fn commands(packaging: &Packaging<'_>) -> Result<Vec<String>> {
    let unit = read(packaging.path("systemd").join(UNIT))?;
    let drop_ins = ["listen.conf"].into_iter().chain(DROP_INS);
    let texts =
        drop_ins.map(|name| with(packaging, &unit, Some(name))).collect::<Result<Vec<_>>>()?;
    let starts = [&unit].into_iter().chain(&texts).filter_map(|text| last(text, "ExecStart"));
    let arguments = starts.filter_map(|line| Some(line.split_once(' ')?.1));
    Ok(arguments.map(|arguments| format!("dropwatch {arguments}")).collect())
}

/// The text of a drop-in.
fn drop_in(packaging: &Packaging<'_>, name: &str) -> Result<String> {
    if !DROP_INS.contains(&name) {
        return read(packaging.path("systemd").join(name));
    }
    let page = read(packaging.project.root.join("docs/logging.md"))?;
    recipe(&page, name).map(str::to_owned)
}

/// The block of a page that is to become this drop-in of the unit.
///
/// # Errors
/// When the page has none.
pub(super) fn recipe<'a>(page: &'a str, name: &str) -> Result<&'a str> {
    let path = format!("# /etc/systemd/system/{UNIT}.d/{name}\n");
    // Every other part is a block; its first line is the language.
    let blocks = page.split("```").skip(1).step_by(2);
    let mut blocks = blocks.filter_map(|block| Some(block.split_once('\n')?.1));
    blocks.find(|text| text.starts_with(&path)).with_context(|| format!("no block `{path}`"))
}

/// The unit's text with that of a drop-in behind it, as systemd reads them.
fn with(packaging: &Packaging<'_>, unit: &str, name: Option<&str>) -> Result<String> {
    let more = name.map(|name| drop_in(packaging, name)).transpose()?;
    Ok(format!("{unit}\n{}", more.unwrap_or_default()))
}

/// What a unit says last for a key.
fn last<'a>(unit: &'a str, key: &str) -> Option<&'a str> {
    unit.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn starts_packaged(unit: &str) -> Result<()> {
    let starts = last(unit, "ExecStart").context("it starts nothing")?;
    let program = starts.split(' ').next().unwrap_or_default();
    ensure!(program == format!("/usr/bin/{PACKAGED}"), "it starts {program}");
    Ok(())
}

/// Where nothing is said of standard error, it goes where standard output goes.
fn errors_are_seen(unit: &str) -> Result<()> {
    let to = last(unit, "StandardError").filter(|to| *to != "inherit");
    let to = to.or(last(unit, "StandardOutput")).unwrap_or("journal");
    ensure!(["journal", "journal+console"].contains(&to), "standard error goes to {to}");
    Ok(())
}

/// The unit with a program that is there in place of dropwatch, for it may not be installed.
fn copy(packaging: &Packaging<'_>, scratch: &str, name: Option<&str>) -> Result<PathBuf> {
    let folder = packaging.scratch(scratch)?;
    let write = |text: &str, to: &Path| -> Result<()> {
        let text = text.replace(&format!("=/usr/bin/{PACKAGED}"), "=/bin/true");
        fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
    };
    let unit = folder.join(UNIT);
    write(&read(packaging.path("systemd").join(UNIT))?, &unit)?;
    if let Some(name) = name {
        let folder = folder.join(format!("{UNIT}.d"));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&drop_in(packaging, name)?, &folder.join(name))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_are_there() {
        let page = include_str!("../../../docs/logging.md");
        for name in DROP_INS {
            assert!(recipe(page, name).unwrap().contains("\n[Service]\n"), "{name}");
        }
        recipe(page, "no.conf").unwrap_err();
    }

    #[test]
    fn standard_error_inherits() {
        for (unit, seen) in [
            ("[Service]\n", true),
            ("StandardOutput=null\n", false),
            ("StandardOutput=null\nStandardError=inherit\n", false),
            ("StandardOutput=null\nStandardError=journal\n", true),
            ("StandardOutput=append:/var/log/x\n", false),
            ("StandardError=null\nStandardOutput=journal\n", false),
            ("StandardOutput=null\n\n[Service]\nStandardOutput=journal\n", true),
        ] {
            assert_eq!(errors_are_seen(unit).is_ok(), seen, "{unit}");
        }
    }

    #[test]
    fn the_last_command_counts() {
        starts_packaged("ExecStart=/x\nExecStart=\nExecStart=/usr/bin/dropwatch-ebpf -c 1")
            .unwrap();
        for unit in ["ExecStart=/usr/bin/dropwatch --metrics 9435", "Type=notify"] {
            starts_packaged(unit).unwrap_err();
        }
    }
}
