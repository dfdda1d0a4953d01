//! The plugin ValidatingAdmissionPolicy.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::status::StatusCause;
use nave_machinery::{Object, Reason, Status, Value};
use serde::Serialize;

use super::dispatch::{Dependencies, Matched, applies, match_binding, match_policy, namespace_object};
use super::metrics::ErrorType;
use super::params;
use super::store::{Action, Binding, Policy, Store};
use super::validator::{Decision, Validated, Validator, Verdict, compile};
use crate::attributes::Attributes;
use crate::chain::{Plugin, Validate};
use crate::expressions::{AuthorizerChecks, ConditionLabels};
use crate::matching::RequestMatcher;
use crate::metrics::Metrics;
use crate::plugins::Parts;
use crate::versioned::Versions;

/// Creates the plugin.
pub(crate) fn plugin(parts: &Parts, metrics: &Metrics) -> Plugin {
    let programs = parts.programs.clone();
    let policies = Store::new(move |policy| compile(policy, &programs));
    let dependencies = Dependencies::new(parts, metrics);
    let observed = policies.observed_by(
        Plugin::default(),
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    );
    let plugin = Plugin::validating(ValidatingPolicies { policies, dependencies });
    Plugin { observes: observed.observes, ..plugin }
}

struct ValidatingPolicies {
    policies: Store<Validator>,
    dependencies: Dependencies,
}

#[async_trait]
impl Validate for ValidatingPolicies {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        self.policies.has_candidates(attributes) && applies(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let mut dispatch = Dispatch {
            dependencies: &self.dependencies,
            attributes,
            object,
            versions: Versions::new(&*self.dependencies.interfaces, attributes, object),
            checks: AuthorizerChecks::new(&self.dependencies.authorizer, attributes.user),
            denied: None,
        };
        let matcher = self.dependencies.matcher.request(attributes);
        for (policy, bindings) in self.policies.candidates(&matcher, object) {
            dispatch.policy(&matcher, &policy, &bindings).await?;
        }
        match dispatch.denied {
            None => Ok(()),
            Some(denied) => Err(denied.into_status(attributes, object)),
        }
    }
}

/// The evaluation of all policies for one request.
struct Dispatch<'a> {
    dependencies: &'a Dependencies,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Object>,
    versions: Versions<'a>,
    checks: AuthorizerChecks<'a>,
    /// The first denial, which the client sees.
    denied: Option<Denial>,
}

struct Denial {
    message: String,
    reason: Option<Reason>,
}

impl Denial {
    fn into_status(self, attributes: &Attributes<'_>, object: Option<&Object>) -> Status {
        let mut status = attributes.forbidden(object, &self.message);
        let reason = self.reason.unwrap_or(Reason::Invalid);
        status.code = match reason {
            Reason::Forbidden => 403,
            Reason::Unauthorized => 401,
            Reason::RequestEntityTooLarge => 413,
            _ => 422,
        };
        status.reason = Some(reason);
        let cause = StatusCause { message: self.message, ..StatusCause::default() };
        status.details.get_or_insert_default().causes.push(cause);
        status
    }
}

