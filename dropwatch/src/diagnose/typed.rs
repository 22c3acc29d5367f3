//! Commands that can be typed as they are printed.
//!
//! Whoever makes a network namespace or an interface chooses its name, which may hold what no text shows.
//! A command with such a name in it would be shown with U+FFFD in its place, and run on something else
//! or on nothing.

use super::facts;
use crate::report::{
    finding::{Finding, Unreachable},
    shell::can_be_typed,
};

/// Takes out the commands that cannot be typed, and says so in the finding.
pub(super) fn keep_typed(finding: &mut Finding) {
    let all = finding.actions.len();
    finding.actions.retain(|action| can_be_typed(&action.command));
    if finding.actions.len() == all || finding.unreachable.is_some() {
        return;
    }
    let why = match finding.actions.is_empty() {
        true => {
            let name = facts::name(finding.netns.as_ref());
            format!("no command for {name}: it would have a name in it that cannot be typed")
        }
        false => {
            "a command is left out: it would have a name in it that cannot be typed".to_owned()
        }
    };
    finding.unreachable = Some(Unreachable { ended: false, why });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        facts::Netns,
        finding::{Action, Severity},
    };

    fn kept(commands: &[&str]) -> (Vec<String>, Option<String>) {
        let action =
            |command: &&str| Action { command: (*command).to_owned(), note: String::new() };
        let mut finding = Finding {
            subject: String::new(),
            rule: "mtu".to_owned(),
            severity: Severity::Notice,
            netns: Some(Netns::new(Some("g\u{fffd}w".to_owned()), 7)),
            title: String::new(),
            object: None,
            explains: None,
            evidence: Vec::new(),
            actions: commands.iter().map(action).collect(),
            unreachable: None,
            places: Vec::new(),
        };
        keep_typed(&mut finding);
        let commands = finding.actions.into_iter().map(|action| action.command).collect();
        (commands, finding.unreachable.map(|unreachable| unreachable.why))
    }

    #[test]
    fn what_cannot_be_typed_is_left_out_and_said_to_be() {
        let good = "ip netns exec gw ss -uln";
        assert_eq!(kept(&[good]), (vec![good.to_owned()], None));
        let none = "no command for g\u{fffd}w: it would have a name in it that cannot be typed";
        for bad in ["nsenter --net='/run/netns/g\u{fffd}w' ss", "ip -s link show 'a\x1bb'"] {
            assert_eq!(kept(&[bad]), (Vec::new(), Some(none.to_owned())));
            let (commands, why) = kept(&[good, bad]);
            assert_eq!(commands, [good]);
            assert!(why.is_some_and(|why| why.starts_with("a command is left out")));
        }
        assert_eq!(kept(&[]), (Vec::new(), None));
    }
}
