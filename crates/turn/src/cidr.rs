//! An address range as `10.0.0.0/8` writes it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// The text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address range such as 10.0.0.0/8 or fd00::/8")]
pub struct NotCidr(String);

impl Cidr {
    /// The range of this prefix; the length is cut to the family's.
    pub const fn new(network: IpAddr, prefix: u8) -> Self {
        let bits = match network {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { network, prefix: if prefix > bits { bits } else { prefix } }
    }

    /// Whether the address lies in it. An address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }

    /// Whether it is a single address.
    pub const fn is_single(&self) -> bool {
        self.prefix
            == match self.network {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            }
    }
}

impl FromStr for Cidr {
    type Err = NotCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not = || NotCidr(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').unzip();
        let network: IpAddr = address.unwrap_or(text).trim().parse().map_err(|_| not())?;
        let range = Self::new(network, u8::MAX);
        let Some(prefix) = prefix else { return Ok(range) };
        let prefix: u8 = prefix.trim().parse().map_err(|_| not())?;
        if prefix > range.prefix {
            return Err(not());
        }
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(range: &str, address: &str) -> bool {
        range.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_what_shares_its_prefix() {
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::ffff:8.8.8.8"));
        assert!(holds("fd00::/8", "fdff::1") && holds("::/0", "1::") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "example.org/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert_eq!("10.0.0.0/8".parse::<Cidr>().unwrap().to_string(), "10.0.0.0/8");
    }
}
