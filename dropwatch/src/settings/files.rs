//! Files of one command line that are the same file.
//!
//! Opening an output empties it or mixes two formats in it, so that the recording to be read would be
//! gone, or neither output could be read back. The comparison comes before anything is opened.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::exit::Failure;

/// Most links that lead from one to the next: as many as the kernel follows (`MAXSYMLINKS`,
/// include/linux/namei.h).
const MOST_LINKS: usize = 40;

/// The files of a command line.
#[derive(Debug, Default)]
pub struct Files {
    inputs: Vec<Named>,
    outputs: Vec<Named>,
    /// Standard output and, where reports go there, standard error.
    streams: Vec<Named>,
}

/// A file, as the command line calls it.
#[derive(Debug)]
struct Named {
    name: String,
    identity: Option<Identity>,
}

/// What makes two files one. Pipes and devices have none: each write to them stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    File {
        device: u64,
        inode: u64,
    },
    /// One that is still to be made, by its folder.
    New {
        device: u64,
        inode: u64,
        name: OsString,
    },
}

impl Files {
    /// Adds a recording that is read; `-` is standard input.
    pub fn reads(mut self, path: &Path) -> Self {
        let identity = match path == Path::new("-") {
            true => of_stream(io::stdin().as_fd()),
            false => of_path(path),
        };
        self.inputs.push(Named { name: format!("the recording {}", path.display()), identity });
        self
    }

    /// Adds what `option` has written.
    pub fn writes(mut self, option: &str, path: Option<&Path>) -> Self {
        let named = |path: &Path| Named {
            name: format!("{option} {}", path.display()),
            identity: of_path(path),
        };
        self.outputs.extend(path.map(named));
        self
    }

    /// Adds standard output, which is called by what is written there.
    pub fn stdout(mut self, name: &str) -> Self {
        let identity = of_stream(io::stdout().as_fd());
        self.streams.push(Named { name: name.to_owned(), identity });
        self
    }

    /// Adds standard error, where reports go there.
    pub fn reports_aside(mut self, aside: bool) -> Self {
        if aside {
            let identity = of_stream(io::stderr().as_fd());
            self.streams.push(Named { name: "standard error".to_owned(), identity });
        }
        self
    }

    /// Refuses two that are the same file. Standard output and standard error may be: `2>&1` asks for
    /// it.
    ///
    /// # Errors
    /// Usage, with both names.
    pub fn check(self) -> Result<(), Failure> {
        let Self { inputs, outputs, streams } = self;
        let of_inputs = inputs
            .iter()
            .flat_map(|input| outputs.iter().chain(&streams).map(move |output| (output, input)));
        let of_outputs = outputs.iter().enumerate().flat_map(|(index, output)| {
            outputs[..index].iter().chain(&streams).map(move |other| (output, other))
        });
        let mut pairs = of_inputs.chain(of_outputs);
        match pairs.find(|(a, b)| a.identity.is_some() && a.identity == b.identity) {
            Some((a, b)) => Err(Failure::Usage(format!(
                "{} and {} are the same file: name another one",
                a.name, b.name
            ))),
            None => Ok(()),
        }
    }
}

fn of_stream(stream: BorrowedFd<'_>) -> Option<Identity> {
    let file = File::from(stream.try_clone_to_owned().ok()?);
    of_file(&file.metadata().ok()?)
}

/// What `path` leads to, or would once it is made; `None` also where that cannot be known, of which
/// opening says why.
fn of_path(path: &Path) -> Option<Identity> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(file) = fs::metadata(&path) {
            return of_file(&file);
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        match fs::read_link(&path) {
            // A file is made where it leads to.
            Ok(target) => path = folder.join(target),
            Err(_) => {
                let name = path.file_name()?.to_owned();
                let folder = fs::metadata(folder).ok()?;
                return Some(Identity::New { device: folder.dev(), inode: folder.ino(), name });
            }
        }
    }
    None
}

fn of_file(file: &Metadata) -> Option<Identity> {
    let kind = file.file_type();
    let is_passed_on = kind.is_fifo() || kind.is_socket() || kind.is_char_device();
    (!is_passed_on).then(|| Identity::File { device: file.dev(), inode: file.ino() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use testbed::folder::Folder;

    use super::*;

    fn outputs(a: &Path, b: &Path) -> Result<(), String> {
        let files = Files::default().writes("--output", Some(a)).writes("--pcap", Some(b));
        files.check().map_err(|failure| {
            assert_eq!(failure.code(), crate::exit::USAGE);
            failure.to_string()
        })
    }

    #[test]
    fn one_file_by_any_two_of_its_names_is_refused() {
        let folder = Folder::new("same-names").unwrap();
        let [there, link, hard, new, dangling] =
            ["there", "link", "hard", "new", "dangling"].map(|name| folder.file(name));
        fs::create_dir(folder.file("sub")).unwrap();
        fs::write(&there, "x").unwrap();
        symlink("there", &link).unwrap();
        fs::hard_link(&there, &hard).unwrap();
        symlink("sub/../new", &dangling).unwrap();
        for (a, b) in [
            (&there, &there),
            (&there, &link),
            (&hard, &there),
            (&there, &folder.file("sub/../there")),
            (&new, &new),
            (&new, &folder.file("sub/../new")),
            (&new, &dangling),
        ] {
            let message = outputs(a, b).expect_err("one file");
            let (a, b) = (a.display(), b.display());
            let expected =
                format!("--pcap {b} and --output {a} are the same file: name another one");
            assert_eq!(message, expected);
            let read = Files::default().reads(Path::new(&a.to_string()));
            let read = read.writes("--pcap", Some(Path::new(&b.to_string())));
            assert!(read.check().is_err(), "{a} {b}");
        }
        assert!(!new.exists(), "nothing is made");
        assert_eq!(outputs(&there, &new), Ok(()));
        assert_eq!(outputs(&folder.file("no/folder"), &folder.file("no/folder")), Ok(()));
    }

    #[test]
    fn devices_and_pipes_may_be_given_twice() {
        let folder = Folder::new("same-pipes").unwrap();
        let fifo = folder.file("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [Path::new("/dev/null"), Path::new("/dev/full"), &fifo] {
            assert_eq!(outputs(path, path), Ok(()));
        }
    }

    #[test]
    fn recordings_may_be_compared_with_themselves() {
        let folder = Folder::new("same-inputs").unwrap();
        let file = folder.file("a");
        fs::write(&file, "x").unwrap();
        Files::default().reads(&file).reads(&file).check().unwrap();
    }
}
