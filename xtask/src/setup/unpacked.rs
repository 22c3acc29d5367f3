//! Programs that are unpacked into the project's own folder, not installed.
//!
//! rsyslog and syslog-ng exclude each other as packages, since each is the host's
//! `system-log-daemon`: apt would remove the one that the host logs with. An installed one is of no
//! use either where AppArmor keeps it from the files of a test, as Ubuntu does with rsyslogd. And
//! logrotate comes with a timer that would begin to rotate the host's logs. Unpacked, nothing is
//! started, enabled or removed, no root is needed, and the host's own stay as they are.
//!
//! It serves for whatever apt cannot install beside what the host has, such as QEMU beside
//! the tools of a newer one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{apt, plan::names};
use crate::{
    process::CommandExt,
    project::{Project, find_command},
};

/// Programs that are always unpacked, and the packages that bring them.
const PROGRAMS: [(&str, &str); 3] =
    [("rsyslogd", "rsyslog"), ("syslog-ng", "syslog-ng-core"), ("logrotate", "logrotate")];

/// Runs a program of the folder next to it, with the libraries and modules that lie there.
const WRAPPER: &str = r#"#!/bin/sh
# Written by `cargo xtask setup`.
root=$(dirname -- "$(readlink -f -- "$0")")/../unpacked/PACKAGE
libraries=
for folder in FOLDERS; do
    libraries=$libraries${libraries:+:}$root/$folder
