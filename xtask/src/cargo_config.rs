//! Tests of what stands in `.cargo/`: cargo's own words for the project, and its compiler.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use crate::{
    project::{cargo, find_command},
    scratch::Scratch,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

impl Scratch {
    fn copy(&self, path: &str) {
        self.put(path, &fs::read_to_string(Path::new(ROOT).join(path)).unwrap());
    }

    /// `cargo WORDS`, called in a folder of it; sudo only says that it was there.
    fn cargo(&self, folder: &str, words: &[&str]) -> String {
        self.put("bin/sudo", "#!/bin/sh\necho through sudo >&2\nexec \"$@\"\n");
        let mut path = vec![self.0.join("bin")];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut command = Command::new(cargo());
        command.current_dir(self.0.join(folder)).args(words);
        command.env("PATH", std::env::join_paths(path).unwrap());
        for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?} in {folder}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A small workspace with the project's names and its configuration.
#[test]
fn cargo_live_and_xtask_run_from_every_folder() {
    let scratch = Scratch::new("folders");
    for file in [".cargo/config.toml", ".cargo/rustc"] {
        scratch.copy(file);
    }
    for file in ["dropwatch-ebpf/.cargo/config.toml", "dropwatch-ebpf/src/.cargo/config.toml"] {
        scratch.copy(file);
    }
    let package = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n")
    };
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"dropwatch\", \"xtask\"]\n\
        exclude = [\"dropwatch-ebpf\"]\n";
    scratch.put("Cargo.toml", members);
    for name in ["dropwatch", "xtask"] {
        scratch.put(&format!("{name}/Cargo.toml"), &package(name));
        let main = format!(
            "fn main() {{ let words: Vec<_> = std::env::args().skip(1).collect(); \
             println!(\"{name} {{words:?}}\"); }}"
        );
        scratch.put(&format!("{name}/src/main.rs"), &main);
    }
    scratch.put("dropwatch-ebpf/Cargo.toml", &(package("dropwatch-ebpf") + "[workspace]\n"));
    scratch.put("dropwatch-ebpf/src/main.rs", "fn main() {}\n");
    scratch.put("docs/page.md", "");
    for folder in [".", "docs", "dropwatch/src", "xtask", "dropwatch-ebpf", "dropwatch-ebpf/src"] {
        let printed = scratch.cargo(folder, &["live", "--", "-i", "1s"]);
        assert_eq!(printed, "dropwatch [\"-i\", \"1s\"]\n", "in {folder}");
        let printed = scratch.cargo(folder, &["xtask", "test", "a b"]);
        assert_eq!(printed, "xtask [\"test\", \"a b\"]\n", "in {folder}");
    }
}

/// Asks for the compiler's version, as cargo does first, with these programs on PATH.
fn version(scratch: &Scratch, variables: &[(&str, &str)]) -> Output {
    let bin = scratch.0.join("bin");
    for program in ["env", "grep", "sed"] {
        let _there_already = symlink(find_command(program).unwrap(), bin.join(program));
    }
    let mut command = Command::new("/bin/sh");
    // What cargo is for the script: the process above it, whose standard error it writes to.
    command.args(["-c", "\"$0\" rustc -vV; exit $?", &format!("{ROOT}/.cargo/rustc")]);
    command.env_clear().env("PATH", &bin).env("HOME", &scratch.0);
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn without_a_c_compiler_one_line_says_what_to_install() {
    let scratch = Scratch::new("compiler");
    scratch.put("bin/rustc", "#!/bin/sh\necho rustc 1.88.0\n");
    scratch.put("bin/apt-get", "#!/bin/sh\n");
    let expect_refusal = |what: &str| {
        let output = version(&scratch, &[]);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(
            printed.contains(what) && printed.contains("apt-get install gcc libc6-dev"),
            "{printed}"
        );
    };
    let expect_none = |variables: &[(&str, &str)]| {
        let output = version(&scratch, variables);
        assert_eq!(output.stdout, b"rustc 1.88.0\n", "{output:?}");
        assert_eq!(output.stderr, b"", "{output:?}");
    };
    expect_refusal("there is no C compiler `cc`");
    // Whoever has another linker needs none.
    expect_none(&[("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "ld.lld")]);
    expect_none(&[("RUSTFLAGS", "-Clinker=rust-lld")]);
    scratch.put(".cargo/config.toml", "[target.x86_64-unknown-linux-gnu]\nlinker = \"clang\"\n");
    expect_none(&[]);
    fs::remove_file(scratch.0.join(".cargo/config.toml")).unwrap();

    scratch.put("bin/cc", "#!/bin/sh\necho crt1.o\n");
    expect_refusal("the C library has no file crt1.o");
    scratch.put("bin/cc", "#!/bin/sh\necho /usr/lib/crt1.o\n");
    expect_none(&[]);
    // A wrapper of the user's own stays, for every question.
    scratch.put(".cargo/config.toml", "[build]\nrustc-wrapper = \"mine\" # fast\n");
    scratch.put("bin/mine", "#!/bin/sh\necho mine \"$@\"\n");
    assert_eq!(version(&scratch, &[]).stdout, b"mine rustc -vV\n");
    fs::remove_file(scratch.0.join(".cargo/config.toml")).unwrap();
    // One that does not know the question.
    scratch.put("bin/cc", "#!/bin/sh\nexit 1\n");
    expect_none(&[]);
}
