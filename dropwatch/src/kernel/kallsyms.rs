//! One line of `/proc/kallsyms`: `address type name[\t[module]]`, as `s_show` in
//! `kernel/kallsyms.c` prints it.

/// Longest line taken, bytes: a name of `KSYM_NAME_LEN` (512 since Linux 6.1) and a module's of
/// `MODULE_NAME_LEN` (56 on 64-bit) leave room to spare.
pub const MAX_LINE: usize = 1024;

/// A symbol as printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KallsymsLine<'a> {
    /// Zero where the kernel hides addresses.
    pub address: u64,
    /// As `nm` prints it: lower case is local, upper case global.
    pub kind: u8,
    pub name: &'a str,
    /// Module, or the kernel's own bracketed name for generated code (`bpf`, `__builtin__ftrace`).
    pub module: Option<&'a str>,
}

impl<'a> KallsymsLine<'a> {
    /// Parses a line without its newline; `None` where it is not
    /// `address type name[\t[module]]`.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (address, rest) = hex(line)?;
        let (&[b' ', kind, b' '], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let rest = str::from_utf8(rest).ok()?;
        let (name, module) = match rest.split_once('\t') {
            None => (rest, None),
            Some((name, module)) => (name, Some(module.strip_prefix('[')?.strip_suffix(']')?)),
        };
        if name.is_empty() || module == Some("") || !kind.is_ascii_alphabetic() {
            return None;
        }
        Some(Self { address, kind, name, module })
    }

    /// Whether this can name a place in a function: executable, and not a label that the compiler
    /// puts beside functions (`__pfx_` padding, `__cfi_` type hashes, `$` mapping symbols).
    pub fn names_code(&self) -> bool {
        self.is_text()
            && !["__pfx_", "__cfi_", "$"].iter().any(|label| self.name.starts_with(label))
    }

    /// Whether the symbol is in an executable section.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }

    /// Whether the symbol is in a section that is not executable. Absolute and undefined symbols
    /// are in none.
    pub fn is_data(&self) -> bool {
        matches!(self.kind.to_ascii_lowercase(), b'b' | b'd' | b'g' | b'r' | b's' | b'v')
    }
}

/// Leading hexadecimal number of 1 to 16 digits, and what follows.
fn hex(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (digits, &byte) in line.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return (digits > 0).then_some((value, &line[digits..])),
        };
        if digits == 16 {
            return None;
        }
        value = value << 4 | u64::from(digit);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<KallsymsLine<'_>> {
        KallsymsLine::parse(line.as_bytes())
    }

    #[test]
    fn reads_kernel_and_module_symbols() {
        assert_eq!(
            parse("ffffffff81000000 T _stext"),
            Some(KallsymsLine {
                address: 0xffff_ffff_8100_0000,
                kind: b'T',
                name: "_stext",
                module: None
            })
        );
        assert_eq!(
            parse("ffffffffc0225010 t veth_xmit.isra.0\t[veth]")
                .map(|line| (line.name, line.module)),
            Some(("veth_xmit.isra.0", Some("veth")))
        );
    }

    #[test]
    fn refuses_what_is_not_a_symbol() {
        for line in [
            "",
            "ffffffff81000000",
            "ffffffff81000000 T",
            "ffffffff81000000 T ",
            "ffffffff81000000  name",
            "zzz T name",
            "ffffffff810000001 T seventeen_digits",
            "ffffffff81000000 T name\tmodule",
            "ffffffff81000000 T name\t[]",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
        assert_eq!(KallsymsLine::parse(b"ffffffff81000000 T na\xffme"), None);
    }

    #[test]
    fn labels_beside_functions_are_not_code() {
        for name in ["__pfx_tcp_v4_rcv", "__cfi_tcp_v4_rcv", "$x", "$d.12"] {
            let line = format!("ffffffff81000000 t {name}");
            assert!(!parse(&line).unwrap().names_code(), "{name}");
        }
        assert!(parse("ffffffff81000000 t tcp_v4_rcv").unwrap().names_code());
        assert!(!parse("ffffffff81000000 d tcp_hashinfo").unwrap().names_code());
    }
}
