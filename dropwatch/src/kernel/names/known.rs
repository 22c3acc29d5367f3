//! Whether what somebody typed is the name of anything on this host.

use super::{HostNames, HostRoot, LiveSymbols, Reasons, Vmlinux, status};
use crate::report::{
    keys::{Function, Glob, Keys},
    near::{did_you_mean, near},
};

/// What a host says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Yes,
    /// Nothing is called so. The text says it, with names that look like it.
    No(String),
    /// Nothing is called so, or ever will be, and why.
    Never(String),
    /// Whether anything is called so cannot be checked on this host, and why.
    Unchecked(String),
}

/// Names of the drop reasons that the kernel itself has; none where its BTF does not list them.
pub fn reasons(root: &HostRoot) -> Vec<String> {
    let reasons = Vmlinux::read(root).ok().and_then(|vmlinux| vmlinux.reasons);
    reasons.iter().flat_map(Reasons::names).map(str::to_owned).collect()
}

impl HostNames {
    /// Whether the kernel, or a module that is loaded, has a drop reason that `glob` matches.
    pub fn has_reason(&mut self, glob: &Glob) -> Known {
        // `__sk_skb_reason_drop()` (net/core/skbuff.c) traces it as what consume_skb() frees.
        if glob.text().eq_ignore_ascii_case("CONSUMED") {
            return Known::Never("what is consumed is no drop: the kernel reports none".to_owned());
        }
        let loaded = self.loaded();
        match &loaded.source {
            status::ReasonSource::Unnamed { btf, tracefs } => {
                return Known::Unchecked(format!("reasons are shown as numbers: {btf}; {tracefs}"));
            }
            // Where drops carry none, that is what there is to say, and not which.
            status::ReasonSource::Absent => return Known::Yes,
            status::ReasonSource::Btf { .. } | status::ReasonSource::Tracefs { .. } => {}
        }
        if !loaded.reasons.any(glob) {
            loaded.search_modules(); // of the subsystems that are declared, some are modules'
        }
        if loaded.reasons.any(glob) {
            return Known::Yes;
        }
        // Programs number them; people cannot know that numbers move.
        let numbered = glob.text().parse().ok().and_then(|number| loaded.reasons.name(number));
        let near = match &numbered {
            Some(reason) if loaded.reasons.is_named_so(&reason.name) => vec![reason.name.as_str()],
            _ => near(glob.text(), loaded.reasons.names()),
        };
        Known::No(format!("no drop reason of this kernel{}", did_you_mean(&near)))
    }

    /// Whether the kernel, or a module that is loaded, has a function that reports can name so.
    pub fn has_function(&mut self, function: &Function) -> Known {
        let loaded = self.loaded();
        let names = match &loaded.symbols {
            Err(error) => return Known::Unchecked(format!("no symbols: {error}")),
            Ok(symbols) if symbols.table().is_restricted() => {
                let (cause, way_out) = loaded.status().symbols.hidden().unwrap_or_default();
                return Known::Unchecked(format!(
                    "the kernel hides its symbols ({cause}), so that no location has a name: \
                     {way_out}"
                ));
            }
            Ok(symbols) => symbols.table().names(),
        };
        let called = |name: &str| function.is_called(name);
        let found: Vec<_> = names.filter(|(name, _)| called(name)).collect();
        let typed = function.module.as_deref();
        let is_there = |module: Option<&str>| typed.is_none() || module == typed;
        if found.iter().any(|(_, module)| is_there(*module)) {
            let Some(offset) = function.offset else { return Known::Yes };
            let meant = |name: &str, module: Option<&str>| called(name) && is_there(module);
            let table = loaded.symbols.as_ref().map(LiveSymbols::table);
            return match table.is_ok_and(|table| table.reaches(offset, meant)) {
                true => Known::Yes,
                false => Known::Never(format!("the function ends before +{offset:#x}")),
            };
        }
        if let Some((_, elsewhere)) = found.first() {
            let elsewhere = elsewhere
                .map_or("the kernel itself".to_owned(), |module| format!("module {module}"));
            let module = typed.unwrap_or_default();
            return Known::No(format!(
                "no function of module {module}: that function is in {elsewhere}, so leave \
                 [{module}] away"
            ));
        }
        let bare = function.name.text().split('.').next().unwrap_or_default();
        let names = loaded.symbols.iter().map(LiveSymbols::table).flat_map(|table| table.names());
        let near = near(bare, names.map(|(name, _)| name));
        Known::No(format!("no function of this kernel or its modules{}", did_you_mean(&near)))
    }

    /// Whether a module that is not loaded may bring the function: one that is typed with its module.
    pub fn may_come(&mut self, function: &Function) -> bool {
        let Some(typed) = function.module.as_deref() else { return false };
        let loaded = self.loaded();
        let tables = loaded.symbols.iter().map(LiveSymbols::table);
        let mut modules = tables.flat_map(|table| table.names()).filter_map(|(_, module)| module);
        !modules.any(|module| module == typed)
    }

    /// Whether the kernel has a function, and a reason, that filters on both let through; true where it
    /// does not say.
    pub fn leaves_any(&mut self, keys: &Keys) -> bool {
        let loaded = self.loaded();
        let tables = loaded.symbols.iter().map(LiveSymbols::table);
        let function = tables.filter(|table| !table.is_restricted()).all(|table| {
            let mut names = table.names();
            names.any(|(name, module)| keys.may_select_function(name, module))
        });
        let mut reasons = loaded.reasons.names();
        let named = matches!(loaded.source, status::ReasonSource::Btf { .. });
        function && (!named || reasons.any(|name| keys.may_select_reason(name)))
    }
}