done
export LD_LIBRARY_PATH="$libraries"
# Modules and data are found beside the program by some (QEMU); others need an option.
for lib in "$root"/usr/lib/*-linux-gnu; do :; done
[ -d "$lib/xtables" ] && export XTABLES_LIBDIR="$lib/xtables"
[ -d "$root/usr/share/wireshark" ] && export WIRESHARK_DATA_DIR="$root/usr/share/wireshark"
case NAME in
rsyslogd)
    set -- -M "$lib/rsyslog" "$@" ;;
syslog-ng)
    for modules in "$root"/usr/lib/syslog-ng/[0-9]*; do :; done
    set -- --module-path="$modules" "$@" ;;
esac
exec "$root/PROGRAM" "$@"
"#;

/// How far below `lib` libraries are looked for: `usr/lib/x86_64-linux-gnu/systemd` and the like.
const DEPTH: usize = 2;

/// A program with its package.
pub(super) type Program = (&'static str, &'static str);

/// Those that are always unpacked and are not there. Where no apt is, whatever the distribution
/// installed will do.
pub(super) fn missing(project: &Project) -> Vec<Program> {
    let apt = find_command("apt-get").is_some();
    let is_there =
        |name: &str| wrapper(project, name).is_file() || (!apt && find_command(name).is_some());
    PROGRAMS.into_iter().filter(|(name, _)| !is_there(name)).collect()
}

/// Downloads and unpacks `programs`, package by package; returns the packages that failed, with the
/// reason.
pub(super) fn install(project: &Project, programs: &[Program]) -> Vec<(&'static str, String)> {
    let mut packages: Vec<&str> = programs.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut failed = Vec::new();
    let mut updated = false;
    for package in packages {
        let mine = programs.iter().filter(|(_, of)| *of == package);
        let names: Vec<&str> = mine.map(|(name, _)| *name).collect();
        let result = match unpack(project, package, &names) {
            Err(error) if !updated => {
                eprintln!("{error:#}; with newer lists:");
                updated = true;
                apt::try_update();
                unpack(project, package, &names)
            }
            result => result,
        };
        failed.extend(result.err().map(|error| (package, format!("{error:#}"))));
    }
    failed
}

/// Where a program lies that was unpacked, and the folder that stands for its `/`: its libraries
/// and modules are below that.
pub(crate) fn find(project: &Project, name: &str) -> Option<(PathBuf, PathBuf)> {
    let roots = fs::read_dir(project.tools().join("unpacked")).ok()?;
    let mut roots: Vec<_> = roots.flatten().map(|entry| entry.path()).collect();
    roots.sort();
    roots.into_iter().find_map(|root| Some((root.join(program(&root, name)?), root)))
}

fn wrapper(project: &Project, name: &str) -> PathBuf {
    project.tools().join("bin").join(name)
}

/// A program's path below the folder that a package was unpacked into.
fn program(root: &Path, name: &str) -> Option<String> {
    // Which of two iptables is `iptables`, or `iptables-save`, is decided when the package is installed.
    let names = [name.to_owned(), name.replacen("iptables", "iptables-nft", 1)];
    let folders = ["usr/sbin", "usr/bin", "sbin", "bin"];
    let paths =
        names.iter().flat_map(|name| folders.iter().map(move |folder| format!("{folder}/{name}")));
    paths.into_iter().find(|path| root.join(path).is_file())
}

fn unpack(project: &Project, package: &str, programs: &[&str]) -> Result<()> {
    let root = project.tools().join("unpacked").join(package);
    eprintln!("==> {package}, unpacked into {}", root.display());
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let packages = root.join("packages");
    fs::create_dir_all(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    apt::wait()?;
    let needed = needed(package, &packages)?;
    Command::new("apt-get")
        .current_dir(&packages)
        .args(["-qq", "-o", "APT::Sandbox::User=", "download"])
        .args(&needed)
        .read()?;
    for entry in fs::read_dir(&packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root).read()?;
        }
    }
    fs::remove_dir_all(&packages)?;
    let folders = library_folders(&root);
    for name in programs {
        let path = program(&root, name)
            .with_context(|| format!("no program `{name}` in the package {package}"))?;
        complete(&root, &root.join(&path), &folders)?;
        // Last: what is there is whole.
        write_script(&wrapper(project, name), &script(package, name, &path, &folders))?;
    }
    Ok(())
}

/// What would be installed: the package, and those that it needs and the host lacks. That apt
/// would also remove some does not matter, since nothing is installed.
fn needed(package: &str, folder: &Path) -> Result<Vec<String>> {
    let plan = |options: &[String]| {
        Command::new("apt-get")
            .env("LC_ALL", "C")
            .args(options)
            .args(["--simulate", "-y", "--allow-remove-essential", "--allow-change-held-packages"])
            .args(["--no-install-recommends", "--reinstall", "install", package])
            .read()
    };
    if let Ok(plan) = plan(&[]) {
        let needed = names(&plan, "Inst ");
        if needed.contains(&package) {
            return Ok(needed.into_iter().map(str::to_owned).collect());
        }
    }
    // The host has what this package cannot be combined with at all: all that it needs, then, as
    // on a machine without any package. The C library stays the host's, as its loader does.
    let status = folder.join("status");
    fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
    let plan = plan(&["-o".to_owned(), format!("Dir::State::status={}", status.display())])?;
    let needed: Vec<_> =
        names(&plan, "Inst ").into_iter().filter(|name| *name != "libc6").collect();
    if needed.is_empty() {
        bail!("apt would install nothing for {package}");
    }
    Ok(needed.into_iter().map(str::to_owned).collect())
}

/// The folders with libraries, below the one that stands for `/`: not all are where the loader
/// looks, since some programs have one of their own.
fn library_folders(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize)> = ["lib", "usr/lib"].map(|top| (top.to_owned(), 0)).into();
    while let Some((folder, depth)) = open.pop() {
        let mut has_libraries = false;
        for entry in fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < DEPTH {
                    open.push((format!("{folder}/{name}"), depth + 1));
                }
            } else {
                has_libraries |= name.starts_with("lib") && name.contains(".so");
            }
        }
        if has_libraries {
            found.push(folder);
        }
    }
    found.sort();
    found
}

/// Fails where a library of the program is missing, or the C library is too old for one.
fn complete(root: &Path, program: &Path, folders: &[String]) -> Result<()> {
    let libraries = std::env::join_paths(folders.iter().map(|folder| root.join(folder)))?;
    let mut command = Command::new("ldd");
    command.arg(program).env("LD_LIBRARY_PATH", libraries);
    // A script or a static program has none, which is no success for ldd.
    let output = command.output().context("cannot run ldd")?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let missing: Vec<_> =
        printed.lines().map(str::trim).filter(|line| line.contains("not found")).collect();
    ensure!(
        missing.is_empty(),
        "{} does not run on this host: {}",
        program.display(),
        missing.join("; ")
    );
    Ok(())
}

fn script(package: &str, name: &str, path: &str, folders: &[String]) -> String {
    WRAPPER
        .replace("PACKAGE", package)
        .replace("PROGRAM", path)
        .replace("FOLDERS", &folders.join(" "))
        .replace("NAME", name)
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    fs::write(path, text).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_wrapper_runs_what_was_unpacked_with_its_libraries() {
        let scratch = Scratch::new("wrapper");
        let root = scratch.0.join("unpacked/tool-package");
        scratch.put(
            "unpacked/tool-package/usr/sbin/tool",
            "#!/bin/sh\necho \"$LD_LIBRARY_PATH $*\"\n",
        );
        scratch.put("unpacked/tool-package/usr/lib/x86_64-linux-gnu/libx.so.1", "");
        scratch.put("unpacked/tool-package/usr/lib/tool/libtool-3.so.0", "");
        scratch.put("unpacked/tool-package/usr/lib/tool/modules/mod.so", "");
        let folders = library_folders(&root);
        assert_eq!(folders, ["usr/lib/tool", "usr/lib/x86_64-linux-gnu"]);

        let path = program(&root, "tool").unwrap();
        assert_eq!(path, "usr/sbin/tool");
        assert_eq!(program(&root, "other"), None);
        let wrapper = scratch.0.join("bin/tool");
        write_script(&wrapper, &script("tool-package", "tool", &path, &folders)).unwrap();
        let printed = Command::new(&wrapper).args(["a", "b c"]).read().unwrap();
        let (libraries, arguments) = printed.split_once(' ').unwrap();
        assert_eq!(arguments, "a b c\n");
        for (folder, expected) in libraries.split(':').zip(&folders) {
            assert!(folder.ends_with(expected) && Path::new(folder).is_dir(), "{libraries}");
        }
    }

    #[test]
    fn the_two_kinds_of_iptables_serve_for_it() {
        let scratch = Scratch::new("kinds");
        scratch.put("usr/sbin/iptables-nft", "");
        scratch.put("usr/sbin/iptables-nft-save", "");
        for (name, path) in [("iptables", "iptables-nft"), ("iptables-save", "iptables-nft-save")] {
            assert_eq!(program(&scratch.0, name), Some(format!("usr/sbin/{path}")));
        }
        assert_eq!(program(&scratch.0, "nft"), None);
    }
}
