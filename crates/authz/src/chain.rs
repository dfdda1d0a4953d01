//! Decisions, and the authorizers in a row.

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

/// What an authorizer decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allow,
    /// It may not be done, whatever others say.
    Deny,
    /// Others decide.
    NoOpinion,
}

/// A decision, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Why; may be empty. Clients that are refused are shown it.
    pub reason: Cow<'static, str>,
    /// What went wrong on the way to the decision.
    pub error: Option<String>,
}

impl Verdict {
    /// It may be done.
    pub fn allow(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::Allow, reason: reason.into(), error: None }
    }

    /// It may not be done.
    pub fn deny(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::Deny, ..Self::allow(reason) }
    }

    /// Others decide.
    pub fn no_opinion(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { decision: Decision::NoOpinion, ..Self::allow(reason) }
    }
}

/// One source of decisions.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides about a request.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict;
}

/// An authorizer's place in a chain.
#[derive(Clone)]
pub struct Link {
    /// What kind of authorizer it is: `RBAC`, `Webhook`, …
    pub kind: &'static str,
    /// Its name; for those that exist once the kind in lower case.
    pub name: Arc<str>,
    /// The authorizer.
    pub authorizer: Arc<dyn Authorizer>,
    /// What lists a user's rules, if this authorizer can be asked for them.
    pub resolver: Option<Arc<dyn RuleResolver>>,
}

/// The authorizers in the order they are asked, after the group `system:masters`, which is always let through.
///
/// Clones are the same chain. The authorizers can be replaced while requests are decided; a request is decided by
/// those that it found.
#[derive(Clone)]
pub struct Chain {
    links: Arc<ArcSwap<Vec<Link>>>,
    metrics: Metrics,
}

impl Chain {
    /// A chain of these authorizers.
    pub fn new(links: Vec<Link>, metrics: Metrics) -> Self {
        Self { links: Arc::new(ArcSwap::from_pointee(links)), metrics }
    }

    /// Replaces the authorizers.
    pub fn replace(&self, links: Vec<Link>) {
        self.links.store(Arc::new(links));
    }

    /// The authorizers.
    pub fn links(&self) -> Arc<Vec<Link>> {
        self.links.load_full()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Passes if the request is allowed.
    ///
    /// # Errors
    /// 403 if it is not, with the reasons given; 500 if nobody had an opinion and something went wrong.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let started = Instant::now();
        let verdict = self.decide(attributes).await;
        self.metrics.attempt(&verdict, started.elapsed());
        match (verdict.decision, verdict.error) {
            (Decision::Allow, _) => Ok(()),
            (_, Some(error)) => Err(Status::internal(error)),
            (_, None) => Err(forbidden(attributes, &verdict.reason)),
        }
    }

    /// The first allow or deny; if there is none, no opinion with all that was said.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Verdict {
        // As upstream's first authorizer (`authorizerfactory.NewPrivilegedGroups`).
        if attributes.in_group(SYSTEM_MASTERS) {
            return Verdict::allow("");
        }
        let links = self.links();
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for link in links.iter() {
            let verdict = link.authorizer.authorize(attributes).await;
            if verdict.decision != Decision::NoOpinion {
                self.metrics.decision(link, verdict.decision);
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

    /// A user's rules in a namespace, as far as the authorizers can list them.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        let mut errors = Vec::new();
        for resolver in self.links().iter().filter_map(|link| link.resolver.as_ref()) {
            let found = resolver.rules_for(user, namespace);
            all.rules.extend(found.rules);
            all.incomplete |= found.incomplete;
            errors.extend(found.error);
        }
        all.error = aggregate(errors);
        all
    }
}

/// Errors as one, as upstream joins them: each text once, in brackets if there are several. Of very many only the first
/// are shown.
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

/// The most errors that are shown.
const MAX_ERRORS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides the same about all.
    struct Fixed(Verdict);

    #[async_trait]
    impl Authorizer for Fixed {
        async fn authorize(&self, _: &Attributes<'_>) -> Verdict {
            self.0.clone()
        }
    }

    fn chain(verdicts: Vec<Verdict>) -> Chain {
        let link = |verdict| Link {
            kind: "Test",
            name: "test".into(),
            authorizer: Arc::new(Fixed(verdict)),
            resolver: None,
        };
        Chain::new(
            verdicts.into_iter().map(link).collect(),
            Metrics::new(&prometheus::Registry::new()).unwrap(),
        )
    }

    async fn ask(verdicts: Vec<Verdict>) -> Result<(), String> {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let path = Attributes { verb: "get", path: "/y", ..Attributes::of(&user) };
        chain(verdicts).authorize(&path).await.map_err(|status| status.message)
    }

    #[tokio::test]
    async fn one_that_allows_is_enough_and_one_that_denies_ends_it() {
        let (silent, allow, deny) = (Verdict::no_opinion(""), Verdict::allow("a"), Verdict::deny("no"));
        assert_eq!(ask(vec![silent.clone(), allow.clone(), deny.clone()]).await, Ok(()));
        let why = Err(r#"forbidden: User "x" cannot get path "/y": no"#.to_owned());
        assert_eq!(ask(vec![silent.clone(), deny, allow]).await, why);
        let bare = Err(r#"forbidden: User "x" cannot get path "/y""#.to_owned());
        assert_eq!(ask(vec![silent]).await, bare);
        assert_eq!(ask(vec![]).await, bare);
        let reasons = vec![Verdict::no_opinion("a"), Verdict::no_opinion("b")];
        assert_eq!(ask(reasons).await, Err("forbidden: User \"x\" cannot get path \"/y\": a\nb".into()));
    }

    #[tokio::test]
    async fn an_error_without_a_decision_is_the_servers_fault() {
        let failed = Verdict { error: Some("e".into()), ..Verdict::no_opinion("") };
        let user = UserInfo::default();
        let all = Attributes::of(&user);
        let status = chain(vec![failed.clone(), failed.clone()]).authorize(&all).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (500, "Internal error occurred: e"));
        assert_eq!(chain(vec![failed, Verdict::allow("")]).authorize(&all).await, Ok(()));
    }

    #[test]
    fn errors_are_shown_once_and_not_all_of_very_many() {
        let errors = |count: usize| (0..count).chain(0..count).map(|number| number.to_string());
        assert_eq!(aggregate(errors(0)), None);
        assert_eq!(aggregate(errors(1)).as_deref(), Some("0"));
        assert_eq!(aggregate(errors(3)).as_deref(), Some("[0, 1, 2]"));
        let many = aggregate(errors(100_000)).unwrap();
        assert!(many.ends_with("99, and 99900 more]") && many.len() < 1000, "{many}");
    }

    #[tokio::test]
    async fn masters_are_let_through_whatever_the_authorizers_say() {
        let user = UserInfo { groups: vec!["system:masters".into()], ..UserInfo::default() };
        assert_eq!(chain(vec![Verdict::deny("no")]).authorize(&Attributes::of(&user)).await, Ok(()));
    }
}
