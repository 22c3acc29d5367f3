//! What a guest boots: a kernel, and an initramfs of its modules, a few real tools and the
//! project's static binaries. No disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{
    cpio::Cpio,
    libraries::{add_program, add_program_of, installed},
};
use crate::{
    process::CommandExt,
    project::{Project, find_command},
    setup::unpacked,
};

const INIT: &str = include_str!("init.sh");

/// Modules that a guest gets, by folder or file below `kernel/`, with all that they need.
const MODULES: [&str; 18] = [
    "net/8021q/",
    "net/netfilter/",
    "net/ipv4/netfilter/",
    "net/ipv4/tcp_diag.",
    "net/ipv4/udp_diag.",
    "net/ipv6/netfilter/",
    "net/bridge/",
    "net/sched/",
    "net/xfrm/xfrm_user.",
    "net/core/drop_monitor.",
    "net/openvswitch/",
    "drivers/net/veth.",
    "drivers/net/tun.",
    "drivers/net/dummy.",
    "drivers/net/ifb.",
    "drivers/net/vxlan",
    "drivers/net/macvlan.",
    "drivers/net/vmxnet3/",
];

/// Programs copied from this machine, with their libraries. busybox serves for the rest.
const PROGRAMS: [&str; 20] = [
    "bash",
    "ip",
    "ss",
    "tc",
    "bridge",
    "bpftool",
    "nft",
    "iptables",
    "iptables-save",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy-save",
    "conntrack",
    "tcpdump",
    "setpriv",
    "unshare",
    "mount",
];

/// A distribution's kernel, unpacked.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// As `uname -r` prints it.
    pub(super) release: String,
    /// Initramfs with its modules.
    pub(super) modules: PathBuf,
}

/// Unpacks a kernel's packages below `folder`, once for each set of files.
pub(super) fn unpack_kernel(folder: &Path, packages: &[PathBuf]) -> Result<Kernel> {
    let root = unpack(folder, packages)?;
    let base = ["lib/modules", "usr/lib/modules"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.is_dir())
        .with_context(|| format!("no modules in {}", root.display()))?;
    let release = fs::read_dir(&base)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .next()
        .with_context(|| format!("{} is empty", base.display()))?;
    let image = [
        root.join(format!("boot/vmlinuz-{release}")),
        base.join(&release).join("vmlinuz"),
        root.join(format!("usr/lib/modules/{release}/vmlinuz")),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .with_context(|| format!("no kernel image in {}", root.display()))?;
    // Another choice of modules is another file.
    let choice = Sha256::digest(MODULES.join(" ").as_bytes());
    let choice: String = choice.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let modules = root.join(format!("modules-{choice}.cpio"));
    if !modules.exists() {
        let bytes = pack_modules(&root, &base.join(&release), &release)?;
        write_whole(&modules, &bytes)?;
    }
    Ok(Kernel { image, release, modules })
}

/// Unpacks packages below `folder`, in one named after them, unless that is there.
pub(super) fn unpack(folder: &Path, packages: &[PathBuf]) -> Result<PathBuf> {
    let first = packages.first().and_then(|path| path.file_stem()).context("no packages")?;
    let root = folder.join(first);
    if root.is_dir() {
        return Ok(root);
    }
    let part = folder.join("part").join(first);
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    for package in packages {
        Command::new("dpkg-deb").arg("-x").arg(package).arg(&part).read()?;
    }
    fs::rename(&part, &root)?;
    Ok(root)
}

/// The chosen modules and those they depend on, as plain files with depmod's indexes.
fn pack_modules(root: &Path, source: &Path, release: &str) -> Result<Vec<u8>> {
    let depmod = find_command("depmod").context("no program `depmod`: cargo xtask setup")?;
    // depmod looks below lib/modules alone.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    Command::new(&depmod).arg("-b").arg(root).arg(release).read()?;
    let text = fs::read_to_string(source.join("modules.dep")).context("depmod made no index")?;
    let needed = closure(&text);

    let staged = root.join("staged");
    let folder = staged.join("lib/modules").join(release);
    for name in &needed {
        let to = folder.join(plain_name(name));
        if let Some(above) = to.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&to, plain_module(&source.join(name))?)?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if source.join(name).exists() {
            fs::copy(source.join(name), folder.join(name))?;
        }
    }
    Command::new(&depmod).arg("-b").arg(&staged).arg(release).read()?;
    let mut cpio = Cpio::default();
    add_tree(&mut cpio, &staged, &staged)?;
    fs::remove_dir_all(&staged)?;
    Ok(cpio.finish())
}

/// Of `modules.dep` (a module, a colon, the modules it needs), what [`MODULES`] chooses.
fn closure(text: &str) -> BTreeSet<String> {
    let needs: BTreeMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, needs)| (name, needs.split_whitespace().collect()))
        .collect();
    let chosen = |name: &&str| {
        name.strip_prefix("kernel/")
            .is_some_and(|name| MODULES.iter().any(|module| name.starts_with(module)))
    };
    let mut needed = BTreeSet::new();
    let mut open: Vec<&str> = needs.keys().copied().filter(chosen).collect();
    while let Some(name) = open.pop() {
        if needed.insert(name.to_owned()) {
            open.extend(needs.get(name).into_iter().flatten());
        }
    }
    needed
}

fn plain_name(name: &str) -> &str {
    name.trim_end_matches(".xz").trim_end_matches(".zst")
}

