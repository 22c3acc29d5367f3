//! What apt would do, asked before it does anything.
//!
//! A package may exclude one that the host has: another version of QEMU's tools, another server
//! for the same port. Nothing of the host's is ever removed, so such a package is not installed,
//! and the others are installed without it.

use std::process::Command;

/// A package that cannot be installed beside what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) package: String,
    /// In one line.
    pub(super) why: String,
}

/// Packages asked for, as far as they can be installed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// These can be installed together.
    pub(super) possible: Vec<String>,
    pub(super) impossible: Vec<Impossible>,
}

/// Finds the packages that can be installed; `simulate` tells for a set of them why not.
pub(super) fn split(
    packages: &[String],
    simulate: &mut dyn FnMut(&[String]) -> Result<(), String>,
) -> Split {
    if packages.is_empty() || simulate(packages).is_ok() {
        return Split { possible: packages.to_vec(), impossible: Vec::new() };
    }
    // Together with those before it: two that exclude each other cannot both come.
    let mut split = Split::default();
    for package in packages {
        split.possible.push(package.clone());
        if let Err(why) = simulate(&split.possible) {
            split.possible.pop();
            split.impossible.push(Impossible { package: package.clone(), why });
        }
    }
    split
}

/// Whether apt would install `packages` without removing any.
///
/// # Errors
/// With the reason in one line.
pub(super) fn simulate(packages: &[String]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").args(["--simulate", "-y", "--no-install-recommends", "install"]);
    let output = command.args(packages).output();
    let output = output.map_err(|error| format!("cannot run apt-get: {error}"))?;
    let printed = [output.stdout, output.stderr].concat();
    verdict(output.status.success(), &String::from_utf8_lossy(&printed))
}

/// Reads what `apt-get --simulate` prints.
fn verdict(success: bool, printed: &str) -> Result<(), String> {
    let removed = names(printed, "Remv ");
    if !removed.is_empty() {
        return Err(format!("apt would remove {}", removed.join(", ")));
    }
    if success {
        return Ok(());
    }
    let error = printed.lines().find_map(|line| line.strip_prefix("E: "));
    let error = error.unwrap_or("apt-get gives no reason").trim();
    if error.contains("Unable to locate") || error.contains("no installation candidate") {
        return Err(format!("{error}; the package source that has it is not configured here"));
    }
    // The dependencies that are not met say more than the line that sums them up.
    let unmet = printed.lines().skip_while(|line| !line.ends_with("nmet dependencies:")).nth(1);
    Err(unmet.filter(|line| line.starts_with(' ')).map_or(error, str::trim).to_owned())
}

/// The packages of lines such as `Inst libestr0 (0.1.11-1 Debian:12/stable [amd64])`, which begin
/// with `what`.
pub(super) fn names<'a>(plan: &'a str, what: &str) -> Vec<&'a str> {
    plan.lines()
        .filter_map(|line| line.strip_prefix(what))
        .filter_map(|line| line.split(' ').next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn an_impossible_package_keeps_no_other_away() {
        // `qemu` removes something; `old` and `new` exclude each other.
        let mut asked = 0;
        let mut simulate = |packages: &[String]| {
            asked += 1;
            let has = |name: &str| packages.iter().any(|package| package == name);
            match (has("qemu"), has("old") && has("new")) {
                (true, _) => Err("apt would remove qemu-utils".to_owned()),
                (_, true) => Err("new : Conflicts: old".to_owned()),
                _ => Ok(()),
            }
        };
        let found = split(&owned(&["a", "qemu", "old", "new", "z"]), &mut simulate);
        assert_eq!(found.possible, ["a", "old", "z"]);
        let impossible: Vec<_> =
            found.impossible.iter().map(|it| (it.package.as_str(), it.why.as_str())).collect();
        let expected = [("qemu", "apt would remove qemu-utils"), ("new", "new : Conflicts: old")];
        assert_eq!(impossible, expected);
        assert_eq!(asked, 6);

        let mut nothing_wrong = |_: &[String]| Ok(());
        assert_eq!(split(&owned(&["a", "b"]), &mut nothing_wrong).possible, ["a", "b"]);
        let mut unasked = |_: &[String]| Err("no package was asked for".to_owned());
        assert_eq!(split(&[], &mut unasked), Split::default());
    }

    #[test]
    fn a_removal_is_a_refusal_although_apt_would_do_it() {
        let plan = "Reading package lists...\nRemv qemu-utils [1:10.0.2]\nRemv other [2]\n\
            Inst seabios (1.16.2-1 Debian:12 [all])\nConf seabios (1.16.2-1 Debian:12 [all])\n";
        assert_eq!(verdict(true, plan), Err("apt would remove qemu-utils, other".to_owned()));
        assert_eq!(verdict(true, "Inst seabios (1.16.2-1 Debian:12 [all])\n"), Ok(()));
        assert_eq!(names(plan, "Inst "), ["seabios"]);
    }

    #[test]
    fn a_refusal_says_what_apt_says() {
        let held = "The following packages have unmet dependencies:\n \
            qemu-system-x86 : Depends: qemu-system-common (> 7.2) but it is not installable\n\
            E: Unable to correct problems, you have held broken packages.\n";
        let why = "qemu-system-x86 : Depends: qemu-system-common (> 7.2) but it is not installable";
        assert_eq!(verdict(false, held), Err(why.to_owned()));
        let unknown = verdict(false, "E: Unable to locate package rustc-web\n").unwrap_err();
        assert!(unknown.starts_with("Unable to locate package rustc-web; the package source"));
        assert_eq!(verdict(false, "E: Broken\n"), Err("Broken".to_owned()));
        assert!(verdict(false, "").is_err());
    }
}
