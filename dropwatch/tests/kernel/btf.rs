//! BTF, whole and damaged.

use dropwatch::kernel::btf::{Btf, BtfError, BtfKind};
use proptest::prelude::*;

use crate::{VMLINUX, hosts, read};

/// Writes BTF by the documented layout, independently of the reader.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    first_string: usize,
}

impl Writer {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn string(&mut self, text: &str) -> u32 {
        let offset = self.first_string + self.strings.len();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        offset as u32
    }

    fn ty(&mut self, name: &str, kind: u32, signed: bool, vlen: u32, value: u32, tail: &[u32]) {
        let name = if name.is_empty() { 0 } else { self.string(name) };
        let info = u32::from(signed) << 31 | kind << 24 | vlen;
        for word in [name, info, value].iter().chain(tail) {
            self.types.extend(word.to_ne_bytes());
        }
    }

    fn finish(&self) -> Vec<u8> {
        let mut data = 0xeb9f_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(&self.types);
        data.extend(&self.strings);
        data
    }
}

/// Every kind, with a tail of the documented length.
fn every_kind() -> Writer {
    let mut btf = Writer::new();
    let member = btf.string("member");
    btf.ty("int", 1, false, 0, 4, &[32]);
    btf.ty("", 2, false, 0, 1, &[]);
    btf.ty("", 3, false, 0, 0, &[1, 1, 8]);
    btf.ty("s", 4, false, 2, 8, &[member, 1, 0, 0, 1, 32]);
    btf.ty("u", 5, false, 1, 4, &[member, 1, 0]);
    let (low, high) = (btf.string("LOW"), btf.string("HIGH"));
    btf.ty("signed_enum", 6, true, 2, 4, &[low, u32::MAX, high, 7]);
    btf.ty("unsigned_enum", 6, false, 1, 4, &[high, u32::MAX]);
    btf.ty("fwd", 7, false, 0, 0, &[]);
    btf.ty("btf_trace_event", 8, false, 0, 2, &[]);
    for kind in 9..=11 {
        btf.ty("", kind, false, 0, 1, &[]);
    }
    btf.ty("f", 12, false, 1, 13, &[]);
    btf.ty("", 13, false, 2, 0, &[0, 2, 0, 1]);
    btf.ty("var", 14, false, 0, 1, &[1]);
    btf.ty(".data", 15, false, 1, 4, &[15, 0, 4]);
    btf.ty("float", 16, false, 0, 4, &[]);
    btf.ty("decl", 17, false, 0, 4, &[0]);
    btf.ty("tag", 18, false, 0, 1, &[]);
    btf.ty("enum64", 19, true, 2, 8, &[low, 0xffff_fffe, u32::MAX, high, 1, 2]);
    btf
}