/// A module's bytes; not every kernel here can unpack a compressed one.
fn plain_module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut command = Command::new(find_command(program).unwrap_or_else(|| program.into()));
    command.arg("-dc").arg(path);
    let output = command.output().with_context(|| format!("cannot run `{}`", command.quoted()))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", command.quoted(), output.status);
    }
    Ok(output.stdout)
}

fn add_tree(cpio: &mut Cpio, root: &Path, folder: &Path) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            add_tree(cpio, root, &path)?;
        } else {
            cpio.copy(&path.strip_prefix(root)?.to_string_lossy(), &path)?;
        }
    }
    Ok(())
}

/// What goes into every guest.
pub(super) struct Contents<'a> {
    pub(super) dropwatch: &'a Path,
    /// The host tests; none for a guest that only runs a command.
    pub(super) tests: Option<&'a Path>,
    /// Debian's dropwatch, unpacked.
    pub(super) peer: Option<&'a Path>,
}

/// Writes the initramfs that all guests share.
pub(super) fn pack_tools(project: &Project, contents: &Contents<'_>, to: &Path) -> Result<()> {
    let mut cpio = Cpio::default();
    for folder in ["proc", "sys", "dev", "run", "tmp", "root", "etc", "project"] {
        cpio.folder(folder);
    }
    cpio.file("init", 0o755, INIT.as_bytes());
    let users = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
    cpio.file("etc/passwd", 0o644, users.as_bytes());
    cpio.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    // Without it `ip xfrm` knows protocols by their numbers alone.
    cpio.file("etc/protocols", 0o644, b"icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n");
    cpio.copy("bin/dropwatch", contents.dropwatch)?;
    if let Some(tests) = contents.tests {
        cpio.copy("project/host-tests", tests)?;
    }
    if let Some(peer) = contents.peer {
        add_program_of(
            &mut cpio,
            &peer.join("usr/bin/dropwatch"),
            "project/debian-dropwatch",
            peer,
        )?;
    }
    let busybox = Program::find(project, "busybox")?;
    cpio.copy("bin/busybox", &busybox.path)?;
    // busybox's own shell runs its own `ip` and `mount` whatever PATH says.
    let shell = Program::find(project, "dash")?;
    shell.add(&mut cpio)?;
    cpio.link("bin/sh", &installed(&shell.path, shell.root.as_deref()));
    // Where the kernel looks for it, to load what iptables and nft ask for.
    cpio.link("sbin/modprobe", "/bin/busybox");
    for program in PROGRAMS {
        let program = Program::find(project, program)?;
        program.add(&mut cpio)?;
        if program.path.ends_with("iptables-legacy") {
            add_iptables_extensions(&mut cpio, program.root.as_deref())?;
        }
    }
    write_whole(to, &cpio.finish())
}

/// A program of this machine that guests get, too.
struct Program {
    name: &'static str,
    path: PathBuf,
    /// What stands for `/` where it is unpacked, not installed.
    root: Option<PathBuf>,
}

impl Program {
    fn find(project: &Project, name: &'static str) -> Result<Self> {
        let path = find_command(name).filter(|path| !path.starts_with(project.tools()));
        if let Some(path) = path {
            return Ok(Self { name, path, root: None });
        }
        let (path, root) = unpacked::find(project, name)
            .with_context(|| format!("no program `{name}`: cargo xtask setup"))?;
        Ok(Self { name, path, root: Some(root) })
    }

    /// With its own name as a link where it has another one: what works for many names goes by the
    /// one that it is called by, and dropwatch tells the two kinds of iptables by where links lead.
    fn add(&self, cpio: &mut Cpio) -> Result<()> {
        let follow = |path: &Path| {
            fs::canonicalize(path).with_context(|| format!("cannot follow {}", path.display()))
        };
        let real = follow(&self.path)?;
        let root = self.root.as_deref().map(follow).transpose()?;
        add_program(cpio, &real, root.as_deref())?;
        let target = installed(&real, root.as_deref());
        let link = installed(&self.path.with_file_name(self.name), self.root.as_deref());
        if link != target {
            cpio.link(&link, &target);
        }
        Ok(())
    }
}

/// iptables loads them by name.
fn add_iptables_extensions(cpio: &mut Cpio, root: Option<&Path>) -> Result<()> {
    let folder = root.unwrap_or(Path::new("/")).join("usr/lib/x86_64-linux-gnu/xtables");
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("no iptables extensions in {}", folder.display()))?;
    for entry in entries.flatten() {
        cpio.copy(&installed(&entry.path(), root), &entry.path())?;
    }
    Ok(())
}

/// An initramfs of a single script, which init runs as the guest's task.
pub(super) fn pack_task(script: &str) -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.file("task", 0o755, script.as_bytes());
    cpio.finish()
}

/// Nobody sees half a file.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need_and_no_more() {
        let dep = "kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz\n\
            kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz\nkernel/net/llc/llc.ko.xz:\n\
            kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\nkernel/lib/crc16.ko.xz:\n";
        let needed = closure(dep);
        assert_eq!(needed.len(), 3, "{needed:?}");
        assert!(needed.contains("kernel/net/llc/llc.ko.xz"));
        assert_eq!(plain_name("kernel/net/llc/llc.ko.xz"), "kernel/net/llc/llc.ko");
    }
}
