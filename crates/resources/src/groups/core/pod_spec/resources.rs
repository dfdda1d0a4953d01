//! Resource requirements of containers and pods, and their claims on devices.

use std::collections::{BTreeMap, BTreeSet};

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, FieldErrorKind, FieldPath, names};

use crate::resource_names::{self, amount, is_huge_pages, may_overcommit};
use crate::validate::{At, Errors, checked, quantity};

type Amounts<'v> = BTreeMap<&'v str, Quantity>;

/// Checks the requests, limits and claims of a container in a pod with `pod_claims`.
pub(crate) fn of_container(resources: At, pod_claims: At, errors: &mut Errors) {
    requests_and_limits(resources, resource_names::container, errors);
    claims(resources.field("claims"), pod_claims, errors);
}

/// Checks the overhead of a pod.
pub(crate) fn overhead(overhead: At, errors: &mut Errors) {
    // Upstream checks the overhead like container limits.
    let limits = overhead.field("limits").with(overhead.value());
    for (name, value) in limits.entries() {
        resource_names::container(name, value, errors);
        amount(name, value, errors);
        huge_pages(name, value, errors);
    }
}

fn requests_and_limits(resources: At, name_rule: fn(&str, At, &mut Errors), errors: &mut Errors) {
    let (requests, limits) = (resources.field("requests"), resources.field("limits"));
    for list in [limits, requests] {
        for (name, value) in list.entries() {
            name_rule(name, value, errors);
            amount(name, value, errors);
            huge_pages(name, value, errors);
        }
    }
    for (name, request) in requests.entries() {
        let limit = limits.key(name);
        let (Some(asked), Some(most)) = (quantity(request), quantity(limit)) else {
            if !may_overcommit(name) {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits.path(), why));
            }
            continue;
        };
        let why = if !may_overcommit(name) && !asked.is_same_amount(most) {
            format!("must be equal to {name} limit of {most}")
        } else if asked > most {
            format!("must be less than or equal to {name} limit of {most}")
        } else {
            continue;
        };
        errors.push(FieldError::invalid(&requests.path(), asked.to_string(), why));
    }
    let has = |wanted: fn(&str) -> bool| {
        [limits, requests].iter().any(|list| list.entries().any(|(name, _)| wanted(name)))
    };
    if has(is_huge_pages) && !has(|name| matches!(name, "cpu" | "memory")) {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// Checks that huge pages are requested in whole pages.
fn huge_pages(name: &str, at: At, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let (Some(asked), Ok(page)) = (quantity(at), Quantity::parse(size)) else { return };
    if page.value() <= 0 || asked.value() % page.value() != 0 {
        let why = format!("{asked} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(&at.path(), asked.to_string(), why));
    }
}

/// Checks that the claims of a container are unique and exist in the pod.
fn claims(claims: At, pod_claims: At, errors: &mut Errors) {
    let known: BTreeSet<_> = pod_claims.items().map(|claim| claim.field("name").text()).collect();
    // The requests used of each claim. An empty name means the whole claim.
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for claim in claims.items() {
        let (name, request) = (claim.field("name").text(), claim.field("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        let requests = seen.entry(name).or_default();
        if requests.contains("") || (request.text().is_empty() && !requests.is_empty()) {
            errors.push(FieldError::duplicate(&claim.path(), name));
        } else if !request.text().is_empty() {
            checked(request, names::is_dns1123_label, errors);
            if requests.contains(request.text()) {
                let shown = format!("{name}/{}", request.text());
                errors.push(FieldError::duplicate(&claim.path(), shown));
            }
        }
        requests.insert(request.text());
        if !known.contains(name) {
            let why = if known.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty"
            } else {
                "must be one of the names in pod.spec.resourceClaims"
            };
            errors.push(FieldError::with(FieldErrorKind::NotFound, &claim.path(), name.into(), why));
        }
    }
}

/// Checks the resource claims of a pod.
pub(super) fn pod_claims(list: At, is_mirror: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in list.items() {
        if is_mirror {
            let why = "static pods do not support resource claims";
            errors.push(FieldError::forbidden(&FieldPath::whole(), why));
            continue;
        }
        let name = claim.field("name");
        if name.text().is_empty() {
            errors.push(name.required(""));
        } else if seen.insert(name.text()) {
            checked(name, names::is_dns1123_label, errors);
        } else {
            errors.push(name.duplicate());
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| claim.field(field));
        match sources.iter().filter(|source| source.is_set()).count() {
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(claim.invalid(why));
            }
            1 => {}
            _ => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(claim.invalid(why));
            }
        }
        for source in sources.into_iter().filter(At::is_set) {
            checked(source, names::is_dns1123_subdomain, errors);
        }
    }
}

/// Checks the pod-level resources.
pub(super) fn of_pod(spec: At, errors: &mut Errors) {
    let resources = spec.field("resources");
    if !resources.is_set() {
        return;
    }
    let os = spec.field("os");
    if os.field("name").text() == "windows" {
        errors.push(resources.forbidden("may not be set for a windows pod"));
        return;
    }
    if resources.field("claims").len() > 0 {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(resources.field("claims").forbidden(why));
    }
    requests_and_limits(resources, pod_resource_name, errors);
    consistent(spec, resources, errors);
}

fn pod_resource_name(name: &str, at: At, errors: &mut Errors) {
    let before = errors.len();
    resource_names::any(name, at, errors);
    if errors.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        errors.push(FieldError::not_supported(&at.path(), name, &["cpu", "hugepages-", "memory"]));
    }
}

