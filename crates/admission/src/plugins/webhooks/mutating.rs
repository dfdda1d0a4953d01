//! MutatingAdmissionWebhook: webhooks are called in order, and each sees the changes of those before it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value, meta};
use serde_json::json;

use super::answer::Answer;
use super::caller::{CallError, annotate};
use super::hook::Hook;
use super::patch;
use super::{Webhooks, unconverted};
use crate::attributes::Attributes;
use crate::chain::Mutate;
use crate::expressions::process;
use crate::managed_fields;
use crate::matching::{MatchedResource, NewObject};
use crate::notes::Recorded;
use crate::versioned::{Versioned, VersionedObject};

const NAME: &str = "MutatingAdmissionWebhook";
const MUTATION: &str = "mutation.webhook.admission.k8s.io";
const PATCH: &str = "patch.webhook.admission.k8s.io";

pub(super) struct Mutating(pub(super) Webhooks);

/// The state of the first run of the mutating phase that the second run needs (upstream: `webhookReinvokeContext`).
#[derive(Default)]
struct Reinvocation {
    /// The object after the last webhook of the previous run, if a webhook may be called again.
    last_output: Option<Object>,
    /// The reinvocable webhooks that were called since the last change by a webhook.
    called: HashSet<String>,
    /// The webhooks to call again.
    due: HashSet<String>,
}

impl Reinvocation {
    fn require(&mut self) {
        self.due.extend(self.called.drain());
    }
}

#[async_trait]
impl Mutate for Mutating {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        self.0.handles(attributes)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Object>,
    ) -> Result<(), Status> {
        let notes = attributes.notes;
        let mut reinvocation: Reinvocation = notes.take_state(NAME);
        let is_again = notes.is_reinvocation();
        // A change by a built-in plugin in the second run also requires the webhooks.
        if is_again && reinvocation.last_output.as_ref() != object.as_deref() {
            reinvocation.require();
        }
        let run = Run { webhooks: &self.0, attributes, is_again };
        run.call_all(&mut object, &mut reinvocation).await?;
        if !reinvocation.called.is_empty() {
            reinvocation.last_output = object.as_deref().cloned();
        }
        notes.put_state(NAME, reinvocation);
        Ok(())
    }
}

/// One run of the mutating phase.
struct Run<'a> {
    webhooks: &'a Webhooks,
    attributes: &'a Attributes<'a>,
    is_again: bool,
}

