//! The implementations of virtual resources. Each file handles creates of one resource or subresource
//! ([`VirtualResource`](crate::endpoints::virtual_resource::VirtualResource)), or computes the objects of one
//! ([`ComputedResource`](crate::endpoints::computed_resource::ComputedResource)).

mod access_review;
mod access_review_validation;
mod binding;
mod component_status;
mod eviction;
mod reviews;
mod token_request;

use std::sync::Arc;

use nave_authn::TokenAuthenticator;
use nave_authn::service_account::Issuer;
use nave_authz::Chain;
use nave_webhook::ClientError;

use self::access_review::{AccessReview, RulesReview};
use self::access_review_validation::Form;
use crate::endpoints::virtual_resource::VirtualResources;

/// Adds the access reviews.
pub fn with_access_reviews(table: VirtualResources, authorization: &Chain) -> VirtualResources {
    let group = "authorization.k8s.io";
    let review = |form| Arc::new(AccessReview { authorization: authorization.clone(), form });
    let rules = Arc::new(RulesReview { authorization: authorization.clone() });
    table
        .with(group, "subjectaccessreviews", "", review(Form::Subject))
        .with(group, "localsubjectaccessreviews", "", review(Form::Local))
        .with(group, "selfsubjectaccessreviews", "", review(Form::Own))
        .with(group, "selfsubjectrulesreviews", "", rules)
}

/// Returns the virtual resources that depend only on the served resources.
pub fn table() -> VirtualResources {
    VirtualResources::default()
        .with("", "pods", "binding", Arc::new(binding::Binding))
        .with("", "bindings", "", Arc::new(binding::Binding))
        .with("", "pods", "eviction", Arc::new(eviction::Eviction))
        .with("authentication.k8s.io", "selfsubjectreviews", "", Arc::new(reviews::SelfSubjectReviews))
}

/// Adds the statuses of components. With `runs_controllers` the controllers are a part of this process.
///
/// # Errors
/// The client of the checks cannot be created.
pub fn with_component_statuses(
    table: VirtualResources,
    runs_controllers: bool,
) -> Result<VirtualResources, ClientError> {
    let statuses = component_status::ComponentStatuses::new(runs_controllers)?;
    Ok(table.with_computed("", "componentstatuses", Arc::new(statuses)))
}

/// Adds the virtual resources for tokens: token reviews with `tokens`, and token requests for service accounts with
/// `issuer`.
pub fn with_tokens(
    table: VirtualResources,
    tokens: Arc<dyn TokenAuthenticator>,
    issuer: Issuer,
) -> VirtualResources {
    let audiences = issuer.audiences().to_vec();
    let reviews = reviews::TokenReviews { tokens, audiences };
    table.with("authentication.k8s.io", "tokenreviews", "", Arc::new(reviews)).with(
        "",
        "serviceaccounts",
        "token",
        Arc::new(token_request::TokenRequests { issuer }),
    )
}
