//! Programs for the host tests that are unpacked into the project's own folder, not installed.
//!
//! rsyslog and syslog-ng exclude each other as packages, since each is the host's
//! `system-log-daemon`: apt would remove the one that the host logs with. An installed one is of no
//! use either where AppArmor keeps it from the files of a test, as Ubuntu does with rsyslogd. And
//! logrotate comes with a timer that would begin to rotate the host's logs. Unpacked, nothing is
//! started, enabled or removed, no root is needed, and the host's own stay as they are.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::{
    process::CommandExt,
    project::{Project, find_command},
};

/// Programs, and the packages that bring them.
const PROGRAMS: [(&str, &str); 3] =
    [("rsyslogd", "rsyslog"), ("syslog-ng", "syslog-ng-core"), ("logrotate", "logrotate")];

/// Runs a program of the folder next to it, with the libraries and modules that lie there.
const WRAPPER: &str = r#"#!/bin/sh
# Written by `cargo xtask setup`.
root=$(dirname -- "$(readlink -f -- "$0")")/../unpacked/NAME
libraries=
for folder in "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu "$root"/usr/lib/syslog-ng; do
    [ -d "$folder" ] && libraries=$libraries${libraries:+:}$folder
done
export LD_LIBRARY_PATH="$libraries"
case NAME in
rsyslogd)
    for modules in "$root"/usr/lib/*-linux-gnu/rsyslog; do :; done
    set -- -M "$modules" "$@" ;;
syslog-ng)
    for modules in "$root"/usr/lib/syslog-ng/[0-9]*; do :; done
    set -- --module-path="$modules" "$@" ;;
esac
exec "$root/usr/sbin/NAME" "$@"
"#;

/// A program with its package.
pub(super) type Program = (&'static str, &'static str);

/// Those that are not there. Where no apt is, whatever the distribution installed will do.
pub(super) fn missing(project: &Project) -> Vec<Program> {
    let apt = find_command("apt-get").is_some();
    let is_there =
        |name: &str| wrapper(project, name).is_file() || (!apt && find_command(name).is_some());
    PROGRAMS.into_iter().filter(|(name, _)| !is_there(name)).collect()
}

/// Downloads and unpacks `programs`.
///
/// # Errors
/// When apt does not have them, even after an update of its lists.
pub(super) fn install(project: &Project, programs: &[Program]) -> Result<()> {
    let mut updated = false;
    for program in programs {
        match unpack(project, *program) {
            Err(error) if !updated => {
                eprintln!("{error:#}; with newer lists:");
                apt::update()?;
                updated = true;
                unpack(project, *program)?;
            }
            result => result?,
        }
    }
    Ok(())
}

fn wrapper(project: &Project, name: &str) -> PathBuf {
    project.tools().join("bin").join(name)
}

fn unpack(project: &Project, (name, package): Program) -> Result<()> {
    let root = project.tools().join("unpacked").join(name);
    eprintln!("==> {package}, unpacked into {}", root.display());
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let packages = root.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    // What would be installed: the package, and those that it needs and the host lacks.
    let plan = Command::new("apt-get")
        .env("LC_ALL", "C")
        .args(["--simulate", "--no-install-recommends", "--reinstall", "install", package])
        .read()?;
    let wanted = installed(&plan);
    if wanted.is_empty() {
        bail!("apt would install nothing for {package}");
    }
    Command::new("apt-get")
        .current_dir(&packages)
        .args(["-qq", "-o", "APT::Sandbox::User=", "download"])
        .args(&wanted)
        .read()?;
    for entry in fs::read_dir(&packages)? {
        Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&root).read()?;
    }
    // Last: what is there is whole.
    write_wrapper(&wrapper(project, name), name)
}

/// The packages of lines such as `Inst libestr0 (0.1.11-1 Debian:12/stable [amd64])`.
fn installed(plan: &str) -> Vec<&str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .filter_map(|line| line.split(' ').next())
        .collect()
}

fn write_wrapper(path: &Path, name: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    fs::write(path, WRAPPER.replace("NAME", name)).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_its_packages() {
        let plan = "Reading package lists...\nRemv rsyslog [8.1]\n\
            Inst libnet1 (1.1.6 Debian:12/stable [amd64])\nInst syslog-ng-core [3.3] (3.3 x [amd64])\n\
            Conf libnet1 (1.1.6 Debian:12/stable [amd64])\n";
        assert_eq!(installed(plan), ["libnet1", "syslog-ng-core"]);
    }
}
