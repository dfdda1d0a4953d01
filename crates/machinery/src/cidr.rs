//! Blocks of IP addresses in CIDR notation.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A block of addresses. Equality includes the host bits; [`masked`](Self::masked) returns the canonical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u32,
}

/// Error of parsing a CIDR block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
pub struct CidrError;

impl Cidr {
    /// Returns the canonical block: its address is the first address of the block.
    pub fn masked(self) -> Self {
        Self { address: self.address_at(*self.bits().start()), ..self }
    }

    /// Returns the prefix length.
    pub fn prefix(self) -> u32 {
        self.prefix
    }

    /// Returns whether the block is IPv6.
    pub fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Returns the range of the block's addresses as numbers.
    pub fn bits(self) -> RangeInclusive<u128> {
        let host_bits = self.width() - self.prefix;
        let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |count| count - 1);
        let first = to_bits(self.address) & !hosts;
        first..=first | hosts
    }

    /// Returns the address with the number `bits`, in the block's address family.
    pub fn address_at(self, bits: u128) -> IpAddr {
        if self.is_ipv6() {
            IpAddr::V6(bits.into())
        } else {
            IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into())
        }
    }

    /// Returns whether the address is in the block.
    pub fn contains(self, address: IpAddr) -> bool {
        self.is_ipv6() == address.is_ipv6() && self.bits().contains(&to_bits(address))
    }

    /// Returns whether the block contains `other` or is equal to it.
    pub fn contains_block(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Returns whether the block contains `other` and is larger.
    pub fn strictly_contains(self, other: Self) -> bool {
        self.prefix < other.prefix && self.contains(other.address)
    }

    /// Returns whether the blocks have addresses in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains_block(other) || other.contains_block(self)
    }

    /// Returns whether a host can have the address. The address must be in the block. The network address and the IPv4
    /// broadcast address are excluded.
    pub fn is_host(self, address: IpAddr) -> bool {
        let (all, bits) = (self.bits(), to_bits(address));
        self.contains(address) && bits != *all.start() && (self.is_ipv6() || bits != *all.end())
    }

    fn width(self) -> u32 {
        if self.is_ipv6() { 128 } else { 32 }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError)?;
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CidrError);
        }
        let cidr = Self { address, prefix: prefix.parse().map_err(|_| CidrError)? };
        if cidr.prefix <= cidr.width() { Ok(cidr) } else { Err(CidrError) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_formats_blocks() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8", "::/129", "/8"] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrError), "{text}");
        }
        for (text, canonical) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1/0", "::/0"),
            ("::1/128", "::1/128"),
        ] {
            assert_eq!(cidr(text).masked().to_string(), canonical);
        }
    }

    #[test]
    fn compares_blocks() {
        let block = cidr("10.0.0.0/8");
        assert!(block.strictly_contains(cidr("10.1.0.0/16")) && block.overlaps(cidr("10.1.0.0/16")));
        assert!(cidr("0.0.0.0/0").strictly_contains(cidr("10.1.0.0/16")));
        assert!(block.contains_block(block) && !block.strictly_contains(block));
        assert!(cidr("10.1.0.0/16").overlaps(block) && !cidr("10.1.0.0/16").contains_block(block));
        for other in ["11.0.0.0/16", "0.0.0.0/0", "::/16"] {
            assert!(!block.contains_block(cidr(other)), "{other}");
        }
        assert!(!block.overlaps(cidr("11.0.0.0/8")) && !cidr("::/0").overlaps(block));
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_hosts() {
        for (block, address, is_host) in [
            ("10.0.0.0/24", "10.0.0.0", false),
            ("10.0.0.0/24", "10.0.0.1", true),
            ("10.0.0.0/24", "10.0.0.255", false),
            ("10.0.0.0/24", "10.0.1.1", false),
            ("10.0.0.0/24", "::1", false),
            ("fd00::/120", "fd00::", false),
            ("fd00::/120", "fd00::ff", true),
            ("10.0.0.0/32", "10.0.0.0", false),
        ] {
            assert_eq!(cidr(block).is_host(address.parse().unwrap()), is_host, "{block} {address}");
        }
    }
}
