//! ValidatingAdmissionWebhook: webhooks are called in parallel.

use async_trait::async_trait;
use futures_util::future::join_all;
use nave_machinery::{Object, Status};

use super::Webhooks;
use super::caller::annotate;
use crate::attributes::Attributes;
use crate::chain::Validate;
use crate::versioned::Versioned;

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
        // Each version is converted once.
        let mut versions: Vec<Versioned> = Vec::new();
        let mut relevant = Vec::new();
        for position in hooks.index.candidates(attributes) {
            let Some(hook) = hooks.list.get(position) else { continue };
            let Some(matched) = matcher.matches(&hook.criteria, object).await? else { continue };
            let known = versions.iter().position(|it| it.matched == matched);
            if known.is_none() {
                versions.push(webhooks.versioned(attributes, matched, object).await?);
            }
            let version = known.unwrap_or(versions.len() - 1);
            let Some(versioned) = versions.get(version) else { continue };
            if webhooks.meets_conditions(hook, &versioned.request(attributes)).await? {
                relevant.push((hook, version));
            }
        }
        let calls = relevant.iter().enumerate().filter_map(|(number, (hook, version))| {
            let request = versions.get(*version)?.request(attributes);
            Some(async move {
                let called = webhooks.caller.call(hook, &request, async |_| Ok(())).await?;
                if called.is_none() {
                    let key = format!("{FAILED_OPEN}/round_0_index_{number}");
                    annotate(attributes, &key, hook.name.as_str());
                }
                Ok(())
            })
        });
        // As upstream, all webhooks are awaited, and one error is reported.
        join_all(calls).await.into_iter().collect()
    }
}
