//! `cargo xtask setup`: what building the kernel side and the host tests need beyond stable Rust.
//!
//! What is missing is found by looking for the programs themselves, not for packages, so that
//! whatever else provides them serves as well. Nothing is touched when all is there.

pub(crate) mod apt;
mod plan;
pub(crate) mod unpacked;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    locks,
    process::CommandExt,
    project::{Project, cargo, find_command},
    toolchain::{Facts, choose_linker, choose_rustc},
};

/// The nightly that serves where no packaged compiler ships `core` for BPF: rustc 1.97, LLVM 22.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// bpf-linker's version and the LLVM it is built with.
const LINKER: &str = "0.13.0";
const LLVM: &str = "22";

/// Debian's toolchain for the kernel side: `core` for BPF comes with it.
const COMPILER_PACKAGES: [&str; 4] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

/// Programs that the host tests run, and the packages that bring them. Log collectors are in
/// [`unpacked`].
const TEST_PROGRAMS: [(&str, &str); 20] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("nginx", "nginx-light"),
    ("ab", "apache2-utils"),
    ("perf", "linux-perf"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("setcap", "libcap2-bin"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("sysctl", "procps"),
    ("tshark", "tshark"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("curl", "curl"),
];

/// Programs that boot guests and pack what they boot, and the packages that bring them.
const GUEST_PROGRAMS: [(&str, &str); 9] = [
    ("dash", "dash"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("dpkg-deb", "dpkg"),
    ("ip6tables-legacy", "iptables"),
    ("mount", "mount"),
];

/// Programs that pack what is built, and what looks whether it installs.
pub(crate) const PACKING_PROGRAMS: [(&str, &str); 5] = [
    ("dpkg", "dpkg"),
    ("dpkg-deb", "dpkg"),
    ("gzip", "gzip"),
    ("md5sum", "coreutils"),
    ("tar", "tar"),
];
const PACKAGE_TESTERS: [(&str, &str); 1] = [("mmdebstrap", "mmdebstrap")];

/// Programs that judge what stands in `packaging/`, and the packages that bring them.
const PACKAGING_PROGRAMS: [(&str, &str); 4] = [
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("systemd-analyze", "systemd"),
    ("systemd-nspawn", "systemd-container"),
];

/// Install what the kernel side's build and the host tests need (Debian, Ubuntu).
///
/// Packages come from apt, through sudo where needed; bpf-linker, log collectors and what cannot be
/// installed without removing something go into the project's own folder .tools, or where
/// DROPWATCH_TOOLS points. Removes nothing, and touches nothing when all is there.
/// Elsewhere than on Debian and Ubuntu it prints what is missing and how to get it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell what is missing; exit 1 if anything is
    #[arg(long)]
    check: bool,
    /// What `cargo xtask packaging` needs, and nothing else; its services are not started
    #[arg(long)]
    packaging: bool,
}

/// What the setup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Host tests; the kernel object ships, so they need no toolchain.
    Tests,
    /// Those, in guests (`cargo xtask vm`).
    Guests,
    /// All those, and `cargo xtask build-ebpf`.
    All,
    /// `cargo xtask dist --check`, and nothing of the above.
    Dist,
    /// `cargo xtask packaging`, and nothing of the above.
    Packaging,
}

impl For {
    fn programs(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Tests => TEST_PROGRAMS.to_vec(),
            Self::Guests | Self::All => [&TEST_PROGRAMS[..], &GUEST_PROGRAMS].concat(),
            Self::Dist => [&PACKING_PROGRAMS[..], &PACKAGE_TESTERS].concat(),
            Self::Packaging => PACKAGING_PROGRAMS.to_vec(),
        }
    }
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let purpose = if args.packaging { For::Packaging } else { For::All };
    if !args.check {
        install(project, purpose)?;
        eprintln!("all is there");
        return Ok(ExitCode::SUCCESS);
    }
    let missing = Missing::find(project, purpose);
    if missing.is_empty() {
        eprintln!("all is there");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", missing.advice());
    Ok(ExitCode::FAILURE)
}

/// Installs what is missing, or fails with what to do by hand.
pub(crate) fn install(project: &Project, purpose: For) -> Result<()> {
    if Missing::find(project, purpose).is_empty() {
        return Ok(());
    }
    // Somebody else may be filling the same folder, and be done by then.
    let _lock = locks::folder(&project.tools())?;
    let missing = Missing::find(project, purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let Some(distribution) = Distribution::parse(&release) else {
        bail!("this is neither Debian nor Ubuntu.\n{}", missing.advice());
    };
    eprintln!("{}", missing.advice());
    // What fails is kept for the end: it must not keep the rest away.
    let mut failed: Vec<String> = Vec::new();
    let mut unpacked = missing.unpacked.clone();
    let packages = missing.packages(distribution);
    if !packages.is_empty() {
        for plan::Impossible { package, why } in apt::install(&packages) {
            failed.push(format!("{package} cannot be installed: {why}"));
            unpacked.extend(missing.programs_of(&package, distribution));
        }
    }
    for (package, why) in unpacked::install(project, &unpacked) {
        failed.push(format!("{package} cannot be unpacked: {why}"));
    }
    if missing.compiler && distribution == Distribution::Ubuntu {
        eprintln!("==> rustup: {NIGHTLY} with rust-src");
        let arguments = ["toolchain", "install", NIGHTLY, "--profile", "minimal"];
        let components = ["--component", "rust-src,clippy", "--no-self-update"];
        let result = Command::new("rustup").args(arguments).args(components).check();
        failed.extend(result.err().map(|error| format!("{error:#}")));
    }
    if missing.linker {
        failed.extend(install_linker(project).err().map(|error| format!("{error:#}")));
    }
    let left = Missing::find(project, purpose);
    let failed: String = failed.iter().map(|failure| format!("  {failure}\n")).collect();
    if !left.is_empty() {
        bail!("still missing after the installation:\n{failed}{}", left.advice());
    }
    if !failed.is_empty() {
        eprint!("every program is there, though not all are installed:\n{failed}");
    }
    Ok(())
}

fn install_linker(project: &Project) -> Result<()> {
    let tools = project.tools();
    eprintln!("==> bpf-linker {LINKER} into {} (a minute or two)", tools.display());
    let prefix = env::var_os("LLVM_PREFIX")
        .map_or_else(|| PathBuf::from(format!("/usr/lib/llvm-{LLVM}")), PathBuf::from);
    Command::new(cargo())
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(&tools)
        .arg("--target-dir")
        .arg(project.target().join("bpf-linker"))
        .env("LLVM_PREFIX", prefix)
        .check()
        .with_context(|| format!("bpf-linker needs LLVM {LLVM}'s development files"))
}

/// The two that `apt` serves; their names for packages differ a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Debian,
    Ubuntu,
}

impl Distribution {
    /// From os-release(5).
    fn parse(release: &str) -> Option<Self> {
        let value = |key| {
            let line = release.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().trim_matches('"')
        };
        let names = || value("ID=").split(' ').chain(value("ID_LIKE=").split(' '));
        if names().any(|name| name == "ubuntu") {
            Some(Self::Ubuntu)
        } else {
            names().any(|name| name == "debian").then_some(Self::Debian)
        }
    }

    /// What Debian's package is called here.
    fn name(self, package: &'static str) -> &'static str {
        match (self, package) {
            (Self::Ubuntu, "linux-perf") => "linux-tools-generic",
            _ => package,
        }
    }
}

/// What this machine lacks.
#[derive(Debug, Default)]
struct Missing {
    /// A compiler with `core` for BPF.
    compiler: bool,
    /// Clippy for that compiler, where Debian's packages are the compiler.
    clippy: bool,
    linker: bool,
    /// LLVM's development files, which the linker is built with.
    llvm: bool,
    /// Of [`For::programs`].
    programs: Vec<(&'static str, &'static str)>,
    /// Programs that are not installed, but unpacked.
    unpacked: Vec<unpacked::Program>,
    /// In words.
    reasons: Vec<String>,
}

impl Missing {
    fn find(project: &Project, purpose: For) -> Self {
        let programs = purpose.programs().into_iter();
        let mut missing = Self {
            programs: programs.filter(|(program, _)| find_command(program).is_none()).collect(),
            unpacked: match purpose {
                For::Tests | For::All => unpacked::missing(project),
                // Guests run none of them.
                For::Guests | For::Dist | For::Packaging => Vec::new(),
            },
            ..Self::default()
        };
        for (program, _) in missing.programs.iter().chain(&missing.unpacked) {
            missing.reasons.push(format!("no program `{program}`, which the tests need"));
        }
        if purpose == For::All {
            missing.look_for_toolchain(&Facts::gather(project));
        }
        missing
    }

    fn look_for_toolchain(&mut self, facts: &Facts) {
        let llvm = match choose_rustc(&facts.rustcs) {
            Ok((rustc, _)) => {
                let packaged = rustc.path.parent() == Some("/usr/bin".as_ref());
                if packaged && !rustc.path.with_file_name("clippy-driver").exists() {
                    self.clippy = true;
                    self.reasons.push(format!("no clippy beside {}", rustc.path.display()));
                }
                Some(rustc.llvm)
            }
            Err(why) => {
                self.compiler = true;
                self.reasons.push(why);
                None
            }
        };
        // Without a compiler, the one to come decides: both kinds on offer have this LLVM.
        let llvm = llvm.or_else(|| crate::version::Version::find(&format!("{LLVM}.0")));
        if let Some(Err(why)) = llvm.map(|llvm| choose_linker(&facts.linkers, llvm)) {
            self.linker = true;
            self.llvm = env::var_os("LLVM_PREFIX").is_none()
                && !PathBuf::from(format!("/usr/lib/llvm-{LLVM}/include/llvm-c")).exists();
            self.reasons.push(why);
        }
    }

    fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    fn packages(&self, distribution: Distribution) -> Vec<String> {
        let mut packages: Vec<String> = Vec::new();
        packages
            .extend(self.programs.iter().map(|(_, package)| distribution.name(package).to_owned()));
        if self.compiler && distribution == Distribution::Debian {
            packages.extend(COMPILER_PACKAGES.map(str::to_owned));
        } else if self.clippy {
            packages.push("rust-web-clippy".to_owned());
        }
        if self.llvm {
            packages.push(format!("llvm-{LLVM}-dev"));
        }
        packages.sort();
        packages.dedup();
        packages
    }

    /// The programs that a package would have brought, each with its package here.
    fn programs_of(&self, package: &str, distribution: Distribution) -> Vec<unpacked::Program> {
        let named = self.programs.iter().map(|(name, of)| (*name, distribution.name(of)));
        named.filter(|(_, of)| *of == package).collect()
    }

    /// What is missing, and where it comes from.
    fn advice(&self) -> String {
        let mut text = "missing:".to_owned();
        for reason in &self.reasons {
            text += &format!("\n  {reason}");
        }
        let packages = self.packages(Distribution::Debian);
        if !packages.is_empty() {
            text += &format!("\nDebian packages that bring it: {}", packages.join(" "));
        }
        let unpacked: Vec<&str> = self.unpacked.iter().map(|(_, package)| *package).collect();
        if !unpacked.is_empty() {
            text += &format!("\nunpacked, not installed: {}", unpacked.join(" "));
        }
        if self.compiler {
            text += &format!(
                "\nor for the compiler: rustup toolchain install {NIGHTLY} --component rust-src"
            );
        }
        if self.linker {
            text += &format!(
                "\nthe linker: LLVM_PREFIX=… cargo install bpf-linker --version {LINKER} --locked \
                 --no-default-features --features llvm-{LLVM} --root .tools"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_and_their_likes() {
        let parse = Distribution::parse;
        assert_eq!(parse("NAME=x\nID=debian\n"), Some(Distribution::Debian));
        assert_eq!(parse("ID=ubuntu\nID_LIKE=debian\n"), Some(Distribution::Ubuntu));
        assert_eq!(parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Some(Distribution::Ubuntu));
        assert_eq!(parse("ID=fedora\nID_LIKE=\"rhel\"\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn tests_of_packaging_bring_their_own_programs_alone() {
        let missing = Missing { programs: For::Packaging.programs(), ..Missing::default() };
        assert_eq!(
            missing.packages(Distribution::Debian),
            ["prometheus", "systemd", "systemd-container"]
        );
        assert!(!For::All.programs().contains(&("promtool", "prometheus")));
    }

    #[test]
    fn an_empty_machine_needs_everything_once() {
        let mut missing = Missing { programs: TEST_PROGRAMS.into(), ..Missing::default() };
        missing.look_for_toolchain(&Facts::default());
        assert!(missing.compiler && missing.linker);
        let packages = missing.packages(Distribution::Debian);
        for package in ["rustc-web", "cargo-web", "nginx-light", "linux-perf"] {
            assert_eq!(packages.iter().filter(|name| *name == package).count(), 1, "{package}");
        }
        assert_eq!(packages.iter().filter(|name| *name == "iproute2").count(), 1);
        let ubuntu = missing.packages(Distribution::Ubuntu);
        assert!(ubuntu.contains(&"linux-tools-generic".to_owned()));
        assert!(!ubuntu.contains(&"rustc-web".to_owned()));
        let perf = missing.programs_of("linux-tools-generic", Distribution::Ubuntu);
        assert_eq!(perf, [("perf", "linux-tools-generic")]);
        let iproute = missing.programs_of("iproute2", Distribution::Debian);
        assert_eq!(iproute, [("ip", "iproute2"), ("tc", "iproute2")]);
        let advice = missing.advice();
        for part in ["no bpf-linker 0.13 with LLVM 22", "rustup toolchain install", "llvm-22"] {
            assert!(advice.contains(part), "{part} in {advice}");
        }
    }
}
