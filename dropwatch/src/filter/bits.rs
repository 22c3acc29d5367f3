//! Values of which some bits count: packet marks, and the flags of TCP.

use dropwatch_common::filter::Bits;
use thiserror::Error;

use crate::report::near::{did_you_mean, near};

/// Why a text is no mark, or no flags of TCP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BitsError {
    #[error("not a mark such as 7 or 0x10, nor one with a mask such as 0x10/0xf0")]
    Mark,
    /// No packet could have it.
    #[error("{value:#x} has bits outside of the mask {mask:#x}: nothing can match")]
    BitsOutsideMask { value: u32, mask: u32 },
    #[error(
        "{flag} is no flag of TCP: there are {}, and none{}",
        NAMES.join(", "),
        did_you_mean(near)
    )]
    Flag { flag: String, near: Vec<&'static str> },
    /// No packet could have it.
    #[error("{flag} is not among the flags behind the slash: nothing can match")]
    FlagOutsideMask { flag: &'static str },
}

/// Names of the flags, by their bits from the lowest on (RFC 9293, RFC 3168).
const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
const ALL: u32 = 0xff;

/// Reads a mark, or some of its bits: `7`, `0x10/0xf0`.
///
/// # Errors
/// It is neither, or nothing could match it.
pub fn mark(text: &str) -> Result<Bits, BitsError> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(text)?, u32::MAX),
    };
    if value & !mask != 0 {
        return Err(BitsError::BitsOutsideMask { value, mask });
    }
    Ok(Bits { value, mask })
}

fn number(text: &str) -> Result<u32, BitsError> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A sign is none of it, which the parser of numbers would take.
    let are_digits = digits.bytes().all(|byte| char::from(byte).is_digit(radix));
    let number = are_digits.then(|| u32::from_str_radix(digits, radix).ok()).flatten();
    number.ok_or(BitsError::Mark)
}

/// Reads flags of TCP: `syn,ack` are set, whatever the others are; of those behind a slash, exactly the
/// ones before it are: `syn/syn,ack`. `none` is no flag at all, or none of those behind the slash.
///
/// # Errors
/// A name is no flag's, or nothing could match.
pub fn tcp_flags(text: &str) -> Result<Bits, BitsError> {
    let Some((value, mask)) = text.split_once('/') else {
        let value = flags(text)?;
        return Ok(Bits { value, mask: if value == 0 { ALL } else { value } });
    };
    let (value, mask) = (flags(value)?, flags(mask)?);
    let outside = NAMES.iter().zip(0..).find(|(_, bit)| value & !mask & 1 << bit != 0);
    match outside {
        Some((flag, _)) => Err(BitsError::FlagOutsideMask { flag }),
        None => Ok(Bits { value, mask }),
    }
}

/// Flags by their names, as iptables, nft or tcpdump (`tcp-push`) have them.
fn flags(text: &str) -> Result<u32, BitsError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(0);
    }
    text.split(',').try_fold(0, |flags, name| {
        let lower = name.to_ascii_lowercase();
        let known = match lower.strip_prefix("tcp-").unwrap_or(&lower) {
            "push" => "psh",
            other => other,
        };
        match NAMES.iter().position(|it| *it == known) {
            Some(bit) => Ok(flags | 1 << bit),
            None => Err(BitsError::Flag {
                flag: if name.is_empty() { "nothing".to_owned() } else { format!("`{name}`") },
                near: near(known, NAMES),
            }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_with_and_without_a_mask() {
        for (text, value, mask) in [
            ("7", 7, u32::MAX),
            ("0x10", 16, u32::MAX),
            ("0x10/0xf0", 16, 0xf0),
            ("0/1", 0, 1),
            ("0XfFffFfff", u32::MAX, u32::MAX),
            ("0/0", 0, 0),
        ] {
            assert_eq!(mark(text), Ok(Bits { value, mask }), "{text}");
        }
        for text in ["", "x", "-1", "+1", "0x", "0x+1", "4294967296", "1/", "/1", "1/2/3", "0x1g"] {
            assert_eq!(mark(text), Err(BitsError::Mark), "{text}");
        }
        let outside = BitsError::BitsOutsideMask { value: 0x11, mask: 0x10 };
        assert_eq!(mark("0x11/0x10"), Err(outside));
    }

    #[test]
    fn flags_as_various_programs_write_them() {
        for (text, value, mask) in [
            ("syn", 0x02, 0x02),
            ("syn,ack", 0x12, 0x12),
            ("syn/syn,ack", 0x02, 0x12),
            ("tcp-push", 0x08, 0x08),
            ("PSH,tcp-FIN", 0x09, 0x09),
            ("none", 0, 0xff),
            ("none/rst,syn", 0, 0x06),
            ("fin,psh,urg/fin,syn,rst,psh,ack,urg", 0x29, 0x3f),
            ("cwr,ece", 0xc0, 0xc0),
        ] {
            assert_eq!(tcp_flags(text), Ok(Bits { value, mask }), "{text}");
        }
        let outside = |flag| Err(BitsError::FlagOutsideMask { flag });
        assert_eq!(tcp_flags("syn,ack/syn"), outside("ack"));
        assert_eq!(tcp_flags("syn/none"), outside("syn"));
        for text in ["", "syn,", "/syn", "sin", "syn|ack", "syn/ack/fin", "2", "none,syn"] {
            let Err(error) = tcp_flags(text) else { panic!("{text}") };
            assert!(error.to_string().contains("no flag of TCP: there are fin, syn"), "{error}");
        }
        let error = tcp_flags("sin").unwrap_err().to_string();
        assert!(
            error.starts_with("`sin` is no flag") && error.ends_with(": did you mean syn or fin?"),
            "{error}"
        );
    }
}
