//! Settings that the whole host shares, changed for a test and put back whatever happens.
//!
//! The value found is written to a state file before it is changed. The file is locked while its
//! run lives, so an unlocked file with a value in it is the trace of a killed run: whoever comes
//! next puts that value back first.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::undo::Undo;

/// Gone after a reboot, as the settings are.
const STATE: &str = "/run/dropwatch-testbed";

/// Settings that this process has changed and not put back yet.
static CHANGED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn changed() -> MutexGuard<'static, Vec<PathBuf>> {
    CHANGED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process has changed `key`, a path below `/proc/sys`, and will put it back.
pub fn is_changed(key: &str) -> bool {
    changed().contains(&Path::new("/proc/sys").join(key))
}

/// A file below `/proc/sys` that holds another value than before, until this is dropped.
#[derive(Debug)]
pub struct HostValue {
    path: PathBuf,
    _undo: Undo,
}

impl HostValue {
    /// Sets `key`, a path below `/proc/sys`, to `value`.
    ///
    /// # Errors
    /// When another run has changed it right now, or it cannot be written.
    pub fn set(key: &str, value: &str) -> Result<Self> {
        let this = Self::keep(key)?;
        this.change(value)?;
        Ok(this)
    }

    /// Puts back the value that `key` has now, whoever changes it meanwhile.
    ///
    /// # Errors
    /// As [`HostValue::set`].
    pub fn keep(key: &str) -> Result<Self> {
        Self::keep_below(Path::new("/proc/sys"), Path::new(STATE), key)
    }

    fn keep_below(root: &Path, state: &Path, key: &str) -> Result<Self> {
        let path = root.join(key);
        let saved = Saved::open(state, key)?;
        let original = saved.original(&path)?;
        let undo = {
            let path = path.clone();
            Undo::new(move || {
                changed().retain(|it| *it != path);
                write(&path, &original)?;
                saved.forget()
            })?
        };
        changed().push(path.clone());
        Ok(Self { path, _undo: undo })
    }

    /// Sets another value; the original one is still what comes back.
    pub fn change(&self, value: &str) -> Result<()> {
        write(&self.path, value)
    }
}

/// The state file of one setting, locked.
struct Saved {
    file: Flock<File>,
    path: PathBuf,
}

impl Saved {
    fn open(folder: &Path, key: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(key.replace('/', "."));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file, path }),
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("another run has changed {key} right now: wait until it ends")
            }
            Err((_, error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// What a killed run found and did not put back.
    fn left(&self) -> Result<Option<String>> {
        let mut left = String::new();
        (&*self.file).read_to_string(&mut left).context("cannot read the saved value")?;
        Ok((!left.is_empty()).then_some(left))
    }

    /// What the setting was before any run changed it.
    fn original(&self, setting: &Path) -> Result<String> {
        if let Some(left) = self.left()? {
            return Ok(left);
        }
        let now = fs::read_to_string(setting)
            .with_context(|| format!("cannot read {}", setting.display()))?
            .trim()
            .to_owned();
        self.write(&now)?;
        Ok(now)
    }

    fn write(&self, value: &str) -> Result<()> {
        let mut file = &*self.file;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(value.as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Emptied, not removed: another run may hold it open already, waiting for the lock.
    fn forget(&self) -> Result<()> {
        self.write("")
    }
}

/// Puts back what a killed run left changed, for every setting that none holds right now.
///
/// # Errors
/// When a value cannot be written.
pub fn restore_leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir(STATE) else {
        return Ok(()); // no run has changed anything
    };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let key = name.replace('.', "/");
        let Ok(saved) = Saved::open(Path::new(STATE), &key) else { continue };
        if let Some(original) = saved.left()? {
            write(&Path::new("/proc/sys").join(&key), &original)?;
            saved.forget()?;
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("testbed-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("net")).unwrap();
        fs::write(folder.join("net/max"), "1000\n").unwrap();
        folder
    }

    #[test]
    fn puts_back_and_refuses_a_second_run() {
        let root = folder("value");
        let state = root.join("state");
        let read = || fs::read_to_string(root.join("net/max")).unwrap();
        let value = HostValue::keep_below(&root, &state, "net/max").unwrap();
        assert_eq!(read(), "1000\n", "nothing has changed yet");
        assert!(changed().contains(&root.join("net/max")));
        value.change("7").unwrap();
        assert_eq!(read(), "7");
        let error = HostValue::keep_below(&root, &state, "net/max").unwrap_err();
        assert!(error.to_string().contains("another run"), "{error}");
        drop(value);
        assert_eq!(read(), "1000");
        assert!(!changed().contains(&root.join("net/max")));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_killed_run_is_put_right_by_the_next() {
        let root = folder("killed");
        let state = root.join("state");
        fs::create_dir_all(&state).unwrap();
        // As a run leaves it that is killed after it has set the value.
        fs::write(state.join("net.max"), "4000").unwrap();
        let value = HostValue::keep_below(&root, &state, "net/max").unwrap();
        value.change("5").unwrap();
        drop(value);
        assert_eq!(fs::read_to_string(root.join("net/max")).unwrap(), "4000");
        assert_eq!(fs::read_to_string(state.join("net.max")).unwrap(), "");
        fs::remove_dir_all(root).unwrap();
    }
}
