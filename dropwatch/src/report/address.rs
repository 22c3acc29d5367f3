//! A raw kernel address, and who may learn it.
//!
//! One address together with its symbol gives away the base that KASLR randomises, so a log
//! collector gets none unless `--addresses` asks for it. A terminal that shows an unnamed location
//! still needs it: there the address is the only name the location has.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Where in the kernel a drop happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Not recorded.
    #[default]
    Unknown,
    /// Known to this process and kept out of recordings; stands in for a missing name.
    Withheld(u64),
    /// To be shown and recorded.
    Public(u64),
}

impl Address {
    /// The address, whoever may see it.
    pub fn known(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Withheld(raw) | Self::Public(raw) => Some(raw),
        }
    }

    /// The address, if `--addresses` asked for it.
    pub fn public(self) -> Option<u64> {
        match self {
            Self::Public(raw) => Some(raw),
            Self::Unknown | Self::Withheld(_) => None,
        }
    }

    /// Whether recordings leave it out.
    pub fn is_withheld(&self) -> bool {
        self.public().is_none()
    }

    /// `0x` and 16 hexadecimal digits.
    pub fn hex(raw: u64) -> String {
        format!("{raw:#018x}")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.public() {
            Some(raw) => to.serialize_str(&Self::hex(raw)),
            None => to.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self::Public)
            .ok_or_else(|| D::Error::custom("not an address such as 0xffffffff81234567"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;

    #[test]
    fn only_a_public_address_is_written() {
        let raw = 0xffff_ffff_8123_4567;
        assert_eq!(to_string(&Address::Public(raw)).unwrap(), "\"0xffffffff81234567\"");
        assert_eq!(to_string(&Address::Public(0x10)).unwrap(), "\"0x0000000000000010\"");
        assert_eq!(to_string(&Address::Withheld(raw)).unwrap(), "null");
        assert!(Address::Withheld(raw).is_withheld());
    }

    #[test]
    fn reads_back_what_it_wrote_and_nothing_else() {
        assert_eq!(from_str::<Address>("\"0x0000000000000010\"").unwrap(), Address::Public(0x10));
        for foreign in ["\"\"", "\"0x\"", "\"0x+1\"", "\"1234\"", "\"0x10000000000000000\"", "1"] {
            assert!(from_str::<Address>(foreign).is_err(), "{foreign} was accepted");
        }
    }
}
