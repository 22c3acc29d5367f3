use proptest::prelude::*;

use super::*;

/// `tcp dst port 443 and net 10.0.0.0/8`, as tcpdump 4.99 compiles it for frames of Ethernet.
const WEB: &str = "18\n40 0 0 12\n21 15 0 34525\n21 0 14 2048\n48 0 0 23\n21 0 12 6\n40 0 0 20\n\
    69 10 0 8191\n177 0 0 14\n72 0 0 16\n21 0 7 443\n32 0 0 26\n84 0 0 4278190080\n\
    21 3 0 167772160\n32 0 0 30\n84 0 0 4278190080\n21 0 1 167772160\n6 0 0 262144\n6 0 0 0\n";

fn parse(text: &str) -> Result<Vec<Instruction>, CodeError> {
    ExpressionCode::parse(text.as_bytes()).map(|code| code.instructions().to_vec())
}

#[test]
fn what_tcpdump_prints_is_read() {
    use Instruction::{Branch, Calculate, Load, LoadHeaderLength, Return};
    let code = parse(WEB).unwrap();
    assert_eq!(code.len(), 18);
    assert_eq!(code[0], Load { bytes: 2, at: 12, behind_index: false });
    let comparison = Comparison::Equal;
    assert_eq!(code[2], Branch { comparison, with: Operand::Constant(2048), yes: 3, no: 17 });
    assert_eq!(code[7], LoadHeaderLength { at: 14 });
    assert_eq!(code[8], Load { bytes: 2, at: 16, behind_index: true });
    assert_eq!(code[11], Calculate(Operation::And, Operand::Constant(0xff00_0000)));
    assert_eq!(code[16..], [Return(262_144), Return(0)]);
}

#[test]
fn what_is_no_code_is_refused_by_what_is_wrong() {
    let unknown = CodeError::Unknown;
    for (text, why) in [
        ("", unknown("no number of instructions")),
        ("x\n6 0 0 0", unknown("no number of instructions")),
        ("1025\n", CodeError::TooLong),
        ("99999999999999999999999\n", unknown("no number of instructions")),
        ("0\n", unknown("no end")),
        ("2\n6 0 0 0\n", unknown("fewer instructions than announced")),
        ("1\n6 0 0 0\n6 0 0 0\n", unknown("more instructions than announced")),
        ("1\n6 0 0\n", unknown("not four numbers")),
        ("1\n6 0 0 0 0\n", unknown("not four numbers")),
        ("1\n6 0 256 0\n", unknown("not four numbers")),
        ("1\n6 0 0 4294967296\n", unknown("not four numbers")),
        ("1\n40 0 0 12\n", unknown("no end")),
        ("2\n21 1 0 0\n6 0 0 0\n", unknown("a jump out of it")),
        ("2\n5 0 0 1\n6 0 0 0\n", unknown("a jump out of it")),
        ("2\n5 0 0 4294967295\n6 0 0 0\n", CodeError::Loop),
        ("2\n52 0 0 0\n6 0 0 0\n", unknown("division by zero")),
        ("2\n148 0 0 0\n6 0 0 0\n", unknown("division by zero")),
        ("2\n96 0 0 16\n6 0 0 0\n", unknown("no such cell of memory")),
        ("2\n255 0 0 0\n6 0 0 0\n", unknown("no such instruction")),
        ("2\n180 0 0 0\n6 0 0 0\n", unknown("no such operation")),
        ("2\n85 0 0 0\n6 0 0 0\n", unknown("no such comparison")),
        ("2\n40 0 0 4294963244\n6 0 0 0\n", CodeError::Ancillary("vlan_tag")),
        ("2\n32 0 0 4294963220\n6 0 0 0\n", CodeError::Ancillary("mark")),
        (
            "2\n32 0 0 4293918720\n6 0 0 0\n",
            CodeError::Ancillary("headers that the kernel has found"),
        ),
    ] {
        assert_eq!(parse(text), Err(why), "{text}");
    }
    let bytes = ExpressionCode::parse(b"1\n\xff 0 0 0\n");
    assert_eq!(bytes, Err(unknown("not text")));
    assert!(CodeError::TooLong.to_string().contains("1024 instructions"));
}

#[test]
fn the_longest_is_taken() {
    let longest = ["1024\n", &"40 0 0 12\n".repeat(1023), "6 0 0 1\n"].concat();
    assert_eq!(parse(&longest).map(|code| code.len()), Ok(1024));
}

#[test]
fn what_it_asks_for_has_a_bound() {
    let asks = |text: &str| ExpressionCode::parse(text.as_bytes()).unwrap().asks_for();
    // Two bytes of a port behind the longest header of IPv4, or four of an address.
    assert_eq!(asks(WEB), 60 + 16 + 2);
    assert_eq!(asks("1\n6 0 0 1\n"), 0);
    // `len`, of no byte.
    assert_eq!(asks("2\n128 0 0 0\n22 0 0 0\n"), 0);
    assert_eq!(asks("2\n40 0 0 12\n6 0 0 1\n"), 14);
    assert_eq!(asks("2\n177 0 0 14\n6 0 0 1\n"), 15);
    // An index of 0 as at the begin, of a constant, and of what a frame says, by each way.
    assert_eq!(asks("2\n64 0 0 10\n6 0 0 1\n"), 14);
    assert_eq!(asks("3\n1 0 0 100\n80 0 0 10\n6 0 0 1\n"), 111);
    for unknown in ["129 0 0 0", "97 0 0 3", "7 0 0 0"] {
        assert_eq!(asks(&format!("3\n{unknown}\n80 0 0 0\n6 0 0 1\n")), u32::MAX);
    }
}

/// Whatever is in it, reading ends, and what is taken can be run: it ends, and jumps forward within
/// itself alone.
fn holds(text: &[u8]) {
    let Ok(code) = ExpressionCode::parse(text) else { return };
    let code = code.instructions();
    assert!((1..=MOST).contains(&code.len()));
    for (number, instruction) in code.iter().enumerate() {
        let after = number + 1..code.len();
        match *instruction {
            Instruction::Return(_) | Instruction::ReturnAccumulator => {}
            Instruction::Jump(target) => assert!(after.contains(&target)),
            Instruction::Branch { yes, no, .. } => {
                assert!(after.contains(&yes) && after.contains(&no));
            }
            _ => assert!(number + 1 < code.len()),
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
        holds(&text);
    }

    #[test]
    fn no_numbers_make_it_panic(
        count in 0_usize..8,
        lines in prop::collection::vec((0_u16..0x120, 0_u8..6, 0_u8..6, prop_oneof![0_u32..40, any::<u32>()]), 0..8),
    ) {
        let mut text = format!("{count}\n");
        for (code, yes, no, constant) in lines {
            text.push_str(&format!("{code} {yes} {no} {constant}\n"));
        }
        holds(text.as_bytes());
    }
}
