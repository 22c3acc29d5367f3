//! What the program says of a recording on standard error, beside what it shows of it.

use std::process::{Command, Output, Stdio};

use dropwatch::{
    render::Format,
    report::{
        model::{Line, Lost},
        options::Options,
    },
};
use testbed::folder::Folder;

use crate::{
    details::story,
    support::{run, show, snapshot},
};

/// Standard output, and standard error, of a replay that succeeds.
fn told(folder: &Folder, lines: &[Line], options: &[&str]) -> (String, String) {
    let path = folder.file("run.ndjson");
    std::fs::write(&path, show(lines, Format::Json)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
    command.env("TZ", "UTC").stdin(Stdio::null());
    let output = command.arg("replay").args(options).arg(&path).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let [shown, said] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{options:?}: {said}");
    (shown, said.replace(&path.display().to_string(), "FILE"))
}

fn drops(lines: &[Line]) -> u64 {
    let of = |line: &Line| if let Line::Report(report) = line { report.drops } else { 0 };
    lines.iter().map(of).sum()
}

fn samples(lines: &[Line]) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Sample(_))).count()
}

/// Of an ordinary run there are samples of some drops only.
#[test]
fn drops_without_a_line_are_counted() {
    let folder = Folder::new("replay-told").unwrap();
    let lines = story(false);
    let (drops, samples) = (drops(&lines), samples(&lines));
    let rest = drops - samples as u64;
    assert!(samples > 0 && rest > 0);
    for options in [&["--each"][..], &["--each", "--json"]] {
        let (shown, said) = told(&folder, &lines, options);
        assert_eq!(shown.lines().count(), samples, "{options:?}");
        let sum = said.lines().last().unwrap();
        assert!(sum.contains(&format!("{drops} drops in ")), "{said}");
        assert!(sum.contains(&format!(": {samples} shown, {rest} not shown")), "{said}");
    }
    let (_, said) = told(&folder, &lines, &[]);
    assert_eq!(said, "", "reports say it themselves");
}

#[test]
fn what_came_beyond_the_rate_is_said_as_the_run_did() {
    let folder = Folder::new("replay-unsampled").unwrap();
    let lost = Lost { unsampled: 15, ..Lost::default() };
    let lines =
        run(Options::default(), &[], &[(snapshot(5000, &[(0, 2, 10), (1, 1, 5)], lost), 1)]);
    let (shown, said) = told(&folder, &lines, &["--each"]);
    assert_eq!(shown, "");
    let sum = "dropwatch: 15 drops in 5.0s: 0 shown, 15 not sampled";
    assert!(said.lines().any(|line| line == sum), "{said}");
    assert!(said.contains("FILE holds no single drops; record them with"), "{said}");
}

/// The classic format has no line for them: live, they are on standard error, too.
#[test]
fn losses_are_said_beside_the_classic_format() {
    let folder = Folder::new("replay-classic").unwrap();
    let lost = Lost { recursion: 2, ..Lost::default() };
    let lines = run(Options::default(), &[], &[(snapshot(5000, &[(0, 2, 10)], lost), 1)]);
    let (_, said) = told(&folder, &lines, &["--classic"]);
    assert!(said.contains("2 not located: 2 nested"), "{said}");
}

#[test]
fn a_gap_in_the_numbers_of_reports_is_said_in_every_format() {
    let folder = Folder::new("replay-gap").unwrap();
    let counted = |at, drops| (snapshot(at, &[(0, 2, drops)], Lost::default()), 1);
    let whole =
        run(Options::default(), &[], &[counted(5000, 1), counted(10_000, 2), counted(15_000, 3)]);
    let is_second = |line: &Line| matches!(line, Line::Report(report) if report.seq == 2);
    let lines: Vec<Line> = whole.iter().filter(|line| !is_second(line)).cloned().collect();
    assert_eq!(lines.len() + 1, whole.len());
    for options in [&[][..], &["--json"], &["--classic"], &["--each"], &["--diff", "FILE"]] {
        let itself = folder.file("run.ndjson");
        let options: Vec<&str> = options
            .iter()
            .map(|option| if *option == "FILE" { itself.to_str().unwrap() } else { option })
            .collect();
        let gap = "FILE is not complete: at line 3, report 3 follows report 1: lines are missing";
        assert!(told(&folder, &lines, &options).1.contains(gap), "{options:?}");
        assert!(!told(&folder, &whole, &options).1.contains("not complete"), "{options:?}");
    }
}
