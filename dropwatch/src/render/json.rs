//! NDJSON: one object a line, as `docs/json.md` describes it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use super::Renderer;
use crate::report::{model::Line, shell::is_hidden};

/// Renders lines for programs, and for `replay`.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Renderer for Json {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        json_line(line, page)
    }
}

/// Appends any value as one line.
pub fn json_line(value: &impl Serialize, page: &mut Vec<u8>) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *page, Escaping))?;
    page.write_all(b"\n")
}

/// Compact JSON that is safe to look at: escapes what a terminal could take for an order, beyond
/// the control characters that JSON escapes anyway. The values stay the same.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_hidden(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_keep_the_value() {
        let text = "a\x1b[2J\u{7f}\u{9b}\u{202e}\u{e0041}é\"\\\n";
        let mut page = Vec::new();
        text.serialize(&mut Serializer::with_formatter(&mut page, Escaping)).unwrap();
        let json = String::from_utf8(page).unwrap();
        assert_eq!(json, r#""a\u001b[2J\u007f\u009b\u202e\udb40\udc41é\"\\\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
