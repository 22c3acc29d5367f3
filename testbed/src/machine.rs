//! What kind of machine the tests run on.
//!
//! An emulated one is ten to fifty times slower. Whoever boots it says so in the environment, and
//! floods get smaller and patience longer by that factor. No count gets less exact.

use std::{env, os::unix::net::UnixDatagram, time::Duration};

use crate::socket::has_netns_cookie;

/// Set in guests that were booted for tests: they may be changed at will.
const GUEST: &str = "DROPWATCH_TEST_GUEST";
/// How many times slower than a machine of today this one is; 1 unless set.
const SLOWNESS: &str = "DROPWATCH_TEST_SLOWNESS";

/// Whether this is a guest of the tests' own, where even the clock may be set.
pub fn is_guest() -> bool {
    env::var_os(GUEST).is_some()
}

/// `n` on a fast machine, fewer on a slow one; at least one.
pub fn fewer(n: u64) -> u64 {
    (n / u64::from(slowness())).max(1)
}

/// `duration` on a fast machine, longer on a slow one, but not beyond a minute for that.
pub fn longer(duration: Duration) -> Duration {
    (duration * slowness()).min(duration.max(Duration::from_secs(60)))
}

/// Whether this kernel tells a network namespace from a later one of the same number (Linux 5.14).
pub fn tells_namespaces_apart() -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| has_netns_cookie(&socket))
}

fn slowness() -> u32 {
    parse(env::var(SLOWNESS).ok().as_deref())
}

fn parse(value: Option<&str>) -> u32 {
    value.and_then(|value| value.parse().ok()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_is_faster_than_today() {
        assert_eq!([None, Some("20"), Some("0"), Some("x")].map(parse), [1, 20, 1, 1]);
    }
}
