//! What ranges of services' addresses, and addresses, must be (upstream: `pkg/apis/networking/validation`).

use nave_machinery::cidr::CidrError;
use nave_machinery::{Cidr, Value, names};

use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, immutable, required_checked, required_text};

/// What is particular to ranges of services' addresses.
pub(super) struct ServiceCidrStrategy;

impl Strategy for ServiceCidrStrategy {
    fn validate(&self, range: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(range);
        let spec = root.field("spec");
        let cidrs = spec.field("cidrs");
        match cidrs.len() {
            0 => errors.push(cidrs.required("at least one CIDR required")),
            1 | 2 => {}
            _ => errors.push(cidrs.invalid("may only hold up to 2 values")),
        }
        let mut families = Vec::new();
        for at in cidrs.items() {
            let Some(cidr) = cidr(at, &mut errors) else { continue };
            let canonical = cidr.masked().to_string();
            if canonical != at.text() {
                errors.push(at.invalid(format!("must be in canonical form (\"{canonical}\")")));
            }
            families.push(cidr.is_ipv6());
        }
        if families.len() == 2 && families[0] == families[1] {
            errors.push(cidrs.invalid(
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ));
        }
        errors
    }

    fn validate_update(&self, range: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(range);
        let (root, old) = (At::root(range), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        let (cidrs, old) = (spec.field("cidrs"), old.field("cidrs"));
        // A second family may be added.
        for (cidr, old) in cidrs.items().zip(old.items()) {
            immutable(cidr, old, &mut errors);
        }
        if cidrs.len() < old.len() {
            errors.push(cidrs.invalid(crate::validate::IMMUTABLE));
        }
        errors
    }
}

/// The block of addresses at a place; an error if there is none.
pub(super) fn cidr(at: At, errors: &mut Errors) -> Option<Cidr> {
    let parsed = at.text().parse();
    parsed.map_err(|error: CidrError| errors.push(at.invalid_text(error.to_string()))).ok()
}

/// What is particular to addresses.
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
        required_text(parent.field("name"), &mut errors);
        errors
    }

    fn validate_update(&self, address: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(address);
        let (root, old) = (At::root(address), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        immutable(spec.field("parentRef"), old.field("parentRef"), &mut errors);
        errors
    }
}
