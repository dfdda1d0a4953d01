//! The IP families of a service, from its policy and the ranges of the cluster (upstream: `initIPFamilyFields` in
//! `pkg/registry/core/service/storage`).

use std::net::IpAddr;

use nave_machinery::{FieldError, FieldPath, Map, Value};
use serde_json::json;

use super::range::{Family, ServiceRanges};
use super::service::{is_headless, text, texts};

const SINGLE_STACK: &str = "SingleStack";
const PREFER_DUAL_STACK: &str = "PreferDualStack";
const REQUIRE_DUAL_STACK: &str = "RequireDualStack";

/// Completes the policy, the families and the number of cluster IPs in a service's spec. The fields that users set must
/// have passed `nave_resources::validate_service_cluster_ips`.
///
/// # Errors
/// The families contradict each other, or the cluster does not have them.
pub(super) fn complete(
    spec: &mut Map,
    old: Option<&Map>,
    cluster: ServiceRanges,
) -> Result<(), Vec<FieldError>> {
    if text(spec, "type") == "ExternalName" || old.is_some_and(|old| keeps_dual_stack(spec, old)) {
        return Ok(());
    }
    set_policy(spec, old);
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    let mut errors = Vec::new();
    if let Some(old) = old {
        follow_policy(spec, old, &policy, &mut errors);
    }
    if policy == SINGLE_STACK {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if texts(spec, field).len() == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(FieldError::invalid(&spec_field("ipFamilyPolicy"), policy.as_str(), detail));
            }
        }
    }
    let mut families = infer_families(spec, cluster, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let lacks_second = families.len() < 2 && policy != SINGLE_STACK;
    let primary = families.first().and_then(|name| Family::parse(name)).unwrap_or(cluster.primary_family());
    if is_headless(spec) && !has_selector(spec) {
        // Users manage the endpoints of this service, so its families may be missing in the cluster.
        if families.is_empty() {
            families.push(primary.as_str().to_owned());
        }
        if lacks_second {
            families.push(primary.other().as_str().to_owned());
        }
        spec.insert("ipFamilies".to_owned(), json!(families));
        return Ok(());
    }
    if policy == REQUIRE_DUAL_STACK && !cluster.is_dual_stack() {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&spec_field("ipFamilyPolicy"), policy.as_str(), detail));
    }
    for (index, name) in families.iter().enumerate() {
        if !Family::parse(name).is_some_and(|family| cluster.has(family)) {
            let at = spec_field("ipFamilies").index(index);
            errors.push(FieldError::invalid(&at, name.as_str(), "not configured on this cluster"));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if families.is_empty() {
        families.push(primary.as_str().to_owned());
    }
    if lacks_second && cluster.is_dual_stack() {
        families.push(primary.other().as_str().to_owned());
    }
    spec.insert("ipFamilies".to_owned(), json!(families));
    Ok(())
}

/// Returns the positions in `clusterIPs` that need an address.
pub(super) fn missing_addresses(spec: &Map, old: Option<&Map>) -> std::ops::Range<usize> {
    let families = texts(spec, "ipFamilies").len();
    if text(spec, "type") == "ExternalName" || is_headless(spec) {
        return 0..0;
    }
    match old {
        None => 0..families,
        Some(old) if text(old, "type") == "ExternalName" => 0..families,
        Some(old) if is_headless(old) || keeps_dual_stack(spec, old) => 0..0,
        Some(old) if texts(old, "ipFamilies").len() == 1 && families == 2 => 1..2,
        Some(_) => 0..0,
    }
}

/// Returns whether an update leaves a service with `PreferDualStack` unchanged. Such a service stays as it is when the
/// cluster becomes dual-stack.
fn keeps_dual_stack(spec: &Map, old: &Map) -> bool {
    let prefers = |spec: &Map| matches!(text(spec, "ipFamilyPolicy"), PREFER_DUAL_STACK);
    prefers(spec)
        && (prefers(old) || text(old, "ipFamilyPolicy").is_empty())
        && text(spec, "type") == text(old, "type")
        && texts(spec, "clusterIPs") == texts(old, "clusterIPs")
        && texts(spec, "ipFamilies") == texts(old, "ipFamilies")
}

/// Sets a missing policy: the previous one, if any, so that an update never switches between single-stack and
/// dual-stack implicitly.
fn set_policy(spec: &mut Map, old: Option<&Map>) {
    if !text(spec, "ipFamilyPolicy").is_empty() {
        return;
    }
    let policy = match old.map(|old| text(old, "ipFamilyPolicy")).filter(|policy| !policy.is_empty()) {
        Some(policy) => policy,
        None if is_headless(spec) && !has_selector(spec) => REQUIRE_DUAL_STACK,
        None => SINGLE_STACK,
    };
    spec.insert("ipFamilyPolicy".to_owned(), policy.into());
}

/// Removes the second address and family on an update to `SingleStack`; removing them under another policy is an error.
fn follow_policy(spec: &mut Map, old: &Map, policy: &str, errors: &mut Vec<FieldError>) {
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (new, had) = (texts(spec, field), texts(old, field));
        if policy == SINGLE_STACK {
            if new == had && new.len() > 1 {
                spec.insert(field.to_owned(), json!(new[..1]));
            }
        } else if !new.is_empty() && new.len() < had.len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(FieldError::invalid(&spec_field("ipFamilyPolicy"), policy, detail));
        }
    }
}

