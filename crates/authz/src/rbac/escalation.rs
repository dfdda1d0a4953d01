//! Nobody gives away what they do not have (upstream: `pkg/registry/rbac`, `policybased` and
//! `ConfirmNoEscalation`).
//!
//! | write | allowed to |
//! | --- | --- |
//! | a role | `system:masters`; who may `escalate` it; who holds all its rules |
//! | a cluster role that aggregates others | the same, but only who holds everything |
//! | a binding | `system:masters`; who may `bind` the role; who holds all the role's rules |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nave_machinery::user::UserInfo;

use super::rule::{ALL, Rule, Words, quoted};

/// What a user would give away without having it.
///
/// `held` are the user's rules, `errors` what went wrong in finding them.
///
/// # Errors
/// Upstream's text: who attempts to grant what.
pub(super) fn confirm_no_escalation<'a>(
    user: &UserInfo,
    held: &[&Rule],
    errors: Option<&str>,
    granted: impl IntoIterator<Item = &'a Rule>,
) -> Result<(), String> {
    let missing = not_covered(held, granted);
    if missing.is_empty() {
        return Ok(());
    }
    let missing: BTreeSet<String> = compact(missing).iter().map(ToString::to_string).collect();
    let missing: Vec<String> = missing.into_iter().collect();
    let (name, groups) = (&user.name, quoted(user.groups.iter().map(String::as_str)));
    let mut text = format!(
        "user {name:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
        missing.join("\n")
    );
    if let Some(errors) = errors {
        // Writing to a string cannot fail.
        let _ = write!(text, "; resolution errors: [{errors}]");
    }
    Err(text)
}

/// Everything there is, which a cluster role that aggregates others may come to grant.
pub(super) fn full_authority() -> [Rule; 2] {
    [Rule::on(ALL, ALL, ALL), Rule::on_path(ALL, ALL)]
}

/// The parts of the rules `wanted` that no rule of `held` covers.
pub(crate) fn not_covered<'a>(held: &[&Rule], wanted: impl IntoIterator<Item = &'a Rule>) -> Vec<Rule> {
    let parts = wanted.into_iter().flat_map(parts);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// A rule as rules with one verb, one group, one resource and at most one name each, or one verb and one path.
fn parts(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for group in rule.api_groups.iter() {
        for resource in rule.resources.iter() {
            for verb in rule.verbs.iter() {
                let part = Rule::on(group, resource, verb);
                if rule.resource_names.is_empty() {
                    parts.push(part);
                    continue;
                }
                let named = rule.resource_names.iter().map(|name| Words::from_iter([name]));
                parts.extend(named.map(|resource_names| Rule { resource_names, ..part.clone() }));
            }
        }
    }
    for path in rule.non_resource_urls.iter() {
        parts.extend(rule.verbs.iter().map(|verb| Rule::on_path(path, verb)));
    }
    parts
}

/// Parts on the same resource and name as one rule with all their verbs.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut verbs: BTreeMap<Rule, Vec<Box<str>>> = BTreeMap::new();
    let mut paths = Vec::new();
    for part in parts {
        if part.resources.is_empty() {
            paths.push(part);
            continue;
        }
        let of_part: Vec<Box<str>> = part.verbs.iter().map(Box::from).collect();
        verbs.entry(Rule { verbs: Words::default(), ..part }).or_default().extend(of_part);
    }
    let resources =
        verbs.into_iter().map(|(rule, verbs)| Rule { verbs: verbs.into_iter().collect(), ..rule });
    resources.chain(paths).collect()
}
