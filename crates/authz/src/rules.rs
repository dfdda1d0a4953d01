//! A user's rules as a list, for `SelfSubjectRulesReview`.

use nave_machinery::user::UserInfo;

use crate::rbac::Rule;

/// The rules that hold for a user in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    /// The rules, in no particular order.
    pub rules: Vec<Rule>,
    /// True if there may be rules that cannot be listed.
    pub incomplete: bool,
    /// The errors while listing, if any.
    pub error: Option<String>,
}

impl UserRules {
    /// An empty, incomplete list with this reason.
    pub fn unknown(why: &str) -> Self {
        Self { incomplete: true, error: Some(why.to_owned()), ..Self::default() }
    }
}

/// Lists a user's rules.
pub trait RuleResolver: Send + Sync {
    /// Returns a user's rules in a namespace, including cluster-wide ones.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}
