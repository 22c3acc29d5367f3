//! Reading YAML.

use std::path::Path;

use anyhow::{Context, Result, bail};
use yaml_rust2::{Yaml, YamlLoader};

use super::checks::read;

/// The documents of a file.
///
/// # Errors
/// If it cannot be read, is not YAML, or holds none.
pub(super) fn documents(path: &Path) -> Result<Vec<Yaml>> {
    let documents = YamlLoader::load_from_str(&read(path)?)
        .with_context(|| format!("{} is not YAML", path.display()))?;
    if documents.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(documents)
}

/// The only document of a file.
///
/// # Errors
/// As of [`documents`], and if there are more.
pub(super) fn document(path: &Path) -> Result<Yaml> {
    match <[Yaml; 1]>::try_from(documents(path)?) {
        Ok([document]) => Ok(document),
        Err(documents) => bail!("{} holds {} documents", path.display(), documents.len()),
    }
}

/// The items of a list; none, if it is no list.
pub(super) fn items(yaml: &Yaml) -> impl Iterator<Item = &Yaml> {
    yaml.as_vec().into_iter().flatten()
}

/// A text, or an error that says which one is missing.
///
/// # Errors
/// If it is not a text.
pub(super) fn text<'a>(yaml: &'a Yaml, what: &str) -> Result<&'a str> {
    yaml.as_str().with_context(|| format!("no {what}"))
}
