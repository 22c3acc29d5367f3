use clap::Parser;

use super::*;
use crate::{
    cli::{Cli, Command},
    render::Medium,
    report::{
        finding::Severity,
        model::{Line, Start},
    },
    settings::Stream,
};

const SCREEN: Stream = Stream { is_terminal: true, color: true, columns: Some(100) };
const FILE: Stream = Stream { is_terminal: false, color: false, columns: None };
const TTY: Terminal = Terminal { stdout: SCREEN, stderr: SCREEN, dumb: false, ascii: false };
const PIPE: Terminal = Terminal { stdout: FILE, ..TTY };

fn show(args: &[&str], terminal: Terminal) -> Result<settings::Show, Failure> {
    let cli = Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
    cli.watch.what.show.settings(terminal)
}

#[test]
fn text_shows_ten_and_folds_json_shows_everything() {
    let text = show(&[], PIPE).unwrap();
    assert_eq!((text.view.top, text.view.fold_benign), (Some(10), true));
    let json = show(&["--json"], PIPE).unwrap();
    assert_eq!((json.view.top, json.view.fold_benign), (None, false));
    let classic = show(&["--classic"], PIPE).unwrap();
    assert_eq!((classic.view.top, classic.view.fold_benign), (None, false));
}

#[test]
fn zero_means_all() {
    assert_eq!(show(&["-n", "0"], PIPE).unwrap().view.top, None);
    assert_eq!(show(&["-n", "3"], PIPE).unwrap().view.top, Some(3));
    assert_eq!(show(&["--json", "-n", "3"], PIPE).unwrap().view.top, Some(3));
}

#[test]
fn classic_takes_no_option_that_it_cannot_honour() {
    assert!(matches!(show(&["--classic", "-n", "3"], PIPE), Err(Failure::Usage(_))));
    assert!(matches!(show(&["--classic", "--addresses"], PIPE), Err(Failure::Usage(_))));
    assert!(matches!(show(&["--classic", "--all"], PIPE), Err(Failure::Usage(_))));
    assert!(show(&["--classic", "-n", "0"], PIPE).is_ok());
}

fn watch(args: &[&str], terminal: Terminal) -> Result<settings::Watch, Failure> {
    let cli = Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
    cli.watch.settings(terminal)
}

#[test]
fn two_ways_to_ask_for_a_format_mean_the_same() {
    for (short, long) in [("--json", ["--format", "json"]), ("--classic", ["--format", "classic"])]
    {
        for others in [&[][..], &["-o", "f"], &["-o", "f", "-n", "0"], &["--pcap", "f"]] {
            let of = |asked: &[&str]| watch(&[asked, others].concat(), PIPE).unwrap();
            assert_eq!(of(&[short]), of(&long), "{short} {others:?}");
        }
        let run = |asked: &[&str]| {
            let args = [&["dropwatch", "run", "-o", "f"], asked, &["id"]].concat();
            let Some(Command::Run(run)) = Cli::parse_from(args).command else {
                panic!("no command to run")
            };
            run.settings(false, PIPE).unwrap().0
        };
        assert_eq!(run(&[short]), run(&long));
        let compared = |asked: &[&str]| {
            let args = [&["dropwatch", "replay", "a", "--diff", "b"], asked].concat();
            let Some(Command::Replay { show, .. }) = Cli::parse_from(args).command else {
                panic!("no recording to replay")
            };
            let recordings = ["a", "b"].map(Path::new);
            show.comparison(recordings, PIPE).map_err(|failure| failure.to_string())
        };
        assert_eq!(compared(&[short]), compared(&long));
        assert_eq!(compared(&[short]).is_ok(), short == "--json");
    }
    assert_eq!(watch(&["--json", "-o", "f"], PIPE).unwrap().sinks.show.format, Format::Json);
}

#[test]
fn a_finding_that_ends_a_run_badly_is_looked_for_in_every_format() {
    let limits = |args: &[&str]| {
        let reported = watch(args, PIPE).unwrap().reported;
        (reported.findings, reported.limits.finding)
    };
    assert_eq!(limits(&["--classic"]), (false, None));
    let warning = Some(Severity::Warning);
    assert_eq!(limits(&["--classic", "--fail-on", "warning"]), (true, warning));
    let without = ["dropwatch", "--fail-on", "critical", "--no-findings"];
    assert!(Cli::try_parse_from(without).is_err());
}

