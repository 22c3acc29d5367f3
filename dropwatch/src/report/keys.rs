//! Filters on what a row is counted by: its function and its reason, written as reports print them.

use std::fmt;

use thiserror::Error;

use super::place::{Reason, Symbol};

/// A value to filter by: it selects rows or, with a `!` before it, excludes them.
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
    pub fn parse<E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Self, E> {
        let (exclude, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Self { exclude, value: parse(text)? })
    }
}

/// Why a text is neither a function nor a drop reason to filter by.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("a name is missing")]
    NoName,
    #[error("+{0} is no offset such as +0x7d, as a report has it")]
    NoOffset(String),
    /// A whole row was typed, while its function and its reason are two options.
    #[error("a row has a place and a reason: write --symbol '{symbol}' --reason {reason}")]
    WholeRow { symbol: String, reason: String },
}

/// Prefix of reasons in the kernel's sources.
const ENUMERATOR: &str = "SKB_DROP_REASON_";

/// Refuses a whole row of a report, since its function and its reason are two options.
///
/// # Errors
/// [`KeyError::WholeRow`], which says how to write it.
fn refuse_row(text: &str) -> Result<(), KeyError> {
    let row = text.rsplit_once("dropped at ").map_or(text, |(_, row)| row);
    let Some((symbol, reason)) = row.split_once(" (") else { return Ok(()) };
    let reason = reason.split(')').next().unwrap_or_default();
    // The option's own parser says more of what cannot be a name.
    if symbol.contains('\'') || !reason.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Ok(());
    }
    Err(KeyError::WholeRow { symbol: symbol.to_owned(), reason: reason.to_owned() })
}

impl Choice<Glob> {
    /// Reads a drop reason, which may have stars in it, as reports print it, in parentheses or not,
    /// or as the kernel's sources have it.
    ///
    /// # Errors
    /// When there is nothing to match.
    pub fn reason(text: &str) -> Result<Self, KeyError> {
        Self::parse(text.trim(), |text| {
            refuse_row(text)?;
            let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
            let text = inner.unwrap_or(text);
            let bare = match text.get(..ENUMERATOR.len()) {
                Some(start) if start.eq_ignore_ascii_case(ENUMERATOR) => &text[ENUMERATOR.len()..],
                _ => text,
            };
            Glob::new(bare)
        })
    }
}

impl Choice<Function> {
    /// Reads a function, or one call in it: `tcp_v4_rcv+0x91 [module]`.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn function(text: &str) -> Result<Self, KeyError> {
        Self::parse(text.trim(), Function::parse)
    }
}

/// A function, or one call in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: Glob,
    /// Bytes from the function's start; `None` for all of it.
    pub offset: Option<u64>,
    /// `None` for any.
    pub module: Option<String>,
}

impl fmt::Display for Function {
    /// Writes the function as it can be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.text())?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        if let Some(module) = &self.module {
            write!(f, " [{module}]")?;
        }
        Ok(())
    }
}