impl Run<'_> {
    async fn call_all(
        &self,
        object: &mut Option<&mut Object>,
        reinvocation: &mut Reinvocation,
    ) -> Result<(), Status> {
        let (webhooks, attributes) = (self.webhooks, self.attributes);
        let hooks = webhooks.hooks.load_full();
        let matcher = webhooks.matcher.request(attributes);
        // The objects in another version than that of the request, for the webhooks that follow.
        let mut converted: Option<Versioned<'static>> = None;
        for position in matcher.candidates(&hooks.index, NewObject::Changing) {
            let Some(hook) = hooks.list.get(position) else { continue };
            let Some(matched) = matcher.matches(&hook.criteria, object.as_deref()).await? else { continue };
            // The second run calls no webhook for the first time.
            let is_due = !self.is_again || reinvocation.due.contains(&hook.uid);
            if !is_due && hook.conditions.is_empty() {
                continue;
            }
            converted = converted.filter(|versioned| versioned.matched == matched);
            let mut borrowed = None;
            if converted.is_none() {
                let interfaces = &*webhooks.interfaces;
                let versioned =
                    Versioned::new(interfaces, attributes, matched.clone(), object.as_deref()).await;
                let versioned = versioned.map_err(unconverted)?;
                if versioned.is_borrowed() {
                    borrowed = Some(versioned);
                } else {
                    converted = Some(versioned.into_owned());
                }
            }
            let Some(versioned) = converted.as_ref().or(borrowed.as_ref()) else { continue };
            if !webhooks.meets_conditions(hook, &versioned.request(attributes)).await? || !is_due {
                continue;
            }
            let started = Instant::now();
            let answer = webhooks.caller.ask(hook, &versioned.request(attributes)).await;
            let place = format!("round_{}_index_{position}", u8::from(self.is_again));
            let outcome = match answer {
                Ok(answer) => {
                    annotate_patch(attributes, hook, &answer, &place);
                    self.accept(hook, &answer, &matched, &mut converted, object).await
                }
                Err(error) => Err(error),
            };
            let called = webhooks.caller.conclude(hook, attributes, started, outcome);
            if self.report(hook, &place, called)? {
                reinvocation.require();
                attributes.notes.request_reinvocation();
            }
            if hook.is_reinvocable {
                reinvocation.called.insert(hook.uid.clone());
            }
        }
        Ok(())
    }

    /// Adds the audit annotations of a call; returns whether it changed the object.
    fn report(&self, hook: &Hook, place: &str, called: Result<Option<bool>, Status>) -> Result<bool, Status> {
        let is_changed = matches!(called, Ok(Some(true)));
        if self.attributes.notes.records(Recorded::Metadata) {
            let key = format!("{MUTATION}/{place}");
            if matches!(called, Ok(None)) {
                annotate(self.attributes, &format!("failed-open.{key}"), hook.name.as_str());
            }
            let mutation =
                json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": is_changed});
            annotate(self.attributes, &key, mutation.to_string());
        }
        called.map(|_| is_changed)
    }

    /// Applies the patch of an answer to the object, and to its converted form if there is one. Returns whether they
    /// changed.
    async fn accept(
        &self,
        hook: &Hook,
        answer: &Answer,
        matched: &MatchedResource,
        converted: &mut Option<Versioned<'static>>,
        object: &mut Option<&mut Object>,
    ) -> Result<bool, CallError> {
        let Some(patch) = process(answer.patch.len(), || patch::decode(answer))? else { return Ok(false) };
        patch::check(hook, answer, object.is_some())?;
        let Some(object) = object.as_deref_mut() else { return Ok(false) };
        // Upstream's comparison sees a difference in the times of managed fields that this request has set, so that a
        // patch without effect also causes reinvocation.
        let is_reviewed_again =
            !self.attributes.def.is_custom() && meta::field(object.as_value(), "managedFields").is_some();
        if converted.is_none() && is_reviewed_again && !patch::concerns_managed_fields(&patch) {
            process(answer.patch.len(), || self.patch_in_place(matched, &patch, object))?;
            return Ok(true);
        }
        let before = match converted {
            Some(versioned) => std::mem::take(&mut versioned.object).into_value(),
            None => VersionedObject::new(Cow::Borrowed(object.as_value())).into_value(),
        };
        let mut patched = process(answer.patch.len(), || {
            let mut patched = before.clone();
            patch::apply(&mut patched, &patch)?;
            self.webhooks.interfaces.decode(self.attributes, matched, patched).map_err(CallError::Refused)
        })?;
        managed_fields::restore_if_invalid(self.attributes, &mut patched, &before);
        let is_changed = is_reviewed_again || patched != before;
        let restored =
            self.webhooks.interfaces.restore_stored(self.attributes, matched, patched.clone(), object).await;
        *object = restored.map_err(|status| CallError::Refused(unconverted(status)))?;
        if let Some(versioned) = converted {
            versioned.object = patched.into();
        }
        Ok(is_changed)
    }

    /// Applies a patch that does not concern managed fields to an object that needs no conversion. The object is lost if
    /// this fails, and the request refused.
    fn patch_in_place(
        &self,
        matched: &MatchedResource,
        patch: &Value,
        object: &mut Object,
    ) -> Result<(), CallError> {
        let mut patched = std::mem::take(object).into_value();
        let managed_fields = meta::remove(&mut patched, "managedFields");
        patch::apply(&mut patched, patch)?;
        let (interfaces, attributes) = (&self.webhooks.interfaces, self.attributes);
        let decoded = if patch::concerns_only_metadata(patch) {
            interfaces.decode_metadata(attributes, matched, patched)
        } else {
            interfaces.decode(attributes, matched, patched)
        };
        let mut patched = decoded.map_err(CallError::Refused)?;
        if let Some(managed_fields) = managed_fields {
            meta::set(&mut patched, "managedFields", managed_fields);
        }
        *object = Object::try_from(patched).map_err(|error| CallError::Refused(Status::internal(error)))?;
        Ok(())
    }
}

/// Adds the patch to the audit annotations, if audit records parts of objects.
fn annotate_patch(attributes: &Attributes<'_>, hook: &Hook, answer: &Answer, place: &str) {
    if !attributes.notes.records(Recorded::Objects) || answer.patch.is_empty() {
        return;
    }
    let Ok(patch) = nave_codec::json::decode(&answer.patch) else { return };
    let patch = json!({
        "configuration": hook.configuration, "webhook": hook.name, "patch": patch.value, "patchType": "JSONPatch",
    });
    annotate(attributes, &format!("{PATCH}/{place}"), patch.to_string());
}
