//! IP addresses and networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Library;
use super::format::go_quote;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' functions on addresses and networks.
pub(super) const LIBRARY: Library = Library {
    since: 30,
    patch: false,
    overloads: &[
        ("string_to_ip", "ip(string) ip", Some(to_ip)),
        ("ip_family", "ip::family() int", Some(family)),
        ("ip_is_canonical", "ip.isCanonical(string) bool", Some(is_canonical)),
        ("ip_is_unspecified", "ip::isUnspecified() bool", Some(is_unspecified)),
        ("ip_is_loopback", "ip::isLoopback() bool", Some(is_loopback)),
        ("ip_is_link_local_multicast", "ip::isLinkLocalMulticast() bool", Some(is_link_local_multicast)),
        ("ip_is_link_local_unicast", "ip::isLinkLocalUnicast() bool", Some(is_link_local_unicast)),
        ("ip_is_global_unicast", "ip::isGlobalUnicast() bool", Some(is_global_unicast)),
        ("is_ip", "isIP(string) bool", Some(is_ip)),
        ("ip_to_string", "string(ip) string", Some(show)),
        ("string_to_cidr", "cidr(string) cidr", Some(to_cidr)),
        ("cidr_contains_ip_string", "cidr::containsIP(string) bool", Some(contains_ip)),
        ("cidr_contains_ip_ip", "cidr::containsIP(ip) bool", Some(contains_ip)),
        ("cidr_contains_cidr_string", "cidr::containsCIDR(string) bool", Some(contains_cidr)),
        ("cidr_contains_cidr", "cidr::containsCIDR(cidr) bool", Some(contains_cidr)),
        ("cidr_ip", "cidr::ip() ip", Some(cidr_ip)),
        ("cidr_prefix_length", "cidr::prefixLength() int", Some(prefix_length)),
        ("cidr_masked", "cidr::masked() cidr", Some(masked)),
        ("is_cidr", "isCIDR(string) bool", Some(is_cidr)),
        ("cidr_to_string", "string(cidr) string", Some(show)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// A network: an address, which may have host bits, and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Cidr {
    fn masked(self) -> IpAddr {
        self.mask(self.address)
    }

    fn mask(self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.mask(address) == self.masked()
    }
}

/// Parses an address.
///
/// # Errors
/// The text is not an address, has a zone, or is an IPv4-mapped IPv6 address.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let quoted = go_quote(text);
    let (address, zone) = parse_address(text)
        .map_err(|why| format!("IP Address {quoted} parse error during conversion from string: {why}"))?;
    if zone {
        return Err(format!("IP address {quoted} with zone value is not allowed"));
    }
    if is_mapped(address) {
        return Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"));
    }
    Ok(address)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Parses an address as Go's `netip.ParseAddr` does, with its errors. Returns whether there is a zone.
pub(super) fn parse_address(text: &str) -> Result<(IpAddr, bool), String> {
    let fail = |why: String| Err(format!("ParseAddr({}): {why}", go_quote(text)));
    for letter in text.chars() {
        match letter {
            '.' => {
                return match parse_v4(text) {
                    Ok(address) => Ok((IpAddr::V4(address), false)),
                    Err(why) => fail(why),
                };
            }
            ':' => {
                let (address, zone) = text.split_once('%').map_or((text, None), |(a, b)| (a, Some(b)));
                if zone == Some("") {
                    return fail("zone must be a non-empty string".to_owned());
                }
                return match address.parse::<Ipv6Addr>() {
                    Ok(address) => Ok((IpAddr::V6(address), zone.is_some())),
                    Err(_) => fail(explain_v6(address)),
                };
            }
            '%' => return fail("missing IPv6 address".to_owned()),
            _ => {}
        }
    }
    fail("unable to parse IP".to_owned())
}

fn parse_v4(text: &str) -> Result<Ipv4Addr, String> {
    let (mut fields, mut value, mut digits) = (Vec::new(), 0u32, 0);
    for (at, letter) in text.char_indices() {
        if let Some(digit) = letter.to_digit(10) {
            if digits == 1 && value == 0 {
                return Err("IPv4 field has octet with leading zero".to_owned());
            }
            value = value * 10 + digit;
            digits += 1;
            if value > 255 {
                return Err("IPv4 field has value >255".to_owned());
            }
        } else if letter == '.' {
            let rest = text.get(at..).unwrap_or_default();
            if digits == 0 || at + 1 == text.len() {
                return Err(format!("IPv4 field must have at least one digit (at {})", go_quote(rest)));
            }
            if fields.len() == 3 {
                return Err("IPv4 address too long".to_owned());
            }
            fields.push(value as u8);
            (value, digits) = (0, 0);
        } else {
            let rest = text.get(at..).unwrap_or_default();
            return Err(format!("unexpected character (at {})", go_quote(rest)));
        }
    }
    match fields.as_slice() {
        [a, b, c] => Ok(Ipv4Addr::new(*a, *b, *c, value as u8)),
        _ => Err("IPv4 address too short".to_owned()),
    }
}

/// Returns Go's error message for an invalid IPv6 address.
fn explain_v6(text: &str) -> String {
    let at = |rest: &str| format!(" (at {})", go_quote(rest));
    let mut rest = text;
    let mut ellipsis = false;
    let mut groups = 0;
    if let Some(after) = rest.strip_prefix("::") {
        (ellipsis, rest) = (true, after);
    }
    while groups < 8 && !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_hexdigit()).unwrap_or(rest.len());
        if end == 0 {
            return format!("each colon-separated field must have at least one digit{}", at(rest));
        }
        if end > 4 {
            return format!("each group must have 4 or less digits{}", at(rest));
        }
        let after = rest.get(end..).unwrap_or_default();
        if after.starts_with('.') {
            return parse_v4(rest).err().unwrap_or_else(|| {
                format!("embedded IPv4 address must replace the final 2 fields of the address{}", at(rest))
            });
        }
        groups += 1;
        if after.is_empty() {
            rest = after;
            break;
        }
        let Some(next) = after.strip_prefix(':') else {
            return format!("unexpected character, want colon{}", at(after));
        };
        if next.is_empty() {
            return format!("colon must be followed by more characters{}", at(after));
        }
        rest = next;
        if let Some(next) = next.strip_prefix(':') {
            if ellipsis {
                return format!("multiple :: in address{}", at(rest));
            }
            (ellipsis, rest) = (true, next);
        }
    }
    if !rest.is_empty() {
        return format!("trailing garbage after address{}", at(rest));
    }
    if groups < 8 && !ellipsis {
        "address string too short".to_owned()
    } else {
        "the :: must expand to at least one field of zeros".to_owned()
    }
}

