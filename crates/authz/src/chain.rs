//! Decisions, and the chain of authorizers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use nave_machinery::Status;
use nave_machinery::user::UserInfo;

use crate::metrics::Metrics;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, SYSTEM_MASTERS, forbidden};

/// The decision of an authorizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request is allowed.
    Allow,
    /// The request is denied; later authorizers are not called.
    Deny,
    /// The next authorizer decides.
    NoOpinion,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// The reason, which refused clients see; may be empty.
    pub reason: Cow<'static, str>,
    /// An error during the decision.
    pub error: Option<String>,
}

impl Verdict {
    /// Returns an allow with this reason.
    pub fn allow(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::Allow, reason: reason.into(), error: None }
    }

    /// Returns a deny with this reason.
    pub fn deny(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::Deny, ..Self::allow(reason) }
    }

    /// Returns no opinion, with this reason.
    pub fn no_opinion(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::NoOpinion, ..Self::allow(reason) }
    }

    /// Returns the failure of a request that is not allowed.
    ///
    /// # Errors
    /// See [`Chain::authorize`].
    pub fn into_result(self, attributes: &Attributes<'_>) -> Result<(), Status> {
        match (self.decision, self.error) {
            (Decision::Allow, _) => Ok(()),
            (_, Some(error)) => Err(Status::internal(error)),
            (_, None) => Err(forbidden(attributes, &self.reason)),
        }
    }
}

/// Decides about requests.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides about a request.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict;
}

/// An authorizer in a chain.
#[derive(Clone)]
pub struct NamedAuthorizer {
    /// The type of the authorizer: `RBAC`, `Webhook`, …
    pub kind: &'static str,
    /// The configured name; by default, the type in lower case.
    pub name: Arc<str>,
    /// The authorizer.
    pub authorizer: Arc<dyn Authorizer>,
    /// Lists a user's rules, if the authorizer supports this.
    pub resolver: Option<Arc<dyn RuleResolver>>,
}

/// The authorizers, in order. Requests of `system:masters` are allowed without calling them.
///
/// Clones share the authorizers, which can be replaced at any time. A request uses the list that was current when its
/// decision started.
#[derive(Clone)]
pub struct Chain {
    authorizers: Arc<ArcSwap<Vec<NamedAuthorizer>>>,
    metrics: Metrics,
}

impl Chain {
    /// Creates a chain of these authorizers.
    pub fn new(authorizers: Vec<NamedAuthorizer>, metrics: Metrics) -> Self {
        Self { authorizers: Arc::new(ArcSwap::from_pointee(authorizers)), metrics }
    }

    /// Replaces the authorizers.
    pub fn replace(&self, authorizers: Vec<NamedAuthorizer>) {
        self.authorizers.store(Arc::new(authorizers));
    }

    /// The authorizers.
    pub fn authorizers(&self) -> Arc<Vec<NamedAuthorizer>> {
        self.authorizers.load_full()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Checks that the request is allowed.
    ///
    /// # Errors
    /// 403 with the reasons. 500 if the authorizer that denied the request reported an error, or if no authorizer
    /// decided and any of them reported an error.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.attempt(attributes).await.into_result(attributes)
    }

    /// Returns the verdict about a request, and measures it.
    pub async fn attempt(&self, attributes: &Attributes<'_>) -> Verdict {
        let started = Instant::now();
        let verdict = self.decide(attributes).await;
        self.metrics.attempt(&verdict, started.elapsed());
        verdict
    }

    /// Returns the first allow or deny. If no authorizer decides, returns no opinion with all reasons and errors.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Verdict {
        // Corresponds to upstream's first authorizer (`authorizerfactory.NewPrivilegedGroups`).
        if attributes.in_group(SYSTEM_MASTERS) {
            return Verdict::allow("");
        }
        let authorizers = self.authorizers();
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for authorizer in authorizers.iter() {
            let verdict = authorizer.authorizer.authorize(attributes).await;
            if verdict.decision != Decision::NoOpinion {
                self.metrics.decision(authorizer, verdict.decision);
                return verdict;
            }
            errors.extend(verdict.error);
            if !verdict.reason.is_empty() {
                reasons.push(verdict.reason);
            }
        }
        let reason = if reasons.len() == 1 { reasons.remove(0) } else { reasons.join("\n").into() };
        Verdict { decision: Decision::NoOpinion, reason, error: aggregate(errors) }
    }

    /// Lists a user's rules in a namespace, as far as the authorizers support this.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        let mut errors = Vec::new();
        for resolver in self.authorizers().iter().filter_map(|authorizer| authorizer.resolver.as_ref()) {
            let found = resolver.rules_for(user, namespace);
            all.rules.extend(found.rules);
            all.incomplete |= found.incomplete;
            errors.extend(found.error);
        }
        all.error = aggregate(errors);
        all
    }
}

