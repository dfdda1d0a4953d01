//! Authorization: whether a user may do what a request asks for.
//!
//! ```text
//! Attributes ─→ Chain ─┬─ SystemMasters   the group system:masters may do everything
//!                      ├─ PublicPaths     everybody may ask for health and version
//!                      └─ nobody allowed it: 403
//! ```
//!
//! | decision | what the chain does |
//! | --- | --- |
//! | [`Decision::Allow`] | the request goes on; nobody else is asked |
//! | [`Decision::Deny`] | 403; nobody else is asked |
//! | [`Decision::NoOpinion`] | asks the next; the last one's silence is a 403 |
//!
//! Invariants: what no authorizer allows is forbidden. The attributes come from the parsed request, the same parts
//! that storage keys are built from, never from the path's text. No stage after this one widens access.
//!
//! ```
//! use std::sync::Arc;
//! use nave_authz::{Attributes, Chain, PublicPaths, SystemMasters};
//! use nave_machinery::user::UserInfo;
//!
//! # async fn example() {
//! let chain = Chain::new(vec![Arc::new(SystemMasters), Arc::new(PublicPaths)]);
//! let user = UserInfo { name: "x".into(), ..UserInfo::default() };
//! let list = Attributes { verb: "list", version: "v1", resource: "pods", namespace: "y", ..Attributes::of(&user) };
//! assert_eq!(
//!     chain.authorize(&list).await.unwrap_err().message,
//!     r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
//! );
//! # }
//! ```

mod forbidden;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Status, user::UserInfo};

pub use forbidden::forbidden;

/// The group that may do everything.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// What is done: `get`, `list`, …; for other paths the method in lower case.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version of the group.
    pub version: &'a str,
    /// The resource, such as `pods`; empty for other paths.
    pub resource: &'a str,
    /// The subresource, such as `status`; empty for none.
    pub subresource: &'a str,
    /// The object's name; empty where the request names none.
    pub name: &'a str,
    /// The namespace; empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// The path asked for.
    pub path: &'a str,
}

impl<'a> Attributes<'a> {
    /// Attributes with all but the user empty.
    pub fn of(user: &'a UserInfo) -> Self {
        let none = "";
        Self {
            user,
            verb: none,
            group: none,
            version: none,
            resource: none,
            subresource: none,
            name: none,
            namespace: none,
            path: none,
        }
    }

    /// Whether a resource is asked for, not another path.
    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow,
    /// It may not be done, whatever others say; the reason is shown to the client.
    Deny(String),
    /// Others decide; the reason, which may be empty, is shown to the client if nobody allows it.
    NoOpinion(String),
}

/// One source of decisions.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides about a request.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// The authorizers in the order they are asked.
pub struct Chain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Chain {
    /// A chain of these authorizers.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }

    /// Passes if the request is allowed.
    ///
    /// # Errors
    /// 403 if it is not, with the reasons given.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(attributes).await {
                Decision::Allow => return Ok(()),
                Decision::Deny(reason) => return Err(forbidden(attributes, &reason)),
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
            }
        }
        Err(forbidden(attributes, &reasons.join("\n")))
    }
}

/// Allows everything to the group `system:masters`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMasters;

#[async_trait]
impl Authorizer for SystemMasters {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == SYSTEM_MASTERS) {
            Decision::Allow
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

/// Lets everybody read health and version, as upstream's role `system:public-info-viewer` does.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublicPaths;

impl PublicPaths {
    const PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
}

#[async_trait]
impl Authorizer for PublicPaths {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let public = !attributes.is_resource_request() && Self::PATHS.contains(&attributes.path);
        if public && attributes.verb == "get" { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides the same about all.
    struct Fixed(Decision);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _: &Attributes<'_>) -> Decision {
            self.0.clone()
        }
    }

    async fn ask(decisions: &[Decision]) -> Result<(), String> {
        let mut chain = Chain::new(Vec::new());
        for decision in decisions {
            chain.authorizers.push(Arc::new(Fixed(decision.clone())));
        }
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let path = Attributes { verb: "get", path: "/y", ..Attributes::of(&user) };
        chain.authorize(&path).await.map_err(|status| status.message)
    }

    #[tokio::test]
    async fn one_that_allows_is_enough_and_one_that_denies_ends_it() {
        let (silent, deny) = (Decision::NoOpinion(String::new()), Decision::Deny("no".into()));
        assert_eq!(ask(&[silent.clone(), Decision::Allow, deny.clone()]).await, Ok(()));
        let why = Err(r#"forbidden: User "x" cannot get path "/y": no"#.to_owned());
        assert_eq!(ask(&[silent.clone(), deny, Decision::Allow]).await, why);
        assert_eq!(ask(&[silent]).await, Err(r#"forbidden: User "x" cannot get path "/y""#.into()));
        assert_eq!(ask(&[]).await, Err(r#"forbidden: User "x" cannot get path "/y""#.into()));
        let reasons = [Decision::NoOpinion("a".into()), Decision::NoOpinion("b".into())];
        assert_eq!(ask(&reasons).await, Err("forbidden: User \"x\" cannot get path \"/y\": a\nb".into()));
    }

    #[tokio::test]
    async fn masters_may_do_everything() {
        let mut user = UserInfo { groups: vec!["a".into(), "system:masters".into()], ..UserInfo::default() };
        let silent = Decision::NoOpinion(String::new());
        assert_eq!(SystemMasters.authorize(&Attributes::of(&user)).await, Decision::Allow);
        user.groups = vec!["system:masters2".into()];
        user.name = "system:masters".into();
        assert_eq!(SystemMasters.authorize(&Attributes::of(&user)).await, silent);
    }

    #[tokio::test]
    async fn public_paths_are_health_and_version_to_read() {
        let user = UserInfo::default();
        let allowed = async |verb, path, resource| {
            let attributes = Attributes { verb, resource, path, ..Attributes::of(&user) };
            PublicPaths.authorize(&attributes).await == Decision::Allow
        };
        for path in ["/healthz", "/livez", "/readyz", "/version"] {
            assert!(allowed("get", path, "").await, "{path}");
            assert!(!allowed("post", path, "").await, "{path}");
        }
        for path in ["/", "/api", "/metrics", "/healthz/etcd", "/healthzz", ""] {
            assert!(!allowed("get", path, "").await, "{path}");
        }
        assert!(!allowed("get", "/version", "pods").await);
    }
}
