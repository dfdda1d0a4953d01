//! The parts of dispatching a request that validating and mutating policies share.

use std::sync::Arc;

use nave_machinery::{Object, Status};

use super::params::{ParamKinds, unknown_kind};
use super::store::{Binding, GROUP, Policy};
use crate::attributes::Attributes;
use crate::matching::{MatchedResource, Matcher, RequestMatcher};
use crate::metrics::Metrics;
use crate::objects::ObjectInterfaces;
use crate::plugins::Parts;

/// The dependencies of both plugins.
#[derive(Clone)]
pub(super) struct Dependencies {
    pub(super) matcher: Matcher,
    pub(super) interfaces: Arc<dyn ObjectInterfaces>,
    pub(super) params: Arc<dyn ParamKinds>,
    pub(super) authorizer: nave_authz::Chain,
    pub(super) metrics: Metrics,
}

impl Dependencies {
    pub(super) fn new(parts: &Parts, metrics: &Metrics) -> Self {
        Self {
            matcher: parts.matcher.clone(),
            interfaces: Arc::clone(&parts.interfaces),
            params: Arc::clone(&parts.params),
            authorizer: parts.authorizer.clone(),
            metrics: metrics.clone(),
        }
    }
}

/// Returns whether policies apply to the resource: not to policies and bindings, which would make them impossible to
/// repair, and not to reviews (upstream: `isExcludedFromAllHooks`, `isExcludedFromAPIHooks`).
pub(super) fn applies(attributes: &Attributes<'_>) -> bool {
    const POLICIES: [&str; 4] = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    const REVIEWS: [(&str, &str); 6] = [
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    ];
    let (group, resource) = (attributes.def.group.as_str(), attributes.def.resource.as_str());
    let is_policy = group == GROUP && POLICIES.contains(&resource);
    !is_policy && !REVIEWS.contains(&(group, resource))
}

/// The result of matching a policy.
pub(super) enum Matched {
    /// The policy matches, as this resource.
    As(MatchedResource),
    /// The policy does not match.
    No,
    /// The policy cannot be applied; the failure policy decides. The text is upstream's.
    Misconfigured(String),
}

/// Matches a policy.
pub(super) async fn match_policy<E>(
    policy: &Policy<E>,
    matcher: &RequestMatcher<'_>,
    params: &dyn ParamKinds,
    object: Option<&Object>,
) -> Matched {
    match matcher.matches(&policy.criteria, object).await {
        Err(status) => Matched::Misconfigured(status.message),
        Ok(None) => Matched::No,
        Ok(Some(matched)) => match &policy.param_kind {
            Some(kind) if params.is_namespaced(kind).is_none() => Matched::Misconfigured(unknown_kind(kind)),
            _ => Matched::As(matched),
        },
    }
}

/// Returns whether a binding matches.
///
/// # Errors
/// A selector is invalid, or the namespace cannot be read.
pub(super) async fn match_binding(
    binding: &Binding,
    matcher: &RequestMatcher<'_>,
    object: Option<&Object>,
) -> Result<bool, String> {
    let Some(criteria) = &binding.criteria else { return Ok(true) };
    matcher.matches(criteria, object).await.map(|matched| matched.is_some()).map_err(|status| status.message)
}

/// Returns the value of `namespaceObject`: null for a cluster-scoped object and for a namespace.
///
/// # Errors
/// The namespace does not exist or cannot be read.
pub(super) async fn namespace_object(
    attributes: &Attributes<'_>,
    matcher: &RequestMatcher<'_>,
) -> Result<Option<Arc<Object>>, Status> {
    if attributes.is_resource("", "namespaces") { Ok(None) } else { matcher.namespace().await }
}
