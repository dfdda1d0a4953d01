//! Validation of service CIDRs and IP addresses (upstream: `pkg/apis/networking/validation`).

use nave_machinery::cidr::CidrError;
use nave_machinery::{Cidr, Value, names};

use crate::strategy::Strategy;
use crate::validate::{At, Errors, IMMUTABLE, checked, immutable, required_checked};

/// The strategy of service CIDRs.
pub(super) struct ServiceCidrStrategy;

impl Strategy for ServiceCidrStrategy {
    fn validate(&self, range: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(range);
        let spec = root.field("spec");
        cidrs(spec.field("cidrs"), &mut errors);
        errors
    }

    fn validate_update(&self, range: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(range), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        let (new, old) = (spec.field("cidrs"), old.field("cidrs"));
        let adds_family = (old.len(), new.len()) == (1, 2);
        if new.len() != old.len() && !adds_family {
            errors.push(new.invalid(IMMUTABLE));
            return errors;
        }
        for (cidr, old) in new.items().zip(old.items()) {
            immutable(cidr, old, &mut errors);
        }
        if adds_family {
            cidrs(new, &mut errors);
        }
        errors
    }
}

/// Checks for one CIDR, or one CIDR per family.
fn cidrs(cidrs: At, errors: &mut Errors) {
    match cidrs.len() {
        0 => return errors.push(cidrs.required("at least one CIDR required")),
        1 | 2 => {}
        _ => return errors.push(cidrs.invalid("may only hold up to 2 values")),
    }
    let mut families = Vec::new();
    for at in cidrs.items() {
        let Some(cidr) = cidr(at, errors) else { continue };
        let canonical = cidr.masked().to_string();
        if canonical != at.text() {
            errors.push(at.invalid(format!("must be in canonical form (\"{canonical}\")")));
        }
        families.push(cidr.is_ipv6());
    }
    if let [first, second] = families[..]
        && first == second
    {
        errors.push(cidrs.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}

/// Parses the CIDR at a field; adds an error if it is invalid.
pub(super) fn cidr(at: At, errors: &mut Errors) -> Option<Cidr> {
    let parsed = at.text().parse();
    parsed.map_err(|error: CidrError| errors.push(at.invalid_text(error.to_string()))).ok()
}

/// The strategy of IP addresses.
pub(super) struct IpAddressStrategy;

impl Strategy for IpAddressStrategy {
    fn validate(&self, address: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(address);
        let spec = root.field("spec");
        let parent = spec.field("parentRef");
        if !parent.is_set() {
            errors.push(parent.required(""));
            return errors;
        }
        let group = parent.field("group");
        if !group.text().is_empty() {
            checked(group, names::is_dns1123_subdomain, &mut errors);
        }
        required_checked(parent.field("resource"), names::is_path_segment_name, &mut errors);
        required_checked(parent.field("name"), names::is_path_segment_name, &mut errors);
        let namespace = parent.field("namespace");
        if !namespace.text().is_empty() {
            checked(namespace, names::is_path_segment_name, &mut errors);
        }
        errors
    }

    fn validate_update(&self, address: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(address), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        immutable(spec.field("parentRef"), old.field("parentRef"), &mut errors);
        errors
    }
}
