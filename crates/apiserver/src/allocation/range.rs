//! The range that cluster IPs are allocated from.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::str::FromStr;

/// The range of cluster IPs (`--service-cluster-ip-range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    size: u32,
}

/// A range that cannot be parsed or has an unsupported size.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.0.0.0/16, of 8 to 1,048,576 addresses")]
pub struct RangeError(String);

impl ServiceRange {
    /// The address of the `kubernetes` service.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Whether a service may have this address. The network and broadcast addresses are not allocated.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size - 1
    }

    /// Offsets of the upper band, from which addresses are allocated at random (KEP-3070).
    pub(super) fn upper_band(self) -> Range<u32> {
        self.dynamic_offset()..self.size - 1
    }

    /// Offsets of the lower band, used at random only once the upper band is full: services that request a specific
    /// address choose from it.
    pub(super) fn lower_band(self) -> Range<u32> {
        1..self.dynamic_offset()
    }

    /// The address at an offset.
    pub(super) fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset)
    }

    fn dynamic_offset(self) -> u32 {
        (self.size / 16).clamp(16.min(self.size / 2), 256)
    }
}

impl FromStr for ServiceRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(12..=29).contains(&bits) {
            return Err(wrong());
        }
        let size = 1u32 << (32 - bits);
        Ok(Self { base: u32::from(address) & !(size - 1), size })
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), 32 - self.size.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ipv4_networks_only() {
        assert_eq!("10.0.0.0/16".parse::<ServiceRange>().unwrap().first(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!("10.0.3.4/16".parse::<ServiceRange>().unwrap().to_string(), "10.0.0.0/16");
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/64", "10.0.0.0/4", "10.0.0.0/30"] {
            text.parse::<ServiceRange>().unwrap_err();
        }
    }

    #[test]
    fn bands_cover_the_range() {
        for text in ["10.0.0.0/29", "10.0.0.0/28", "10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/12"] {
            let range: ServiceRange = text.parse().unwrap();
            let (lower, upper) = (range.lower_band(), range.upper_band());
            assert_eq!((lower.start, lower.end, upper.end), (1, upper.start, range.size - 1), "{text}");
            assert!(!lower.is_empty() && !upper.is_empty(), "{text}");
        }
    }
}