#[test]
fn packets_go_to_a_file_or_a_pipe_and_never_to_a_terminal() {
    let sinks = |args: &[&str], terminal| watch(args, terminal).unwrap().sinks;
    let file = sinks(&["--pcap", "x.pcapng", "--snaplen", "64"], TTY);
    let target = Target::File("x.pcapng".into());
    assert_eq!(file.pcap, Some(settings::Pcap { target, snaplen: 64 }));
    assert!(matches!(watch(&["--pcap", "-"], TTY), Err(Failure::Usage(_))));
    let pipe = sinks(&["--pcap", "-"], PIPE);
    assert_eq!(pipe.pcap, Some(settings::Pcap { target: Target::Stdout, snaplen: SNAPLEN }));
    assert!(pipe.show.medium.color, "reports go to standard error, which is a terminal");
    assert_eq!(pipe.show.medium.columns, Some(100));
    let logged = Terminal { stderr: FILE, ..PIPE };
    assert_eq!(sinks(&["--pcap", "-"], logged).show.medium, Medium::default());
}

#[test]
fn a_capture_needs_samples_in_every_format() {
    let samples = |args: &[&str]| watch(args, PIPE).unwrap().attached.samples;
    assert_eq!(samples(&[]), Samples::Details);
    assert_eq!(samples(&["--no-samples"]), Samples::None);
    assert_eq!(samples(&["--classic"]), Samples::None);
    assert_eq!(samples(&["--classic", "-o", "f"]), Samples::Details);
    assert_eq!(samples(&["--classic", "--pcap", "f"]), Samples::Packets);
}

#[test]
fn every_drop_is_sampled_where_it_is_shown_or_asked_for() {
    let every = |args: &[&str]| watch(args, PIPE).map(|watch| watch.attached.every).ok();
    assert_eq!(every(&[]), Some(None));
    assert_eq!(every(&["--every"]), Some(Some(10_000)));
    assert_eq!(every(&["--every=7", "--pcap", "f"]), Some(Some(7)));
    assert_eq!(every(&["--each"]), Some(Some(10_000)));
    assert_eq!(every(&["--each", "--every=500"]), Some(Some(500)));
    for args in
        [&["--classic", "--every"][..], &["--classic", "--each"], &["--each", "--no-samples"]]
    {
        let parsed = Cli::try_parse_from(["dropwatch"].iter().chain(args));
        assert!(parsed.is_err() || every(args).is_none(), "{args:?}");
    }
    for rate in ["0", "100001", "x", "-1", ""] {
        let every = format!("--every={rate}");
        assert!(Cli::try_parse_from(["dropwatch", &every]).is_err(), "{rate}");
    }
}

#[test]
fn drops_are_shown_instead_of_reports_and_counted_by_their_number() {
    let each = watch(&["--each", "-c", "5"], PIPE).unwrap();
    assert_eq!((each.reported.count, each.reported.shown), (None, Some(5)));
    assert!(each.sinks.sample_lines && !each.reported.findings);
    let reports = watch(&["-c", "5"], PIPE).unwrap();
    assert_eq!((reports.reported.count, reports.reported.shown), (Some(5), None));
    // A recording has the reports, too.
    assert!(watch(&["--each", "-o", "f"], PIPE).unwrap().reported.findings);
    let show = each.sinks.show;
    let lines = [Line::Start(Start::default()), Line::Sample(Box::default())];
    assert_eq!(lines.map(|line| show.shows(&line)), [false, true]);
}

#[test]
fn filters_are_alternatives_of_each_option_and_shown_as_typed() {
    let args = ["--port", "80", "--proto", "tcp", "--port", "!8000-8099"];
    let watch = watch(&args, PIPE).unwrap().attached;
    assert_eq!(watch.filters, ["--proto tcp", "--port 80", "--port !8000-8099"]);
    let excluded: Vec<_> = watch.packets.port.iter().map(|choice| choice.exclude).collect();
    assert_eq!(excluded, [false, true]);
    assert!(watch.keys.is_empty());
}

#[test]
fn groups_are_listed_once_and_refused_where_they_cannot_be() {
    let twice = watch(&["--by", "cpu,netns,cpu"], PIPE).unwrap();
    assert_eq!(twice.attached.by, [By::Cpu, By::Netns]);
    assert!(matches!(watch(&["--by", "cpu", "--classic"], PIPE), Err(Failure::Usage(_))));
    assert!(matches!(watch(&["--by", "cpu", "--symbol", "x"], PIPE), Err(Failure::Usage(_))));
    assert!(watch(&["--by", "cpu", "--proto", "udp"], PIPE).is_ok());
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let color = |args: &[&str], terminal| show(args, terminal).unwrap().medium.color;
    assert!(color(&[], TTY));
    assert!(!color(&[], PIPE));
    assert!(color(&["--color", "always"], PIPE));
    assert!(!color(&["--color", "never"], TTY));
}
