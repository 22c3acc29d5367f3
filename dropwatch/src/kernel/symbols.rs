//! The table that turns an address in kernel text into a function name, or into nothing.
//!
//! kallsyms gives starts and no sizes, so "the last symbol at or below the address" always finds
//! one, however far away. Here a symbol only counts within the section it belongs to:
//!
//! - the kernel's between `_stext` and `_etext`, never init text, which is freed after boot and
//!   whose addresses then belong to someone else;
//! - a module's between its base and its end in `/proc/modules`, which is clamped to the next
//!   module's base and to the module's own data, because the size there counts all sections;
//! - generated code (BPF programs, trampolines) within [`MAX_GENERATED`] bytes.
//!
//! Between two symbols of one section, the lower one holds.

use std::{
    collections::HashMap,
    io::{self, Read},
    mem,
    ops::Range,
};

use super::{
    clean,
    kallsyms::{KallsymsLine, MAX_LINE},
    lines::for_each_line,
    modules::Modules,
};

/// Longest reach of a symbol of generated code, bytes. The kernel gives no size of a BPF program
/// here; the largest in use, of some ten thousand instructions, take about this much, and what
/// lies further on is another allocation whose owner has no name.
pub const MAX_GENERATED: u64 = 128 << 10;

/// Most symbols kept, and most bytes of names: five times those of a large distribution kernel.
const MAX_SYMBOLS: usize = 1 << 20;
const MAX_NAMES: usize = 32 << 20;

/// Who a symbol belongs to: the kernel proper, or an index into [`SymbolTable::owners`].
type OwnerId = u16;
const KERNEL: OwnerId = OwnerId::MAX;

/// A symbol: 16 bytes, its name in the section's arena.
#[derive(Clone, Copy, Debug)]
struct PackedSymbol {
    address: u64,
    name: u32,
    length: u16,
    owner: OwnerId,
}

/// Symbols sorted by address, one an address.
#[derive(Debug, Default)]
struct SymbolSection {
    symbols: Vec<PackedSymbol>,
    names: String,
}

/// Owner of symbols outside the kernel proper.
#[derive(Debug)]
struct SymbolOwner {
    name: String,
    /// Addresses its text can have; `None` for generated code, which is anywhere.
    text: Option<Range<u64>>,
}

impl SymbolOwner {
    /// Whether this is the same module at the same place; its end can seem to move as the modules
    /// above it come and go.
    fn is(&self, other: &Self) -> bool {
        let start = |owner: &Self| owner.text.as_ref().map(|text| text.start);
        self.name == other.name && start(self) == start(other)
    }
}

/// A function found by [`SymbolTable::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    pub name: &'a str,
    /// Bytes from the function's start.
    pub offset: u64,
    pub module: Option<&'a str>,
}

/// Names of all functions of a running kernel, in a few megabytes.
#[derive(Debug)]
pub struct SymbolTable {
    /// The kernel proper: never changes while it runs.
    core: SymbolSection,
    core_text: Range<u64>,
    /// Modules and generated code: changes as they come and go.
    loaded: SymbolSection,
    owners: Vec<SymbolOwner>,
    /// Modules and generated code at the reading before the newest: one of them may have dropped
    /// packets and be gone since.
    before: Option<(SymbolSection, Vec<SymbolOwner>)>,
    restricted: bool,
    skipped: u64,
}

impl SymbolTable {
    /// Reads `/proc/kallsyms`, with the modules that `/proc/modules` listed just before.
    pub fn read(kallsyms: impl Read, modules: &Modules) -> io::Result<Self> {
        Ok(Builder::read(kallsyms, modules, true)?.finish())
    }

    /// Replaces the symbols of modules and generated code; those of the kernel proper stay. On an
    /// error, or where the addresses are hidden, nothing changes.
    pub fn reread_loaded(&mut self, kallsyms: impl Read, modules: &Modules) -> io::Result<()> {
        let fresh = Builder::read(kallsyms, modules, false)?.finish();
        if !fresh.restricted {
            let loaded = mem::replace(&mut self.loaded, fresh.loaded);
            self.before = Some((loaded, mem::replace(&mut self.owners, fresh.owners)));
        }
        Ok(())
    }

