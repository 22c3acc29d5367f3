use super::*;
use crate::report::{
    place::Reason,
    weighed::{MAX_SAMPLES, thin},
};

const AT: u64 = 0xffff_ffff_8100_0010;
const KEY: DropKey = DropKey::new(AT, 2);

/// Counts how often sockets are searched for.
#[derive(Default)]
struct CountingNames {
    searches: usize,
}

impl Names for CountingNames {
    fn symbol(&mut self, location: u64) -> Option<Symbol> {
        let name = match location.checked_sub(AT)? {
            0 => "ip_rcv",
            1 => "__netif_receive_skb_one_core",
            2 => "kfree_skb_reason",
            _ => return None,
        };
        Some(Symbol { name: name.to_owned(), offset: 4, module: None })
    }

    fn reason(&mut self, _: u32) -> Option<Reason> {
        None
    }

    fn netns(&mut self, inum: u32) -> Netns {
        Netns::new(Some(if inum == 1 { "n".repeat(5000) } else { String::new() }), inum)
    }

    fn interface(&mut self, netns: u32, index: u32) -> Option<String> {
        Some(format!("eth{netns}.{index}"))
    }

    fn owner(&mut self, socket: u64) -> Option<Owner> {
        self.searches += 1;
        (socket > 1).then(|| Owner { comm: "curl".to_owned(), pid: 7, cgroup: None })
    }
}

fn sample(weight: u64) -> Sample {
    Sample { key: KEY, weight, ..Sample::default() }
}

fn details(samples: &[Sample]) -> Details {
    SamplesByKey::new(samples).details(KEY, &mut CountingNames::default()).unwrap()
}

#[test]
fn facts_are_weighted_not_counted() {
    let on = |weight, cpu| Sample { cpu, ..sample(weight) };
    let found = details(&[on(1, 0), on(1, 0), on(98, 3)]);
    assert_eq!((found.samples, found.weight), (3, 100));
    assert_eq!(found.cpu, Some(Fact { is: Cpu { cpu: 3 }, share: 0.98 }));
}

#[test]
fn what_is_mostly_unknown_is_unknown() {
    let known = Sample {
        netns: Some(2),
        ifindex: Some(3),
        socket: Some(9),
        conntrack: Some(true),
        ..sample(40)
    };
    let found = details(&[known.clone(), sample(60)]);
    assert_eq!((found.netns, found.interface, found.owner), (None, None, None));
    assert_eq!((found.conntrack, found.path, found.flow, found.protocol), (None, None, None, None));
    let found = details(&[known, sample(20)]);
    let share = 0.667;
    assert_eq!(found.netns, Some(Fact { is: Netns::new(None, 2), share }));
    let interface = Interface { name: Some("eth2.3".to_owned()), index: 3 };
    assert_eq!(found.interface, Some(Fact { is: interface, share }));
    let owner = Owner { comm: "curl".to_owned(), pid: 7, cgroup: None };
    assert_eq!(found.owner, Some(Fact { is: owner, share }));
    assert_eq!(found.conntrack, Some(Fact { is: FlowTracked { entry: true }, share }));
}

#[test]
fn a_location_without_samples_has_no_details() {
    let samples = [sample(1)];
    let elsewhere = DropKey::new(AT, 3);
    let mut samples = SamplesByKey::new(&samples);
    assert_eq!(samples.details(elsewhere, &mut CountingNames::default()), None);
    assert_eq!(samples.paths(elsewhere, false, &mut CountingNames::default()), []);
}

#[test]
fn of_many_samples_a_bounded_number_is_looked_at_and_stands_for_all() {
    let many: Vec<_> = (0..2 * MAX_SAMPLES as u64)
        .map(|n| Sample {
            socket: Some(n + 2),
            netns: Some(1),
            cpu: (n % 2) as u32,
            stack: vec![AT, AT + 10 + n],
            ..sample(if n % 2 == 0 { 1 } else { 3 })
        })
        .collect();
    let mut names = CountingNames::default();
    let mut samples = SamplesByKey::new(&many);
    let found = samples.details(KEY, &mut names).unwrap();
    assert!((MAX_SAMPLES as u64 / 2..=MAX_SAMPLES as u64).contains(&found.samples));
    assert_eq!(found.weight, 4 * MAX_SAMPLES as u64);
    let cpu = found.cpu.unwrap();
    assert!(cpu.is == Cpu { cpu: 1 } && (cpu.share - 0.75).abs() < 0.01, "{cpu:?}");
    assert_eq!(names.searches, MAX_OWNERS);
    assert_eq!(found.netns.unwrap().is.name.unwrap().len(), MAX_NAME);
    assert_eq!(samples.paths(KEY, false, &mut names).len(), MAX_PATHS);
}

#[test]
fn unequal_weights_say_less_than_their_number() {
    let found = details(&[sample(1), sample(1), sample(98)]);
    assert_eq!((found.samples, found.effective_samples), (3, Some(1.0)));
    assert_eq!(found.precision(), Precision::Estimated(1.0));
    let whole = details(&[sample(1), sample(1), sample(1)]);
    assert_eq!((whole.effective_samples, whole.precision()), (Some(3.0), Precision::Exact));
}

#[test]
fn weights_beyond_64_bits_do_not_wrap() {
    let found = details(&[sample(u64::MAX), sample(u64::MAX)]);
    assert_eq!(found.weight, u64::MAX);
    assert_eq!(found.cpu, Some(Fact { is: Cpu { cpu: 0 }, share: 1.0 }));
}

#[test]
fn a_path_begins_at_the_location_and_has_a_weight() {
    let with = |weight, stack: &[u64]| Sample { stack: stack.to_vec(), ..sample(weight) };
    // The location is not among the frames of the third, but its function is.
    let samples =
        [with(6, &[AT, AT + 1]), with(3, &[AT + 2, AT, AT + 1]), with(1, &[AT + 2, AT + 1])];
    let found = details(&samples);
    let callers = vec![Some("__netif_receive_skb_one_core".to_owned())];
    assert_eq!(found.path, Some(Fact { is: Callers { callers }, share: 0.9 }));
    let paths = SamplesByKey::new(&samples).paths(KEY, false, &mut CountingNames::default());
    let shown: Vec<_> =
        paths.iter().map(|path| (path.samples, path.weight, path.frames.len())).collect();
    assert_eq!(shown, [(2, 9, 2), (1, 1, 1)]);
}

/// What is left stands for what a report forgets on the way.
#[test]
fn forgotten_samples_leave_their_weight() {
    let of = |n: u64| Sample {
        key: DropKey { netns: (n % 3) as u32, ..KEY },
        weight: 1 + n % 7,
        time: n,
        cpu: (n % 5) as u32,
        ..Sample::default()
    };
    let mut kept: Vec<Sample> = (0..3000).map(of).collect();
    let weights = |samples: &[Sample]| {
        let of = |netns| samples.iter().filter(move |it| it.key.netns == netns);
        [0, 1, 2].map(|netns| of(netns).map(|it| it.weight).sum::<u64>())
    };
    let before = weights(&kept);
    // Each row keeps some, however many rows there are.
    for (most, least) in [(1000, 300), (100, 20), (3, 3), (1, 3)] {
        thin(&mut kept, most);
        assert!((least..=most.max(3)).contains(&kept.len()), "{} of {most}", kept.len());
        assert_eq!(weights(&kept), before);
    }
}
