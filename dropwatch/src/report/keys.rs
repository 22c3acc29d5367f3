//! Filters on what a row is counted by: its function and its reason.

use super::model::{Reason, Symbol};

/// A value to filter by, wanted or, with a `!` before it, not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    pub exclude: bool,
    pub value: T,
}

impl<T> Choice<T> {
    /// Reads `value` or `!value`.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn parse(
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Self, String> {
        let (exclude, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Self { exclude, value: parse(text)? })
    }
}

impl Choice<Glob> {
    /// Reads a name, which may have stars in it.
    ///
    /// # Errors
    /// When there is nothing to match.
    pub fn glob(text: &str) -> Result<Self, String> {
        Self::parse(text, |text| match text {
            "" => Err("a name is missing".to_owned()),
            text => Ok(Glob(text.to_owned())),
        })
    }
}

/// A name in which each `*` stands for any characters, or none. Upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.to_ascii_lowercase(), name.to_ascii_lowercase());
        let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
        let Some(mut left) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The first place of each piece leaves the most for the pieces after it.
        for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
            match left.find(piece) {
                Some(at) => left = &left[at + piece.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

/// Which rows to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub reasons: Vec<Choice<Glob>>,
    pub symbols: Vec<Choice<Glob>>,
}

impl Keys {
    /// Whether every row is reported.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.symbols.is_empty()
    }

    /// Whether they say nothing on a kernel without drop reasons.
    pub fn need_reasons(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Whether to report a row. One without a name or a reason matches no value: it is not among
    /// those wanted, and never among those that are not.
    pub fn want(&self, symbol: Option<&Symbol>, reason: Option<&Reason>) -> bool {
        allow(&self.symbols, |glob| {
            // The compiler's suffixes (`.constprop.0`) are not part of what people call it.
            let base = |name: &str| name.split('.').next().is_some_and(|base| glob.matches(base));
            symbol.is_some_and(|symbol| glob.matches(&symbol.name) || base(&symbol.name))
        }) && allow(&self.reasons, |glob| reason.is_some_and(|reason| glob.matches(&reason.name)))
    }
}

/// No value that is excluded may match, and one that is wanted must, if there are any.
fn allow(choices: &[Choice<Glob>], matches: impl Fn(&Glob) -> bool) -> bool {
    let (mut any, mut wanted) = (false, false);
    for Choice { exclude, value } in choices {
        if *exclude {
            if matches(value) {
                return false;
            }
        } else {
            any = true;
            wanted |= matches(value);
        }
    }
    wanted || !any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, name: &str) -> bool {
        Glob(pattern.to_owned()).matches(name)
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("tcp_v4_rcv", "tcp_v4_rcv"),
            ("tcp_*", "tcp_v4_rcv"),
            ("*rcv", "tcp_v4_rcv"),
            ("*v4*", "tcp_v4_rcv"),
            ("t*_*_*v", "tcp_v4_rcv"),
            ("*", "x"),
            ("netfilter_*", "NETFILTER_DROP"),
            ("a**b", "ab"),
        ] {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("tcp", "tcp_v4_rcv"),
            ("tcp_*6*", "tcp_v4_rcv"),
            ("*ab*ab", "ab"),
            ("a*a", "a"),
            ("", "x"),
        ] {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }

    fn want(
        symbols: &[&str],
        reasons: &[&str],
        symbol: Option<&str>,
        reason: Option<&str>,
    ) -> bool {
        let choices = |texts: &[&str]| {
            texts.iter().map(|text| Choice::glob(text)).collect::<Result<_, _>>().unwrap()
        };
        let keys = Keys { symbols: choices(symbols), reasons: choices(reasons) };
        let symbol = symbol.map(|name| Symbol { name: name.into(), offset: 1, module: None });
        let reason = reason.map(|name| Reason { name: name.into(), subsystem: None });
        keys.want(symbol.as_ref(), reason.as_ref())
    }

    #[test]
    fn one_of_the_wanted_and_none_of_the_others() {
        let hook = Some("nf_hook_slow.constprop.0");
        assert!(want(&[], &[], None, None));
        assert!(want(&["nf_hook_slow"], &[], hook, None));
        assert!(want(&["tcp_*", "nf_*"], &["!NO_SOCKET"], hook, Some("NETFILTER_DROP")));
        assert!(!want(&["nf_*", "!nf_hook_slow"], &[], hook, None));
        assert!(!want(&["nf_*"], &["NO_SOCKET"], hook, Some("NETFILTER_DROP")));
    }

    #[test]
    fn what_has_no_name_is_neither_wanted_nor_excluded() {
        assert!(!want(&["*"], &[], None, None));
        assert!(want(&["!tcp_*"], &["!NO_SOCKET"], None, None));
        assert!(Choice::glob("!").is_err() && Choice::glob("").is_err());
    }
}