    /// The function that `address` is in. `address` is used as it is: a drop location is a return
    /// address, or a function's own start, so nothing may be subtracted.
    ///
    /// Between two readings a module can drop packets and go. Where the newest reading has no
    /// module at the address, the one before decides; where another one has come, either may be
    /// meant, and nothing is shown. Generated code comes last: only its nearness speaks for it.
    pub fn resolve(&self, address: u64) -> Option<Resolved<'_>> {
        if self.is_core_text(address) {
            return resolve_in(&self.core, &[], address);
        }
        if let Some((section, owners)) = &self.before
            && let Some(was) = module_at(owners, address)
        {
            match module_at(&self.owners, address) {
                // The module is still listed, but was unloaded before kallsyms came to its symbols:
                // the code is the same.
                Some(is) if is.is(was) => {
                    let now = resolve_in(&self.loaded, &self.owners, address);
                    return now.or_else(|| resolve_in(section, owners, address));
                }
                // A module that is in both readings but reaches to this address in one alone does
                // not reach it: its size is that of all its sections, and its text ends somewhere
                // before.
                Some(_) if self.owners.iter().any(|owner| owner.is(was)) => {}
                Some(is) if !owners.iter().any(|owner| is.is(owner)) => return None,
                Some(_) | None => return resolve_in(section, owners, address),
            }
        }
        resolve_in(&self.loaded, &self.owners, address)
    }

    /// Whether `address` is in the kernel proper, whose names never change.
    pub fn is_core_text(&self, address: u64) -> bool {
        self.core_text.contains(&address)
    }

    /// Whether the kernel printed every address as zero (kptr_restrict, no CAP_SYSLOG).
    pub fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// The name of every function known and, where it is not the kernel's own, whose it is; in no
    /// order.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        [&self.core, &self.loaded].into_iter().flat_map(|section| {
            section.symbols.iter().map(|symbol| {
                let owner = self.owners.get(usize::from(symbol.owner));
                (section.name(symbol), owner.map(|owner| owner.name.as_str()))
            })
        })
    }

    /// Whether a function that `is_meant` takes, by its name and whose it is, reaches `offset` bytes
    /// from its start.
    pub fn reaches(&self, offset: u64, is_meant: impl Fn(&str, Option<&str>) -> bool) -> bool {
        let meant = |section: &SymbolSection, symbol: &PackedSymbol| {
            let owner = self.owners.get(usize::from(symbol.owner));
            is_meant(section.name(symbol), owner.map(|owner| owner.name.as_str()))
                && symbol.address.checked_add(offset).is_some_and(|address| {
                    self.resolve(address).is_some_and(|found| found.offset == offset)
                })
        };
        [&self.core, &self.loaded]
            .into_iter()
            .any(|section| section.symbols.iter().any(|symbol| meant(section, symbol)))
    }

    /// Functions known.
    pub fn len(&self) -> usize {
        self.core.symbols.len() + self.loaded.symbols.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Modules known.
    pub fn modules(&self) -> usize {
        self.owners.iter().filter(|owner| owner.text.is_some()).count()
    }

    /// Lines that were not understood, or were more than the table's bounds.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// The function of one section that `address` is in.
fn resolve_in<'a>(
    section: &'a SymbolSection,
    owners: &'a [SymbolOwner],
    address: u64,
) -> Option<Resolved<'a>> {
    let above = section.symbols.partition_point(|symbol| symbol.address <= address);
    let symbol = section.symbols.get(above.checked_sub(1)?)?;
    let offset = address - symbol.address;
    let owner = owners.get(usize::from(symbol.owner));
    let within = match owner.map(|owner| &owner.text) {
        // Of the kernel proper, the symbol and the address are both in `core_text`.
        None => true,
        Some(Some(text)) => text.contains(&address),
        Some(None) => offset < MAX_GENERATED && !module_starts_in(owners, symbol.address, address),
    };
    within.then(|| Resolved {
        name: section.name(symbol),
        offset,
        module: owner.map(|owner| owner.name.as_str()),
    })
}

