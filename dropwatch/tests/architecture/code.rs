//! Which paths a source file names, whatever way it writes them: the compiler's own grammar, read by
//! `syn`, with groups flattened, renames followed, and code of tests left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, visit::Visit};

/// A source file, as far as its place in the house goes.
#[derive(Clone, Debug)]
pub struct File {
    /// Below the folder of sources: `report/view.rs`.
    pub name: String,
    /// Every path that it names, from its crate's root (`crate::report::model::Line`) or from that
    /// of another crate (`std::fs::read`).
    pub paths: BTreeSet<String>,
    /// Names of the macros that it calls.
    pub macros: BTreeSet<String>,
    /// Names of the methods that it calls.
    pub methods: BTreeSet<String>,
    /// Whether it makes a number with a point of another (`as f64`, `f64::from`): what divides
    /// counts has to.
    pub makes_floats: bool,
    /// Modules that it declares for tests alone, in files of their own.
    for_tests: BTreeSet<String>,
}

/// Every source file below `folder`.
pub fn read(folder: &Path) -> Vec<File> {
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.sort();
    let file = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("source file");
        parse(&path.strip_prefix(folder).expect("below").display().to_string(), &text)
    };
    let mut files: Vec<File> = found.iter().map(file).collect();
    let for_tests: BTreeSet<String> =
        files.iter().flat_map(|file| file.for_tests.clone()).collect();
    files.retain(|file| !for_tests.contains(&module_of(&file.name).join("::")));
    files
}

/// The path of the module that is in the file `name`.
fn module_of(name: &str) -> Vec<String> {
    let mut module: Vec<String> =
        name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// Every file of Rust below `folder`.
pub fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Reads the text of the file `name`.
pub fn parse(name: &str, text: &str) -> File {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let module = module_of(name);
    let mut imports = Imports { module: module.clone(), ..Imports::default() };
    imports.visit_file(&parsed);
    let mut reader = Reader { module, names: imports.names, ..Reader::default() };
    reader.visit_file(&parsed);
    let Reader { paths, macros, methods, casts, .. } = reader;
    let makes_floats = casts || paths.contains("f64::from");
    File {
        name: name.to_owned(),
        paths,
        macros,
        methods,
        makes_floats,
        for_tests: imports.for_tests,
    }
}

impl File {
    /// What the architecture calls the place that a file belongs to: its folder, or the file where
    /// it stands alone.
    pub fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// The rooms of its own crate that it names.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        let inside = self.paths.iter().filter_map(|path| path.strip_prefix("crate::"));
        inside.filter_map(|path| path.split("::").next()).filter(|room| *room != self.room())
    }

    /// The module that it is, from the root of its crate: `crate::report::view`.
    pub fn module(&self) -> String {
        ["crate".to_owned()].into_iter().chain(module_of(&self.name)).collect::<Vec<_>>().join("::")
    }

    /// Paths that begin with one of `prefixes`, each of them whole names.
    pub fn naming(&self, prefixes: &[&str]) -> Vec<String> {
        let begins = |path: &str| {
            prefixes.iter().any(|prefix| {
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
        };
        let found = self.paths.iter().filter(|path| begins(path));
        found.map(|path| format!("{}: {path}", self.name)).collect()
    }
}

/// Whether an item is there for tests alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            attribute.path().is_ident("cfg") && list.tokens.to_string() == "test"
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// A path from the root, for one that is written in the module `module`.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let mut place = module.to_vec();
    let mut rest = path;
    let mut relative = false;
    while let [first, others @ ..] = rest {
        match first.as_str() {
            "crate" => place.clear(),
            // main.rs names the library so.
            "dropwatch" if !relative => place.clear(),
            "self" => {}
            "super" => {
                place.pop();
            }
            _ => break,
        }
        relative = true;
        rest = others;
    }
    if relative { [&["crate".to_owned()], &place[..], rest].concat() } else { rest.to_vec() }
}

fn flatten(tree: &UseTree, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), found),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
        UseTree::Name(name) if name.ident == "self" => {
            found.push((before.last().cloned().unwrap_or_default(), before.to_vec()));
        }
        UseTree::Name(name) => found.push((name.ident.to_string(), with(&name.ident))),
        UseTree::Rename(rename) if rename.ident == "self" => {
            found.push((rename.rename.to_string(), before.to_vec()));
        }
        UseTree::Rename(rename) => found.push((rename.rename.to_string(), with(&rename.ident))),
        UseTree::Glob(_) => found.push(("*".to_owned(), [before, &["*".to_owned()]].concat())),
    }
}

/// What the names stand for that a file brings in.
#[derive(Default)]
struct Imports {
    module: Vec<String>,
    names: BTreeMap<String, Vec<String>>,
    for_tests: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        } else if let Item::Mod(module) = item {
            let path = [&self.module[..], &[module.ident.to_string()]].concat();
            self.for_tests.insert(path.join("::"));
        }
    }

    /// A module that is declared here is called by its name alone.
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_none() {
            let name = module.ident.to_string();
            let path = absolute(&self.module, &["self".to_owned(), name.clone()]);
            self.names.insert(name, path);
        }
        syn::visit::visit_item_mod(self, module);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        flatten(&item.tree, &[], &mut found);
        for (name, path) in found.into_iter().filter(|(name, _)| name != "*") {
            self.names.insert(name, absolute(&self.module, &path));
        }
    }
}

#[derive(Default)]
struct Reader {
    module: Vec<String>,
    names: BTreeMap<String, Vec<String>>,
    paths: BTreeSet<String>,
    macros: BTreeSet<String>,
    methods: BTreeSet<String>,
    casts: bool,
}

impl Reader {
    fn name(&mut self, written: &[String]) {
        let imported = written.first().and_then(|first| self.names.get(first));
        let path = match imported {
            Some(stands_for) => [stands_for, &written[1..]].concat(),
            None => absolute(&self.module, written),
        };
        // A name may lead to one more: `use crate as root`.
        self.paths.insert(absolute(&[], &path).join("::"));
    }

    /// A macro's tokens are its own grammar: every run of names that `::` joins may be a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(name.to_string());
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    self.tokens(group.stream());
                }
                _ => self.end(&mut path),
            }
            colons = 0;
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.name(&std::mem::take(path));
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        flatten(&item.tree, &[], &mut found);
        for (_, path) in found {
            self.name(&path);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.name(&names);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        syn::visit::visit_macro(self, call);
        self.macros.extend(call.path.segments.last().map(|part| part.ident.to_string()));
        self.tokens(call.tokens.clone());
    }

    fn visit_expr_cast(&mut self, cast: &'ast syn::ExprCast) {
        if let syn::Type::Path(to) = &*cast.ty {
            self.casts |= to.path.is_ident("f64") || to.path.is_ident("f32");
        }
        syn::visit::visit_expr_cast(self, cast);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.methods.insert(call.method.to_string());
        syn::visit::visit_expr_method_call(self, call);
    }
}
