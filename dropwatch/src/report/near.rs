//! Names that look like one that is not known.

use std::{borrow::Borrow, cmp::Reverse, fmt::Display};

use super::shell::can_be_typed;

/// Most names that are shown in place of an unknown one.
pub const MOST: usize = 4;
/// Shortest part of a name that counts as a match, letters; shorter ones are in too many names.
const PART: usize = 4;
/// Longest name that is compared: the kernel's are no longer (`KSYM_NAME_LEN`,
/// include/linux/kallsyms.h).
const LONGEST: usize = 512;

/// Returns the names that look like `typed`, whatever the case of the letters, the most alike
/// first, and none that cannot be typed. Stars in `typed` are left out, since they stand for anything.
pub fn near<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = typed.replace('*', "").to_ascii_lowercase();
    if typed.is_empty() || typed.len() > LONGEST {
        return Vec::new();
    }
    let mut near: Vec<_> = names
        .into_iter()
        .filter(|name| can_be_typed(name))
        .filter_map(|name| {
            let lower = name.to_ascii_lowercase();
            let (distance, common) = (distance(&typed, &lower)?, common(&typed, &lower));
            Some((distance, Reverse(common), name))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(MOST).map(|(_, _, name)| name).collect()
}

/// How unlike two names are, in changes from the one to the other, of case as well; `None` for too
/// unlike.
pub fn distance(typed: &str, name: &str) -> Option<usize> {
    if typed.len() >= PART && name.contains(typed) {
        return Some(0);
    }
    let most = (typed.len().max(name.len()) / 3).max(1);
    // Each change can add or remove one letter at most, so names whose lengths differ more are not
    // compared: that is expensive, and there are many names.
    if typed.len().abs_diff(name.len()) > most {
        return None;
    }
    Some(strsim::osa_distance(typed, name)).filter(|changes| *changes <= most)
}

/// How many letters two names begin with in common.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

/// `: did you mean a, b or c?`; nothing where there is nothing to say.
pub fn did_you_mean<N: Borrow<str> + Display>(near: &[N]) -> String {
    match near {
        [] => String::new(),
        [one] => format!(": did you mean {one}?"),
        [most @ .., last] => format!(": did you mean {} or {last}?", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] =
        ["NO_SOCKET", "SOCKET_FILTER", "__udp4_lib_rcv", "__udp6_lib_rcv", "eth0", "eth1", "lo"];

    #[test]
    fn what_is_mistyped_is_found() {
        for (typed, expected) in [
            ("NO_SOKET", &["NO_SOCKET"][..]),
            ("no_soket", &["NO_SOCKET"]),
            ("NO_SOCKTE", &["NO_SOCKET"]),
            ("NO_SOKET*", &["NO_SOCKET"]),
            ("udp4_lib_rcv", &["__udp4_lib_rcv", "__udp6_lib_rcv"]),
            ("SOCKET", &["SOCKET_FILTER", "NO_SOCKET"]),
            ("eht0", &["eth0"]),
            ("ol", &["lo"]),
            ("eth", &["eth0", "eth1"]),
            ("nonsense", &[]),
            ("", &[]),
            ("*", &[]),
        ] {
            assert_eq!(near(typed, NAMES), expected, "{typed}");
        }
        assert!(near("eth0", ["eth\u{fffd}", "eth\x1b"]).is_empty(), "no hint that helps");
        assert!(near(&"x".repeat(100_000), NAMES).is_empty());
        assert!(near("\u{fc}th0", NAMES).len() <= 1, "letters of several bytes");
    }

    #[test]
    fn few_are_shown() {
        let many: Vec<String> = (0..100).map(|n| format!("some_name_{n}")).collect();
        let found = near("some_name", many.iter().map(String::as_str));
        assert_eq!(found.len(), MOST);
        let shown = did_you_mean(&found);
        assert!(shown.starts_with(": did you mean ") && shown.ends_with('?'), "{shown}");
        assert_eq!(did_you_mean(&["a", "b"]), ": did you mean a or b?");
        assert_eq!(did_you_mean(&[""; 0]), "");
    }
}
