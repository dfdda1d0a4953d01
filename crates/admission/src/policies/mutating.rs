//! The plugin MutatingAdmissionPolicy.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use nave_machinery::status::StatusCause;
use nave_machinery::{Object, Reason, Status, Value};

use super::dispatch::{Dependencies, Matched, applies, match_binding, match_policy, namespace_object};
use super::metrics::ErrorType;
use super::mutator::{Mutation, MutationError, Mutator, compile};
use super::params::{self, Param};
use super::reinvocation::{InvocationKey, PolicyReinvocation};
use super::store::{Binding, Policy, Store};
use crate::attributes::{Attributes, Operation};
use crate::chain::{Mutate, Plugin};
use crate::expressions::{AuthorizerChecks, ConditionLabels, MatchOutcome};
use crate::managed_fields;
use crate::matching::{MatchedResource, RequestMatcher};
use crate::metrics::Metrics;
use crate::plugins::Parts;
use crate::versioned::Versioned;

/// Creates the plugin.
pub(crate) fn plugin(parts: &Parts, metrics: &Metrics) -> Plugin {
    let programs = parts.programs.clone();
    let policies = Store::new(move |policy| compile(policy, &programs));
    let dependencies = Dependencies::new(parts, metrics);
    let observed = policies.observed_by(
        Plugin::default(),
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    );
    let plugin = Plugin::mutating(MutatingPolicies { policies, dependencies });
    Plugin { observes: observed.observes, ..plugin }
}

/// The name of the plugin's state between the two runs of a request.
const STATE: &str = "MutatingAdmissionPolicy";

struct MutatingPolicies {
    policies: Store<Mutator>,
    dependencies: Dependencies,
}

/// An invocation of a policy, selected before the first policy changes the object.
struct Invocation {
    policy: Arc<Policy<Mutator>>,
    binding: Arc<Binding>,
    matched: MatchedResource,
    param: Param,
}

#[async_trait]
impl Mutate for MutatingPolicies {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // A deletion has no object to change.
        attributes.operation != Operation::Delete
            && self.policies.has_candidates(attributes)
            && applies(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let mut refusals = Refusals::default();
        let matcher = self.dependencies.matcher.request(attributes);
        let invocations = self.invocations(attributes, &matcher, object, &mut refusals).await;
        if !invocations.is_empty() {
            let namespace = namespace_object(attributes, &matcher).await?;
            let checks = AuthorizerChecks::new(&self.dependencies.authorizer, attributes.user);
            let mut run = Run {
                dependencies: &self.dependencies,
                attributes,
                namespace: namespace.as_ref().map_or(&Value::Null, |object| object.as_value()),
                checks,
                refusals,
                reinvocation: attributes.notes.take_state(STATE),
                current: None,
            };
            let outcome = run.invoke_all(&invocations, object).await;
            run.reinvocation.end_run(object);
            attributes.notes.put_state(STATE, run.reinvocation);
            outcome?;
            refusals = run.refusals;
        }
        refusals.into_result(attributes, object)
    }
}

impl MutatingPolicies {
    /// Selects the invocations for a request.
    async fn invocations(
        &self,
        attributes: &Attributes<'_>,
        matcher: &RequestMatcher<'_>,
        object: &Object,
        refusals: &mut Refusals,
    ) -> Vec<Invocation> {
        let kinds = &*self.dependencies.params;
        let mut found = Vec::new();
        for (policy, bindings) in self.policies.candidates(matcher, Some(object)) {
            let matched = match match_policy(&policy, matcher, kinds, Some(object)).await {
                Matched::As(matched) => matched,
                Matched::No => continue,
                Matched::Misconfigured(why) => {
                    refusals.misconfigured(&policy, None, &why);
                    continue;
                }
            };
            for binding in &*bindings {
                match match_binding(binding, matcher, Some(object)).await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(why) => {
                        refusals.misconfigured(&policy, Some(binding), &why);
                        continue;
                    }
                }
                let namespace = attributes.request_namespace();
                let params =
                    params::collect(kinds, policy.param_kind.as_ref(), binding.params.as_ref(), namespace);
                match params.await {
                    Ok(params) => found.extend(params.into_iter().map(|param| Invocation {
                        policy: Arc::clone(&policy),
                        binding: Arc::clone(binding),
                        matched: matched.clone(),
                        param,
                    })),
                    Err(why) => refusals.misconfigured(&policy, Some(binding), &why),
                }
            }
        }
        found
    }
}

