//! What a user may do, as a list, for `SelfSubjectRulesReview`.

use nave_machinery::user::UserInfo;

use crate::rbac::Rule;

/// What a user may do in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    /// The rules, in no order that means something.
    pub rules: Vec<Rule>,
    /// Whether there may be more that cannot be listed.
    pub incomplete: bool,
    /// What went wrong.
    pub error: Option<String>,
}

impl UserRules {
    /// Nothing can be listed, for this reason.
    pub fn unknown(why: &str) -> Self {
        Self { incomplete: true, error: Some(why.to_owned()), ..Self::default() }
    }
}

/// What can list a user's rules.
pub trait RuleResolver: Send + Sync {
    /// A user's rules in a namespace, with those that hold in all.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules;
}
