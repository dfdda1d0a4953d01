//! Authorizers with fixed decisions.

use async_trait::async_trait;
use nave_machinery::user::UserInfo;

use crate::rbac::Rule;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Verdict};

/// The group whose members may make any request.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// Allows every request (`--authorization-mode=AlwaysAllow`).
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &Attributes<'_>) -> Verdict {
        Verdict::allow("")
    }
}

impl RuleResolver for AlwaysAllow {
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        let rules = vec![Rule::for_resource("*", "*", "*"), Rule::for_path("*", "*")];
        UserRules { rules, ..UserRules::default() }
    }
}

/// Forbids every request (`--authorization-mode=AlwaysDeny`).
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysDeny;

#[async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _: &Attributes<'_>) -> Verdict {
        Verdict::no_opinion("Everything is forbidden.")
    }
}

impl RuleResolver for AlwaysDeny {
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::default()
    }
}