impl Dispatch<'_> {
    async fn policy(
        &mut self,
        matcher: &RequestMatcher<'_>,
        policy: &Policy<Validator>,
        bindings: &[Arc<Binding>],
    ) -> Result<(), Status> {
        let params = &self.dependencies.params;
        let (attributes, object) = (self.attributes, self.object);
        let matched = match match_policy(policy, matcher, &**params, object).await {
            Matched::As(matched) => matched,
            Matched::No => return Ok(()),
            Matched::Misconfigured(why) => {
                self.misconfigured(policy, None, &why);
                return Ok(());
            }
        };
        let mut annotations = Annotations::default();
        for binding in bindings {
            match match_binding(binding, matcher, object).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    self.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            }
            // As upstream, parameters are collected before match conditions are evaluated.
            let namespace = attributes.request_namespace();
            let collected =
                params::collect(&**params, policy.param_kind.as_ref(), binding.params.as_ref(), namespace);
            let params = match collected.await {
                Ok(params) => params,
                Err(why) => {
                    self.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            if params.is_empty() {
                continue;
            }
            let versioned = match self.versions.get(&matched).await {
                Ok(versioned) => versioned,
                Err(status) => {
                    let why = format!("failed to convert object version: {}", status.message);
                    self.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            let namespace = namespace_object(attributes, matcher).await?;
            let namespace = namespace.as_ref().map_or(&Value::Null, |object| object.as_value());
            let request = versioned.request(attributes);
            for param in &params {
                let validate = || policy.evaluator.validate(&request, namespace, param.value(), &self.checks);
                let validated = self.checks.settle(|| policy.workload.run(validate)).await;
                self.report(policy, binding, validated, &mut annotations);
            }
        }
        annotations.publish(&policy.name, attributes);
        Ok(())
    }

    /// Applies the failure policy to a policy or binding that cannot be applied.
    fn misconfigured(&mut self, policy: &Policy<Validator>, binding: Option<&Binding>, why: &str) {
        if policy.fails_open {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.deny(policy, binding, &format!("failed to configure {what}: {why}"), None);
    }

    fn deny(
        &mut self,
        policy: &Policy<Validator>,
        binding: Option<&Binding>,
        why: &str,
        reason: Option<Reason>,
    ) {
        let name = &policy.name;
        let by = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{name}'{by} denied request: {why}");
        self.denied.get_or_insert(Denial { message, reason });
    }

    /// Carries out the actions of a binding.
    fn report(
        &mut self,
        policy: &Policy<Validator>,
        binding: &Binding,
        validated: Validated,
        annotations: &mut Annotations,
    ) {
        let names = (policy.name.as_str(), binding.name.as_str());
        let metrics = &self.dependencies.metrics;
        if let Some((errors, took)) = validated.conditions {
            let labels = ConditionLabels { name: names.0, kind: "policy", phase: "validate" };
            metrics.expressions().conditions_evaluated(labels, self.attributes.operation, took, errors);
        }
        for (index, decision) in validated.decisions.iter().enumerate() {
            match decision.verdict {
                Verdict::Admit => {}
                Verdict::Error if policy.fails_open => {
                    let error = ErrorType::of_message(&decision.message);
                    metrics.policies().validated(names, error, "allow", decision.took);
                }
                Verdict::Error | Verdict::Deny => self.act(policy, binding, index, decision),
            }
        }
        for annotation in validated.annotations {
            match annotation.value {
                Ok(Some(value)) => annotations.add(annotation.key, value),
                Ok(None) => {}
                Err(_) if policy.fails_open => {}
                // As upstream, this denies the request whatever the actions of the binding are.
                Err(why) => {
                    let error = ErrorType::of_message(&why);
                    metrics.policies().validated(names, error, "deny", annotation.took);
                    self.deny(policy, Some(binding), &why, None);
                }
            }
        }
    }

    fn act(&mut self, policy: &Policy<Validator>, binding: &Binding, index: usize, decision: &Decision) {
        let names = (policy.name.as_str(), binding.name.as_str());
        let error = ErrorType::of_message(&decision.message);
        for action in &binding.actions {
            let label = match action {
                Action::Deny => {
                    self.deny(policy, Some(binding), &decision.message, decision.reason);
                    "deny"
                }
                Action::Audit => {
                    annotate_failure(self.attributes, names, binding, index, &decision.message);
                    "audit"
                }
                Action::Warn => {
                    let (policy, binding) = names;
                    let text = &decision.message;
                    self.attributes.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {text}"
                    ));
                    "warn"
                }
            };
            self.dependencies.metrics.policies().validated(names, error, label, decision.took);
        }
    }
}

/// The value of the audit annotation for a failed validation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ValidationFailure<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: Vec<&'static str>,
}

fn annotate_failure(
    attributes: &Attributes<'_>,
    (policy, binding_name): (&str, &str),
    binding: &Binding,
    index: usize,
    message: &str,
) {
    let failure = ValidationFailure {
        message,
        policy,
        binding: binding_name,
        expression_index: index,
        validation_actions: binding.actions.iter().map(|action| action.as_str()).collect(),
    };
    match serde_json::to_string(&[failure]) {
        Ok(value) => annotate(attributes, "validation.policy.admission.k8s.io/validation_failure", value),
        Err(error) => tracing::warn!(%error, policy, "audit annotation cannot be encoded"),
    }
}

fn annotate(attributes: &Attributes<'_>, key: &str, value: String) {
    if let Err(error) = attributes.notes.annotate(key, value) {
        tracing::warn!(%error, key, "audit annotation of a policy is dropped");
    }
}

/// The audit annotations of a policy. Several bindings and parameters may have different values.
#[derive(Default)]
struct Annotations(BTreeMap<String, Vec<String>>);

/// Maximum length of the value of an audit annotation, in bytes.
const MAX_VALUE_BYTES: usize = 10 * 1024;

impl Annotations {
    fn add(&mut self, key: String, mut value: String) {
        value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
        let values = self.0.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn publish(self, policy: &str, attributes: &Attributes<'_>) {
        for (key, values) in self.0 {
            annotate(attributes, &format!("{policy}/{key}"), values.join(", "));
        }
    }
}