impl Function {
    /// Reads `nf_hook_slow`, which may have stars in it, or what a row of a report begins with:
    /// `nft_do_chain+0x7d [nf_tables]`. Behind the offset may stand the length of the function, as
    /// the kernel's own messages have it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(text: &str) -> Result<Self, KeyError> {
        refuse_row(text)?;
        let inside = text.strip_suffix(']').and_then(|text| text.rsplit_once(" ["));
        let (text, module) = match inside {
            Some((text, module)) => (text.trim_end(), Some(module.to_owned())),
            None => (text, None),
        };
        let (name, offset) = match text.split_once('+') {
            None => (text, None),
            Some((name, offset)) => {
                let bare = offset.split('/').next().unwrap_or_default();
                let digits = bare.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
                let offset = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                let wrong = || KeyError::NoOffset(bare.to_owned());
                (name, Some(offset.ok_or_else(wrong)?))
            }
        };
        Ok(Self { name: Glob::new(name)?, offset, module })
    }

    /// Whether `name` is that of the function. The compiler's suffixes (`.constprop.0`) are not part
    /// of what people call it.
    pub fn is_called(&self, name: &str) -> bool {
        let base = name.split('.').next().unwrap_or_default();
        self.name.matches(name) || self.name.matches(base)
    }

    /// Whether it matches every call that `other` does, as far as the names alone show.
    pub fn covers(&self, other: &Self) -> bool {
        // A suffix of the compiler's is not part of what a function is called.
        let base = other.name.0.split_once('.').map_or("*", |(base, _)| base);
        let by_base = !base.contains('*') && self.name.matches(base);
        (by_base || self.name.covers(&other.name))
            && (self.offset.is_none() || self.offset == other.offset)
            && (self.module.is_none() || self.module == other.module)
    }

    /// Whether it matches whatever has a name.
    pub fn is_everything(&self) -> bool {
        self.name.is_everything() && self.offset.is_none() && self.module.is_none()
    }

    fn matches(&self, symbol: &Symbol) -> bool {
        self.is_in(symbol) && self.offset.is_none_or(|offset| offset == symbol.offset)
    }

    /// Whether `symbol` is in the function, at any offset.
    pub fn is_in(&self, symbol: &Symbol) -> bool {
        self.is_called(&symbol.name)
            && self.module.as_ref().is_none_or(|module| symbol.module.as_ref() == Some(module))
    }
}

/// A name in which each `*` stands for any characters, or none. Upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::NoName);
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was typed.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it matches every name that `other` does: the stars of that can only stand behind
    /// stars of this.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// Whether it matches every name.
    pub fn is_everything(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

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
    pub symbols: Vec<Choice<Function>>,
}

impl Keys {
    /// Whether every row is reported.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.symbols.is_empty()
    }

    /// Whether they may leave out a row.
    pub fn are_set(&self) -> bool {
        !self.reasons.is_empty() || !self.symbols.is_empty()
    }

    /// Whether they say nothing on a kernel without drop reasons.
    pub fn need_reasons(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Whether any call in a function may be reported.
    pub fn may_select_function(&self, name: &str, module: Option<&str>) -> bool {
        let is = |function: &Function| {
            function.is_called(name)
                && function.module.as_deref().is_none_or(|selected| module == Some(selected))
        };
        let excluded = |offset: Option<u64>| {
            let excludes = self.symbols.iter().filter(|choice| choice.exclude);
            excludes.map(|choice| &choice.value).any(|function| {
                is(function) && (function.offset.is_none() || function.offset == offset)
            })
        };
        let mut selected = self.symbols.iter().filter(|choice| !choice.exclude).peekable();
        match selected.peek() {
            None => !excluded(None),
            Some(_) => selected.any(|it| is(&it.value) && !excluded(it.value.offset)),
        }
    }

    /// Whether drops for a reason may be reported.
    pub fn may_select_reason(&self, name: &str) -> bool {
        allow(&self.reasons, |glob| glob.matches(name))
    }

    /// Whether to report a row. One without a name or a reason matches no value: it is not among
    /// those selected, and never among those that are not.
    pub fn selects(&self, symbol: Option<&Symbol>, reason: Option<&Reason>) -> bool {
        allow(&self.symbols, |function| symbol.is_some_and(|symbol| function.matches(symbol)))
            && allow(&self.reasons, |glob| reason.is_some_and(|reason| glob.matches(&reason.name)))
    }
}

