//! From the object to a program in the kernel.
//!
//! aya's own loader reads all of the kernel's types first (15 ms and 15 MiB) and asks the kernel for
//! features, none of which this one program needs. aya-obj does the part that takes knowledge of
//! the format: sections, symbols, relocations.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya_obj::{EbpfSectionKind, Object};
use dropwatch_common::offsets::Offsets;
use log::{Level, debug, log_enabled};

use super::{
    expression, info,
    maps::Map,
    plan::Step,
    sys::{self, Arguments, Code, MapSpec},
    typed, verifier,
};
use crate::filter::expression::ExpressionCode;

/// What may differ from loading to loading of one object.
pub(super) struct LoadSettings<'a> {
    /// Where this kernel has the fields that the programs load through typed pointers.
    pub(super) offsets: &'a Offsets,
    /// The code of a filter expression.
    pub(super) expression: Option<&'a ExpressionCode>,
    /// Values of global variables, by name.
    pub(super) globals: HashMap<&'a str, &'a [u8]>,
    /// Sizes of maps, by name, instead of what the object says.
    pub(super) sizes: HashMap<&'a str, Size>,
}

/// The object as one way of attaching has it: with its maps, which its programs share.
pub(super) struct Linked {
    object: Object,
    pub(super) maps: HashMap<String, Map>,
}

/// What went wrong, while doing what.
#[derive(Debug)]
pub(super) struct LoadError {
    pub(super) step: Step,
    pub(super) cause: io::Error,
}

impl LoadError {
    fn object(cause: impl fmt::Display) -> Self {
        let cause = io::Error::other(format!("unexpected object: {cause}"));
        Self { step: Step::Maps, cause }
    }

    fn map(cause: io::Error) -> Self {
        Self { step: Step::Maps, cause }
    }
}

/// The size of a map on this host, which the object does not know.
pub(super) enum Size {
    /// Entries; of a ring buffer, bytes.
    Entries(u32),
    /// Bytes of the only value, whose memory is shared with user space.
    Shared(u32),
}

/// The object, and maps that no setting changes.
pub(super) struct Loader {
    object: Object,
    early: HashMap<String, Map>,
}

impl Loader {
    /// Reads `object` and creates some of its maps, by name and size.
    pub(super) fn new(object: &[u8], early: &[(&str, Size)]) -> Result<Self, LoadError> {
        let object = Object::parse(object).map_err(LoadError::object)?;
        let mut maps = HashMap::new();
        for (name, size) in early {
            let definition = object.maps.get(*name);
            let definition = definition.ok_or_else(|| LoadError::object("it lacks a map"))?;
            let spec = spec(name, definition, Some(size));
            maps.insert((*name).to_owned(), Map::create(&spec).map_err(LoadError::map)?);
        }
        Ok(Self { object, early: maps })
    }

    /// Creates the other maps, and has the programs refer to them.
    ///
    /// May be called again, with other settings, while no program that this linked is attached: they
    /// share the maps that were created early.
    pub(super) fn link(&self, settings: LoadSettings<'_>) -> Result<Linked, LoadError> {
        let mut object = self.object.clone();
        // A global that the object lacks is an error.
        let globals = settings.globals.into_iter().map(|(name, value)| (name, (value, true)));
        object.patch_map_data(globals.collect()).map_err(LoadError::object)?;

        let definitions: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let mut maps = HashMap::new();
        for (name, definition) in &definitions {
            let map = match self.early.get(name) {
                Some(map) => map.try_clone(),
                None => create(name, definition, settings.sizes.get(name.as_str())),
            };
            maps.insert(name.clone(), map.map_err(LoadError::map)?);
        }

        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        let places = definitions
            .iter()
            .map(|(name, definition)| (name.as_str(), maps[name].fd.as_raw_fd(), definition));
        object.relocate_maps(places, &sections).map_err(LoadError::object)?;
        if let Some(program) = settings.expression {
            let code = expression::translate(program).map_err(LoadError::object)?;
            if !expression::insert(&mut object, &code) {
                return Err(LoadError::object("it lacks the function for an expression"));
            }
        }
        object.relocate_calls(&sections).map_err(LoadError::object)?;
        for function in object.functions.values_mut() {
            function.instructions.iter_mut().for_each(|code| typed::patch(code, settings.offsets));
        }

        Ok(Linked { object, maps })
    }
}

impl Linked {
    /// Loads the program of that name, for arguments of that kind.
    pub(super) fn load(&self, program: &str, arguments: Arguments) -> Result<OwnedFd, LoadError> {
        let definition = self.object.programs.get(program);
        let definition = definition.ok_or_else(|| LoadError::object("it lacks the program"))?;
        let function = self.object.functions.get(&definition.function_key());
        let function = function.ok_or_else(|| LoadError::object("its program has no code"))?;
        let code = Code {
            name: program,
            arguments,
            instructions: &function.instructions,
            license: &definition.license,
        };
        sys::load(&code, &mut []).map_err(|cause| {
            if log_enabled!(Level::Debug) {
                let said = verifier::ask(&code);
                said.iter().for_each(|line| debug!("verifier: {line}"));
            }
            LoadError { step: Step::Load, cause }
        })
    }

    /// Bytes that the maps take in the kernel; `None` where it does not report them.
    pub(super) fn memory(&self) -> Option<u64> {
        self.maps.values().map(|map| info::read(&map.fd).ok()?.memory()).sum()
    }
}

/// A map as the object has it, but for its size.
fn spec<'a>(name: &'a str, definition: &aya_obj::Map, size: Option<&Size>) -> MapSpec<'a> {
    let mut spec = MapSpec {
        name,
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
        max_entries: definition.max_entries(),
        flags: definition.map_flags(),
    };
    match size {
        None => {}
        Some(Size::Entries(entries)) => spec.max_entries = *entries,
        Some(Size::Shared(bytes)) => {
            spec.value_size = *bytes;
            spec.flags |= sys::F_MMAPABLE;
        }
    }
    spec
}

fn create(name: &str, definition: &aya_obj::Map, size: Option<&Size>) -> io::Result<Map> {
    let map = Map::create(&spec(name, definition, size))?;
    // Sections of global variables. What has another size is the kernel side's to fill.
    let data = definition.data();
    if !data.is_empty() && data.len() == map.value_size {
        map.set(data)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        sys::freeze(map.fd.as_fd())?;
    }
    Ok(map)
}
