//! Blocks of addresses in CIDR notation.

use std::net::IpAddr;

use crate::validate::{At, Errors};

/// An address and the length of the prefix that a block of addresses shares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// The block that the text here is; an error if it is none.
    pub(super) fn at(at: At, errors: &mut Errors) -> Option<Self> {
        let parsed = Self::parse(at.text());
        if parsed.is_none() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(at.invalid_text(why));
        }
        parsed
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let cidr = Self { address, prefix: prefix.parse().ok().filter(|_| plain)? };
        (cidr.prefix <= cidr.width()).then_some(cidr)
    }

    /// Whether it is a block of IPv6 addresses.
    pub(super) fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The one spelling of the block: its first address, in its shortest form.
    pub(super) fn canonical(&self) -> String {
        let first = match self.address {
            IpAddr::V4(_) => IpAddr::V4((u32::try_from(self.first()).unwrap_or_default()).into()),
            IpAddr::V6(_) => IpAddr::V6(self.first().into()),
        };
        format!("{first}/{}", self.prefix)
    }

    /// Whether `part` is a block within this one, and smaller.
    pub(super) fn strictly_contains(&self, part: &Self) -> bool {
        self.is_ipv6() == part.is_ipv6()
            && part.prefix > self.prefix
            && Self { prefix: self.prefix, ..*part }.first() == self.first()
    }

    fn width(&self) -> u32 {
        if self.is_ipv6() { 128 } else { 32 }
    }

    fn first(&self) -> u128 {
        let bits = match self.address {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let host_bits = self.width() - self.prefix;
        bits.checked_shr(host_bits).and_then(|it| it.checked_shl(host_bits)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_and_compared() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8", "::/129", "/8"] {
            assert!(Cidr::parse(text).is_none(), "{text}");
        }
        let block = |text: &str| Cidr::parse(text).unwrap();
        assert_eq!(block("10.1.2.3/8").canonical(), "10.0.0.0/8");
        assert_eq!(block("2001:DB8::1/32").canonical(), "2001:db8::/32");
        assert_eq!(
            (block("0.0.0.0/0").canonical(), block("::/0").canonical()),
            ("0.0.0.0/0".into(), "::/0".into())
        );
        assert!(block("10.0.0.0/8").strictly_contains(&block("10.1.0.0/16")));
        assert!(block("0.0.0.0/0").strictly_contains(&block("10.1.0.0/16")));
        for other in ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "::/16"] {
            assert!(!block("10.0.0.0/8").strictly_contains(&block(other)), "{other}");
        }
    }
}
