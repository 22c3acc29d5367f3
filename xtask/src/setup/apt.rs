//! Packages on Debian and Ubuntu.

use std::process::Command;

use anyhow::{Context, Result};

use super::plan::{self, Impossible};
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

/// Installs those packages that can be installed beside what is there, and returns the others with
/// the reason. Removes no package. The package lists are updated only where they do not know a
/// package, or a plan or an installation fails with them.
pub(super) fn install(packages: &[String]) -> Vec<Impossible> {
    let mut plan = plan::split(packages, &mut plan::simulate);
    let mut updated = false;
    if !plan.impossible.is_empty() {
        try_update();
        updated = true;
        plan = plan::split(packages, &mut plan::simulate);
    }
    if plan.possible.is_empty() {
        return plan.impossible;
    }
    eprintln!("==> apt-get install {}", plan.possible.join(" "));
    if let Err(error) = root("apt-get") {
        let why = format!("{error:#}");
        let all = plan.possible.into_iter().map(|package| Impossible { package, why: why.clone() });
        return plan.impossible.into_iter().chain(all).collect();
    }
    if install_known(&plan.possible).is_ok() {
        return plan.impossible;
    }
    if !updated {
        try_update();
        if install_known(&plan.possible).is_ok() {
            return plan.impossible;
        }
    }
    // One of them is at fault, and must not keep the others away.
    for package in &plan.possible {
        if let Err(error) = install_known(std::slice::from_ref(package)) {
            plan.impossible
                .push(Impossible { package: package.clone(), why: format!("{error:#}") });
        }
    }
    plan.impossible
}

fn install_known(packages: &[String]) -> Result<()> {
    let options = ["-y", "-qq", "--no-install-recommends", "--no-remove"];
    root("sh")?
        .args(["-c", WITHOUT_SERVICES, "apt-get", "install"])
        .args(options)
        .args(packages)
        .check()
        .with_context(|| format!("apt-get could not install {}", packages.join(" ")))
}

/// Reads the package lists again.
///
/// # Errors
/// When that fails, or needs root and there is no sudo.
fn update() -> Result<()> {
    eprintln!("==> apt-get update");
    root("apt-get")?.args(["update", "-qq"]).check()
}

/// Old lists may do: one source out of reach must not keep the others' packages away.
pub(super) fn try_update() {
    if let Err(error) = update() {
        eprintln!("{error:#}; going on with the lists that are there");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_valid_shell() {
        Command::new("sh").args(["-n", "-c", WITHOUT_SERVICES]).check().unwrap();
    }
}
