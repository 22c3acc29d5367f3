//! The texts in a Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{debian::NAME, epoch::Epoch};
use crate::process::CommandExt;

/// Debian asks for a name and an address; the project has no address.
const MAINTAINER: &str = "the dropwatch authors <dropwatch@localhost>";

/// `README.Debian`.
pub(super) const README: &str = "\
dropwatch-ebpf for Debian
=========================

The program calls itself dropwatch. Debian has another program of that name,
in the package dropwatch, so the command is called dropwatch-ebpf here, its
manual pages dropwatch-ebpf(1) and dropwatch-ebpf-COMMAND(1), and the texts
below say so. What the program itself advises says dropwatch: take
dropwatch-ebpf.

Whoever wants the short name puts it where the administrator's own commands
are, which come first (completions stay those of dropwatch-ebpf):

  ln -s /usr/bin/dropwatch-ebpf /usr/local/bin/dropwatch

As a service it counts from boot on and answers Prometheus on loopback. It is
neither enabled nor started by the installation:

  systemctl enable --now dropwatch
  curl -s http://127.0.0.1:9435/metrics

What goes with that is in packaging/README.md.gz. Alerts, recording rules and
dashboard are in /usr/share/dropwatch-ebpf, with the schema of its JSON lines;
examples/ has a drop-in for another address, and a scrape configuration.

The binary is static. Whose work is in it is told in THIRD-PARTY.txt.gz.
";

/// `DEBIAN/control`.
pub(super) fn control(
    version: &str,
    architecture: &str,
    c_library: Option<&str>,
    installed: &Installed,
) -> String {
    let built_using =
        c_library.map(|source| format!("Built-Using: {source}\n")).unwrap_or_default();
    format!(
        "\
Package: {NAME}
Version: {version}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {size}
Recommends: iproute2, tcpdump
Suggests: conntrack, tshark
{built_using}\
Section: net
Priority: optional
Homepage: {homepage}
Description: tells where the Linux kernel drops packets, why, and how many
 An eBPF program counts every packet that the kernel drops, by function and
 reason, exactly and at next to no cost; samples say whose packets they were.
 Where the kernel's own counters prove a cause, it is named, with the command
 that changes it. Reports are text or JSON, sampled packets pcapng.
 .
 It runs on Linux 5.8 and later and needs no debug information, no compiler
 and no kernel headers. The binary is static.
 .
 It is another program than the one in Debian's package dropwatch, and can be
 installed beside it: its command is {NAME}.
",
        homepage = env!("CARGO_PKG_HOMEPAGE"),
        size = installed.kibibytes
    )
}

/// What a package installs.
pub(super) struct Installed {
    root: PathBuf,
    /// Below the root, sorted.
    files: Vec<PathBuf>,
    /// As policy counts: each file rounded up, a kibibyte for each folder.
    kibibytes: u64,
}

/// Lists what is below `root`.
pub(super) fn installed(root: &Path) -> Result<Installed> {
    fn walk(folder: &Path, found: &mut Installed) -> Result<()> {
        found.kibibytes += 1;
        let listed = fs::read_dir(folder);
        for entry in listed.with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, found)?;
                continue;
            }
            found.kibibytes += fs::metadata(&path)?.len().div_ceil(1024);
            found.files.push(path.strip_prefix(&found.root)?.to_owned());
        }
        Ok(())
    }
    let mut found = Installed { root: root.to_owned(), files: Vec::new(), kibibytes: 0 };
    walk(root, &mut found)?;
    found.files.sort();
    Ok(found)
}

/// `DEBIAN/md5sums`, with which `dpkg --verify` finds what was changed.
pub(super) fn sums(installed: &Installed) -> Result<String> {
    let mut command = Command::new("md5sum");
    command.current_dir(&installed.root).arg("--").args(&installed.files).read()
}

/// `changelog.Debian`.
pub(super) fn changelog(version: &str, epoch: Epoch) -> String {
    format!(
        "{NAME} ({version}) unstable; urgency=medium\n\n  * Built from the sources, by `cargo \
         xtask dist`; see changelog.gz for\n    what is new in the program.\n\n -- {MAINTAINER}  \
         {}\n",
        epoch.mail_date()
    )
}

/// `copyright`, as <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/> has it.
pub(super) fn copyright(mit: &str) -> String {
    let (holder, licence) = mit.split_once("\n\nPermission").unwrap_or((mit, ""));
    let holder = holder.rsplit("Copyright (c) ").next().unwrap_or_default();
    format!(
        "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: dropwatch

Comment:
 The binary is static. It has the GNU C library in it (the source package that
 Built-Using names), which is under the LGPL, version 2.1 or later: see
 /usr/share/common-licenses/LGPL-2.1. Built from its sources with `cargo xtask
 dist`, it takes whichever version of that library is there. The other parts in
 it are listed in THIRD-PARTY.txt.gz, with their licences.

Files: *
Copyright: {holder}
License: MIT or Apache-2.0

License: MIT
{mit}
License: Apache-2.0
 On Debian systems, the full text is in /usr/share/common-licenses/Apache-2.0.
",
        holder = holder.trim(),
        mit = field(&format!("Permission{licence}")),
    )
}

/// Lines of a field: a space before each, a dot on those that are empty.
fn field(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    };
    text.trim().lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_has_its_fields_and_no_empty_line() {
        let installed = Installed { root: PathBuf::new(), files: Vec::new(), kibibytes: 77 };
        let text = control("1.2-3", "amd64", Some("glibc (= 2)"), &installed);
        for line in ["Package: dropwatch-ebpf", "Version: 1.2-3", "Installed-Size: 77"] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(text.lines().all(|line| !line.trim().is_empty() && line.len() <= 80));
        assert!(text.contains("\nBuilt-Using: glibc (= 2)\nSection: net\n"), "{text}");
        assert!(!control("1", "amd64", None, &installed).contains("Built-Using"));
        let description = text.split_once("\nDescription: ").unwrap().1;
        assert!(description.lines().skip(1).all(|line| line.starts_with(' ')));
        assert!(!text.contains("\nDepends:"), "it is static");
    }

    #[test]
    fn the_changelog_is_what_dpkg_reads() {
        let text = changelog("1.2-3", Epoch::of(0));
        assert!(text.starts_with("dropwatch-ebpf (1.2-3) unstable; urgency=medium\n\n  * "));
        let last = text.lines().last().unwrap();
        assert_eq!(last, format!(" -- {MAINTAINER}  Thu, 01 Jan 1970 00:00:00 +0000"));
        assert!(text.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn the_licence_is_quoted_whole() {
        let mit = include_str!("../../../LICENSE-MIT");
        let text = copyright(mit);
        assert!(text.contains("\nCopyright: 2026 the dropwatch authors\n"), "{text}");
        assert!(text.contains("\nLicense: MIT\n Permission is hereby granted"), "{text}");
        assert!(text.contains("\n .\n"), "{text}");
        for word in mit.split_whitespace().skip(8) {
            assert!(text.contains(word), "{word}");
        }
    }
}
