//! Manual pages and shell completions, out of the command line's own definition.
//!
//! A program of its own because it is built with dropwatch, whose build refuses a kernel object
//! that is older than its sources: xtask, which rebuilds that object, must not depend on it.
//! `cargo xtask dist` runs it.

mod completions;
mod name;
mod page;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use dropwatch::cli::Cli;

/// Write dropwatch's manual pages and shell completions into a folder.
#[derive(Parser)]
struct Args {
    /// What the command is called where they are installed
    #[arg(long, default_value = name::OWN)]
    name: String,
    /// What stands at the foot of the pages: YYYY-MM-DD
    #[arg(long, default_value = "")]
    date: String,
    /// Gets `man1/` and `completions/`
    folder: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let command = name::rename(Cli::command(), &args.name);
    let write = |below: &str, files: Vec<(String, Vec<u8>)>| -> Result<()> {
        let folder = args.folder.join(below);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        for (name, content) in files {
            let path = folder.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    };
    write("man1", page::all(&command, &args.date)?)?;
    write("completions", completions::all(&command))
}
