//! The tracefs description of an event: its record's fields, and the names of enumerated values.
//!
//! ```text
//! field:enum skb_drop_reason reason;  offset:36;  size:4;  signed:0;
//!
//! print fmt: "… reason: %s", …, __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, …)
//! ```

use super::clean;

/// Most fields, and most names, taken from one description.
const MAX_FIELDS: usize = 256;
const MAX_NAMES: usize = 8192;

/// A field of the event's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventField {
    pub name: String,
    /// C type, `const void *`.
    pub kind: String,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    pub signed: bool,
}

/// An event as tracefs describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFormat {
    pub fields: Vec<EventField>,
    print: String,
}

impl EventFormat {
    /// Parses a `format` file. Lines that are not understood are left out.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut format = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(print) = line.strip_prefix("print fmt:") {
                format.print = print.to_owned();
            } else if format.fields.len() < MAX_FIELDS {
                format.fields.extend(field(line));
            }
        }
        format
    }

    pub fn field(&self, name: &str) -> Option<&EventField> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Names that the event prints for the values of `field`. Values that are not numbers (an
    /// enumerator that the kernel did not resolve) are left out.
    pub fn names(&self, field: &str) -> Vec<(u32, String)> {
        let start = format!("__print_symbolic(REC->{field},");
        let Some((_, mut rest)) = self.print.split_once(&start) else { return Vec::new() };
        let mut names = Vec::new();
        while names.len() < MAX_NAMES {
            let Some(pair) = rest.trim_start().strip_prefix('{') else { break };
            let Some((value, quoted)) = pair.split_once(',') else { break };
            let Some(quoted) = quoted.trim_start().strip_prefix('"') else { break };
            let Some((name, tail)) = quoted.split_once('"') else { break };
            names.extend(number(value.trim()).map(|value| (value, clean(name))));
            let Some(tail) = tail.trim_start().strip_prefix('}') else { break };
            let Some(tail) = tail.trim_start().strip_prefix(',') else { break };
            rest = tail;
        }
        names
    }
}

/// `field:TYPE NAME; offset:N; size:N; signed:N;`, tabs between
fn field(line: &str) -> Option<EventField> {
    let mut parts = line.strip_prefix("field:")?.split(';').map(str::trim);
    let (kind, name) = parts.next()?.rsplit_once(' ')?;
    let mut value = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix(':')?.parse().ok();
    let (offset, size, signed) = (value("offset")?, value("size")?, value("signed")?);
    let name = name.split_once('[').map_or(name, |(name, _)| name);
    Some(EventField { name: clean(name), kind: clean(kind), offset, size, signed: signed != 0 })
}

/// A decimal or `0x` hexadecimal number.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: kfree_skb
ID: 1519
format:
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:const void * rx_sk;	offset:24;	size:8;	signed:0;
	field:char comm[16];	offset:32;	size:16;	signed:0;
	field:enum skb_drop_reason reason;	offset:nonsense;	size:4;	signed:0;

print fmt: \"reason: %s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 0x30001, \
\"GENERIC\" }, { SKB_DROP_REASON_X, \"X\" }, { 3, \"NO_SOCKET\" }), REC->protocol
";

    #[test]
    fn reads_fields() {
        let format = EventFormat::parse(TEXT.as_bytes());
        let rx_sk = format.field("rx_sk").unwrap();
        assert_eq!((rx_sk.kind.as_str(), rx_sk.offset, rx_sk.size), ("const void *", 24, 8));
        assert!(format.field("common_pid").unwrap().signed);
        assert_eq!(format.field("comm").unwrap().size, 16);
        assert_eq!(format.field("reason"), None);
    }

    #[test]
    fn reads_decimal_and_hexadecimal_names() {
        let names = EventFormat::parse(TEXT.as_bytes()).names("reason");
        let expected = [(2, "NOT_SPECIFIED"), (0x30001, "GENERIC"), (3, "NO_SOCKET")];
        assert_eq!(names, expected.map(|(value, name)| (value, name.to_owned())));
    }

    #[test]
    fn a_cut_list_gives_its_whole_entries() {
        for end in 0..TEXT.len() {
            for (_, name) in EventFormat::parse(&TEXT.as_bytes()[..end]).names("reason") {
                assert!(["NOT_SPECIFIED", "GENERIC", "NO_SOCKET"].contains(&name.as_str()));
            }
        }
        assert_eq!(EventFormat::parse(TEXT.as_bytes()).names("protocol"), []);
    }
}