/// Checks that the pod's requests and huge page limits cover the aggregate of its containers, and that its limits
/// cover each container's limits.
fn consistent(spec: At, resources: At, errors: &mut Errors) {
    let at_least = |list: At, whose: &str, wanted: Amounts, errors: &mut Errors| {
        for (name, wanted) in wanted {
            let own = list.quantity_of(name);
            if let Some(amount) = own.filter(|own| wanted > *own) {
                let why = format!("must be greater than or equal to aggregate container {whose} of {wanted}");
                errors.push(FieldError::invalid(&list.path().key(name), amount.to_string(), why));
            }
        }
    };
    let (requests, limits) = (resources.field("requests"), resources.field("limits"));
    at_least(requests, "requests", aggregate(spec, "requests"), errors);
    let mut pages = aggregate(spec, "limits");
    pages.retain(|name, _| is_huge_pages(name));
    at_least(limits, "limits", pages, errors);
    for (index, container) in spec.field("containers").items().enumerate() {
        let own = container.field("resources");
        for (name, limit) in own.field("limits").entries() {
            let (Some(limit), Some(most)) = (quantity(limit), limits.quantity_of(name)) else { continue };
            if limit > most {
                let path = resources.path().child("containers").index(index).key(name).child("limits");
                let why = format!("must be less than or equal to pod limits of {most}");
                errors.push(FieldError::invalid(&path, limit.to_string(), why));
            }
        }
    }
}

/// Returns the maximum that the containers use at any time. Init containers run sequentially, alongside sidecars that
/// were started earlier.
fn aggregate<'v>(spec: At<'_, 'v>, list: &'static str) -> Amounts<'v> {
    let amounts = |container: At<'_, 'v>| -> Amounts<'v> {
        let resources = container.field("resources");
        let list = resources.field(list);
        list.entries().filter_map(|(name, at)| Some((name, quantity(at)?))).collect()
    };
    let add = |sum: &mut Amounts<'v>, more: &Amounts<'v>| {
        for (name, amount) in more {
            let sum = sum.entry(name).or_insert(Quantity::ZERO);
            *sum = *sum + *amount;
        }
    };
    let mut sum = Amounts::new();
    for container in spec.field("containers").items() {
        add(&mut sum, &amounts(container));
    }
    let (mut sidecars, mut start) = (Amounts::new(), Amounts::new());
    for container in spec.field("initContainers").items() {
        let mut own = amounts(container);
        if container.field("restartPolicy").text() == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut start, own);
    }
    raise(&mut sum, start);
    sum
}

