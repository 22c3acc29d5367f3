//! `/proc/modules`: which modules are loaded, and where.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
};

use super::{clean, lines::for_each_line};

/// Longest line taken, bytes: the list of dependent modules is part of it.
const MAX_LINE: usize = 64 << 10;
/// Most modules taken; kernels in use load some hundreds.
const MAX_MODULES: usize = 16 << 10;

/// A loaded module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    pub name: String,
    /// Start of its text. Zero where the kernel hides addresses.
    pub base: u64,
    /// Bytes of all its sections together (`m_show` in `kernel/module/procfs.c`), so its text ends
    /// before `base + size`; how long before, the file does not say.
    pub size: u64,
    /// `Live`, `Loading` or `Unloading`: while it loads, init sections are part of it.
    state: String,
}

impl Module {
    /// `name size refcount users state base [taint]`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (name, size) = (words.next()?, words.next()?.parse().ok()?);
        // The users are one word: a comma after each, `-` for none.
        let (state, base) = (words.nth(2)?, words.next()?.strip_prefix("0x")?);
        let base = u64::from_str_radix(base, 16).ok()?;
        Some(Self { name: clean(name), base, size, state: clean(state) })
    }
}

/// The loaded modules, sorted by base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    pub list: Vec<Module>,
    /// Lines that were not understood.
    pub skipped: u64,
}

impl Modules {
    pub fn read(reader: impl Read) -> io::Result<Self> {
        let (mut list, mut malformed) = (Vec::new(), 0);
        let overlong = for_each_line(reader, MAX_LINE, |line| match Module::parse(line) {
            Some(module) if list.len() < MAX_MODULES => list.push(module),
            _ => malformed += 1,
        })?;
        list.sort_by_key(|module| module.base);
        Ok(Self { list, skipped: overlong + malformed })
    }

    /// Changes when a module comes, goes, moves or finishes loading; use counts do not matter.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.list.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
openvswitch 167936 0 - Live 0xffffffffc02d8000
nsh 16384 1 openvswitch, Live 0xffffffffc02d3000
vendor 4096 0 - Loading 0xffffffffc0111000 (OE+)
half a line
";

    #[test]
    fn reads_the_kernels_list_sorted_by_base() {
        let modules = Modules::read(TEXT.as_bytes()).unwrap();
        let names: Vec<_> = modules.list.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["vendor", "nsh", "openvswitch"]);
        assert_eq!((modules.list[1].base, modules.list[1].size), (0xffff_ffff_c02d_3000, 16384));
        assert_eq!(modules.skipped, 1);
    }

    #[test]
    fn only_use_counts_leave_the_fingerprint_alone() {
        let print = |text: &str| Modules::read(text.as_bytes()).unwrap().fingerprint();
        assert_eq!(print(TEXT), print(&TEXT.replace("nsh 16384 1", "nsh 16384 7")));
        assert_ne!(print(TEXT), print(&TEXT.replace("Loading", "Live")));
        assert_ne!(print(TEXT), print(&TEXT.replace("c02d8000", "c02d9000")));
        assert_ne!(print(TEXT), print(&TEXT.replace("nsh", "nsg")));
    }
}
