//! The README's recipes, as they stand there: only names, addresses and times are replaced.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    flood::Wire,
    machine::longer,
    udp::Family,
};

use crate::harness::{binary, text, wait_until, within};

/// A folder of its own, in which a recipe is followed.
struct Kitchen(PathBuf);

impl Kitchen {
    fn new(name: &str) -> Self {
        let name = format!("dropwatch-recipe-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// A shell that follows the recipe, with `dropwatch` on its path.
    fn shell(&self, recipe: &str) -> Command {
        let path = binary().parent().unwrap().display().to_string();
        let mut shell = Command::new("sh");
        shell.args(["-ec", recipe]).current_dir(&self.0).stdin(Stdio::null());
        shell.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
        shell
    }

    fn follow(&self, recipe: &str) -> Output {
        self.shell(recipe).output().unwrap()
    }
}

impl Drop for Kitchen {
    fn drop(&mut self) {
        // A test that fails leaves those who follow the recipe waiting for it: all work in here.
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let pid = process.file_name().to_str().and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid
                && fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == self.0)
            {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// The commands below a heading, without sudo (tests are root), with `changes` made to them.
fn recipe(heading: &str, changes: &[(&str, &str)]) -> String {
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once(&format!("\n### {heading}\n")).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (commands, _) = block.split_once("```").unwrap();
    let mut commands = commands.replace("sudo ", "");
    for (from, to) in changes {
        assert!(commands.contains(from), "the recipe has no {from}: {commands}");
        commands = commands.replace(from, to);
    }
    commands
}

/// Far more than anything here takes.
fn patience() -> Duration {
    longer(Duration::from_secs(20))
}

fn output_of(mut child: Child) -> String {
    let deadline = Instant::now() + longer(Duration::from_secs(30));
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the recipe does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_load_test_before_and_after_a_change() {
    let kitchen = Kitchen::new("load");
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    // The command says that it runs, and ends once the drops are made: in the first run alone.
    let wait = "sh -c 'touch running; while [ ! -e sent ]; do sleep 0.05; done'";
    let load = "ab -c 900 -n 100000 http://gw/";
    // Of a host that has other tenants, the one that is tested.
    let own = format!("dropwatch run {}", within(&[closed.netns()]).join(" "));
    let changes = [(load, wait), ("dropwatch run", own.as_str())];
    let recipe = recipe("A load test, before and after a change", &changes);
    let child =
        kitchen.shell(&recipe).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(patience(), "the load test does not begin", || kitchen.0.join("running").exists());
    closed.send(400).unwrap();
    fs::write(kitchen.0.join("sent"), "").unwrap();
    let printed = output_of(child);
    let sides: Vec<&str> = printed.lines().take(2).collect();
    assert!(sides[0].contains("before.ndjson") && sides[1].contains("after.ndjson"), "{printed}");
    let row = printed.lines().find(|line| line.contains("udp")).unwrap();
    assert!(row.contains("(NO_SOCKET): gone"), "{printed}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_fleet() {
    let kitchen = Kitchen::new("fleet");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    // A person has some time between the two lines; and the exporter is not to outlive the test.
    let changes = [("9435", port.as_str()), ("&\n", "-d 20s & sleep 1\n")];
    let recipe = recipe("A fleet", &changes) + "kill $!; wait";
    let output = kitchen.follow(&recipe);
    let metrics = text(&output.stdout);
    assert!(
        metrics.contains("dropwatch_drops_total{symbol=\"other\""),
        "{metrics}{}",
        text(&output.stderr)
    );
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_container() {
    let kitchen = Kitchen::new("container");
    let (inside, outside) = (
        Closed::new(Transport::Udp, Family::V4).unwrap(),
        Closed::new(Transport::Udp, Family::V4).unwrap(),
    );
    let mut process = inside.netns().command("sleep").arg("60").spawn().unwrap();
    let pid = process.id().to_string();
    let inspect = "$(docker inspect --format '{{.State.Pid}}' web)";
    let changes = [(inspect, pid.as_str()), ("-d 10s", "-d 3s --json -i 100ms > drops.ndjson")];
    let recipe = recipe("One container", &changes);
    let child =
        kitchen.shell(&recipe).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let drops = kitchen.0.join("drops.ndjson");
    wait_until(patience(), "it does not begin", || {
        drops.metadata().is_ok_and(|file| file.len() > 0)
    });
    inside.send(70).unwrap();
    outside.send(90).unwrap();
    let shown = output_of(child);
    process.kill().unwrap();
    process.wait().unwrap();
    let last = fs::read_to_string(drops).unwrap().lines().last().unwrap().to_owned();
    assert!(last.contains("\"drops\":70,"), "those of the container alone: {last}");
    assert!(shown.contains(inside.netns().name()), "{shown}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_nic_says_dropped() {
    let kitchen = Kitchen::new("nic");
    let wire = Wire::new().unwrap();
    let show = "ip -s -s link show dev eth0";
    let inside =
        format!("ip -n {} -s -s link show dev {}", wire.receiver().name(), Wire::RECEIVER_LINK);
    let own = within(&[wire.receiver()]).join(" ");
    let link = format!("--iface {} {own}", Wire::RECEIVER_LINK);
    let changes = [
        (show, inside.as_str()),
        ("--iface eth0", link.as_str()),
        ("-d 10s", "-d 3s --json -i 100ms > drops.ndjson"),
    ];
    let recipe = recipe("The NIC says \"dropped\"", &changes);
    let child =
        kitchen.shell(&recipe).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let drops = kitchen.0.join("drops.ndjson");
    wait_until(patience(), "it does not begin", || {
        drops.metadata().is_ok_and(|file| file.len() > 0)
    });
    let before = wire.received().unwrap().rx_dropped;
    let sent = wire.flood(500, None).unwrap().accepted;
    wait_until(patience(), "frames are under way", || {
        wire.received().unwrap().rx_dropped >= before + sent
    });
    let shown = output_of(child);
    assert!(shown.contains("dropped"), "{shown}");
    let rose = wire.received().unwrap().rx_dropped - before;
    let last = fs::read_to_string(drops).unwrap().lines().last().unwrap().to_owned();
    assert!(last.contains(&format!("\"drops\":{rose},")), "not {rose}: {last}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_gate_for_ci() {
    let kitchen = Kitchen::new("gate");
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    // Of a host that has other tenants, the one that is tested.
    let own = format!("dropwatch run {}", within(&[closed.netns()]).join(" "));
    let gate = |test: &str| {
        recipe("A gate for CI", &[("make integration-test", test), ("dropwatch run", &own)])
    };
    let quiet = gate("true");
    let output = kitchen.follow(&quiet);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let failing = gate("sh -c 'exit 2'");
    assert_eq!(kitchen.follow(&failing).status.code(), Some(2));

    let wait = "sh -c 'touch running; while [ ! -e sent ]; do sleep 0.05; done'";
    let dropping = gate(wait);
    let mut child = kitchen.shell(&dropping).stderr(Stdio::null()).spawn().unwrap();
    wait_until(patience(), "the test does not begin", || kitchen.0.join("running").exists());
    closed.send(1).unwrap();
    fs::write(kitchen.0.join("sent"), "").unwrap();
    wait_until(patience(), "it does not end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
