use std::os::unix::fs::MetadataExt;

use super::{super::processes::fixture::FakeHost, *};

/// A namespace that needs no privilege to be there: that of these tests, and its number.
const SELF: &str = "/proc/self/ns/net";

fn own_inum() -> u32 {
    of_process(&HostRoot::default(), "self").unwrap()
}

/// A host whose own namespace is number 1, and whose nsfs is the real one.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.link("proc/1/ns/pid", "pid:[4026531836]");
    host.process(1, "init", 1);
    host.link("proc/self/ns/net", SELF);
    host
}

#[test]
fn the_host_is_the_machines_first_namespace_where_that_is_proved() {
    let name = |host: &FakeHost, inum| Namespaces::new(&host.root()).netns(inum);
    let shown = host();
    assert_eq!(name(&shown, 1).as_deref(), Some("host"), "PID 1 of the machine");
    let hidden = FakeHost::new();
    hidden.link("proc/self/ns/net", "net:[9]");
    assert_eq!(name(&hidden, 9), None, "nothing proves it");
    hidden.write("proc/sys/net/core/netdev_max_backlog", "1000");
    assert_eq!(name(&hidden, 9).as_deref(), Some("host"));
}

#[test]
fn in_a_container_nothing_but_the_hosts_own_is_called_host() {
    let container = FakeHost::new();
    container.process(1, "entry", 10);
    container.link("proc/1/ns/pid", "pid:[4026532246]");
    container.link("proc/self/ns/net", "net:[10]");
    let namespaces = || Namespaces::new(&container.root());
    assert_eq!(namespaces().netns(10).as_deref(), Some("this container"));
    assert_eq!(namespaces().find("this container"), Ok(10));
    let error = namespaces().find("host").unwrap_err().to_string();
    assert!(error.contains("there are this container;"), "{error}");
    container.write("proc/sys/net/core/netdev_max_backlog", "1000");
    assert_eq!(namespaces().netns(10).as_deref(), Some("host"), "shared with the host");
}

#[test]
fn a_mounted_name_comes_before_a_process() {
    let (host, inum) = (host(), own_inum());
    host.process(40, "web", inum);
    host.link("run/docker/netns/5f1c2ab34d56", SELF);
    let name = || Namespaces::new(&host.root()).netns(inum);
    assert_eq!(name().as_deref(), Some("docker/5f1c2ab34d56"));
    host.link("run/netns/b", SELF);
    host.link("run/netns/a\x1b[31m", SELF);
    assert_eq!(name().as_deref(), Some("a\u{fffd}[31m"));
}

#[test]
fn another_namespace_that_is_called_host_is_told_apart_by_its_path() {
    let (host, inum) = (host(), own_inum());
    host.link("run/netns/host", SELF);
    let mut namespaces = Namespaces::new(&host.root());
    assert_eq!(namespaces.netns(inum).as_deref(), Some("/run/netns/host"));
    assert_eq!((namespaces.netns(1).as_deref(), namespaces.find("host")), (Some("host"), Ok(1)));
}

/// What stands in reports for something else than a namespace of that name.
#[test]
fn a_namespace_that_is_called_as_a_word_of_the_reports_is_told_apart_by_its_path() {
    for word in ["unknown", "other", "this container", "netns 4026531840", "nginx (pid 812)"] {
        let (host, inum) = (host(), own_inum());
        host.link(&format!("run/netns/{word}"), SELF);
        let mut namespaces = Namespaces::new(&host.root());
        let path = format!("/run/netns/{word}");
        assert_eq!(namespaces.netns(inum), Some(path), "{word}");
        let found = namespaces.find(word).ok();
        assert_eq!(found, (word != "this container").then_some(inum), "{word}");
    }
    for name in ["others", "unknown1", "netns", "netns x", "netns 1 2", "web (pid x)", "(pid 7)"] {
        let (host, inum) = (host(), own_inum());
        host.link(&format!("run/netns/{name}"), SELF);
        assert_eq!(Namespaces::new(&host.root()).netns(inum).as_deref(), Some(name), "{name}");
    }
}

#[test]
fn a_namespace_is_found_by_any_of_its_names() {
    let (host, inum) = (host(), own_inum());
    host.link("run/netns/gw", SELF);
    let root = host.root();
    let mut namespaces = Namespaces::new(&root);
    assert_eq!(namespaces.find("host"), Ok(1));
    assert_eq!(namespaces.find("gw"), Ok(inum));
    assert_eq!((netns_named(&root, "gw"), netns_named(&root, SELF)), (Some(inum), Some(inum)));
    for none in ["web", "", ".", "..", "../netns/gw", "/dev/null", "/run"] {
        assert_eq!(netns_named(&root, none), None, "{none}");
    }
    host.link("run/netns/late", SELF);
    assert_eq!(netns_named(&root, "late"), Some(inum));
    assert_eq!(namespaces.find(SELF), Ok(inum));
    assert_eq!(namespaces.find("4026531840"), Ok(4_026_531_840));
    assert_eq!(
        namespaces.find("/dev/null"),
        Err(Unfound::NoNamespace { path: "/dev/null".into() })
    );
    for name in ["web", "/proc/0/ns/net"] {
        let error = namespaces.find(name).unwrap_err().to_string();
        assert!(error.contains("there are host, gw;"), "{error}");
    }
}

