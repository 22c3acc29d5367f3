//! `cargo xtask vm`: the host tests on real distribution kernels, each booted in QEMU.
//!
//! | module | |
//! |---|---|
//! | [`pins`] | which kernels, by version and hash |
//! | [`archive`] | getting their packages |
//! | [`build`] | the project's binaries, static |
//! | [`image`], [`cpio`], [`libraries`] | what a guest boots |
//! | [`qemu`] | booting it, and noticing when it dies |
//! | [`results`], [`docs`] | what came of it |

mod archive;
mod build;
mod cpio;
mod docs;
mod image;
mod libraries;
mod pins;
mod qemu;
mod results;

use std::{
    fs::File,
    io::{Write, stdout},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::Flock;

use crate::{
    ci::Sum,
    locks::{self, Machine},
    process,
    project::Project,
    setup,
};
use archive::Archive;
use pins::{Kernel, Pins};
use qemu::{Accelerator, End, Guest};
use results::{KernelRun, Matrix, Reader};

/// All that a guest may take, and the longest that it may be silent.
const LIMIT: Duration = Duration::from_secs(1800);
const SILENCE: Duration = Duration::from_secs(120);
/// Guests that run at once: they wait nearly as much as they work.
const JOBS: usize = 4;
/// A command of the caller's may take its time.
const COMMAND_LIMIT: Duration = Duration::from_secs(3600);

/// Tests that a guest leaves out, and why.
const NOT_IN_GUESTS: [(&str, &str); 6] = [
    ("collectors::", "guests have no log collectors"),
    ("nat::the_story_of_nginx_and_ab", "guests have neither nginx nor ab"),
    ("noise::", "guests have no other tenants"),
    ("pcapng::", "guests have no tshark"),
    ("recipes::", "guests do not have the README's programs"),
    ("top::", "guests have no tmux"),
];
/// Groups of tests about the program itself, which no kernel changes. They wait a lot, so one
/// guest runs them, that of the oldest kernel, which is the fastest.
const ONCE: [&str; 8] = [
    "capture::",
    "files::",
    "input::",
    "lifecycle::",
    "metrics::",
    "output::",
    "run::",
    "service::",
];

/// Groups that take long, and that the oldest and the newest kernel prove for those between.
const AT_THE_ENDS: [&str; 5] = ["answers::", "elsewhere::", "findings::", "rules::", "unsaid::"];

/// Boot other kernels in QEMU and run the host tests there, or any command.
///
/// Without arguments: all tests on every kernel of the matrix, a table, and `N passed, M failed`
/// as the last line. Needs no root and no disk; kernels are downloaded once.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only this kernel (repeatable); see --list
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Not this kernel (repeatable)
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,
    /// Show the kernels there are
    #[arg(long)]
    list: bool,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    test: Option<String>,
    /// Guests to run at once
    #[arg(long, value_name = "N", default_value_t = JOBS)]
    jobs: usize,
    /// More for the kernel's command line
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Write docs/kernels.md from what this run shows
    #[arg(long)]
    write_docs: bool,
    /// Leave out the tests that take longest: answers, elsewhere, findings, rules, unsaid
    #[arg(long, conflicts_with = "test")]
    brief: bool,
    /// Command to run in the guest instead of the tests; its status is returned
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let pins = Pins::read()?;
    if args.list {
        for kernel in &pins.kernels {
            println!("{:<6} {}", kernel.name, kernel.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let kernels = pins.choose(&args.kernel, &args.exclude)?;
    setup::install(project, setup::For::Guests)?;
    let bench = Bench::new(project, &pins, args)?;
    if args.command.is_empty() {
        let _machine = Machine::take()?;
        let matrix = bench.matrix(&kernels)?;
        return conclude(project, args, &matrix);
    }
    bench.command(&kernels, &args.command)
}

/// Everything that the guests of one run share.
struct Bench<'a> {
    args: &'a Args,
    archive: Archive,
    /// Unpacked packages.
    unpacked: PathBuf,
    /// Where guests keep their files.
    folder: PathBuf,
    /// The shared initramfs.
    tools: PathBuf,
    /// On the guests' files, until this run ends.
    _lock: Flock<File>,
}

/// A kernel that is ready to boot.
struct Ready {
    kernel: image::Kernel,
    instead: Option<String>,
}

impl<'a> Bench<'a> {
    fn new(project: &Project, pins: &Pins, args: &'a Args) -> Result<Self> {
        let archive = Archive::new(project);
        let (unpacked, folder) = (project.tools().join("kernels"), project.target().join("vm"));
        let lock = locks::folder(&folder)?;
        let dropwatch = build::dropwatch(project)?;
        // A command may need the tests as well, but must not wait for their build.
        let (tests, peer) = if args.command.is_empty() {
            let peer = archive.obtain(&pins.peer).context("Debian's dropwatch")?;
            (Some(build::host_tests(project)?), Some(image::unpack(&unpacked, &peer.files)?))
        } else {
            (None, None)
        };
        let tools = folder.join("tools.cpio");
        let contents = image::Contents {
            dropwatch: &dropwatch,
            tests: tests.as_deref(),
            peer: peer.as_deref(),
        };
        image::pack_tools(project, &contents, &tools)?;
        Ok(Self { args, archive, unpacked, folder, tools, _lock: lock })
    }

    fn ready(&self, kernel: &Kernel) -> Result<Ready> {
        let obtained = self
            .archive
            .obtain(&kernel.set())
            .with_context(|| format!("kernel {0} (--exclude {0} does without it)", kernel.name))?;
        let unpacked = image::unpack_kernel(&self.unpacked, &obtained.files)?;
        Ok(Ready { kernel: unpacked, instead: obtained.instead })
    }

    fn guest<'g>(&'g self, name: &'g str, ready: &'g Ready, task: &'g str) -> Guest<'g> {
        Guest {
            name,
            kernel: &ready.kernel,
            accelerator: Accelerator::Tcg,
            tools: &self.tools,
            task,
            append: &self.args.append,
            folder: &self.folder,
            limit: LIMIT,
            silence: SILENCE,
        }
    }

    /// Runs the caller's command on one kernel after another; the first failure is returned.
    fn command(&self, kernels: &[Kernel], words: &[String]) -> Result<ExitCode> {
        let quoted: Vec<_> = words.iter().map(|word| process::quote(word.as_ref())).collect();
        let task = format!("#!/bin/sh\n{}\n", quoted.join(" "));
        let mut first = 0;
        for kernel in kernels {
            let ready = self.ready(kernel)?;
            let mut guest = self.guest(&kernel.name, &ready, &task);
            guest.accelerator = Accelerator::probe(&guest, &self.folder)?;
            (guest.limit, guest.silence) = (COMMAND_LIMIT, COMMAND_LIMIT);
            eprintln!("==> {}, {}", ready.kernel.release, guest.accelerator.name());
            let end = guest.run(&mut |bytes| {
                // A reader that went away needs no more.
                let _ = stdout().write_all(bytes).and_then(|()| stdout().flush());
            })?;
            match end {
                End::Status(status) if first == 0 => first = status,
                End::Status(_) => {}
                End::Died { cause, log } => bail!("{log}\nguest {}: {cause}", kernel.name),
            }
        }
        Ok(ExitCode::from(u8::try_from(first).unwrap_or(1)))
    }

    /// The tests on every kernel, as many guests at once as asked for.
    fn matrix(&self, kernels: &[Kernel]) -> Result<Matrix> {
        let ready: Vec<_> = kernels.iter().map(|kernel| self.ready(kernel)).collect();
        let accelerator = match ready.iter().flatten().next() {
            Some(ready) => Accelerator::probe(&self.guest("probe", ready, ""), &self.folder)?,
            None => Accelerator::Tcg,
        };
        let next = AtomicUsize::new(0);
        let runs = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..self.args.jobs.clamp(1, kernels.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(kernel), Some(ready)) = (kernels.get(index), ready.get(index))
                        else {
                            return;
                        };
                        let skip = match self.args.test {
                            Some(_) => Vec::new(),
                            None => left_out(index, kernels.len(), self.args.brief),
                        };
                        let tests = test_command(self.args.test.as_deref(), &skip);
                        let mut run = self.test(kernel, ready.as_ref(), accelerator, &tests);
                        // An emulated machine stalls now and then. What fails again, alone in a
                        // fresh guest, has failed; what does not is shown.
                        if let Some(tests) = failed_command(&run) {
                            let again = self.test(kernel, ready.as_ref(), accelerator, &tests);
                            run.judge_again(&again);
                        }
                        runs.lock().unwrap_or_else(PoisonError::into_inner).push((index, run));
                    }
                });
            }
        });
        let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        runs.sort_by_key(|(index, _)| *index);
        Ok(Matrix { kernels: runs.into_iter().map(|(_, run)| run).collect() })
    }

    /// The tests on one kernel. Whatever goes wrong is part of the result.
    fn test(
        &self,
        kernel: &Kernel,
        ready: Result<&Ready, &anyhow::Error>,
        accelerator: Accelerator,
        tests: &str,
    ) -> KernelRun {
        let mut run = KernelRun {
            name: kernel.name.clone(),
            about: kernel.about.clone(),
            accelerator: accelerator.name().to_owned(),
            ..KernelRun::default()
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                run.broke = Some(format!("{error:#}"));
                return run;
            }
        };
        run.release.clone_from(&ready.kernel.release);
        run.instead.clone_from(&ready.instead);
        let task = test_task(tests, accelerator);
        let guest = Guest { accelerator, ..self.guest(&kernel.name, ready, &task) };
        let mut reader = Reader::default();
        let say = |line: &str| println!("{:>5} | {line}", kernel.name);
        let started = Instant::now();
        let end = guest.run(&mut |bytes| reader.take(bytes, &mut |line| say(line)));
        run.seconds = started.elapsed().as_secs_f64();
        let unfinished = reader.unfinished();
        let during = unfinished.map(|name| format!(", during {name}")).unwrap_or_default();
        run.broke = match end {
            Ok(End::Status(0)) => None,
            // libtest's status for tests that failed, which are counted by name.
            Ok(End::Status(101)) if reader.tests.iter().any(|test| !test.passed) => None,
            Ok(End::Status(status)) => {
                Some(format!("the tests ended with status {status}{during}"))
            }
            Ok(End::Died { cause, log }) => {
                log.lines().for_each(say);
                Some(format!("{cause}{during}"))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        (run.doctor, run.tests) = (reader.doctor, reader.tests);
        run
    }
}

