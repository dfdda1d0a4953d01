//! The ranges that cluster IPs are allocated from.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;

use nave_machinery::Cidr;
use rand::Rng;

/// An IP family, with the name that services use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// A range of cluster IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceRange(Cidr);

/// The initial ranges of cluster IPs (`--service-cluster-ip-range`): one range, or one per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRanges {
    primary: ServiceRange,
    secondary: Option<ServiceRange>,
}

/// Ranges that cannot be parsed or do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// A range is not a valid CIDR.
    #[error("{0:?} is not a range such as 10.0.0.0/16 or fd00::/108")]
    Malformed(String),
    /// A range is too small for a cluster, or too large to allocate from.
    #[error("{0:?} must have at least 8 addresses, and with IPv6 a prefix of at least 64 bits")]
    Size(String),
    /// More than two ranges, or two ranges of the same family.
    #[error("{0:?} must be one range, or one of each IP family")]
    Families(String),
}

impl Family {
    /// Returns the family of an address.
    pub(super) fn from_address(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// Parses the name of a family; `None` if it is unknown.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl ServiceRange {
    /// Creates the range of a CIDR; `None` if the CIDR is too large to allocate from.
    pub(super) fn new(cidr: Cidr) -> Option<Self> {
        (!cidr.is_ipv6() || cidr.prefix() >= 64).then(|| Self(cidr.masked()))
    }

    pub(super) fn family(self) -> Family {
        if self.0.is_ipv6() { Family::V6 } else { Family::V4 }
    }

    /// Returns the first address that can be assigned to a service.
    pub(super) fn first(self) -> IpAddr {
        self.0.address_at(self.hosts().start)
    }

    /// Returns the network address.
    pub(super) fn base(self) -> IpAddr {
        self.0.address_at(*self.0.bits().start())
    }

    /// Returns whether the address can be assigned to a service.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.0.is_host(address)
    }

    /// Returns the number of addresses for services.
    pub(super) fn size(self) -> u128 {
        let hosts = self.hosts();
        hosts.end - hosts.start
    }

    /// Returns all addresses for services in the order in which the allocator tries them: the upper band from a random
    /// address, then the lower band, which is preferred for requested addresses (KEP-3070).
    pub(super) fn candidates(self) -> impl Iterator<Item = IpAddr> {
        let hosts = self.hosts();
        let split = (hosts.start + self.lower_band_size()).min(hosts.end);
        let all = from_random_start(split..hosts.end).chain(from_random_start(hosts.start..split));
        all.map(move |bits| self.0.address_at(bits))
    }

    /// Returns the host numbers, without the network address and the IPv4 broadcast address.
    fn hosts(self) -> Range<u128> {
        let bits = self.0.bits();
        let end = if self.0.is_ipv6() { bits.end().saturating_add(1) } else { *bits.end() };
        bits.start().saturating_add(1)..end
    }

    fn lower_band_size(self) -> u128 {
        let size = self.0.bits().end() - self.0.bits().start() + 1;
        if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ServiceRanges {
    /// Returns the address of the `kubernetes` service.
    pub fn first(self) -> IpAddr {
        self.primary.first()
    }

    /// Returns the default family, for services that do not specify a family.
    pub(super) fn primary_family(self) -> Family {
        self.primary.family()
    }

    /// Returns whether services can have addresses of both families.
    pub(super) fn is_dual_stack(self) -> bool {
        self.secondary.is_some()
    }

    /// Returns whether services can have addresses of the family.
    pub(super) fn has(self, family: Family) -> bool {
        self.is_dual_stack() || self.primary_family() == family
    }

    /// Returns the ranges as text.
    pub(crate) fn cidrs(self) -> Vec<String> {
        [Some(self.primary), self.secondary].into_iter().flatten().map(|range| range.0.to_string()).collect()
    }
}

impl FromStr for ServiceRanges {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let cidr: Cidr = part.parse().map_err(|_| RangeError::Malformed(part.to_owned()))?;
            let range = ServiceRange::new(cidr).filter(|range| {
                let bits = range.0.bits();
                bits.end() - bits.start() >= 7
            });
            ranges.push(range.ok_or_else(|| RangeError::Size(part.to_owned()))?);
        }
        match ranges.as_slice() {
            [primary] => Ok(Self { primary: *primary, secondary: None }),
            [primary, secondary] if primary.family() != secondary.family() => {
                Ok(Self { primary: *primary, secondary: Some(*secondary) })
            }
            _ => Err(RangeError::Families(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cidrs().join(","))
    }
}

/// Returns each number of a range once, starting at a random number.
fn from_random_start(range: Range<u128>) -> impl Iterator<Item = u128> {
    let start = if range.is_empty() { range.start } else { rand::rng().random_range(range.clone()) };
    (start..range.end).chain(range.start..start)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(text: &str) -> ServiceRange {
        ServiceRange::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn parses_one_range_or_one_of_each_family() {
        for (text, spelled, first) in [
            ("10.0.3.4/16", "10.0.0.0/16", "10.0.0.1"),
            ("fd00::5/108", "fd00::/108", "fd00::1"),
            ("10.0.0.0/29,fd00::/64", "10.0.0.0/29,fd00::/64", "10.0.0.1"),
            ("fd00::/112,10.0.0.0/16", "fd00::/112,10.0.0.0/16", "fd00::1"),
        ] {
            let ranges: ServiceRanges = text.parse().unwrap();
            assert_eq!((ranges.to_string(), ranges.first().to_string()), (spelled.into(), first.into()));
            assert_eq!(ranges.is_dual_stack(), text.contains(','));
        }
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/63",
            "10.0.0.0/30",
            "10.0.0.0/16,",
            "10.0.0.0/16,11.0.0.0/16",
            "10.0.0.0/16,fd00::/108,fd01::/108",
        ] {
            text.parse::<ServiceRanges>().unwrap_err();
        }
    }

    #[test]
    fn every_address_is_a_candidate_once_and_the_lower_band_last() {
        for (text, lower, hosts) in [
            ("10.0.0.0/29", 0, 6),
            ("10.0.0.0/28", 0, 14),
            ("10.0.0.0/27", 16, 30),
            ("10.0.0.0/24", 16, 254),
            ("10.0.0.0/16", 256, 65534),
            ("fd00::/120", 16, 255),
            ("10.0.0.0/31", 0, 0),
            ("10.0.0.0/32", 0, 0),
        ] {
            let candidates: Vec<_> = range(text).candidates().collect();
            assert_eq!(candidates.len(), hosts, "{text}");
            assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), hosts, "{text}");
            assert!(candidates.iter().all(|address| range(text).contains(*address)), "{text}");
            let last: BTreeSet<_> = candidates[hosts - lower..].iter().collect();
            assert!(candidates[..hosts - lower].iter().all(|upper| last.iter().all(|lower| *lower < upper)));
        }
        // Computes the candidates of a large range lazily.
        assert!(range("fd00::/64").candidates().take(3).all(|address| range("fd00::/64").contains(address)));
        assert!(ServiceRange::new("fd00::/63".parse().unwrap()).is_none());
    }
}
