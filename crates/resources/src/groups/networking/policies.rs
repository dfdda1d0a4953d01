//! Validation of network policies (upstream: `pkg/apis/networking/validation`).

use nave_machinery::{FieldError, Value};

use super::addresses::cidr;
use crate::ip;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, label_selector, one_of, port_number_or_name, required_text};

/// The strategy of network policies.
pub(super) struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    fn default(&self, policy: &mut Value, _version: &str) {
        super::defaults::network_policy(policy);
    }

    fn validate(&self, policy: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(policy);
        let spec = root.field("spec");
        label_selector(spec.field("podSelector"), &mut errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.field(direction).items() {
                rule.field("ports").items().for_each(|port| self::port(port, &mut errors));
                rule.field(peers).items().for_each(|peer| self::peer(peer, &mut errors));
            }
        }
        let types = spec.field("policyTypes");
        if types.len() > 2 {
            let why = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid(&types.path(), types.len(), why));
            return errors;
        }
        types.items().for_each(|kind| one_of(kind, &["Ingress", "Egress"], &mut errors));
        errors
    }

    fn warnings(&self, policy: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(policy);
        let spec = root.field("spec");
        let mut warnings = Vec::new();
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.field(direction).items() {
                for peer in rule.field(peers).items() {
                    let block = peer.field("ipBlock");
                    warnings.extend(ip::cidr_warning(block.field("cidr")));
                    warnings.extend(block.field("except").items().filter_map(ip::cidr_warning));
                }
            }
        }
        warnings
    }
}

fn port(port: At, errors: &mut Errors) {
    if port.field("protocol").is_set() {
        one_of(port.field("protocol"), &["TCP", "UDP", "SCTP"], errors);
    }
    let (first, last) = (port.field("port"), port.field("endPort"));
    if first.is_set() {
        port_number_or_name(first, errors);
    }
    let Some(end) = last.int() else { return };
    match (first.is_set(), first.int()) {
        (false, _) => errors.push(last.invalid("may not be specified when `port` is not specified")),
        (true, None) => errors.push(last.invalid("may not be specified when `port` is non-numeric")),
        (true, Some(start)) => {
            if end < start {
                // Upstream shows the port.
                let why = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(&last.path(), start, why));
            }
            if !(1..=65535).contains(&end) {
                errors.push(last.invalid("must be between 1 and 65535, inclusive"));
            }
        }
    }
}

/// Checks that a peer has either selectors or an IP block.
fn peer(peer: At, errors: &mut Errors) {
    let (pods, namespaces, block) =
        (peer.field("podSelector"), peer.field("namespaceSelector"), peer.field("ipBlock"));
    label_selector(pods, errors);
    label_selector(namespaces, errors);
    if !pods.is_set() && !namespaces.is_set() && !block.is_set() {
        errors.push(peer.required("must specify a peer"));
    } else if block.is_set() && (pods.is_set() || namespaces.is_set()) {
        errors.push(peer.forbidden("may not specify both ipBlock and another peer"));
    }
    if block.is_set() {
        ip_block(block, errors);
    }
}

fn ip_block(block: At, errors: &mut Errors) {
    let whole = block.field("cidr");
    if !required_text(whole, errors) {
        return;
    }
    let Some(outer) = cidr(whole, errors) else { return };
    for except in block.field("except").items() {
        if let Some(part) = cidr(except, errors)
            && !outer.strictly_contains(part)
        {
            errors.push(except.invalid("must be a strict subset of `cidr`"));
        }
    }
}
