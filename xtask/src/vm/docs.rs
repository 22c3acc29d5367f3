//! `docs/kernels.md`, written from a matrix run and from nothing else.

use std::{fmt::Write as _, fs};

use anyhow::{Context, Result, ensure};

use super::results::{Group, KernelRun, Matrix};
use crate::project::Project;

const PAGE: &str = "docs/kernels.md";

/// What the groups of tests prove, in the order of the page.
const GROUPS: [(&str, &str); 40] = [
    ("counting", "floods, nested floods and closed ports, to the packet"),
    ("nat", "a full conntrack table, against conntrack's own counter"),
    (
        "details",
        "whose packets, on which path: rules, closed ports, VLANs, bridges, routes, neighbours",
    ),
    ("findings", "every finding on its cause, gone after its own command, silent otherwise"),
    ("answers", "what the host answers about a sampled packet confirms or refutes a finding"),
    (
        "elsewhere",
        "what connection tracking, packet queues and IPsec do, against their own counters",
    ),
    ("rules", "which rule of the packet filter drops, against its own counter"),
    ("ends", "over many short reports findings explain what the counters say, to the packet"),
    ("gate", "a finding fails a run, also of a loss without a drop"),
    ("reach", "commands of findings run in their namespace, or are not printed"),
    ("harmless", "sockets closed with unread data are harmless"),
    ("unsaid", "drops whose reason says little lead to what is known of their function"),
    ("transmitted", "what a card has sent is harmless, and fails no run"),
    ("selecting", "filters and groups, exact in a flood"),
    ("properties", "filters by length, mark, direction and TCP flags, against rules' own counters"),
    ("expression", "filter expressions, with and without link headers, on packets of all kinds"),
    ("asked", "names in filters: refused where they are nothing's, counted once they are there"),
    ("conntrack", "`dropwatch conntrack` against `conntrack -L` and `conntrack -S`"),
    (
        "namespaces",
        "every drop in the namespace that it was in, also where several drop at one place",
    ),
    ("shares", "shares of a flood's samples, as far from the true ones as is said"),
    ("turns", "namespaces whose inode number is given again, each with its own drops and name"),
    ("names", "names of namespaces, interfaces and processes"),
    ("candidates", "every way to attach counts the same"),
    ("reasons", "drop reasons named right, or null where there are none"),
    ("modules", "names inside modules, which come and go"),
    ("peer", "same places and counts as Debian's `dropwatch -l kas`"),
    ("environment", "kptr_restrict 0, 1, 2; BTF hidden; tracefs not mounted"),
    ("notices", "what the kernel cannot show is said first"),
    ("clock", "the wall clock set in mid-run"),
    ("privileges", "as an ordinary user with a few capabilities"),
    ("several", "many runs at once, killed runs"),
    ("lifecycle", "pace, signals, stalled readers"),
    ("output", "text, classic, JSON, replay"),
    (
        "every",
        "every drop sampled and shown by itself, in order; what a flood leaves out is counted",
    ),
    ("capture", "pcapng while it happens: killed, full disk, reader gone"),
    ("run", "a command under watch, its user, signals and status"),
    ("metrics", "metrics are the sums of the reports"),
    ("service", "a service manager learns when drops are counted"),
    ("files", "files under sudo are their caller's"),
    ("input", "wrong command lines and recordings"),
];

/// Writes the page.
///
/// # Errors
/// When the run failed: the page tells what works.
pub(super) fn write(project: &Project, matrix: &Matrix) -> Result<()> {
    ensure!(matrix.is_success(), "{PAGE} stays as it is: the run failed");
    fs::write(project.root.join(PAGE), page(matrix)).with_context(|| format!("cannot write {PAGE}"))
}

/// Whether the page says what this run shows.
pub(super) fn is_current(project: &Project, matrix: &Matrix) -> bool {
    fs::read_to_string(project.root.join(PAGE)).is_ok_and(|text| text == page(matrix))
}

fn page(matrix: &Matrix) -> String {
    let mut page = String::from(HEAD);
    row(&mut page, "", matrix, |kernel| kernel.name.clone());
    page.push_str(&"|---".repeat(matrix.kernels.len() + 1));
    page.push_str("|\n");
    row(&mut page, "kernel", matrix, |kernel| kernel.release.clone());
    row(&mut page, "`kfree_skb` has", matrix, |kernel| {
        fact(kernel, "skb:kfree_skb").trim_start_matches("arguments: ").to_owned()
    });
    row(&mut page, "attaches", matrix, |kernel| attached(&kernel.doctor));
    row(&mut page, "drop reasons", matrix, |kernel| {
        fact(kernel, "drop reasons").split(';').next().unwrap_or_default().to_owned()
    });
    row(&mut page, "TCP's own drops", matrix, |kernel| {
        let line = kernel.doctor.lines().find(|line| line.contains("TCP's own drops"));
        match line {
            None => "visible".to_owned(),
            Some(line) if line.contains("unknown") => "unknown".to_owned(),
            Some(_) => "invisible".to_owned(),
        }
    });
    let mut groups = matrix.groups();
    groups.sort_by_key(|group| GROUPS.iter().position(|(known, _)| known == group));
    for group in groups {
        let about = GROUPS.iter().find(|(known, _)| *known == group);
        let about = about.map_or(group, |(_, about)| about);
        row(&mut page, about, matrix, |kernel| match kernel.groups().get(group) {
            Some(Group { failed: 1.., .. }) => "fails".to_owned(),
            Some(Group { proved, all, .. }) if proved == all => "tested".to_owned(),
            Some(Group { proved, all, .. }) => format!("{proved} of {all}"),
            None => "–".to_owned(),
        });
    }
    page.push_str(TAIL);
    page
}

