//! `dropwatch top` on a real terminal: in tmux, which tells what is on the screen.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        filter::Filtered,
    },
    machine::longer,
    udp::Family,
};

use crate::harness::{binary, output, within};

/// A terminal of its own, which ends with this.
struct Terminal(String);

impl Terminal {
    fn start(columns: u32, lines: u32, environment: &str, options: &str) -> Self {
        let terminal = Self(format!("dropwatch-{}-{columns}", std::process::id()));
        let size = [columns.to_string(), lines.to_string()];
        let command = format!(
            "{environment} {} top -i 200ms {options}; echo ended $?; cat",
            binary().display()
        );
        terminal.tmux(&[
            "-f/dev/null",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            &command,
        ]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").arg("-L").arg(&self.0).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen shows `text`.
    fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {text} on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn real_drops_on_two_sizes_of_terminal() {
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let options = within(&[closed.netns()]).join(" ");
    for (columns, lines) in [(80, 24), (200, 50)] {
        let terminal = Terminal::start(columns, lines, "TERM=screen-256color", &options);
        terminal.wait_for("none lost");
        closed.send(321).unwrap();
        let screen = terminal.wait_for("(NO_SOCKET)");
        let row = screen.lines().find(|line| line.contains("(NO_SOCKET)")).unwrap();
        assert!(row.split_whitespace().any(|word| word == "321"), "{screen}");
        terminal.press("Enter");
        terminal.wait_for("What it means");
        terminal.press("Escape");
        terminal.wait_for("TREND");
        terminal.press("Space");
        terminal.wait_for("FROZEN");
        terminal.press("q");
        let after = terminal.wait_for("ended 0");
        assert!(!after.contains("TREND"), "the screen is as it was before:\n{after}");
    }
}

/// Two rules of iptables in two namespaces, at one place of the kernel: each namespace has what its own
/// rule has counted.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn namespaces_are_listed_with_the_counts_of_their_rules() {
    let (many, few) =
        (Filtered::input_by_iptables().unwrap(), Filtered::input_by_iptables().unwrap());
    let options = within(&[many.netns(), few.netns()]).join(" ");
    let terminal = Terminal::start(100, 24, "TERM=screen-256color", &options);
    terminal.wait_for("none lost");
    many.send(321).unwrap();
    few.send(123).unwrap();
    terminal.wait_for("444 drops in all");
    terminal.press("Tab");
    terminal.wait_for("NAMESPACE");
    let screen = terminal.wait_for(few.netns().name());
    let total = |screen: &str, name: &str| {
        let row = screen.lines().find(|line| line.trim_end().ends_with(name));
        let row = row.unwrap_or_else(|| panic!("no row of {name}:\n{screen}"));
        row.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    for (filter, sent) in [(&many, 321), (&few, 123)] {
        let counted = filter.dropped().unwrap();
        assert_eq!((total(&screen, filter.netns().name()), counted), (sent, sent), "{screen}");
    }
    // The first one alone: more than a rule of the other has anything to do with.
    terminal.press("n");
    let screen = terminal.wait_for(&format!("only {}", many.netns().name()));
    assert!(screen.contains("321 drops in all"), "{screen}");
    terminal.press("q");
    terminal.wait_for("ended 0");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ctrl_c_ends_it_and_leaves_a_usable_terminal() {
    let terminal = Terminal::start(90, 24, "TERM=screen NO_COLOR=1", "");
    terminal.wait_for("none lost");
    terminal.press("C-c");
    terminal.wait_for("ended 0");
    // `cat` echoes what is typed, in a line of its own: the terminal is not raw any more.
    terminal.press("x");
    terminal.press("Enter");
    terminal.wait_for("x\nx\n");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_terminal_the_way_out_is_told() {
    let ended = output(&["top"]);
    assert_eq!(ended.status.code(), Some(2));
    let printed = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(printed.contains("dropwatch -i 1s"), "{printed}");
    let terminal = Terminal::start(85, 24, "TERM=dumb", "");
    terminal.wait_for("ended 2");
}
