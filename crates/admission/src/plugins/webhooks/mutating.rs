//! MutatingAdmissionWebhook: webhooks are called in order, and each sees the changes of those before it.

use std::collections::HashSet;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value, meta};
use serde_json::json;

use super::Webhooks;
use super::answer::Answer;
use super::caller::{CallError, annotate};
use super::hook::Hook;
use super::patch;
use crate::attributes::Attributes;
use crate::chain::Mutate;
use crate::expressions::process;
use crate::managed_fields;
use crate::notes::Recorded;
use crate::versioned::Versioned;

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
        let mut current: Option<Versioned> = None;
        for position in hooks.index.candidates(attributes) {
            let Some(hook) = hooks.list.get(position) else { continue };
            let Some(matched) = matcher.matches(&hook.criteria, object.as_deref()).await? else { continue };
            let versioned = match current.take() {
                Some(versioned) if versioned.matched == matched => versioned,
                _ => webhooks.versioned(attributes, matched, object.as_deref()).await?,
            };
            let versioned = current.insert(versioned);
            if !webhooks.meets_conditions(hook, &versioned.request(attributes)).await? {
                continue;
            }
            // The second run calls no webhook for the first time.
            if self.is_again && !reinvocation.due.contains(&hook.uid) {
                continue;
            }
            let is_changed = self.call(hook, position, versioned, object).await?;
            if is_changed {
                reinvocation.require();
                attributes.notes.request_reinvocation();
            }
            if hook.is_reinvocable {
                reinvocation.called.insert(hook.uid.clone());
            }
        }
        Ok(())
    }

    /// Calls a webhook; returns whether it changed the object.
    async fn call(
        &self,
        hook: &Hook,
        position: usize,
        versioned: &mut Versioned,
        object: &mut Option<&mut Object>,
    ) -> Result<bool, Status> {
        let (attributes, round) = (self.attributes, u8::from(self.is_again));
        let place = format!("round_{round}_index_{position}");
        let accept = async |answer: Answer| {
            annotate_patch(attributes, hook, &answer, &place);
            self.patched(hook, &answer, versioned, object.as_deref()).await
        };
        let called = self.webhooks.caller.call(hook, &versioned.request(attributes), accept).await;
        let key = format!("{MUTATION}/{place}");
        if matches!(called, Ok(None)) {
            annotate(attributes, &format!("failed-open.{key}"), hook.name.as_str());
        }
        let patched = called.map(Option::flatten);
        let is_changed = match &patched {
            Ok(Some(patched)) => {
                // Upstream's comparison sees a difference in the times of managed fields that this request has set, so
                // that a patch without effect also causes reinvocation.
                let has_times =
                    !attributes.def.is_custom() && meta::field(&patched.versioned, "managedFields").is_some();
                has_times || patched.versioned != versioned.object
            }
            _ => false,
        };
        let mutation =
            json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": is_changed});
        annotate(attributes, &key, mutation.to_string());
        if let Some(patched) = patched? {
            versioned.object = patched.versioned;
            if let Some(object) = object.as_deref_mut() {
                *object = patched.stored;
            }
        }
        Ok(is_changed)
    }

    /// Returns the object with the patch of an answer; `None` if there is no patch.
    async fn patched(
        &self,
        hook: &Hook,
        answer: &Answer,
        versioned: &Versioned,
        object: Option<&Object>,
    ) -> Result<Option<Patched>, CallError> {
        let (attributes, interfaces) = (self.attributes, &*self.webhooks.interfaces);
        let patched = process(answer.patch.len(), || {
            let Some(patch) = patch::decode(answer)? else { return Ok(None) };
            let patched: Value = patch::apply(hook, answer, &patch, &versioned.object)?;
            interfaces.decode(attributes, &versioned.matched, patched).map(Some).map_err(CallError::Refused)
        })?;
        let Some(mut patched) = patched else { return Ok(None) };
        managed_fields::restore_if_invalid(attributes, &mut patched, &versioned.object);
        let Some(base) = object else { return Ok(None) };
        let stored = interfaces.restore_stored(attributes, &versioned.matched, patched.clone(), base).await;
        let stored = stored.map_err(|status| CallError::Refused(Status::internal(status.message)))?;
        Ok(Some(Patched { stored, versioned: patched }))
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

/// A patched object in both forms.
struct Patched {
    versioned: Value,
    stored: Object,
}
