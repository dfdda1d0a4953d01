//! Authorizers with fixed decisions.

use std::collections::HashSet;

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

/// Allows all requests for some paths (upstream: `authorization/path`).
#[derive(Clone, Debug, Default)]
pub struct AllowedPaths {
    paths: HashSet<String>,
    prefixes: Vec<String>,
}

/// A path has a `*` before its end.
#[derive(Debug, thiserror::Error)]
#[error("only trailing * allowed in {0:?}")]
pub struct PathError(String);

impl AllowedPaths {
    /// Allows these paths. A path with a trailing `*` stands for all paths with this prefix; a leading `/` is optional.
    ///
    /// # Errors
    /// A path has a `*` before its end.
    pub fn new(paths: &[String]) -> Result<Self, PathError> {
        let mut allowed = Self::default();
        for path in paths.iter().map(|path| path.strip_prefix('/').unwrap_or(path)) {
            match (path.find('*'), path.strip_suffix('*')) {
                (None, _) => drop(allowed.paths.insert(path.to_owned())),
                (Some(_), Some(prefix)) if !prefix.contains('*') => allowed.prefixes.push(prefix.to_owned()),
                _ => return Err(PathError(path.to_owned())),
            }
        }
        Ok(allowed)
    }
}

#[async_trait]
impl Authorizer for AllowedPaths {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let path = attributes.path.strip_prefix('/').unwrap_or(attributes.path);
        let is_allowed =
            self.paths.contains(path) || self.prefixes.iter().any(|prefix| path.starts_with(prefix));
        if !attributes.is_resource_request() && is_allowed {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decision;

    #[tokio::test]
    async fn allows_configured_paths() {
        let texts = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
        let allowed = AllowedPaths::new(&texts(&["/healthz", "livez", "/open/*", "/"])).unwrap();
        let user = UserInfo::default();
        for (path, expected) in [
            ("/healthz", true),
            ("/livez", true),
            ("/", true),
            ("/open/a/b", true),
            ("/open", false),
            ("/healthz/etcd", false),
            ("/readyz", false),
        ] {
            let get = Attributes { verb: "get", path, ..Attributes::for_user(&user) };
            let verdict = allowed.authorize(&get).await;
            assert_eq!(verdict.decision == Decision::Allow, expected, "{path}");
        }
        let path = "/open/pods";
        let pods = Attributes { verb: "get", resource: "pods", path, ..Attributes::for_user(&user) };
        assert_eq!(allowed.authorize(&pods).await.decision, Decision::NoOpinion);
        for wrong in ["/a*b", "/*/a", "**"] {
            assert!(AllowedPaths::new(&texts(&[wrong])).is_err(), "{wrong}");
        }
    }
}
