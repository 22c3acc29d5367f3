//! Packages on Debian and Ubuntu.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    process::CommandExt,
    project::{find_command, is_root},
};

/// Runs `apt-get` with the arguments given. Nothing that it installs may start a service: while it
/// runs, and no longer, a policy-rc.d refuses (deb-systemd-invoke and invoke-rc.d ask it). A policy
/// that is already there stays. Killed in the middle, the script leaves one that removes itself
/// when it is next asked.
const WITHOUT_SERVICES: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if (set -C; printf '#!/bin/sh\n[ -d /proc/%s ] && exit 101\nrm -f "$0"\nexit 0\n' "$$" >"$policy") 2>/dev/null
then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
new=
for service in nginx prometheus; do
    command -v "$service" >/dev/null || new="$new $service"
done
apt-get "$@"
# A server that was not there before must not start with the next boot either.
for service in $new; do
    if command -v "$service" >/dev/null && command -v systemctl >/dev/null; then
        systemctl --quiet disable "$service.service" || true
    fi
done
"#;

/// Installs packages, after an update of the package lists only where they do not know them or
/// have gone stale. Removes no package.
pub(super) fn install(packages: &[String]) -> Result<()> {
    let mut updated = false;
    if !unknown(packages)?.is_empty() {
        update()?;
        updated = true;
        let unknown = unknown(packages)?;
        if !unknown.is_empty() {
            bail!(
                "apt knows no package {}; the package source that has it is not configured here",
                unknown.join(", ")
            );
        }
    }
    eprintln!("==> apt-get install {}", packages.join(" "));
    match install_known(packages) {
        Err(_) if !updated => {
            update()?;
            install_known(packages)
        }
        result => result,
    }
}

fn install_known(packages: &[String]) -> Result<()> {
    let options = ["-y", "-qq", "--no-install-recommends", "--no-remove"];
    root("sh")?
        .args(["-c", WITHOUT_SERVICES, "apt-get", "install"])
        .args(options)
        .args(packages)
        .check()
        .context("apt-get could not install what is missing")
}

/// Reads the package lists again.
///
/// # Errors
/// When that fails, or needs root and there is no sudo.
pub(super) fn update() -> Result<()> {
    eprintln!("==> apt-get update");
    root("apt-get")?.args(["update", "-qq"]).check()
}

/// A command that runs as root, through sudo where needed.
fn root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find_command("sudo")
        .context("installing packages needs root, and there is no sudo; run this as root")?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// The packages that apt's lists have no version of.
fn unknown(packages: &[String]) -> Result<Vec<&str>> {
    let policy =
        Command::new("apt-cache").env("LC_ALL", "C").arg("policy").args(packages).read()?;
    Ok(packages.iter().map(String::as_str).filter(|name| !has_candidate(&policy, name)).collect())
}

/// Reads `apt-cache policy`: a line `NAME:`, below it `  Candidate: VERSION` or `(none)`.
fn has_candidate(policy: &str, package: &str) -> bool {
    policy
        .lines()
        .skip_while(|line| line.strip_suffix(':') != Some(package))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .is_some_and(|version| version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
nginx-light:
  Installed: (none)
  Candidate: 1.22.1-9
  Version table:
     1.22.1-9 500
gone:
  Installed: 1.0
  Candidate: (none)
ab:
  Installed: (none)
  Candidate: 2
";

    #[test]
    fn candidates() {
        assert!(has_candidate(POLICY, "nginx-light"));
        assert!(has_candidate(POLICY, "ab"));
        assert!(!has_candidate(POLICY, "gone"));
        assert!(!has_candidate(POLICY, "nginx"));
        assert!(!has_candidate("", "ab"));
    }

    #[test]
    fn the_script_is_valid_shell() {
        Command::new("sh").args(["-n", "-c", WITHOUT_SERVICES]).check().unwrap();
    }
}