fn row(page: &mut String, title: &str, matrix: &Matrix, cell: impl Fn(&KernelRun) -> String) {
    // Writing to a String cannot fail.
    let _infallible = write!(page, "| {title} |");
    for kernel in &matrix.kernels {
        let _infallible = write!(page, " {} |", cell(kernel).replace('|', "/"));
    }
    page.push('\n');
}

/// What doctor says of one check: mark, name, detail.
fn fact<'a>(kernel: &'a KernelRun, what: &str) -> &'a str {
    let detail = |line: &'a str| {
        let (_mark, check) = line.trim_start().split_once("  ")?;
        Some(check.trim_start().strip_prefix(what)?.trim())
    };
    kernel.doctor.lines().find_map(detail).unwrap_or("unknown")
}

/// The candidate that doctor says is attached.
fn attached(doctor: &str) -> String {
    let line = doctor.lines().find(|line| line.trim_end().ends_with(" attached"));
    let candidate = line.and_then(|line| line.split_once(". "));
    candidate.map_or("no", |(_, way)| way.trim_end_matches(" attached").trim()).to_owned()
}

const HEAD: &str = "\
# What works on which kernel

Written by `cargo xtask vm --write-docs` from a run of the matrix, which boots each of these
distribution kernels in QEMU and runs the host tests there. Do not edit.

";

const TAIL: &str = "
\"Tested\" means that every test of that line passes. A kernel is not asked for its version: what
the tracepoint offers, how reasons are numbered and what may be read is found by trying. So a
kernel between two columns, or one with features taken back, gets what it really has;
`dropwatch doctor` says what that is.

\"28 of 34\" means that the other six have nothing to prove on that kernel: it lacks what they are
about, such as the drop reason that alone shows a cause.

A dash means that the tests are left to other kernels: those about the program itself, which no
kernel changes, run on the oldest one, and those that take long on the oldest and the newest.

Floods are smaller in an emulated guest than on a machine of its own, and waiting is longer. Counts
are compared to the packet all the same.

## When a package leaves the archive

Packages are pinned by version and hash in `xtask/src/vm/kernels.toml`. When a pinned one is gone,
the newest of its series is tested instead, and the run says so. When the whole series is gone, the
run fails until somebody excludes that kernel by name (`cargo xtask vm --exclude 5.10`), points
`DROPWATCH_DEBIAN_MIRROR` to an archive that still has it, or takes its entry out of the file,
which is then a decision that a commit shows. Downloaded packages stay in `.tools/packages` and are
used as long as their hash is right, archive or not.
";

#[cfg(test)]
mod tests {
    use super::{
        super::{NOT_IN_GUESTS, results::Test},
        *,
    };

    const DOCTOR: &str = "\
dropwatch 0.1.0 on Linux 5.10.0, guest

Ways to attach to the tracepoint, in order
  -     1. counts, reasons, samples this kernel's tracepoint carries none
  ok    2. counts, samples       attached

Kernel
  ok    skb:kfree_skb            arguments: skb, location
  lack  drop reasons             none on this kernel

  lack  TCP's own drops             not reported by this kernel
";

    #[test]
    fn every_group_that_guests_run_has_a_line() {
        let host = include_str!("../../../dropwatch/tests/host/main.rs");
        let guest = include_str!("../../../dropwatch/tests/host/guest/mod.rs");
        let modules = host.lines().chain(guest.lines());
        let modules = modules.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let mut seen = 0;
        for module in modules.filter(|module| !["captured", "guest", "harness"].contains(module)) {
            let is_left_out = NOT_IN_GUESTS.iter().any(|(name, _)| *name == format!("{module}::"));
            let is_known = GROUPS.iter().any(|(known, _)| *known == module);
            assert_ne!(is_left_out, is_known, "{module}");
            seen += 1;
        }
        assert!(seen > 25, "{seen}");
    }

    #[test]
    fn the_page_says_what_doctor_said_and_what_passed() {
        let test = |name: &str, unproved: Option<&str>| Test {
            name: name.into(),
            passed: true,
            unproved: unproved.map(str::to_owned),
            ..Test::default()
        };
        let kernel = KernelRun {
            name: "5.10".into(),
            release: "5.10.0-30".into(),
            doctor: DOCTOR.into(),
            tests: vec![
                test("counting::flood", None),
                test("findings::xdp", Some("no reason XDP")),
                test("findings::mtu", None),
            ],
            ..KernelRun::default()
        };
        let page = page(&Matrix { kernels: vec![kernel] });
        for line in [
            "|  | 5.10 |\n|---|---|\n| kernel | 5.10.0-30 |\n| `kfree_skb` has | skb, location |",
            "| attaches | counts, samples |\n| drop reasons | none on this kernel |",
            "| TCP's own drops | invisible |\n| floods, nested floods and closed ports, to the \
             packet | tested |",
            "silent otherwise | 1 of 2 |",
        ] {
            assert!(page.contains(line), "{line}\nis not in\n{page}");
        }
    }
}