/// The module whose text `address` is in.
fn module_at(owners: &[SymbolOwner], address: u64) -> Option<&SymbolOwner> {
    owners.iter().find(|owner| owner.text.as_ref().is_some_and(|text| text.contains(&address)))
}

/// Whether a module lies between a symbol of generated code and an address behind it.
fn module_starts_in(owners: &[SymbolOwner], symbol: u64, address: u64) -> bool {
    let starts = owners.iter().filter_map(|owner| owner.text.as_ref());
    starts.map(|text| text.start).any(|start| symbol < start && start <= address)
}

impl SymbolSection {
    fn name(&self, symbol: &PackedSymbol) -> &str {
        let start = symbol.name as usize;
        self.names.get(start..start + usize::from(symbol.length)).unwrap_or_default()
    }

    /// Adds a symbol; false where the bounds are reached.
    fn push(&mut self, address: u64, name: &str, owner: OwnerId) -> bool {
        if self.symbols.last().is_some_and(|last| last.address == address) {
            return true; // an alias: the first name wins
        }
        let start = self.names.len();
        if name.chars().any(char::is_control) {
            self.names.push_str(&clean(name));
        } else {
            self.names.push_str(name);
        }
        let length = u16::try_from(self.names.len() - start);
        let (Ok(start), Ok(length)) = (u32::try_from(start), length) else { return false };
        self.symbols.push(PackedSymbol { address, name: start, length, owner });
        self.symbols.len() <= MAX_SYMBOLS && self.names.len() <= MAX_NAMES
    }