/// No value that is excluded may match, and one that is selected must, if there are any.
fn allow<T>(choices: &[Choice<T>], matches: impl Fn(&T) -> bool) -> bool {
    let (mut any, mut selected) = (false, false);
    for Choice { exclude, value } in choices {
        if *exclude {
            if matches(value) {
                return false;
            }
        } else {
            any = true;
            selected |= matches(value);
        }
    }
    selected || !any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, name: &str) -> bool {
        Glob(pattern.to_owned()).matches(name)
    }

    #[test]
    fn a_whole_row_is_refused_with_how_to_write_it() {
        let expected =
            "a row has a place and a reason: write --symbol 'f+0x91 [m]' --reason NO_SOCKET";
        for row in ["f+0x91 [m] (NO_SOCKET)", "60 packets dropped at f+0x91 [m] (NO_SOCKET) 88.2%"]
        {
            let error = Function::parse(row).unwrap_err();
            assert_eq!(Choice::reason(row), Err(error.clone()), "{row}");
            assert_eq!(error.to_string(), expected, "{row}");
            assert!(Choice::reason(&format!("!{row}")).is_err(), "{row}");
        }
        assert!(Function::parse("f+0x91 [m]").is_ok() && Choice::reason("(NO_SOCKET)").is_ok());
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

    fn selects(
        symbols: &[&str],
        reasons: &[&str],
        symbol: Option<&str>,
        reason: Option<&str>,
    ) -> bool {
        let keys = Keys {
            symbols: symbols.iter().map(|text| Choice::function(text).unwrap()).collect(),
            reasons: reasons.iter().map(|text| Choice::reason(text).unwrap()).collect(),
        };
        let symbol = symbol.map(|name| Symbol { name: name.into(), offset: 1, module: None });
        let reason = reason.map(|name| Reason { name: name.into(), subsystem: None });
        keys.selects(symbol.as_ref(), reason.as_ref())
    }

    #[test]
    fn one_of_the_selected_and_none_of_the_excluded() {
        let hook = Some("nf_hook_slow.constprop.0");
        assert!(selects(&[], &[], None, None));
        assert!(selects(&["nf_hook_slow"], &[], hook, None));
        assert!(selects(&["tcp_*", "nf_*"], &["!NO_SOCKET"], hook, Some("NETFILTER_DROP")));
        assert!(!selects(&["nf_*", "!nf_hook_slow"], &[], hook, None));
        assert!(!selects(&["nf_*"], &["NO_SOCKET"], hook, Some("NETFILTER_DROP")));
    }

    #[test]
    fn what_has_no_name_is_neither_selected_nor_excluded() {
        assert!(!selects(&["*"], &[], None, None));
        assert!(selects(&["!tcp_*"], &["!NO_SOCKET"], None, None));
        for nothing in ["!", "", "SKB_DROP_REASON_", "()"] {
            assert_eq!(Choice::reason(nothing), Err(KeyError::NoName), "{nothing}");
        }
    }

    #[test]
    fn a_row_can_be_typed_as_it_is_printed() {
        let symbol = |offset, module: Option<&str>| Symbol {
            name: "nft_do_chain.constprop.0".into(),
            offset,
            module: module.map(Into::into),
        };
        let matches =
            |typed: &str, symbol: &Symbol| Choice::function(typed).unwrap().value.matches(symbol);
        let row = symbol(0x7d, Some("nf_tables"));
        for typed in [
            "nft_do_chain",
            "nft_do_chain.constprop.0",
            "NFT_DO_CHAIN+0x7d",
            "nft_do_chain+0x7d/0x120",
            "nft_do_chain [nf_tables]",
            "  nft_do_chain.constprop.0+0x7d [nf_tables] ",
            "nft_*+0x7d",
        ] {
            assert!(matches(typed, &row), "{typed}");
        }
        for typed in ["nft_do_chain+0x7e", "nft_do_chain [other]", "nft_do_chain.isra.0"] {
            assert!(!matches(typed, &row), "{typed}");
        }
        assert!(!matches("nft_do_chain [nf_tables]", &symbol(0x7d, None)));
        for wrong in ["x+", "x+7d", "x+0x", "x+0x+7", "x+0xg", "x+0x7d extra"] {
            let error = Choice::function(wrong).unwrap_err();
            assert!(matches!(error, KeyError::NoOffset(_)), "{wrong}: {error}");
        }
        assert_eq!(Choice::function("+0x7d"), Err(KeyError::NoName));
        let reason = |typed: &str| Choice::reason(typed).unwrap().value.matches("NO_SOCKET");
        for typed in ["NO_SOCKET", "(NO_SOCKET)", "skb_drop_reason_no_socket", " no_* "] {
            assert!(reason(typed), "{typed}");
        }
    }
}