#[test]
fn every_kind_is_walked() {
    let data = every_kind().finish();
    let btf = Btf::parse(&data).unwrap();
    assert_eq!(btf.types().count(), 20);
    assert_eq!(btf.get(20).unwrap().name, "enum64", "each tail has the right length");
    assert_eq!(btf.get(4).unwrap().kind, BtfKind::Struct);
    assert!(btf.get(0).is_none() && btf.get(21).is_none());
    let values = |name| btf.enumerators(btf.find_enum(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(values("signed_enum"), [("LOW", -1), ("HIGH", 7)]);
    assert_eq!(values("unsigned_enum"), [("HIGH", 0xffff_ffff)]);
    assert_eq!(values("enum64"), [("LOW", -2), ("HIGH", 2 << 32 | 1)]);
    assert_eq!(btf.find_enum("s").map(|ty| ty.name), None);
}

#[test]
fn an_unknown_kind_is_named() {
    let mut btf = every_kind();
    btf.ty("new", 20, false, 0, 0, &[]);
    let error = Btf::parse(&btf.finish()).unwrap_err();
    assert_eq!(error, BtfError::UnknownKind { id: 21, kind: 20 });
    assert!(error.to_string().contains("type 21 is of kind 20"), "{error}");
}

#[test]
fn another_byte_order_and_other_files_are_refused() {
    let mut data = every_kind().finish();
    data.swap(0, 1);
    assert_eq!(Btf::parse(&data).unwrap_err(), BtfError::ByteOrder);
    assert_eq!(Btf::parse(b"\x7fELF").unwrap_err(), BtfError::Magic);
    assert_eq!(Btf::parse(b"").unwrap_err(), BtfError::Magic);
}

#[test]
fn every_cut_is_an_error() {
    let data = every_kind().finish();
    for end in 0..data.len() {
        assert!(Btf::parse(&data[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn pointers_that_never_end_are_left() {
    let mut btf = Writer::new();
    btf.ty("btf_trace_kfree_skb", 8, false, 0, 2, &[]);
    btf.ty("", 2, false, 0, 1, &[]);
    assert_eq!(Btf::parse(&btf.finish()).unwrap().tracepoint_args("kfree_skb"), None);
}

#[test]
fn a_modules_strings_and_types_go_on_where_the_kernels_end() {
    let base = every_kind();
    let data = base.finish();
    let kernel = Btf::parse(&data).unwrap();
    let mut module = Writer { first_string: base.strings.len(), ..Writer::default() };
    let own = module.string("OWN");
    // An enumerator whose name the kernel has too is stored with the kernel's string.
    let shared = base.strings.windows(4).position(|part| part == b"LOW\0").unwrap() as u32;
    module.ty("module_enum", 6, false, 2, 4, &[own, 1, shared, 2]);
    let data = module.finish();
    let split = Btf::parse_split(&data, &kernel).unwrap();
    let ty = split.find_enum("module_enum").unwrap();
    assert_eq!(split.enumerators(ty).collect::<Vec<_>>(), [("OWN", 1), ("LOW", 2)]);
    assert_eq!(split.get(21).unwrap().name, "module_enum");
    assert_eq!(split.get(1).unwrap().name, "int", "the kernel's types are reached");
    assert_eq!(split.types().count(), 1);
}

/// An argument is known by what it points to, wherever it stands and whatever it is called.
#[test]
fn an_argument_is_found_by_its_type() {
    let with = |arguments: &[u32]| {
        let mut btf = Writer::new();
        btf.ty("sock", 4, false, 0, 8, &[]); // 1
        btf.ty("sk_buff", 4, false, 0, 8, &[]); // 2
        btf.ty("", 2, false, 0, 0, &[]); // 3: void *
        btf.ty("", 2, false, 0, 2, &[]); // 4: struct sk_buff *
        btf.ty("", 10, false, 0, 1, &[]); // 5: const struct sock
        btf.ty("", 2, false, 0, 5, &[]); // 6: const struct sock *
        btf.ty("", 2, false, 0, 6, &[]); // 7: const struct sock **
        btf.ty("sock_t", 8, false, 0, 6, &[]); // 8: a name for 6
        let parameters: Vec<u32> = arguments.iter().flat_map(|ty| [0, *ty]).collect();
        btf.ty("", 13, false, arguments.len() as u32, 0, &parameters); // 9
        btf.ty("", 2, false, 0, 9, &[]); // 10
        btf.ty("btf_trace_kfree_skb", 8, false, 0, 10, &[]);
        let data = btf.finish();
        Btf::parse(&data).unwrap().tracepoint_arg_to("kfree_skb", "sock")
    };
    assert_eq!(with(&[3, 4, 3]), None);
    assert_eq!(with(&[3, 4, 3, 3, 6]), Some(3));
    assert_eq!(with(&[3, 4, 6]), Some(1));
    assert_eq!(with(&[6, 4, 3]), None, "the first is the tracepoint's own");
    assert_eq!(with(&[3, 4, 1, 5, 7]), None, "neither the structure itself nor where a pointer is");
    assert_eq!(with(&[3, 4, 99]), None);
    assert_eq!(with(&[]), None);
}

#[test]
fn real_kernels_tell_the_tracepoints_arguments() {
    // skb, location; + reason; + rx_sk
    let expected =
        [("5.10", 2), ("5.15-reasons", 3), ("6.1", 3), ("6.12", 4), ("6.18", 4), ("7.2", 4)];
    let args = |host: String| {
        let args = Btf::parse(&read(&host, VMLINUX)).unwrap().tracepoint_args("kfree_skb");
        (host, args.unwrap())
    };
    let found: Vec<_> = hosts::with(VMLINUX).into_iter().map(args).collect();
    assert_eq!(found, expected.map(|(host, args)| (host.to_owned(), args)));
    let data = read("6.1", VMLINUX);
    assert_eq!(Btf::parse(&data).unwrap().tracepoint_args("no_such_event"), None);
}

fn walk(data: &[u8]) {
    let Ok(btf) = Btf::parse(data) else { return };
    for ty in btf.types() {
        assert!(btf.enumerators(ty).count() <= ty.vlen);
    }
    btf.tracepoint_args("kfree_skb");
    if let Ok(split) = Btf::parse_split(data, &btf) {
        split.types().for_each(drop);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(data: Vec<u8>) {
        walk(&data);
    }

    #[test]
    fn no_damage_panics(at: prop::sample::Index, byte: u8, header: [u32; 5], damage_header: bool) {
        let mut data = every_kind().finish();
        let at = at.index(data.len());
        data[at] = byte;
        if damage_header {
            for (word, bytes) in header.iter().zip(data[4..].chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
        }
        walk(&data);
    }
}
