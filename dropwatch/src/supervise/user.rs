//! Users as this host knows them.
//!
//! Not by the C library: that of a static binary loads what knows users elsewhere (NSS: LDAP,
//! systemd), which was built for another one, and crashes. `getent` and `id` are the host's own.

use std::{env, fs, io, path::PathBuf, process};

use anyhow::anyhow;
use nix::unistd::Uid;

use crate::exit::Failure;

/// Who called sudo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// `None` where sudo does not say.
    pub gid: Option<u32>,
}

impl Caller {
    /// As the variables say that sudo sets (`SUDO_UID`, `SUDO_GID`); `None` where nobody but root has
    /// called, and where this is not root's process.
    ///
    /// # Errors
    /// When what stands there is no number: whoever is meant, it may not be root.
    pub fn of_sudo() -> Result<Option<Self>, Failure> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::among(variable("SUDO_UID").as_deref(), variable("SUDO_GID").as_deref())
    }

    fn among(uid: Option<&str>, gid: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(uid) = uid else { return Ok(None) };
        let uid = number("SUDO_UID", uid)?;
        let gid = gid.map(|gid| number("SUDO_GID", gid)).transpose()?;
        Ok((uid != 0).then_some(Self { uid, gid }))
    }
}

/// The number of a user or a group. The highest one stands for none (chown(2)).
fn number(name: &str, text: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number != u32::MAX);
    number.ok_or_else(|| {
        anyhow!(
            "{name} is {text:?}, and not the number of whoever called sudo: set it right, or take \
             it out of the environment"
        )
        .into()
    })
}

/// What running a command as somebody takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl User {
    /// The user of this name; `None` where the host knows none.
    ///
    /// # Errors
    /// When `/etc/passwd` cannot be read.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        Self::find(name, |user| user.name == name)
    }

    /// The user of this number; `None` where the host knows none.
    ///
    /// # Errors
    /// When `/etc/passwd` cannot be read.
    pub fn numbered(uid: u32) -> io::Result<Option<Self>> {
        Self::find(&uid.to_string(), |user| user.uid == uid)
    }

    fn find(key: &str, is_meant: impl Fn(&Self) -> bool) -> io::Result<Option<Self>> {
        let local = fs::read_to_string("/etc/passwd")?;
        Ok(among(&local, &is_meant).or_else(|| {
            let elsewhere = output_of("getent", &["passwd", "--", key])?;
            among(&elsewhere, &is_meant)
        }))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let mut fields = fields.skip(1);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?.into();
        Some(Self { name, uid, gid, home })
    }

    /// The groups that the user is in.
    pub fn groups(&self) -> Vec<u32> {
        let numbers = output_of("id", &["-G", "--", &self.name]);
        let numbers = numbers.and_then(|line| {
            line.split_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
        });
        numbers.filter(|numbers| !numbers.is_empty()).unwrap_or_else(|| {
            let local = fs::read_to_string("/etc/group").unwrap_or_default();
            self.groups_among(&local)
        })
    }

    /// The groups among lines as group(5) has them, with the user's own first.
    fn groups_among(&self, lines: &str) -> Vec<u32> {
        let member = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let gid: u32 = fields.next()?.parse().ok()?;
            let members = fields.next()?;
            members.split(',').any(|name| name == self.name).then_some(gid)
        };
        let others = lines.lines().filter_map(member).filter(|gid| *gid != self.gid);
        std::iter::once(self.gid).chain(others).collect()
    }
}

/// The first user that `is_meant` accepts among lines as passwd(5) has them. By name or by number, but
/// never by either, since a name may look like a number.
fn among(lines: &str, is_meant: impl Fn(&User) -> bool) -> Option<User> {
    lines.lines().filter_map(User::parse).find(is_meant)
}

/// What a program of the host writes to its standard output; `None` where it is missing or fails.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = process::Command::new(program);
    let output = command.args(arguments).stdin(process::Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:x:y\n:x:5:5::/:/bin/sh\n\
        1000:x:7:7::/home/number:/bin/sh\nalice:x:1000:1001:Alice,,,:/home/alice:/bin/zsh\n";

    #[test]
    fn who_called_sudo_is_read_from_its_variables_or_refused() {
        let caller = |uid, gid| Caller::among(uid, gid).map_err(|failure| failure.to_string());
        let alice = Caller { uid: 1000, gid: Some(1001) };
        assert_eq!(caller(Some("1000"), Some("1001")), Ok(Some(alice)));
        assert_eq!(caller(Some("1000"), None), Ok(Some(Caller { gid: None, ..alice })));
        assert_eq!(caller(None, Some("1001")), Ok(None));
        assert_eq!(caller(Some("0"), Some("0")), Ok(None));
        let wrong = ["", " ", "x", "-1", "+5", "1000 ", "0x3e8", "4294967295", "4294967296", "0\0"];
        for wrong in wrong {
            assert!(caller(Some(wrong), Some("0")).unwrap_err().starts_with("SUDO_UID is"));
            assert!(caller(Some("1000"), Some(wrong)).unwrap_err().starts_with("SUDO_GID is"));
        }
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let alice = User { name: "alice".into(), uid: 1000, gid: 1001, home: "/home/alice".into() };
        let named = |name: &str| among(PASSWD, |user| user.name == name);
        let numbered = |uid: u32| among(PASSWD, |user| user.uid == uid);
        assert_eq!(named("alice").as_ref(), Some(&alice));
        assert_eq!(numbered(1000), Some(alice), "and not who is called 1000");
        assert_eq!(named("1000").map(|user| user.uid), Some(7));
        assert_eq!(named("bob"), None);
        assert_eq!(named(""), None);
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let alice = among(PASSWD, |user| user.name == "alice").unwrap();
        let group = "root:x:0:\nalice:x:1001:\nwww:x:33:bob,alice\nsudo:x:27:alicey\nbroken\n\
            docker:x:999:alice\n";
        assert_eq!(alice.groups_among(group), [1001, 33, 999]);
        assert_eq!(alice.groups_among(""), [1001]);
    }

    #[test]
    fn the_host_knows_root_and_not_everybody() {
        let root = User::named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.groups().contains(&root.gid)), (0, true));
        assert_eq!(User::numbered(0).unwrap().map(|user| user.name), Some("root".into()));
        assert_eq!(User::named("no-such-user").unwrap(), None);
    }
}
