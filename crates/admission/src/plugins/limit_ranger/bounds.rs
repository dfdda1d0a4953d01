//! Checks of amounts against the bounds of a limit range.

use std::collections::BTreeMap;

use nave_machinery::quantity::Quantity;
use nave_machinery::{Object, Value};

use super::{all_containers, amounts};
use crate::plugins::pods::text;

/// Amounts up to this number of units are compared in thousandths, as in upstream.
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

type Amounts = BTreeMap<String, Quantity>;

/// The resources of a pod or container.
struct Usage {
    requests: Amounts,
    limits: Amounts,
}

/// Returns the errors of a pod that violates a limit range.
pub(super) fn check_pod(limits: &[Value], pod: &Object) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in limits {
        let kind = text(limit, "type");
        match kind {
            "Container" => {
                for container in all_containers(pod) {
                    let usage = Usage {
                        requests: read(amounts(container, ["resources", "requests"])),
                        limits: read(amounts(container, ["resources", "limits"])),
                    };
                    usage.check(limit, kind, &mut errors);
                }
            }
            "Pod" => {
                let usage = Usage { requests: of_pod(pod, "requests"), limits: of_pod(pod, "limits") };
                usage.check(limit, kind, &mut errors);
            }
            _ => {}
        }
    }
    dedup(errors)
}

/// Returns the errors of a claim that violates a limit range.
pub(super) fn check_claim(limits: &[Value], claim: &Object) -> Vec<String> {
    let mut errors = Vec::new();
    let requests = claim.value_at(&["spec", "resources", "requests"]).and_then(Value::as_object);
    let usage = Usage { requests: read(requests.into_iter().flatten()), limits: Amounts::new() };
    for limit in limits.iter().filter(|limit| text(limit, "type") == "PersistentVolumeClaim") {
        let kind = text(limit, "type");
        for (name, bound) in bounds(limit, "min") {
            errors.extend(usage.below(name, kind, bound));
        }
        for (name, bound) in bounds(limit, "max") {
            errors.extend(match usage.requests.get(name) {
                None => Some(format!("maximum {name} usage per {kind} is {bound}.  No request is specified")),
                Some(request) if compare(*request, bound).is_gt() => {
                    Some(format!("maximum {name} usage per {kind} is {bound}, but request is {request}"))
                }
                Some(_) => None,
            });
        }
    }
    dedup(errors)
}

impl Usage {
    fn check(&self, limit: &Value, kind: &str, errors: &mut Vec<String>) {
        for (name, bound) in bounds(limit, "min") {
            errors.extend(self.below(name, kind, bound));
        }
        for (name, bound) in bounds(limit, "max") {
            errors.extend(self.above(name, kind, bound));
        }
        for (name, bound) in bounds(limit, "maxLimitRequestRatio") {
            errors.extend(self.above_ratio(name, kind, bound));
        }
    }

    fn below(&self, name: &str, kind: &str, bound: Quantity) -> Option<String> {
        let told = format!("minimum {name} usage per {kind} is {bound}");
        let Some(request) = self.requests.get(name) else {
            return Some(format!("{told}.  No request is specified"));
        };
        if compare(*request, bound).is_lt() {
            return Some(format!("{told}, but request is {request}"));
        }
        let limit = self.limits.get(name).filter(|limit| compare(**limit, bound).is_lt())?;
        Some(format!("{told}, but limit is {limit}"))
    }

    fn above(&self, name: &str, kind: &str, bound: Quantity) -> Option<String> {
        let told = format!("maximum {name} usage per {kind} is {bound}");
        let Some(limit) = self.limits.get(name) else {
            return Some(format!("{told}.  No limit is specified"));
        };
        if compare(*limit, bound).is_gt() {
            return Some(format!("{told}, but limit is {limit}"));
        }
        let request = self.requests.get(name).filter(|request| compare(**request, bound).is_gt())?;
        Some(format!("{told}, but request is {request}"))
    }

    fn above_ratio(&self, name: &str, kind: &str, bound: Quantity) -> Option<String> {
        let told = format!("{name} max limit to request ratio per {kind} is {bound}");
        let amount = |list: &Amounts| list.get(name).copied().filter(|amount| !amount.is_zero());
        let Some(request) = amount(&self.requests) else {
            return Some(format!("{told}, but no request is specified or request is 0"));
        };
        let Some(limit) = amount(&self.limits) else {
            return Some(format!("{told}, but no limit is specified or limit is 0"));
        };
        let (limit, request) = scaled(limit, request);
        let ratio = limit as f64 / request as f64;
        let highest = bound.milli_value() as f64;
        (ratio * 1000.0 > highest).then(|| format!("{told}, but provided ratio is {ratio:.6}"))
    }
}

/// Converts two amounts to the same unit: thousandths if both fit, else whole units.
fn scaled(a: Quantity, b: Quantity) -> (i64, i64) {
    if a.value() <= MAX_MILLI_VALUE && b.value() <= MAX_MILLI_VALUE {
        (a.milli_value(), b.milli_value())
    } else {
        (a.value(), b.value())
    }
}

fn compare(a: Quantity, b: Quantity) -> std::cmp::Ordering {
    let (a, b) = scaled(a, b);
    a.cmp(&b)
}

fn bounds<'a>(limit: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, Quantity)> {
    let bounds = limit.get(field).and_then(Value::as_object).into_iter().flatten();
    bounds.filter_map(|(name, bound)| Some((name.as_str(), Quantity::parse(bound.as_str()?).ok()?)))
}

fn read<'a>(amounts: impl Iterator<Item = (&'a String, &'a Value)>) -> Amounts {
    amounts
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?)))
        .collect()
}

/// Returns the amounts of a pod: the sum over its containers or the maximum over its init containers, whichever is
/// larger. Pod-level resources take precedence.
fn of_pod(pod: &Object, field: &str) -> Amounts {
    let of_container = |container: &Value| read(amounts(container, ["resources", field]));
    let mut total = Amounts::new();
    for container in pod.list_at(&["spec", "containers"]) {
        add(&mut total, &of_container(container));
    }
    let (mut sidecars, mut start) = (Amounts::new(), Amounts::new());
    for container in pod.list_at(&["spec", "initContainers"]) {
        let own = of_container(container);
        let running = if text(container, "restartPolicy") == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            sidecars.clone()
        } else {
            let mut running = own;
            add(&mut running, &sidecars);
            running
        };
        raise(&mut start, &running);
    }
    raise(&mut total, &start);
    let whole = pod.get("spec").map(|spec| read(amounts(spec, ["resources", field]))).unwrap_or_default();
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    total.extend(whole.into_iter().filter(|(name, _)| supported(name)));
    total
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = *sum + *amount;
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let most = total.entry(name.clone()).or_insert(*amount);
        if *most < *amount {
            *most = *amount;
        }
    }
}

/// Removes duplicate messages.
fn dedup(messages: Vec<String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(messages.len());
    for message in messages {
        if !once.contains(&message) {
            once.push(message);
        }
    }
    once
}
