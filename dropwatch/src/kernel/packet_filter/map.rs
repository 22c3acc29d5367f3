//! The elements of maps of verdicts, as nft prints them (`src/rule.c` and `src/datatype.c`, nftables 0.9 to 1.1).
//!
//! ```text
//! map vm { # handle 5
//!     type inet_service : verdict
//!     elements = { 53 : accept, 77 counter packets 3 bytes 84 : jump other,
//!                  6005 comment "old, unused" : drop }
//! }
//! ```

/// Most keys of a map that are kept.
const MOST: usize = 32;
/// Bytes of the elements of a map that are read.
const MOST_BYTES: usize = 1 << 20;
/// What may stand between a key and its verdict.
const STATES: [&str; 6] = [" counter", " comment ", " timeout ", " expires ", " limit ", " quota "];

/// Reads the output of `nft list map` line by line.
#[derive(Default)]
pub(super) struct MapElements {
    text: String,
    within: bool,
    /// The elements were read to their end, or there are none.
    is_whole: bool,
    cut: bool,
}

impl MapElements {
    pub(super) fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        let elements = match (self.within, line.strip_prefix("elements = {")) {
            (false, Some(elements)) => elements,
            (false, None) => {
                self.is_whole |= line == "}" && self.text.is_empty();
                return;
            }
            (true, _) => line,
        };
        self.within = !elements.ends_with('}');
        self.is_whole = !self.within;
        if self.text.len() + elements.len() > MOST_BYTES {
            self.cut = true;
            return;
        }
        self.text.push_str(elements);
        self.text.push(' ');
    }

    /// The keys that drop; `None` where not all elements are known.
    pub(super) fn end(self) -> Option<Vec<String>> {
        dropping(&self.text).filter(|_| self.is_whole && !self.cut)
    }
}

/// The keys of elements whose verdict is to drop, up to the brace that closes them; `None` of more than
/// [`MOST`].
pub(super) fn dropping(elements: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let (mut begin, mut quoted) = (0, false);
    for (at, byte) in elements.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' | b'}' if !quoted => {
                keys.extend(elements.get(begin..at).and_then(key));
                begin = at + 1;
                if byte == b'}' {
                    break;
                }
                if keys.len() > MOST {
                    return None;
                }
            }
            _ => {}
        }
    }
    (keys.len() <= MOST).then_some(keys)
}

/// The key of an element that drops.
fn key(element: &str) -> Option<String> {
    let (key, verdict) = element.rsplit_once(" : ")?;
    let end = STATES.iter().filter_map(|state| key.find(state)).min().unwrap_or(key.len());
    let key = key.get(..end)?.trim();
    (verdict.trim() == "drop" && !key.is_empty()).then(|| super::tally::clean(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        let mut elements = MapElements::default();
        text.lines().for_each(|line| elements.line(line.as_bytes()));
        elements.end()
    }

    const LISTED: &str = "table inet fw {
\tmap vm {
\t\ttype ipv4_addr . inet_service : verdict
\t\telements = { 10.0.0.1 . 53 : accept, 10.0.0.1 . 77 counter packets 3 bytes 84 : jump other,
\t\t\t     10.0.0.2 . 80-90 comment \"a : drop, b\" : drop, fd00::1 : continue,
\t\t\t     10.0.0.3 . 6005 timeout 1m expires 50s : drop }
\t}
}
";

    #[test]
    fn keys_that_drop_are_kept() {
        assert_eq!(read(LISTED).unwrap(), ["10.0.0.2 . 80-90", "10.0.0.3 . 6005"]);
        assert_eq!(dropping(" 53 : accept, 6005 : drop } # x, 1 : drop").unwrap(), ["6005"]);
        let many: String = (0..40).map(|port| format!(" {port} : drop,")).collect();
        assert_eq!(dropping(&many), None);
    }

    #[test]
    fn a_map_that_is_not_whole_says_nothing() {
        assert_eq!(read(&LISTED[..LISTED.find("fd00").unwrap()]), None);
        assert_eq!(
            read("table inet fw {\n\tmap vm {\n\t\ttype mark : verdict\n\t}\n}\n"),
            Some(vec![])
        );
        assert_eq!(read(""), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\\n]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read(&text), dropping(&text));
            MapElements::default().line(&bytes);
        }
    }
}