/// Returns the requested families, completed by the families of the other requested addresses.
fn infer_families(spec: &Map, cluster: ServiceRanges, errors: &mut Vec<FieldError>) -> Vec<String> {
    let mut families = texts(spec, "ipFamilies");
    let addresses = texts(spec, "clusterIPs");
    for (index, address) in addresses.iter().enumerate() {
        let Ok(address) = address.parse::<IpAddr>() else { break };
        if index < families.len() {
            continue;
        }
        let family = Family::from_address(address);
        if cluster.has(family) {
            families.push(family.as_str().to_owned());
        } else {
            let detail = format!("{} is not configured on this cluster", family.as_str());
            errors.push(FieldError::invalid(
                &spec_field("clusterIPs").index(index),
                json!(addresses),
                detail,
            ));
        }
    }
    families
}

fn has_selector(spec: &Map) -> bool {
    spec.get("selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty())
}

fn spec_field(field: &str) -> FieldPath {
    FieldPath::new("spec").child(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(cluster: &str, spec: Value, old: Option<&Value>) -> Result<Value, Vec<String>> {
        let Value::Object(mut spec) = spec else { panic!("a spec") };
        let old = old.and_then(Value::as_object);
        complete(&mut spec, old, cluster.parse().unwrap())
            .map(|()| json!([spec["ipFamilyPolicy"], spec["ipFamilies"], missing_addresses(&spec, old)]))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const SINGLE: &str = "10.0.0.0/16";
    const DUAL: &str = "10.0.0.0/16,fd00::/108";

    #[test]
    fn a_new_service_gets_the_families_of_its_policy() {
        let missing = |count: usize| json!({"start": 0, "end": count});
        for (cluster, spec, policy, families, addresses) in [
            (SINGLE, json!({}), SINGLE_STACK, json!(["IPv4"]), 1),
            (DUAL, json!({}), SINGLE_STACK, json!(["IPv4"]), 1),
            ("fd00::/108,10.0.0.0/16", json!({}), SINGLE_STACK, json!(["IPv6"]), 1),
            (SINGLE, json!({"ipFamilyPolicy": PREFER_DUAL_STACK}), PREFER_DUAL_STACK, json!(["IPv4"]), 1),
            (
                DUAL,
                json!({"ipFamilyPolicy": PREFER_DUAL_STACK}),
                PREFER_DUAL_STACK,
                json!(["IPv4", "IPv6"]),
                2,
            ),
            (
                DUAL,
                json!({"ipFamilyPolicy": REQUIRE_DUAL_STACK, "ipFamilies": ["IPv6"]}),
                REQUIRE_DUAL_STACK,
                json!(["IPv6", "IPv4"]),
                2,
            ),
            (
                DUAL,
                json!({"clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}),
                SINGLE_STACK,
                json!(["IPv6"]),
                1,
            ),
            (
                SINGLE,
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                REQUIRE_DUAL_STACK,
                json!(["IPv4", "IPv6"]),
                0,
            ),
            (
                DUAL,
                json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
                SINGLE_STACK,
                json!(["IPv4"]),
                0,
            ),
        ] {
            let wanted = json!([policy, families, missing(addresses)]);
            assert_eq!(completed(cluster, spec.clone(), None), Ok(wanted), "{cluster} {spec}");
        }
    }

    #[test]
    fn rejects_families_that_are_not_configured() {
        for (spec, error) in [
            (
                json!({"ipFamilyPolicy": REQUIRE_DUAL_STACK}),
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"ipFamilyPolicy": SINGLE_STACK, "ipFamilies": ["IPv4", "IPv6"]}),
                r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
            ),
            (
                json!({"clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}),
                r#"spec.clusterIPs[0]: Invalid value: ["fd00::5"]: IPv6 is not configured on this cluster"#,
            ),
        ] {
            assert_eq!(completed(SINGLE, spec.clone(), None), Err(vec![error.to_owned()]), "{spec}");
        }
    }

    #[test]
    fn updates_change_the_number_of_addresses_only_with_the_policy() {
        let one = json!({"type": "ClusterIP", "ipFamilyPolicy": SINGLE_STACK, "ipFamilies": ["IPv4"],
            "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]});
        let two = json!({"type": "ClusterIP", "ipFamilyPolicy": REQUIRE_DUAL_STACK,
            "ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5", "fd00::5"]});
        let with = |spec: &Value, field: &str, value: Value| {
            let mut spec = spec.clone();
            spec[field] = value;
            spec
        };
        let prefers = with(&one, "ipFamilyPolicy", json!(PREFER_DUAL_STACK));
        let range = |start: usize, end: usize| json!({"start": start, "end": end});
        assert_eq!(
            completed(DUAL, prefers.clone(), Some(&one)),
            Ok(json!([PREFER_DUAL_STACK, ["IPv4", "IPv6"], range(1, 2)]))
        );
        assert_eq!(
            completed(DUAL, prefers.clone(), Some(&prefers)),
            Ok(json!([PREFER_DUAL_STACK, ["IPv4"], range(0, 0)]))
        );
        assert_eq!(
            completed(DUAL, with(&two, "ipFamilyPolicy", json!(SINGLE_STACK)), Some(&two)),
            Ok(json!([SINGLE_STACK, ["IPv4"], range(0, 0)]))
        );
        let reduced = completed(DUAL, with(&two, "clusterIPs", json!(["10.0.0.5"])), Some(&two)).unwrap_err();
        assert!(
            reduced[0].ends_with("must be 'SingleStack' to release the secondary cluster IP"),
            "{reduced:?}"
        );
        let external = json!({"type": "ExternalName"});
        let started = json!({"type": "ClusterIP"});
        assert_eq!(
            completed(SINGLE, started, Some(&external)),
            Ok(json!([SINGLE_STACK, ["IPv4"], range(0, 1)]))
        );
    }
}