impl Invocation {
    fn names(&self) -> (&str, &str) {
        (&self.policy.name, &self.binding.name)
    }

    fn key(&self) -> InvocationKey {
        let (name, namespace) = match &self.param {
            Param::Object(object) => (object.name(), object.namespace()),
            Param::Undeclared | Param::Null => ("", ""),
        };
        [self.policy.name.clone(), self.binding.name.clone(), name.to_owned(), namespace.to_owned()]
    }
}

/// One run of the mutating policies.
struct Run<'a> {
    dependencies: &'a Dependencies,
    attributes: &'a Attributes<'a>,
    namespace: &'a Value,
    checks: AuthorizerChecks<'a>,
    refusals: Refusals,
    reinvocation: PolicyReinvocation,
    /// The objects in the version of the last invocation, and whether a policy has patched the new object.
    current: Option<(Versioned<'static>, bool)>,
}

impl Run<'_> {
    async fn invoke_all(&mut self, invocations: &[Invocation], object: &mut Object) -> Result<(), Status> {
        let notes = self.attributes.notes;
        let is_second = notes.is_reinvocation();
        if is_second {
            self.reinvocation.restart(object);
        }
        for invocation in invocations {
            self.enter_version(invocation, object).await?;
            if !self.matches(invocation).await {
                continue;
            }
            let key = invocation.key();
            if is_second && !self.reinvocation.includes(&key) {
                continue;
            }
            if self.invoke(invocation).await? {
                self.reinvocation.require_invoked();
                notes.request_reinvocation();
            }
            if invocation.policy.evaluator.is_reinvocable {
                self.reinvocation.record(key);
            }
        }
        self.leave_version(object).await
    }

    /// Converts the object to the version that an invocation sees.
    async fn enter_version(&mut self, invocation: &Invocation, object: &mut Object) -> Result<(), Status> {
        if self.current.as_ref().is_some_and(|(objects, _)| objects.matched == invocation.matched) {
            return Ok(());
        }
        self.leave_version(object).await?;
        let interfaces = &*self.dependencies.interfaces;
        let objects =
            Versioned::new(interfaces, self.attributes, invocation.matched.clone(), Some(object)).await;
        let objects = objects.map_err(|status| Status::internal(status.message))?;
        self.current = Some((objects.into_owned(), false));
        Ok(())
    }

    /// Converts a patched object back.
    async fn leave_version(&mut self, object: &mut Object) -> Result<(), Status> {
        let Some((Versioned { matched, object: patched, .. }, true)) = self.current.take() else {
            return Ok(());
        };
        // As upstream, a patch without effect invokes plugins again also.
        self.reinvocation.require_invoked();
        self.attributes.notes.request_reinvocation();
        let interfaces = &*self.dependencies.interfaces;
        *object = interfaces.restore_stored(self.attributes, &matched, patched.into_value(), object).await?;
        Ok(())
    }

    /// Evaluates the match conditions of an invocation.
    async fn matches(&mut self, invocation: &Invocation) -> bool {
        let evaluator = &invocation.policy.evaluator;
        let Some((objects, _)) = &self.current else { return false };
        if evaluator.conditions.is_empty() {
            return true;
        }
        let request = objects.request(self.attributes);
        let started = Instant::now();
        let evaluate = || {
            let param = invocation.param.value();
            evaluator.conditions.evaluate_once(&evaluator.variables, &request, param, &self.checks)
        };
        let (outcome, errors) = self.checks.settle(evaluate).await;
        let labels = ConditionLabels { name: invocation.names().0, kind: "policy", phase: "validate" };
        let metrics = self.dependencies.metrics.expressions();
        metrics.conditions_evaluated(labels, self.attributes.operation, started.elapsed(), errors);
        match outcome {
            MatchOutcome::Matched => true,
            MatchOutcome::NotMatched { .. } => false,
            MatchOutcome::Failed(why) => {
                self.refusals.failed(invocation, &why);
                false
            }
        }
    }

    /// Applies the mutations of an invocation, each to the result of the one before. Returns whether the object changed.
    async fn invoke(&mut self, invocation: &Invocation) -> Result<bool, Status> {
        let before = self.current.as_ref().map(|(objects, _)| objects.object.as_value().clone());
        for mutation in &invocation.policy.evaluator.mutations {
            let started = Instant::now();
            let outcome = self.mutate(invocation, mutation).await;
            let error = outcome.as_ref().map_or_else(MutationError::error_type, |()| ErrorType::None);
            self.dependencies.metrics.policies().mutated(invocation.names(), error, started.elapsed());
            match outcome {
                Ok(()) => {}
                Err(MutationError::Failed(why, _)) => self.refusals.failed(invocation, &why),
                Err(MutationError::Status(status)) => return Err(status),
            }
        }
        Ok(before.as_ref() != self.current.as_ref().map(|(objects, _)| objects.object.as_value()))
    }

    async fn mutate(&mut self, invocation: &Invocation, mutation: &Mutation) -> Result<(), MutationError> {
        let Some((objects, is_patched)) = &mut self.current else { return Ok(()) };
        let variables = &invocation.policy.evaluator.variables;
        let request = objects.request(self.attributes);
        let param = invocation.param.value();
        let evaluate = || mutation.evaluate(variables, &request, self.namespace, param, &self.checks);
        let patch = self.checks.settle(|| invocation.policy.workload.run(evaluate)).await?;
        let interfaces = &*self.dependencies.interfaces;
        let before = objects.object.as_value();
        let mut object = mutation.apply(interfaces, self.attributes, &objects.matched, before, patch)?;
        managed_fields::restore_if_invalid(self.attributes, &mut object, before);
        objects.object = object.into();
        *is_patched = true;
        Ok(())
    }
}

