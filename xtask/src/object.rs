//! What a kernel object must be before it ships.

use anyhow::{Result, ensure};
use object::{
    Endianness, FileKind,
    elf::{EM_BPF, ET_REL, FileHeader64},
    read::elf::{FileHeader, SectionHeader},
};

/// What the kernel reads to allow GPL-only helpers (`include/linux/license.h`).
const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// The section that names the program's type and attach point to the loader.
const PROGRAM: &str = "raw_tp/kfree_skb";

/// Refuses anything but a relocatable little-endian BPF object with the program, its licence and
/// no debug information, which would carry paths and change with them; `forbidden` are the paths.
pub(crate) fn check(data: &[u8], forbidden: &[String]) -> Result<()> {
    ensure!(FileKind::parse(data).is_ok_and(|kind| kind == FileKind::Elf64), "not a 64-bit ELF");
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    ensure!(endian == Endianness::Little, "not little-endian");
    ensure!(header.e_machine(endian) == EM_BPF, "machine is not BPF");
    ensure!(header.e_type(endian) == ET_REL, "not relocatable");

    let sections = header.sections(endian, data)?;
    let mut program = 0;
    let mut license = None;
    for section in sections.iter() {
        let name = String::from_utf8_lossy(sections.section_name(endian, section)?);
        let content = section.data(endian, data)?;
        ensure!(
            ![".BTF", ".debug", ".rel.debug", ".rel.BTF"].iter().any(|head| name.starts_with(head)),
            "section {name}: built with debug information"
        );
        if name == PROGRAM {
            program = content.len();
        } else if name == "license" {
            license = Some(content);
        }
    }
    ensure!(program > 0, "no program in section {PROGRAM}");
    ensure!(
        license == Some(LICENSE),
        "section `license` does not say {:?}",
        String::from_utf8_lossy(LICENSE)
    );
    for path in forbidden {
        let found = data.windows(path.len().max(1)).any(|window| window == path.as_bytes());
        ensure!(!found, "contains the path {path}: it would differ from machine to machine");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Vec<u8> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../dropwatch/bpf/dropwatch.bpf.o");
        std::fs::read(root).unwrap()
    }

    #[track_caller]
    fn refused(data: &[u8], forbidden: &[String], why: &str) {
        let error = check(data, forbidden).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn the_shipped_object_passes() {
        check(&shipped(), &["/home/".into()]).unwrap();
    }

    #[test]
    fn other_files_are_refused() {
        refused(b"", &[], "not a 64-bit ELF");
        refused(b"#!/bin/sh\n", &[], "not a 64-bit ELF");
        refused(&std::fs::read("/proc/self/exe").unwrap(), &[], "machine is not BPF");
        // A cut-off object must not panic.
        for length in [17, 64, 100, 1000] {
            assert!(check(&shipped()[..length], &[]).is_err());
        }
    }

    #[test]
    fn another_licence_program_or_a_path_is_refused() {
        let replace = |from: &[u8], to: &[u8]| {
            let mut data = shipped();
            let at = data.windows(from.len()).position(|window| window == from).unwrap();
            data[at..at + from.len()].copy_from_slice(to);
            data
        };
        refused(&replace(b"Dual MIT/GPL", b"Dual BSD/GPL"), &[], "does not say");
        // The string table holds the name once, behind `.rel`.
        refused(&replace(b"raw_tp/kfree_skb", b"raw_tp/other_one"), &[], "no program");
        refused(&shipped(), &["kfree_skb".into()], "contains the path");
    }
}