/// Groups that the kernel at `index` of so many leaves to others; a brief run leaves more out.
fn left_out(index: usize, kernels: usize, brief: bool) -> Vec<&'static str> {
    let once = ONCE.iter().filter(|_| index > 0);
    let between = index > 0 && index + 1 < kernels;
    let at_the_ends = AT_THE_ENDS.iter().filter(|_| between || brief);
    once.chain(at_the_ends).copied().collect()
}

/// The most tests that may fail and be run again: more is no stall.
const AGAIN: usize = 3;
const HOST_TESTS: &str = "/project/host-tests --include-ignored --test-threads=1";

/// The command that runs once more what has failed; `None` where nothing has, or too much.
fn failed_command(run: &KernelRun) -> Option<String> {
    let failed: Vec<&str> =
        run.tests.iter().filter(|test| !test.passed).map(|test| test.name.as_str()).collect();
    let few = run.broke.is_none() && (1..=AGAIN).contains(&failed.len());
    few.then(|| format!("{HOST_TESTS} --exact {}", failed.join(" ")))
}

/// The command that runs the tests, without the groups to `skip`.
fn test_command(filter: Option<&str>, skip: &[&str]) -> String {
    let mut command = HOST_TESTS.to_owned();
    for name in NOT_IN_GUESTS.iter().map(|(name, _)| *name).chain(skip.iter().copied()) {
        command += &format!(" --skip {name}");
    }
    if let Some(filter) = filter {
        command += &format!(" {}", process::quote(filter.as_ref()));
    }
    command
}

