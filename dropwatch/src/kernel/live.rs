//! Symbols of a running kernel: read once, read again when something new needs a name.
//!
//! The kernel proper never changes, so its names come from the table that was read at the start.
//! Everything else comes and goes. The table is read again, at most once a report, when modules
//! came or went since (then at once, so that never more than one report's drops lie between two
//! readings), when a location outside the kernel proper is new, and a few times more while such a
//! location has no name. A name once given outlives its module, whose drops are still in the
//! counters, until a later table proves another.

use std::{
    collections::HashMap,
    io::{self, Read, Seek},
};

use super::{modules::Modules, symbols::SymbolTable};
use crate::report::model::Symbol;

/// Most locations outside the kernel proper whose names are remembered; past it they are looked
/// up in the current table alone.
const MAX_REMEMBERED: usize = 64 << 10;

/// Most readings of the symbols for one location without a name. One is not enough: a module may
/// have come in the place of another, and generated code gets its symbol soon after it runs.
const MAX_TRIES: u8 = 3;

/// What is known of one location outside the kernel proper.
struct Remembered {
    symbol: Option<Symbol>,
    /// [`LiveSymbols::reads`] when it was looked up.
    read: u64,
    /// Readings it was looked up in without a name.
    tries: u8,
}

/// A symbol table with the open files it came from.
///
/// Permission to see addresses is decided by the kernel when the files are opened, so they stay
/// open, and are read again from their start.
pub struct LiveSymbols<F> {
    kallsyms: F,
    /// Absent in kernels without module support.
    modules: Option<F>,
    table: SymbolTable,
    remembered: HashMap<u64, Remembered>,
    /// Fingerprint of the newest list of modules.
    modules_seen: u64,
    /// Fingerprint of the list that the table was read with.
    modules_read: u64,
    /// Times that kallsyms was read.
    reads: u64,
    /// Whether it was read in this report already.
    fresh: bool,
    error: Option<String>,
}

impl<F: Read + Seek> LiveSymbols<F> {
    /// Reads the whole table. `modules` is `None` where there is no `/proc/modules`.
    pub fn read(mut kallsyms: F, mut modules: Option<F>) -> io::Result<Self> {
        let list = read_modules(modules.as_mut())?;
        kallsyms.rewind()?;
        let table = SymbolTable::read(&mut kallsyms, &list)?;
        let fingerprint = list.fingerprint();
        Ok(Self {
            kallsyms,
            modules,
            table,
            remembered: HashMap::new(),
            modules_seen: fingerprint,
            modules_read: fingerprint,
            reads: 1,
            fresh: false,
            error: None,
        })
    }

    pub fn table(&self) -> &SymbolTable {
        &self.table
    }

    /// Times that kallsyms was read, the first included.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Why the last attempt to read the files again failed; names stay as they were.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Fingerprint of the loaded modules.
    pub fn modules_seen(&self) -> u64 {
        self.modules_seen
    }

    /// Looks whether modules came or went, which is cheap; kallsyms is read again if they did.
    pub fn begin_report(&mut self) {
        self.fresh = false;
        if self.table.is_restricted() {
            return;
        }
        match read_modules(self.modules.as_mut()) {
            Ok(list) => self.modules_seen = list.fingerprint(),
            Err(error) => self.error = Some(error.to_string()),
        }
        if self.modules_seen != self.modules_read {
            self.reread();
        }
    }

    /// The function that `location` is in, or was in when it was first asked about.
    pub fn symbol(&mut self, location: u64) -> Option<Symbol> {
        if self.table.is_restricted() {
            return None;
        }
        if self.table.is_core_text(location) {
            return self.look_up(location);
        }
        let settled = |known: &Remembered| known.symbol.is_some() || known.tries >= MAX_TRIES;
        if !self.remembered.get(&location).is_some_and(settled) {
            self.reread();
        }
        let known = self.remembered.get(&location);
        if let Some(known) = known.filter(|known| known.read == self.reads) {
            return known.symbol.clone();
        }
        let found = self.look_up(location);
        let tries = known.map_or(0, |known| known.tries) + u8::from(found.is_none());
        let symbol = found.or_else(|| known.and_then(|known| known.symbol.clone()));
        if known.is_some() || self.remembered.len() < MAX_REMEMBERED {
            let tries = tries.min(MAX_TRIES);
            let remembered = Remembered { symbol: symbol.clone(), read: self.reads, tries };
            self.remembered.insert(location, remembered);
        }
        symbol
    }

    fn look_up(&self, location: u64) -> Option<Symbol> {
        let found = self.table.resolve(location)?;
        Some(Symbol {
            name: found.name.to_owned(),
            offset: found.offset,
            module: found.module.map(str::to_owned),
        })
    }

    /// Reads modules and kallsyms again, unless this report has done so.
    fn reread(&mut self) {
        if self.fresh {
            return;
        }
        self.fresh = true;
        match self.try_reread() {
            Ok(()) => self.error = None,
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn try_reread(&mut self) -> io::Result<()> {
        let list = read_modules(self.modules.as_mut())?;
        self.kallsyms.rewind()?;
        self.table.reread_loaded(&mut self.kallsyms, &list)?;
        self.reads += 1;
        self.modules_seen = list.fingerprint();
        self.modules_read = self.modules_seen;
        Ok(())
    }
}

fn read_modules<F: Read + Seek>(file: Option<&mut F>) -> io::Result<Modules> {
    let Some(file) = file else { return Ok(Modules::default()) };
    file.rewind()?;
    Modules::read(file)
}