/// Joins errors like upstream's `Aggregate`: each text once, in brackets if there are several. Truncates long lists.
pub(crate) fn aggregate(errors: impl IntoIterator<Item = String>) -> Option<String> {
    let (mut once, mut seen) = (Vec::new(), HashSet::new());
    for error in errors {
        if !seen.contains(&error) {
            if once.len() < MAX_ERRORS {
                once.push(error.clone());
            }
            seen.insert(error);
        }
    }
    match seen.len() - once.len() {
        0 => {}
        more => once.push(format!("and {more} more")),
    }
    match once.len() {
        0 => None,
        1 => once.pop(),
        _ => Some(format!("[{}]", once.join(", "))),
    }
}

/// The maximum number of errors in a message.
const MAX_ERRORS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the same verdict for every request.
    struct Fixed(Verdict);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _: &Attributes<'_>) -> Verdict {
            self.0.clone()
        }
    }

    fn chain(verdicts: Vec<Verdict>) -> Chain {
        let authorizer = |verdict| NamedAuthorizer {
            kind: "Test",
            name: "test".into(),
            authorizer: Arc::new(Fixed(verdict)),
            resolver: None,
        };
        Chain::new(
            verdicts.into_iter().map(authorizer).collect(),
            Metrics::new(&prometheus::Registry::new()).unwrap(),
        )
    }

    async fn authorize(verdicts: Vec<Verdict>) -> Result<(), String> {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let path = Attributes { verb: "get", path: "/y", ..Attributes::for_user(&user) };
        chain(verdicts).authorize(&path).await.map_err(|status| status.message)
    }

    #[tokio::test]
    async fn first_allow_or_deny_decides() {
        let (silent, allow, deny) = (Verdict::no_opinion(""), Verdict::allow("a"), Verdict::deny("no"));
        assert_eq!(authorize(vec![silent.clone(), allow.clone(), deny.clone()]).await, Ok(()));
        let why = Err(r#"forbidden: User "x" cannot get path "/y": no"#.to_owned());
        assert_eq!(authorize(vec![silent.clone(), deny, allow]).await, why);
        let bare = Err(r#"forbidden: User "x" cannot get path "/y""#.to_owned());
        assert_eq!(authorize(vec![silent]).await, bare);
        assert_eq!(authorize(vec![]).await, bare);
        let reasons = vec![Verdict::no_opinion("a"), Verdict::no_opinion("b")];
        assert_eq!(
            authorize(reasons).await,
            Err("forbidden: User \"x\" cannot get path \"/y\": a\nb".into())
        );
    }

    #[tokio::test]
    async fn error_without_a_decision_is_a_500() {
        let failed = Verdict { error: Some("e".into()), ..Verdict::no_opinion("") };
        let user = UserInfo::default();
        let all = Attributes::for_user(&user);
        let status = chain(vec![failed.clone(), failed.clone()]).authorize(&all).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (500, "Internal error occurred: e"));
        assert_eq!(chain(vec![failed, Verdict::allow("")]).authorize(&all).await, Ok(()));
    }

    #[test]
    fn aggregate_deduplicates_and_limits_errors() {
        let errors = |count: usize| (0..count).chain(0..count).map(|number| number.to_string());
        assert_eq!(aggregate(errors(0)), None);
        assert_eq!(aggregate(errors(1)).as_deref(), Some("0"));
        assert_eq!(aggregate(errors(3)).as_deref(), Some("[0, 1, 2]"));
        let many = aggregate(errors(100_000)).unwrap();
        assert!(many.ends_with("99, and 99900 more]") && many.len() < 1000, "{many}");
    }

    #[tokio::test]
    async fn system_masters_are_allowed_before_any_authorizer() {
        let user = UserInfo { groups: vec!["system:masters".into()], ..UserInfo::default() };
        assert_eq!(chain(vec![Verdict::deny("no")]).authorize(&Attributes::for_user(&user)).await, Ok(()));
    }
}
