//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{THIRD_PARTY, VERSION, archive, binary::Binary, control, epoch::Epoch, name};
use crate::{process::CommandExt, project::Project};

/// Of the package, its command and its pages: Debian has another program called dropwatch, and the
/// two install side by side (`docs/packages.md`).
pub(crate) const NAME: &str = "dropwatch-ebpf";
/// Of the packaging; the part before is the program's.
const REVISION: &str = "1";

/// What dpkg runs before and after; each file says what for.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("maintainer/postinst")),
    ("prerm", include_str!("maintainer/prerm")),
    ("postrm", include_str!("maintainer/postrm")),
];
/// Files that other programs read, of the project and below `/usr/share/NAME`: not in the folder of
/// documents, which minimal systems leave out.
const SHARED: [(&str, &str); 5] = [
    ("packaging/grafana/dropwatch.json", "grafana/dropwatch.json"),
    ("packaging/prometheus/alerts.yml", "prometheus/alerts.yml"),
    ("packaging/prometheus/recording.yml", "prometheus/recording.yml"),
    ("docs/conntrack.schema.json", "conntrack.schema.json"),
    ("docs/report.schema.json", "report.schema.json"),
];
/// Files to copy and change, in the folder of documents.
const EXAMPLES: [&str; 2] =
    ["packaging/prometheus/prometheus.yml", "packaging/systemd/listen.conf"];

/// Builds the package into `folder`.
pub(super) fn build(
    project: &Project,
    binary: &Binary,
    work: &Path,
    folder: &Path,
    epoch: Epoch,
) -> Result<PathBuf> {
    let version = format!("{VERSION}-{REVISION}");
    let architecture = Command::new("dpkg").arg("--print-architecture").read()?;
    let architecture = architecture.trim();
    let file = format!("{NAME}_{version}_{architecture}.deb");
    eprintln!("==> {file}");

    let root = work.join("deb");
    fill(binary, &work.join("pages").join(NAME), &root)?;
    service(project, &root)?;
    let documents = root.join("usr/share/doc").join(NAME);
    texts(project, work, &documents, &version, epoch)?;
    let installed = control::installed(&root)?;
    let sums = control::sums(&installed)?;
    let control = control::control(&version, architecture, c_library().as_deref(), &installed);
    archive::write(&root.join("DEBIAN/md5sums"), sums.as_bytes(), 0o644)?;
    archive::write(&root.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    for (script, text) in SCRIPTS {
        archive::write(&root.join("DEBIAN").join(script), text.as_bytes(), 0o755)?;
    }
    archive::folders(&root)?;

    let output = folder.join(file);
    let mut command = Command::new("dpkg-deb");
    // More than one thread cuts the data elsewhere. All releases read xz, not all read zstd, which
    // Ubuntu would take.
    command.env("DPKG_DEB_THREADS_MAX", "1").arg("-Zxz");
    command.env(super::epoch::VARIABLE, epoch.seconds().to_string());
    command.args(["--root-owner-group", "--build"]).arg(&root).arg(&output);
    command.read()?;
    Ok(output)
}

/// Program, pages and completions, where Debian's policy and the shells look for them.
fn fill(binary: &Binary, pages: &Path, root: &Path) -> Result<()> {
    archive::place(&binary.path, &root.join("usr/bin").join(NAME), 0o755)?;
    for page in archive::files(&pages.join("man1"))? {
        let to = root.join("usr/share/man/man1").join(page.name);
        archive::place(&page.path, &to, 0o644)?;
        archive::gzip(&to)?;
    }
    for (file, to) in [
        (format!("{NAME}.bash"), format!("bash-completion/completions/{NAME}")),
        (format!("_{NAME}"), format!("zsh/vendor-completions/_{NAME}")),
        (format!("{NAME}.fish"), format!("fish/vendor_completions.d/{NAME}.fish")),
    ] {
        let to = root.join("usr/share").join(to);
        archive::place(&pages.join("completions").join(file), &to, 0o644)?;
    }
    Ok(())
}

/// What runs it for good: unit, alerts, dashboard, the schema of its lines.
fn service(project: &Project, root: &Path) -> Result<()> {
    let unit = project.root.join("packaging/systemd/dropwatch.service");
    archive::place(&unit, &root.join("usr/lib/systemd/system/dropwatch.service"), 0o644)?;
    for (from, to) in SHARED {
        renamed(project, from, &root.join("usr/share").join(NAME).join(to))?;
    }
    Ok(())
}

/// Places a text of the project, with the command's name in the package.
fn renamed(project: &Project, from: &str, to: &Path) -> Result<()> {
    let path = project.root.join(from);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    archive::write(to, name::commands(&text, NAME).as_bytes(), 0o644)
}

/// What is to be read: licences, changelogs, why the command has another name here.
fn texts(project: &Project, work: &Path, folder: &Path, version: &str, epoch: Epoch) -> Result<()> {
    let mit = project.root.join("LICENSE-MIT");
    let mit = fs::read_to_string(&mit).with_context(|| format!("cannot read {}", mit.display()))?;
    let copyright = control::copyright(&mit);
    archive::write(&folder.join("copyright"), copyright.as_bytes(), 0o644)?;
    archive::write(&folder.join("README.Debian"), control::README.as_bytes(), 0o644)?;
    let changelog = folder.join("changelog.Debian");
    archive::write(&changelog, control::changelog(version, epoch).as_bytes(), 0o644)?;
    archive::gzip(&changelog)?;
    for (from, to) in
        [(project.root.join("CHANGELOG.md"), "changelog"), (work.join(THIRD_PARTY), THIRD_PARTY)]
    {
        let to = folder.join(to);
        archive::place(&from, &to, 0o644)?;
        archive::gzip(&to)?;
    }
    let mut pages = vec!["README.md".to_owned(), "packaging/README.md".to_owned()];
    for entry in archive::files(&project.root.join("docs"))? {
        if entry.name.ends_with(".md") {
            pages.push(format!("docs/{}", entry.name));
        }
    }
    for page in pages {
        let to = folder.join(&page);
        renamed(project, &page, &to)?;
        archive::gzip(&to)?;
    }
    for example in EXAMPLES {
        let path = project.root.join(example);
        let name = path.file_name().context("an example without a name")?;
        renamed(project, example, &folder.join("examples").join(name))?;
    }
    Ok(())
}

/// The source package of the C library that this machine links with, for `Built-Using`: whoever
/// passes on what has its code in it owes that source, too.
fn c_library() -> Option<String> {
    let format = "--showformat=${source:Package} (= ${source:Version})";
    Command::new("dpkg-query").args(["--show", format, "libc6-dev"]).read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn scripts_are_valid_shell_and_know_the_unit() {
        let project = Project::find().unwrap();
        assert!(project.root.join("packaging/systemd/dropwatch.service").is_file());
        for (script, text) in SCRIPTS {
            Command::new("sh").args(["-n", "-c", text]).check().unwrap();
            assert!(text.contains(" dropwatch.service "), "{script}");
        }
        let recipes = fs::read_to_string(project.root.join("docs/logging.md")).unwrap();
        assert!(recipes.contains("\nLogsDirectory=dropwatch\n"));
        assert!(SCRIPTS[2].1.contains("/var/log/dropwatch\""), "its recordings are purged");
    }
}
