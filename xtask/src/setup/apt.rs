//! Packages on Debian and Ubuntu.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::plan::{self, Impossible};
use crate::{
    locks::{self, Wait},
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

/// The longest that another apt is waited for. An upgrade of a whole release takes longer; whoever
/// runs one will see what this waits for.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Waits until no apt or dpkg works on this machine, so that what it says of packages holds.
///
/// # Errors
/// When one still does after a quarter of an hour; the message names it.
pub(crate) fn wait() -> Result<()> {
    wait_for(&lock_files(), &mut Wait::new(PATIENCE))
}

/// Does what needs apt's locks, after whoever has them; once more if another one came between.
fn with_locks(work: impl FnMut() -> Result<()>) -> Result<()> {
    with_free(&lock_files(), PATIENCE, work)
}

fn with_free(
    files: &[PathBuf],
    patience: Duration,
    mut work: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut wait = Wait::new(patience);
    loop {
        wait_for(files, &mut wait)?;
        match work() {
            Err(error) if files.iter().any(|file| locks::holder(file).is_some()) => {
                eprintln!("{error:#}");
            }
            result => return result,
        }
    }
}

fn wait_for(files: &[PathBuf], wait: &mut Wait) -> Result<()> {
    for file in files {
        while let Some(holder) = locks::holder(file) {
            wait.for_a_moment(&format!("{} is locked", file.display()), Some(holder))?;
        }
    }
    Ok(())
}

/// What apt and dpkg lock: their state, the package lists, the downloaded packages. apt itself
/// waits for the first at most, and by default for none.
fn lock_files() -> Vec<PathBuf> {
    let names =
        ["S", "Dir::State::status/f", "L", "Dir::State::lists/d", "A", "Dir::Cache::archives/d"];
    let printed = Command::new("apt-config").arg("shell").args(names).read().unwrap_or_default();
    locks_in(&printed)
}

/// Reads lines such as `L='/var/lib/apt/lists/'`; what none tells is where Debian has it.
fn locks_in(printed: &str) -> Vec<PathBuf> {
    let folder = |name: &str, default: &str| {
        let value = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("='"));
        let value = value.and_then(|value| value.strip_suffix('\''));
        PathBuf::from(value.filter(|value| value.starts_with('/')).unwrap_or(default))
    };
    let status = folder("S", "/var/lib/dpkg/status");
    let state = status.parent().unwrap_or(Path::new("/var/lib/dpkg"));
    vec![
        state.join("lock-frontend"),
        state.join("lock"),
        folder("L", "/var/lib/apt/lists/").join("lock"),
        folder("A", "/var/cache/apt/archives/").join("lock"),
    ]
}

/// Installs those packages that can be installed beside what is there, and returns the others with
/// the reason. Removes no package. The package lists are updated only where they do not know a
/// package, or a plan or an installation fails with them.
pub(super) fn install(packages: &[String]) -> Vec<Impossible> {
    if let Err(error) = wait() {
        let all = packages.iter().cloned();
        return all.map(|package| Impossible { package, why: format!("{error:#}") }).collect();
    }
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
    // For whoever comes between the look at the locks and apt's own.
    let timeout = format!("DPkg::Lock::Timeout={}", PATIENCE.as_secs());
    let mut command = root("sh")?;
    command.args(["-c", WITHOUT_SERVICES, "apt-get", "install", "-o", &timeout]);
    command.args(options).args(packages);
    with_locks(|| command.check())
        .with_context(|| format!("apt-get could not install {}", packages.join(" ")))
}

/// Reads the package lists again.
///
/// # Errors
/// When that fails, or needs root and there is no sudo.
fn update() -> Result<()> {
    eprintln!("==> apt-get update");
    let mut command = root("apt-get")?;
    command.args(["update", "-qq"]);
    with_locks(|| command.check())
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
    use std::{fs::File, thread};

    use anyhow::bail;
    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    #[test]
    fn locks_are_where_apt_says_or_where_debian_has_them() {
        let printed = "S='/srv/root/var/lib/dpkg/status'\nL='/srv/lists/'\nA='relative/'\n";
        let expected = [
            "/srv/root/var/lib/dpkg/lock-frontend",
            "/srv/root/var/lib/dpkg/lock",
            "/srv/lists/lock",
            "/var/cache/apt/archives/lock",
        ];
        assert_eq!(locks_in(printed), expected.map(PathBuf::from));
        assert_eq!(locks_in("")[0], Path::new("/var/lib/dpkg/lock-frontend"));
    }

    /// A lock as apt takes it: fcntl(2), of a whole file.
    fn lock(file: &File) -> nix::Result<()> {
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_SETLK(&whole)).map(|_| ())
    }

    #[test]
    fn what_is_locked_is_waited_for_and_tried_again() {
        let path = std::env::temp_dir().join(format!("xtask-apt-{}", std::process::id()));
        let files = [path.clone()];
        let file = File::create(&path).unwrap();
        lock(&file).unwrap();
        let error = with_free(&files, Duration::ZERO, || panic!("it is locked")).unwrap_err();
        let expected = format!("{} is locked: pid {} (", path.display(), std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");

        // Closing any descriptor of the file frees what the process has of it.
        let mut tries = 0;
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(500));
                drop(file);
            });
            with_free(&files, Duration::from_secs(20), || {
                tries += 1;
                match tries {
                    // Somebody else was faster.
                    1 => {
                        let other = File::create(&path)?;
                        lock(&other)?;
                        scope.spawn(move || {
                            thread::sleep(Duration::from_millis(500));
                            drop(other);
                        });
                        bail!("could not get lock")
                    }
                    _ => Ok(()),
                }
            })
            .unwrap();
        });
        assert_eq!(tries, 2);
        // A failure that no lock explains is none to try again.
        assert!(with_free(&files, Duration::from_secs(20), || bail!("no space left")).is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_script_is_valid_shell() {
        Command::new("sh").args(["-n", "-c", WITHOUT_SERVICES]).check().unwrap();
    }
}