/// Parses a network.
///
/// # Errors
/// The text is not a network, or its address is an IPv4-mapped IPv6 address.
pub(crate) fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let quoted = go_quote(text);
    let fail = |why: &str| {
        Err(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({quoted}): {why}"
        ))
    };
    let Some((address, bits)) = text.rsplit_once('/') else { return fail("no '/'") };
    let (address, zone) = match parse_address(address) {
        Ok(parsed) => parsed,
        Err(why) => return fail(&why),
    };
    if zone {
        return fail("IPv6 zones cannot be present in a prefix");
    }
    let bad = format!("bad bits after slash: {}", go_quote(bits));
    let leading = bits.len() > 1 && !bits.starts_with(|it: char| ('1'..='9').contains(&it));
    let Some(bits) = bits.parse::<u32>().ok().filter(|_| !leading && !bits.starts_with('+')) else {
        return fail(&bad);
    };
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return fail("prefix length out of range");
    }
    if is_mapped(address) {
        return Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"));
    }
    Ok(Cidr { address, bits: bits as u8 })
}

fn text<'v>(args: &'v [Value<'_>]) -> Result<&'v str, Failure> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(Failure::overload()),
    }
}

fn to_ip<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    parse_ip(text(args)?).map(Value::Ip).map_err(Failure::new)
}

fn is_ip<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(parse_ip(text(args)?).is_ok()))
}

fn is_canonical<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let text = text(args)?;
    let address = parse_ip(text).map_err(Failure::new)?;
    Ok(Value::Bool(address.to_string() == text))
}

fn show<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    args.first().map(|it| Value::text(crate::value::plain(it))).ok_or_else(Failure::overload)
}

fn address(args: &[Value<'_>]) -> Result<IpAddr, Failure> {
    match args {
        [Value::Ip(address)] => Ok(*address),
        _ => Err(Failure::overload()),
    }
}

fn family<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Int(if address(args)?.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(address(args)?.is_unspecified()))
}

fn is_loopback<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(address(args)?.is_loopback()))
}

fn is_link_local_multicast<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(match address(args)? {
        IpAddr::V4(address) => matches!(address.octets(), [224, 0, 0, _]),
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }))
}

fn link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_link_local_unicast<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(link_local_unicast(address(args)?)))
}

fn is_global_unicast<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let address = address(args)?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let special = broadcast
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || link_local_unicast(address);
    Ok(Value::Bool(!special))
}

fn wrapped_cidr(text: &str) -> Result<Cidr, Failure> {
    let prefix = "network address parse error during conversion from string";
    parse_cidr(text).map_err(|why| Failure::new(format!("{prefix}: {why}")))
}

fn to_cidr<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    wrapped_cidr(text(args)?).map(Value::Cidr)
}

fn is_cidr<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(parse_cidr(text(args)?).is_ok()))
}

fn contains_ip<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Cidr(cidr), Value::Ip(address)] => Ok(Value::Bool(cidr.contains(*address))),
        // An invalid address results in the error of a missing overload, as upstream.
        [Value::Cidr(cidr), Value::String(text)] => match parse_ip(text) {
            Ok(address) => Ok(Value::Bool(cidr.contains(address))),
            Err(_) => Err(Failure::overload()),
        },
        _ => Err(Failure::overload()),
    }
}

fn contains_cidr<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (outer, inner) = match args {
        [Value::Cidr(outer), Value::Cidr(inner)] => (outer, *inner),
        [Value::Cidr(outer), Value::String(text)] => (outer, wrapped_cidr(text)?),
        _ => return Err(Failure::overload()),
    };
    Ok(Value::Bool(outer.contains(inner.address) && outer.bits <= inner.bits))
}

fn cidr(args: &[Value<'_>]) -> Result<Cidr, Failure> {
    match args {
        [Value::Cidr(cidr)] => Ok(*cidr),
        _ => Err(Failure::overload()),
    }
}

fn cidr_ip<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Ip(cidr(args)?.address))
}

fn prefix_length<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Int(i64::from(cidr(args)?.bits)))
}

fn masked<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let cidr = cidr(args)?;
    Ok(Value::Cidr(Cidr { address: cidr.masked(), bits: cidr.bits }))
}