    /// Sorts, keeps what `keep` says, and of the names of one address the first.
    fn seal(&mut self, keep: impl Fn(&PackedSymbol) -> bool) {
        self.symbols.retain(keep);
        // Names are stored in the order of the file, so comparing their positions keeps that order
        // among equals.
        let order = |symbol: &PackedSymbol| (symbol.address, symbol.name);
        if !self.symbols.is_sorted_by_key(order) {
            self.symbols.sort_unstable_by_key(order);
        }
        self.symbols.dedup_by_key(|symbol| symbol.address);
        self.symbols.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

/// Addresses of the linker's markers around the kernel's text.
#[derive(Default)]
struct Markers {
    stext: Option<u64>,
    etext: Option<u64>,
    /// `_sinittext`, else `__init_begin`
    init_start: Option<u64>,
    /// `_einittext`, else `__init_end`
    init_end: Option<u64>,
}

struct Builder {
    with_core: bool,
    core: SymbolSection,
    markers: Markers,
    loaded: SymbolSection,
    owners: Vec<SymbolOwner>,
    ids: HashMap<String, OwnerId>,
    /// Owner of the line before: a module's symbols follow each other.
    last: Option<OwnerId>,
    full: bool,
    zeros: u64,
    addresses: u64,
    skipped: u64,
}

impl Builder {
    fn read(kallsyms: impl Read, modules: &Modules, with_core: bool) -> io::Result<Self> {
        let mut builder = Self::new(modules, with_core);
        let unread = for_each_line(kallsyms, MAX_LINE, |line| match KallsymsLine::parse(line) {
            Some(line) => builder.add(&line),
            None => builder.skipped += 1,
        })?;
        builder.skipped += unread;
        Ok(builder)
    }

    fn new(modules: &Modules, with_core: bool) -> Self {
        let mut owners = Vec::with_capacity(modules.list.len());
        let mut ids = HashMap::with_capacity(modules.list.len());
        for (index, module) in modules.list.iter().enumerate() {
            let next = modules.list.get(index + 1).map_or(u64::MAX, |next| next.base);
            let end = module.base.saturating_add(module.size).min(next);
            ids.insert(module.name.clone(), index as OwnerId);
            owners.push(SymbolOwner { name: module.name.clone(), text: Some(module.base..end) });
        }
        Self {
            with_core,
            core: SymbolSection::default(),
            markers: Markers::default(),
            loaded: SymbolSection::default(),
            owners,
            ids,
            last: None,
            full: false,
            zeros: 0,
            addresses: 0,
            skipped: 0,
        }
    }

    fn add(&mut self, line: &KallsymsLine<'_>) {
        if line.address == 0 {
            self.zeros += u64::from(line.is_text());
            return;
        }
        match line.module {
            None => self.add_core(line),
            Some(module) => self.add_loaded(line, module),
        }
    }

    fn add_core(&mut self, line: &KallsymsLine<'_>) {
        self.addresses += u64::from(line.is_text());
        if !self.with_core {
            return;
        }
        let address = Some(line.address);
        match line.name {
            "_stext" => self.markers.stext = address,
            "_etext" => self.markers.etext = address,
            "_sinittext" => self.markers.init_start = address,
            "_einittext" => self.markers.init_end = address,
            "__init_begin" => self.markers.init_start = self.markers.init_start.or(address),
            "__init_end" => self.markers.init_end = self.markers.init_end.or(address),
            _ => {}
        }
        if line.names_code() {
            if self.full {
                self.skipped += 1;
            } else {
                self.full = !self.core.push(line.address, line.name, KERNEL);
            }
        }
    }

    fn add_loaded(&mut self, line: &KallsymsLine<'_>, module: &str) {
        let Some(id) = self.owner(module) else { return };
        if let Some(text) = &mut self.owners[usize::from(id)].text {
            // Before Linux 6.4 a module is one block, its text first.
            if line.is_data() && line.address > text.start {
                text.end = text.end.min(line.address);
            }
        }
        if line.names_code() {
            self.addresses += 1;
            if self.full {
                self.skipped += 1;
            } else {
                self.full = !self.loaded.push(line.address, line.name, id);
            }
        }
    }

    /// Owner of the symbols marked `[name]`: a module of `/proc/modules` or generated code. None
    /// for a module that came after that list was read, whose extent is therefore unknown.
    fn owner(&mut self, name: &str) -> Option<OwnerId> {
        if let Some(last) = self.last
            && self.owners[usize::from(last)].name == name
        {
            return Some(last);
        }
        let known = self.ids.get(name).copied();
        self.last = known.or_else(|| {
            // Names the kernel gives to text that is no module's: `bpf_get_kallsym` users and
            // `FTRACE_TRAMPOLINE_SYM`, `KPROBE_INSN_PAGE_SYM` (`__builtin__…`).
            if name != "bpf" && !name.starts_with("__builtin__") {
                return None;
            }
            let id = OwnerId::try_from(self.owners.len()).ok().filter(|&id| id != KERNEL)?;
            self.owners.push(SymbolOwner { name: clean(name), text: None });
            self.ids.insert(name.to_owned(), id);
            Some(id)
        });
        self.last
    }

    fn finish(mut self) -> SymbolTable {
        let core_text = self.core_text();
        self.core.seal(|symbol| core_text.contains(&symbol.address));
        // Init sections of a module are somewhere else: they are freed when it has loaded, and
        // another module can be there by now.
        let owners = &self.owners;
        self.loaded.seal(|symbol| match &owners[usize::from(symbol.owner)].text {
            Some(text) => text.contains(&symbol.address),
            None => !core_text.contains(&symbol.address),
        });
        SymbolTable {
            core: self.core,
            core_text,
            loaded: self.loaded,
            owners: self.owners,
            before: None,
            restricted: self.zeros > 0 && self.addresses == 0,
            skipped: self.skipped,
        }
    }

    /// Where the kernel's own text is, without init text. A kernel without the markers is taken
    /// from its first to its last symbol: the end of the last one cannot be proved.
    fn core_text(&self) -> Range<u64> {
        let addresses = || self.core.symbols.iter().map(|symbol| symbol.address);
        let start = self.markers.stext.or_else(|| addresses().min()).unwrap_or(0);
        let end = self.markers.etext.or_else(|| addresses().max()).unwrap_or(0);
        match (self.markers.init_start, self.markers.init_end) {
            // Init text is behind the rest (x86, arm64, powerpc, s390), or before it.
            (Some(init), Some(_)) if init > start => start..end.min(init),
            (Some(_), Some(init_end)) => start.max(init_end)..end,
            _ => start..end,
        }
    }
}
