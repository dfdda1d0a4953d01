//! Privilege escalation checks: users can grant only permissions that they have (upstream: `pkg/registry/rbac`,
//! `policybased` and `ConfirmNoEscalation`).
//!
//! | write | allowed to |
//! | --- | --- |
//! | a role | `system:masters`; users with `escalate` on it; users who hold all its rules |
//! | a cluster role that aggregates others | the same, but users must hold all permissions |
//! | a binding | `system:masters`; users with `bind` on the role; users who hold all the role's rules |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nave_machinery::user::UserInfo;

use super::covering::{Missing, not_covered};
use super::rule::{ALL, Entries, Rule, quoted};

/// Checks that a user holds all granted rules.
///
/// `held` are the user's rules. `errors` are the errors that occurred while resolving them.
///
/// # Errors
/// Upstream's message, with the rules that the user lacks.
pub(super) fn confirm_no_escalation<'a>(
    user: &UserInfo,
    held: &[&Rule],
    errors: Option<&str>,
    granted: impl IntoIterator<Item = &'a Rule>,
) -> Result<(), String> {
    let (name, groups) = (&user.name, quoted(user.groups.iter().map(String::as_str)));
    let missing = match not_covered(held, granted) {
        Ok(missing) if missing.parts.is_empty() && missing.more == 0 => return Ok(()),
        Ok(missing) => listed(missing),
        Err(too_complex) => too_complex.to_string(),
    };
    let mut text = format!(
        "user {name:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{missing}"
    );
    if let Some(errors) = errors {
        let _ = write!(text, "; resolution errors: [{errors}]");
    }
    Err(text)
}

/// Returns rules with all permissions, because an aggregated cluster role can later grant any of them.
pub(super) fn full_authority() -> [Rule; 2] {
    [Rule::for_resource(ALL, ALL, ALL), Rule::for_path(ALL, ALL)]
}

/// Formats the missing parts, compacted and sorted, one per line.
fn listed(missing: Missing) -> String {
    let Missing { parts, mut more, .. } = missing;
    let lines: BTreeSet<String> = compact(parts).iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for line in lines {
        if text.len() + line.len() > MAX_TEXT {
            more += 1;
            continue;
        }
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{line}");
    }
    if more > 0 {
        let _ = write!(text, "\nand {more} more");
    }
    text
}

/// The maximum size of the missing rules in a message, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// Merges parts on the same resource and name into one rule with all their verbs.
fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut verbs: BTreeMap<Rule, Vec<Box<str>>> = BTreeMap::new();
    let mut paths = Vec::new();
    for part in parts {
        if part.resources.is_empty() {
            paths.push(part);
            continue;
        }
        let of_part: Vec<Box<str>> = part.verbs.iter().map(Box::from).collect();
        verbs.entry(Rule { verbs: Entries::default(), ..part }).or_default().extend(of_part);
    }
    let resources =
        verbs.into_iter().map(|(rule, verbs)| Rule { verbs: verbs.into_iter().collect(), ..rule });
    resources.chain(paths).collect()
}
