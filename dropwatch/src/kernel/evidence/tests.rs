use std::sync::mpsc;

use super::*;
use crate::report::conntrack::ConntrackTable;

fn watched() -> WatchList {
    WatchList {
        counters: [("Udp", "NoPorts"), ("TcpExt", "ListenOverflows")].into(),
        overflows: "TcpExt.ListenOverflows",
        refusals: &["Udp.NoPorts"],
        settings: vec!["net.ipv4.ip_forward"],
        device_settings: vec!["net/ipv4/conf/DEV/rp_filter"],
        host_losses: vec!["softnet.dropped"],
        host_settings: vec!["net.core.netdev_max_backlog"],
    }
}

fn is_own(namespace: &NetnsEvidence) -> bool {
    namespace.prefix.as_deref() == Some("") && namespace.cookie == cookie()
}

#[test]
fn this_host_is_read_twice_and_lets_itself_be_compared() {
    let root = HostRoot::default();
    let mut namespaces = Namespaces::new(&root);
    let mut collector = Collector::new(&root, &mut namespaces, watched());
    assert_eq!(collector.before(), &HostEvidence::default());
    collector.read(&mut namespaces, &BTreeSet::new());
    let (before, now) = (collector.before(), collector.now());
    assert!(now.host.iter().next().is_some(), "no counter of the host");
    let own = now.namespaces.values().find(|namespace| is_own(namespace)).expect("our own");
    let inum = own.netns.as_ref().expect("known").inum;
    assert!(before.namespaces.contains_key(&inum));
    assert!(own.counters.get("Udp.NoPorts").is_some(), "{:?}", own.counters);
    assert_eq!(own.counters.get("Udp.InDatagrams"), None, "no rule looks at it");
    assert!(own.links.values().any(|link| link.name == "lo"));
}

/// Nine whose reading never ends, and in their middle one that has been read.
#[test]
fn ten_full_tables_are_waited_for_no_longer_than_one() {
    let mut senders = Vec::new();
    let mut tables = BTreeMap::new();
    for inum in 0..10 {
        let (sender, receiver) = mpsc::channel();
        if inum == 5 {
            sender.send(ConntrackTable::default()).expect("its reader is there");
        }
        senders.push(sender);
        let contents = TableReading { since: Instant::now(), table: None, reading: Some(receiver) };
        tables.insert(inum, contents);
    }
    let begin = Instant::now();
    let patience = Duration::from_millis(100);
    let inums: Vec<u32> = tables.keys().copied().collect();
    let taken = take(&mut tables, &inums, begin + patience);
    assert!(begin.elapsed() < 5 * patience, "{:?}", begin.elapsed());
    let known: Vec<u32> =
        taken.iter().filter(|(_, table)| table.is_some()).map(|(inum, _)| *inum).collect();
    assert_eq!(known, [5]);
}

#[test]
fn settings_are_read_where_samples_are() {
    let root = HostRoot::default();
    let mut namespaces = Namespaces::new(&root);
    let mut collector = Collector::new(&root, &mut namespaces, watched());
    let own = collector.now().namespaces.iter().find(|(_, namespace)| is_own(namespace));
    let inum = *own.expect("our own").0;
    collector.read(&mut namespaces, &[inum].into());
    let own = &collector.now().namespaces[&inum];
    assert!(own.settings.contains_key("net.ipv4.ip_forward"), "{:?}", own.settings);
    assert!(own.gauges.get("FRAG.memory").is_some(), "{:?}", own.gauges);
    assert!(own.settings.contains_key("net/ipv4/conf/lo/rp_filter"), "{:?}", own.settings);
    assert!(collector.now().settings.contains_key("net.core.netdev_max_backlog"));
}
