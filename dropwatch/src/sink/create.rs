//! Files that a run writes. Under sudo, new ones belong to whoever called it, who is to read them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use nix::unistd::{Gid, Uid, fchown};

use crate::{exit::Failure, supervise::user::Caller, verbose};

/// How often to try again where a file comes and goes between two system calls.
const ATTEMPTS: usize = 8;

/// How new files are made.
#[derive(Clone, Copy, Debug)]
pub struct Creator {
    /// Permissions of a new file, less what the umask takes away.
    mode: u32,
    /// Whose it is to be; `None` for whoever runs this.
    owner: Option<Caller>,
}

impl Creator {
    /// Makes files with permissions `mode` that belong to whoever called sudo, if somebody did.
    ///
    /// # Errors
    /// As [`Caller::of_sudo`].
    pub fn new(mode: u32) -> Result<Self, Failure> {
        Ok(Self { mode, owner: Caller::of_sudo()? })
    }

    /// Opens the file at `path` as `how` says, and makes it where there is none. One that is there
    /// keeps its owner and its permissions.
    ///
    /// # Errors
    /// When it can be neither opened nor made.
    pub fn open(&self, path: &Path, how: &OpenOptions) -> io::Result<File> {
        let Some(owner) = self.owner else {
            return how.clone().create(true).mode(self.mode).open(path);
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..ATTEMPTS {
            match how.open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
            // What this opens is new and at the end of no link (O_EXCL, open(2)): nothing that was
            // there before, wherever that is, gets another owner.
            match how.clone().create_new(true).mode(self.mode).open(path) {
                Ok(file) => {
                    give(&file, path, owner);
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        match path.is_symlink() {
            true => Err(io::Error::new(last.kind(), "it is a link to a file that does not exist")),
            false => Err(last),
        }
    }
}

/// Gives a file to whoever called sudo. A failure is reported on standard error alone, since some
/// file systems know no owners.
fn give(file: &File, path: &Path, Caller { uid, gid }: Caller) {
    let (uid, gid) = (Uid::from_raw(uid), gid.map(Gid::from_raw));
    if let Err(error) = fchown(file.as_fd(), Some(uid), gid) {
        let path = path.display();
        verbose::to_stderr(&format!("cannot give {path} to user {uid}, who called sudo: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::{MetadataExt, symlink},
        path::PathBuf,
    };

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("create-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// For the owner of this process's files, whom anyone may give them to.
    fn creator(folder: &Path) -> Creator {
        let own = fs::metadata(folder).unwrap();
        Creator { mode: 0o640, owner: Some(Caller { uid: own.uid(), gid: Some(own.gid()) }) }
    }

    #[test]
    fn new_files_are_made_and_old_ones_kept() {
        let folder = folder("new");
        let (path, creator) = (folder.join("f"), creator(&folder));
        let mut append = OpenOptions::new();
        append.append(true);
        for text in ["one", "two"] {
            creator.open(&path, &append).unwrap().write_all(text.as_bytes()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !0o640, 0);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "onetwo");
        let mut truncate = OpenOptions::new();
        truncate.write(true).truncate(true);
        creator.open(&path, &truncate).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nothing_is_made_at_the_end_of_a_link() {
        let folder = folder("link");
        let (link, end) = (folder.join("link"), folder.join("end"));
        symlink(&end, &link).unwrap();
        let (creator, mut append) = (creator(&folder), OpenOptions::new());
        append.append(true);
        let error = creator.open(&link, &append).unwrap_err();
        assert!(error.to_string().contains("link to a file that does not exist"), "{error}");
        assert!(!end.exists());
        fs::write(&end, "there").unwrap();
        creator.open(&link, &append).unwrap();
        let error = creator.open(&folder.join("no/such/folder"), &append).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(folder).unwrap();
    }
}