fn raise<'v>(amounts: &mut Amounts<'v>, other: Amounts<'v>) {
    for (name, amount) in other {
        let own = amounts.entry(name).or_insert(amount);
        if amount > *own {
            *own = amount;
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(check: impl Fn(At, &mut Errors), value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(At::named("r", Some(&value)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn requests_must_not_exceed_limits() {
        let check = |at: At, errors: &mut Errors| of_container(at, At::named("claims", None), errors);
        for (resources, expected) in [
            (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), &[][..]),
            (json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), &["r.requests"]),
            (json!({"requests": {"example.com/a": "1"}}), &["r.limits"]),
            (json!({"requests": {"example.com/a": "1"}, "limits": {"example.com/a": "2"}}), &["r.requests"]),
            (json!({"limits": {"storage": "1", "cpu": "-1"}}), &["r.limits[cpu]", "r.limits[storage]"]),
            (json!({"limits": {"hugepages-2Mi": "2Mi"}, "requests": {"hugepages-2Mi": "2Mi"}}), &["r"]),
            (json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}), &["r.limits[hugepages-2Mi]"]),
            (json!({"claims": [{"name": "a"}]}), &["r.claims[0]"]),
        ] {
            assert_eq!(fields(check, resources.clone()), expected, "{resources}");
        }
    }

    #[test]
    fn claims_are_unique() {
        let pod = json!([{"name": "a"}, {"name": "b"}]);
        let check = |at: At, errors: &mut Errors| claims(at, At::named("claims", Some(&pod)), errors);
        for (claims, expected) in [
            (json!([{"name": "a"}, {"name": "b"}]), 0),
            (json!([{"name": "a", "request": "x"}, {"name": "a", "request": "y"}]), 0),
            (json!([{"name": "a"}, {"name": "a"}]), 1),
            (json!([{"name": "a"}, {"name": "a", "request": "x"}]), 1),
            (json!([{"name": "a", "request": "x"}, {"name": "a"}]), 1),
            (json!([{"name": "a", "request": "x"}, {"name": "a", "request": "x"}]), 1),
            (json!([{}]), 1),
        ] {
            assert_eq!(fields(check, claims.clone()).len(), expected, "{claims}");
        }
    }

    #[test]
    fn pod_claims_have_one_source() {
        let check = |at: At, errors: &mut Errors| pod_claims(at, false, errors);
        for (claims, expected) in [
            (json!([{"name": "a", "resourceClaimName": "c"}]), &[][..]),
            (json!([{"name": "a"}]), &["r[0]"]),
            (json!([{"name": "a", "resourceClaimName": "c", "resourceClaimTemplateName": "t"}]), &["r[0]"]),
            (json!([{"name": "A", "resourceClaimName": "C_"}]), &["r[0].name", "r[0].resourceClaimName"]),
        ] {
            assert_eq!(fields(check, claims.clone()), expected, "{claims}");
        }
    }

    #[test]
    fn pod_resources_cover_containers() {
        let container = json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}});
        let spec = |resources: Value| json!({"containers": [container, container], "initContainers": [], "resources": resources});
        for (resources, expected) in [
            (json!({"requests": {"cpu": "2"}}), &[][..]),
            (json!({"requests": {"cpu": "1"}}), &["r.resources.requests[cpu]"]),
            (
                json!({"limits": {"cpu": "1"}}),
                &["r.resources.containers[0][cpu].limits", "r.resources.containers[1][cpu].limits"],
            ),
            (json!({"limits": {"ephemeral-storage": "1"}}), &["r.resources.limits[ephemeral-storage]"]),
        ] {
            assert_eq!(fields(of_pod, spec(resources.clone())), expected, "{resources}");
        }
    }
}
