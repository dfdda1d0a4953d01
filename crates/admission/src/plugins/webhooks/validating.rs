//! ValidatingAdmissionWebhook: webhooks are called in parallel.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::join_all;
use nave_machinery::{Object, Status};

use super::caller::annotate;
use super::{Webhooks, unconverted};
use crate::attributes::Attributes;
use crate::chain::Validate;
use crate::matching::NewObject;
use crate::versioned::Versions;

const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io";

pub(super) struct Validating(pub(super) Webhooks);

#[async_trait]
impl Validate for Validating {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        self.0.handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let webhooks = &self.0;
        let hooks = webhooks.hooks.load_full();
        let matcher = webhooks.matcher.request(attributes);
        let mut versions = Versions::new(&*webhooks.interfaces, attributes, object);
        let mut relevant = Vec::new();
        for position in matcher.candidates(&hooks.index, NewObject::Final(object)) {
            let Some(hook) = hooks.list.get(position) else { continue };
            let Some(matched) = matcher.matches(&hook.criteria, object).await? else { continue };
            let versioned = versions.get(&matched).await.map_err(unconverted)?;
            if webhooks.meets_conditions(hook, &versioned.request(attributes)).await? {
                relevant.push((hook, versioned));
            }
        }
        let calls = relevant.iter().enumerate().map(|(number, (hook, versioned))| async move {
            let started = Instant::now();
            let answer = webhooks.caller.ask(hook, &versioned.request(attributes)).await;
            if webhooks.caller.conclude(hook, attributes, started, answer)?.is_none() {
                let key = format!("{FAILED_OPEN}/round_0_index_{number}");
                annotate(attributes, &key, hook.name.as_str());
            }
            Ok(())
        });
        // As upstream, all webhooks are awaited, and one error is reported.
        join_all(calls).await.into_iter().collect()
    }
}
