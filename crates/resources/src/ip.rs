//! IP addresses and CIDRs in fields (upstream: `apimachinery/pkg/util/validation/ip.go`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nave_machinery::FieldError;

use crate::validate::{At, Errors};

/// Checks an IP address; accepts any IPv6 notation.
pub(crate) fn ip(at: At, errors: &mut Errors) -> Option<IpAddr> {
    let invalid = |why: &str| at.invalid_text(why);
    match at.text().parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            errors.push(invalid("must not be an IPv4-mapped IPv6 address"));
            None
        }
        Ok(ip) => Some(ip),
        Err(_) if sloppy_ipv4(at.text()).is_some() => {
            errors.push(invalid("must not have leading 0s"));
            None
        }
        Err(_) => {
            errors.push(invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
            None
        }
    }
}

/// Parses an IPv4 address whose parts may have leading zeros.
fn sloppy_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Returns whether a text is a CIDR with no bits set after its prefix length.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(bits) = length.parse::<u32>() else { return false };
    if length != bits.to_string() {
        return false;
    }
    let has_no_more = |rest: Option<u32>, trailing: u32| rest.is_some_and(|rest| trailing >= rest);
    if let Ok(ip) = address.parse::<Ipv4Addr>() {
        return has_no_more(32u32.checked_sub(bits), ip.to_bits().trailing_zeros());
    }
    address.parse::<Ipv6Addr>().is_ok_and(|ip| {
        ip.to_ipv4_mapped().is_none() && has_no_more(128u32.checked_sub(bits), ip.to_bits().trailing_zeros())
    })
}

/// Returns the warning about a valid IPv6 address in non-canonical form.
pub(crate) fn ip_warning(at: At) -> Option<String> {
    let (path, text) = (at.path(), at.text());
    let canonical = text.parse::<Ipv6Addr>().ok()?.to_string();
    (canonical != text).then(|| {
        format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({canonical:?})")
    })
}

/// Returns the warning about a valid IPv6 CIDR in non-canonical form.
pub(crate) fn cidr_warning(at: At) -> Option<String> {
    let (path, text) = (at.path(), at.text());
    let (address, bits) = text.split_once('/')?;
    let canonical = format!("{}/{bits}", address.parse::<Ipv6Addr>().ok()?);
    (canonical != text).then(|| {
        format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})")
    })
}

/// Checks that an address is neither a loopback nor a link-local address.
pub(crate) fn routable(at: At, ip: IpAddr, errors: &mut Errors) {
    let (link_local, local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    for (applies, why) in [
        (ip.is_unspecified(), format!("may not be unspecified ({ip})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if applies {
            errors.push(FieldError::invalid(&at.path(), at.text(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_addresses_strictly() {
        for (text, is_valid) in [
            ("10.0.0.1", true),
            ("2001:DB8::1", true),
            ("10.01.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("10.0.0", false),
            ("x", false),
            ("", false),
        ] {
            let value = json!(text);
            let mut errors = Errors::new();
            let parsed = ip(At::named("ip", Some(&value)), &mut errors);
            assert_eq!((parsed.is_some(), errors.len()), (is_valid, usize::from(!is_valid)), "{text}");
        }
    }

    #[test]
    fn warns_about_non_canonical_forms() {
        let warned = |text: &str, warn: fn(At) -> Option<String>| {
            let value = json!(text);
            warn(At::named("f", Some(&value)))
        };
        assert_eq!(warned("10.0.0.1", ip_warning), None);
        assert_eq!(warned("2001:db8::1", ip_warning), None);
        let expected =
            r#"f: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#;
        assert_eq!(warned("2001:DB8::1", ip_warning).as_deref(), Some(expected));
        assert_eq!(warned("2001:db8::/32", cidr_warning), None);
        let expected =
            r#"f: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format ("2001:db8::/32")"#;
        assert_eq!(warned("2001:DB8::/32", cidr_warning).as_deref(), Some(expected));
    }

    #[test]
    fn rejects_loopback_and_link_local_addresses() {
        for (text, errors) in [
            ("10.0.0.1", 0),
            ("127.0.0.1", 1),
            ("169.254.1.1", 1),
            ("224.0.0.1", 1),
            ("0.0.0.0", 1),
            ("fe80::1", 1),
        ] {
            let value = json!(text);
            let mut found = Errors::new();
            routable(At::named("f", Some(&value)), text.parse().unwrap(), &mut found);
            assert_eq!(found.len(), errors, "{text}");
        }
    }
}