/// The script that a guest runs for the matrix.
fn test_task(command: &str, accelerator: Accelerator) -> String {
    format!(
        "#!/bin/sh\nexport DROPWATCH_BIN=/bin/dropwatch DROPWATCH_TEST_GUEST=1\n\
         export DROPWATCH_TEST_SLOWNESS={} {unproved}=/tmp/unproved\n: >/tmp/unproved\n\
         echo '{}'\ndropwatch doctor\necho '{}'\n{command}\n\
         status=$?\ncat /tmp/unproved\nexit $status\n",
        accelerator.slowness(),
        results::DOCTOR,
        results::TESTS,
        unproved = testbed::unproved::FILE,
    )
}

fn conclude(project: &Project, args: &Args, matrix: &Matrix) -> Result<ExitCode> {
    let json = serde_json::to_vec_pretty(matrix)?;
    image::write_whole(&project.target().join("vm/results.json"), &json)?;
    println!();
    for (name, reason) in NOT_IN_GUESTS {
        println!("left out in guests: {name}: {reason}");
    }
    if let (Some(first), None) = (matrix.kernels.first(), &args.test) {
        let groups = ONCE.map(|group| group.trim_end_matches(':')).join(", ");
        println!("on {} alone, as no kernel changes them: {groups}", first.name);
        let groups = AT_THE_ENDS.map(|group| group.trim_end_matches(':')).join(", ");
        match args.brief {
            true => println!("left out, for their length: {groups}"),
            false => println!("on the oldest and the newest kernel, for their length: {groups}"),
        }
    }
    for name in &args.exclude {
        println!("excluded: kernel {name}");
    }
    let some = args.test.is_some() || args.brief;
    let whole = args.kernel.is_empty() && args.exclude.is_empty() && !some;
    print!("{}", matrix.table());
    if args.write_docs {
        ensure!(whole, "docs/kernels.md is about the whole matrix: --write-docs goes alone");
        docs::write(project, matrix)?;
    } else if whole && matrix.is_success() && !docs::is_current(project, matrix) {
        println!("docs/kernels.md says something else: cargo xtask vm --write-docs");
    }
    println!("{}", sum(matrix));
    Ok(if matrix.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For `cargo xtask ci`: the matrix, without what takes longest.
///
/// # Errors
/// When no guest could be prepared at all.
pub(crate) fn all(project: &Project) -> Result<Sum> {
    let args = Args { jobs: JOBS, brief: true, ..Args::default() };
    let pins = Pins::read()?;
    let kernels = pins.choose(&[], &[])?;
    setup::install(project, setup::For::Guests)?;
    let bench = Bench::new(project, &pins, &args)?;
    let _machine = Machine::take()?;
    let matrix = bench.matrix(&kernels)?;
    conclude(project, &args, &matrix)?;
    Ok(sum(&matrix))
}

fn sum(matrix: &Matrix) -> Sum {
    Sum {
        passed: matrix.passed() as u64,
        failed: matrix.failed() as u64,
        skipped: matrix.skipped() as u64,
    }
}
