//! Folders for the files of tests.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A folder below the system's one for temporary files, removed with its value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it, empty. Tests of one program run at once, so each needs a `name` of its own; that
    /// another run of the program is under way does no harm.
    ///
    /// # Errors
    /// When it cannot be made, or what a killed process of this number left there not removed.
    pub fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("dropwatch-{name}-{}", std::process::id()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => fs::create_dir(&path)?,
        }
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, which need not be there.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _left = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_begins_empty_and_goes_with_its_value() {
        let folder = Folder::new("folder").unwrap();
        let (path, file) = (folder.path().to_owned(), folder.file("file"));
        fs::write(&file, "of a killed run").unwrap();
        std::mem::forget(folder);
        let again = Folder::new("folder").unwrap();
        assert_eq!((again.path(), file.exists()), (&*path, false));
        drop(again);
        assert!(!path.exists());
    }
}