/// The errors of policies that refuse the request.
#[derive(Default)]
struct Refusals {
    messages: Vec<String>,
    /// True if the first error is one of an expression, which has another reason.
    is_invalid: bool,
}

impl Refusals {
    /// Applies the failure policy to a policy or binding that cannot be applied.
    fn misconfigured(&mut self, policy: &Policy<Mutator>, binding: Option<&Binding>, why: &str) {
        if policy.fails_open {
            return;
        }
        let name = &policy.name;
        self.messages.push(match binding {
            Some(binding) => denied(name, &binding.name, &format!("failed to configure binding: {why}")),
            None => format!("policy {name:?} denied request: failed to configure policy: {why}"),
        });
    }

    /// Applies the failure policy to an expression or mutation that failed.
    fn failed(&mut self, invocation: &Invocation, why: &str) {
        if invocation.policy.fails_open {
            return;
        }
        self.is_invalid |= self.messages.is_empty();
        let (policy, binding) = invocation.names();
        self.messages.push(denied(policy, binding, why));
    }

    fn into_result(self, attributes: &Attributes<'_>, object: &Object) -> Result<(), Status> {
        let Some(first) = self.messages.first() else { return Ok(()) };
        let mut status = attributes.forbidden(object, "");
        status.message.clone_from(first);
        if self.is_invalid {
            status.reason = Some(Reason::Invalid);
        }
        let causes = self.messages.into_iter().take(MAX_CAUSES);
        let causes = causes.map(|message| StatusCause { message, ..StatusCause::default() });
        status.details.get_or_insert_default().causes.extend(causes);
        Err(status)
    }
}

/// Maximum number of causes in an answer.
const MAX_CAUSES: usize = 100;

fn denied(policy: &str, binding: &str, why: &str) -> String {
    format!("policy '{policy}' with binding '{binding}' denied request: {why}")
}
