//! Checks a charge against the quotas of its namespace.

use std::collections::BTreeSet;

use nave_machinery::Status;
use nave_machinery::quantity::Quantity;
use nave_resources::quota::Usage;

use super::charge::Charge;
use super::quotas::Quota;

/// The result of a check.
pub(super) enum Checked {
    /// No quota needs to be written.
    Free,
    /// The quotas at these indexes are charged, each with its new usage.
    Charged(Vec<(usize, Usage)>),
    /// A quota is exceeded, according to its known usage.
    Exceeded(Status),
}

/// Checks a charge.
///
/// # Errors
/// A refusal that does not depend on usage: the object does not specify a limited resource, the quota has no usage
/// yet, or no quota covers a resource that needs a quota.
pub(super) fn check(quotas: &[Quota], charge: &Charge) -> Result<Checked, Status> {
    let mut counting: Vec<(usize, Vec<&str>, &Usage)> = Vec::new();
    let mut covered: BTreeSet<&str> = BTreeSet::new();
    for (at, quota) in quotas.iter().enumerate() {
        let names: Vec<&str> =
            quota.hard.keys().map(String::as_str).filter(|name| charge.counts(name)).collect();
        if names.is_empty() || !charge.is_in_scope(&quota.spec) {
            continue;
        }
        if let Some(unstated) = charge.unstated(&names) {
            return Err(charge.forbidden(&format!("failed quota: {}: {unstated}", quota.name())));
        }
        if !names.iter().all(|name| quota.used.contains_key(*name)) {
            let names = names.join(",");
            return Err(
                charge.forbidden(&format!("status unknown for quota: {}, resources: {names}", quota.name()))
            );
        }
        covered.extend(&names);
        counting.push((at, names, charge.increase(&quota.spec)));
    }
    let is_free = match &*counting {
        [] => charge.delta.is_empty(),
        counting => counting.iter().all(|(_, _, increase)| increase.is_empty()),
    };
    if is_free {
        return Ok(Checked::Free);
    }
    check_coverage(quotas, charge, &covered)?;
    let mut charged = Vec::new();
    for (at, names, increase) in counting {
        let Some(quota) = quotas.get(at) else { continue };
        let requested: Usage =
            names.iter().filter_map(|name| Some(((*name).to_owned(), *increase.get(*name)?))).collect();
        if requested.is_empty() {
            continue;
        }
        match quota.with(&requested) {
            Ok(used) => charged.push((at, used)),
            Err(exceeded) => return Ok(Checked::Exceeded(charge.forbidden(&exceeded))),
        }
    }
    Ok(if charged.is_empty() { Checked::Free } else { Checked::Charged(charged) })
}

/// Checks that a quota covers each resource that needs a covering quota.
fn check_coverage(quotas: &[Quota], charge: &Charge, covered: &BTreeSet<&str>) -> Result<(), Status> {
    let uncovered: Vec<_> =
        charge.limited_names.iter().map(String::as_str).filter(|name| !covered.contains(name)).collect();
    if !uncovered.is_empty() {
        return Err(charge.forbidden(&format!("insufficient quota to consume: {}", uncovered.join(","))));
    }
    let has_scope = |name: &str| {
        let mut scopes = quotas.iter().flat_map(Quota::scopes);
        scopes.any(|scope| scope.scope_name == name && charge.matches(&scope))
    };
    let uncovered: Vec<_> = charge
        .limited_scopes
        .iter()
        .filter(|scope| !has_scope(&scope.scope_name))
        .map(|scope| {
            let values = scope.values.as_deref().unwrap_or_default().join(" ");
            format!("{{{} {} [{values}]}}", scope.scope_name, scope.operator)
        })
        .collect();
    if uncovered.is_empty() {
        return Ok(());
    }
    Err(charge.forbidden(&format!("insufficient quota to match these scopes: [{}]", uncovered.join(" "))))
}

impl Quota {
    /// Adds usage.
    ///
    /// # Errors
    /// The part that exceeds the quota.
    fn with(&self, requested: &Usage) -> Result<Usage, String> {
        let mut used = self.used.clone();
        let mut exceeded = Vec::new();
        for (name, amount) in requested {
            let sum = used.get(name).copied().unwrap_or(Quantity::ZERO) + *amount;
            if self.hard.get(name).is_some_and(|hard| sum > *hard) {
                exceeded.push(name);
            }
            used.insert(name.clone(), sum);
        }
        if exceeded.is_empty() {
            return Ok(used);
        }
        let told = |amounts: &Usage| {
            let amount = |name: &&String| amounts.get(*name).map(|amount| format!("{name}={amount}"));
            exceeded.iter().filter_map(amount).collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            self.name(),
            told(requested),
            told(&self.used),
            told(&self.hard)
        ))
    }
}