#[test]
fn names_that_cannot_be_typed_are_no_hints() {
    let host = host();
    host.link("run/netns/gw1", SELF);
    let mut namespaces = Namespaces::new(&host.root());
    assert!(namespaces.find("gw2").unwrap_err().to_string().contains("did you mean gw1?"));
    host.link("run/netns/g\u{1b}w", SELF);
    std::fs::remove_file(host.root().path("run/netns/gw1")).unwrap();
    let mut namespaces = Namespaces::new(&host.root());
    let error = namespaces.find("gw2").unwrap_err().to_string();
    assert!(!error.contains("mean") && !error.contains('\u{fffd}'), "{error}");
}

#[test]
fn a_file_that_is_no_namespace_names_none() {
    let host = host();
    host.write("run/netns/left-behind", "");
    let inum = host.root().path("run/netns/left-behind").metadata().unwrap().ino();
    let mut namespaces = Namespaces::new(&host.root());
    assert!(inum != 1 && mounted(&host.root()).is_empty());
    assert_eq!(namespaces.netns(inum as u32), None);
}

#[test]
fn the_first_process_that_lives_there_speaks_for_it() {
    let host = host();
    host.process(900, "worker", 77);
    host.process(80, "nginx", 77);
    let mut namespaces = Namespaces::new(&host.root());
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77).as_deref(), Some("nginx (pid 80)"));
    host.remove("proc/80");
    assert_eq!(namespaces.netns(77).as_deref(), Some("nginx (pid 80)"), "one report, one name");
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77).as_deref(), Some("worker (pid 900)"));
}

#[test]
fn a_name_outlives_its_namespace_by_one_report() {
    let host = host();
    host.process(80, "nginx", 77);
    let mut namespaces = Namespaces::new(&host.root());
    namespaces.begin_report();
    assert!(namespaces.netns(77).is_some());
    host.remove("proc/80");
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77).as_deref(), Some("nginx (pid 80)"));
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77), None, "the number can be another's by now");
}

#[test]
fn a_number_given_again_gets_the_new_name_at_once() {
    let host = host();
    host.process(80, "old", 77);
    let mut namespaces = Namespaces::new(&host.root());
    assert_eq!(namespaces.netns(77).as_deref(), Some("old (pid 80)"));
    host.remove("proc/80");
    host.process(81, "new", 77);
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77).as_deref(), Some("new (pid 81)"));
}

#[test]
fn processes_are_looked_at_once_a_report() {
    let host = host();
    let mut namespaces = Namespaces::new(&host.root());
    namespaces.begin_report();
    assert_eq!(namespaces.netns(77), None);
    host.process(80, "late", 78);
    assert_eq!(namespaces.netns(78), None);
    for _ in 1..VAIN_REPORTS {
        namespaces.begin_report();
        assert_eq!(namespaces.netns(78), None, "not looked for in every report");
    }
    namespaces.begin_report();
    assert_eq!(namespaces.netns(78).as_deref(), Some("late (pid 80)"));
    assert_eq!(namespaces.notice(), None, "nothing was hidden");
}

#[test]
fn interfaces_are_named_in_their_own_namespace() {
    let (host, inum) = (host(), own_inum());
    let here = HostRoot::default();
    assert_eq!(Namespaces::new(&here).interface(inum, 1).as_deref(), Some("lo"));
    assert_eq!(Namespaces::new(&here).interface(inum, u32::MAX), None);

    // Not to be entered, since the link leads nowhere: the tables of the process show it.
    host.process(80, "web", 77);
    host.write("proc/80/net/dev_mcast", "3    veth0           1     0     01005e000001\n");
    let mut namespaces = Namespaces::new(&host.root());
    assert_eq!(namespaces.interface(77, 3).as_deref(), Some("veth0"));
    assert_eq!(namespaces.interface(77, 4), None);
    assert_eq!(namespaces.interface(78, 3), None);
}

#[test]
fn names_of_interfaces_outlive_their_namespace_and_are_no_others() {
    let host = host();
    host.process(80, "web", 77);
    let mut namespaces = Namespaces::new(&host.root());
    let web = namespaces.reach(77).expect("a process lives there");
    let names = |name: &str| [(1, "lo".to_owned()), (2, name.to_owned())];
    assert_eq!(namespaces.met(&web, 5, names("v2")), 77);
    namespaces.met(&web, 5, names("renamed"));
    host.remove("proc/80");
    for _ in 0..3 {
        namespaces.begin_report();
        assert_eq!(namespaces.interface(77, 2).as_deref(), Some("renamed"), "as of the last look");
        assert_eq!(namespaces.interface(77, 3), None);
    }
    // The number is another's by now, as its cookie shows.
    let later = namespaces.met(&web, 9, [(1, "lo".to_owned())]);
    namespaces.begin_report();
    assert_ne!(later, 77);
    assert_eq!(namespaces.interface(later, 2), None);
    assert_eq!(namespaces.interface(77, 2).as_deref(), Some("renamed"));
}

#[test]
fn nothing_is_needed_of_a_host() {
    let host = FakeHost::new();
    let mut namespaces = Namespaces::new(&host.root());
    namespaces.begin_report();
    assert_eq!((namespaces.netns(1), namespaces.interface(1, 1)), (None, None));
}
