//! A user's rules as a list, for `SelfSubjectRulesReview`.

use nave_machinery::user::UserInfo;

use crate::rbac::Rule;

/// A user's rules in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    /// The rules, in no particular order.
    pub rules: Vec<Rule>,
    /// True if the user may have further rules that cannot be listed.
    pub incomplete: bool,
    /// The errors that occurred while listing, if any.
    pub error: Option<String>,
}

impl UserRules {
    /// Returns an empty, incomplete list with this reason.
    pub fn unknown(why: &str) -> Self {
        Self { incomplete: true, error: Some(why.to_owned()), ..Self::default() }
    }
}

/// Lists a user's rules.
pub trait RuleResolver: Send + Sync {
    /// Returns a user's rules in a namespace, including cluster-wide ones.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}
