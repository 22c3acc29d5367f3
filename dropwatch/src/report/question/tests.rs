use super::*;

#[test]
fn a_prefix_has_the_addresses_that_begin_so() {
    let prefix = |address: &str, length| Prefix { address: address.parse().unwrap(), length };
    let has = |prefix: &Prefix, address: &str| prefix.contains(address.parse().unwrap());
    let four = prefix("198.18.4.0", 22);
    assert!(has(&four, "198.18.7.255") && !has(&four, "198.18.8.0") && !has(&four, "::1"));
    assert_eq!(four.to_string(), "198.18.4.0/22");
    let six = prefix("2001:db8::", 32);
    assert!(has(&six, "2001:db8:ffff::1") && !has(&six, "2001:db9::"));
    assert!(has(&prefix("0.0.0.0", 0), "255.255.255.255"));
    let host = prefix("198.18.4.1", 32);
    assert!(has(&host, "198.18.4.1") && !has(&host, "198.18.4.0"));
}
