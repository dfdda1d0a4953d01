//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook (upstream: `admission/plugin/webhook`).
//!
//! ```text
//! Hooks (index) ─→ RequestMatcher ─→ match conditions ─→ Caller: AdmissionReview ─→ answer
//!                                                          │ mutating: in order, patches the object
//!                                                          └ validating: in parallel
//! ```
//!
//! Requests for webhook configurations and policies call no webhooks, so that a broken webhook can be repaired.

mod answer;
mod caller;
mod hook;
mod metrics;
mod mutating;
mod patch;
mod review;
#[cfg(test)]
mod tests;
mod validating;

use std::path::PathBuf;
use std::sync::Arc;

use nave_machinery::Status;
use nave_webhook::{ClientManager, Users};
use serde::Deserialize;

use self::caller::Caller;
use self::hook::{Hook, Hooks, compile, summarize};
pub(crate) use self::metrics::WebhookMetrics;
use crate::attributes::{Attributes, Operation};
use crate::chain::Plugin;
use crate::config::{ConfigError, PluginConfig};
use crate::expressions::{
    AuthorizerChecks, ConditionLabels, ExpressionMetrics, MatchOutcome, VersionedRequest,
};
use crate::matching::Matcher;
use crate::metrics::Metrics;
use crate::objects::ObjectInterfaces;
use crate::observe::Compiled;
use crate::plugins::Parts;

const GROUP: &str = "admissionregistration.k8s.io";

/// MutatingAdmissionWebhook.
pub(super) fn mutating(
    parts: &Parts,
    config: &PluginConfig,
    metrics: &Metrics,
) -> Result<Plugin, ConfigError> {
    let clients = clients(parts, config, "MutatingAdmissionWebhook")?;
    let webhooks = Webhooks::new(parts, clients, metrics, "admit");
    let observer = Arc::clone(&webhooks.hooks) as _;
    let plugin = Plugin::mutating(mutating::Mutating(webhooks));
    Ok(plugin.observing(GROUP, "mutatingwebhookconfigurations", observer))
}

/// ValidatingAdmissionWebhook.
pub(super) fn validating(
    parts: &Parts,
    config: &PluginConfig,
    metrics: &Metrics,
) -> Result<Plugin, ConfigError> {
    let clients = clients(parts, config, "ValidatingAdmissionWebhook")?;
    let webhooks = Webhooks::new(parts, clients, metrics, "validating");
    let observer = Arc::clone(&webhooks.hooks) as _;
    let plugin = Plugin::validating(validating::Validating(webhooks));
    Ok(plugin.observing(GROUP, "validatingwebhookconfigurations", observer))
}

/// The configuration of a plugin in the admission configuration file (upstream: `WebhookAdmission` of
/// `apiserver.config.k8s.io/v1`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookAdmission {
    /// The users with which webhooks are called.
    #[serde(default)]
    kube_config_file: PathBuf,
}

/// Returns the clients of a plugin, with the credentials of its configuration.
fn clients(
    parts: &Parts,
    config: &PluginConfig,
    plugin: &'static str,
) -> Result<Arc<ClientManager>, ConfigError> {
    let Some((configuration, folder)) = config.read::<WebhookAdmission>(plugin)? else {
        return Ok(Arc::clone(&parts.webhooks));
    };
    if configuration.kube_config_file.as_os_str().is_empty() {
        return Ok(Arc::clone(&parts.webhooks));
    }
    let users = Users::read(&folder.join(configuration.kube_config_file));
    let users = users.map_err(|error| ConfigError::Plugin { plugin, why: error.to_string() })?;
    Ok(Arc::new(parts.webhooks.with_users(users)))
}

/// The webhooks of one type of configuration.
struct Webhooks {
    hooks: Arc<Compiled<Vec<Arc<Hook>>, Hooks>>,
    matcher: Matcher,
    interfaces: Arc<dyn ObjectInterfaces>,
    authorizer: nave_authz::Chain,
    caller: Caller,
    expressions: ExpressionMetrics,
    /// The type in the metrics: `admit` or `validating`.
    phase: &'static str,
}

impl Webhooks {
    fn new(parts: &Parts, clients: Arc<ClientManager>, metrics: &Metrics, phase: &'static str) -> Self {
        let programs = parts.programs.clone();
        Self {
            hooks: Arc::new(Compiled::new(move |object| compile(object, &programs), summarize)),
            matcher: parts.matcher.clone(),
            interfaces: Arc::clone(&parts.interfaces),
            authorizer: parts.authorizer.clone(),
            caller: Caller::new(clients, metrics.webhooks().clone(), phase),
            expressions: metrics.expressions().clone(),
            phase,
        }
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_exempt = attributes.kind.group == GROUP;
        let is_absent = attributes.operation == Operation::Delete && attributes.old.is_none();
        !is_exempt && !is_absent && self.hooks.load().index.has_candidates(attributes)
    }

    /// Returns whether the match conditions of a webhook admit a request to it.
    ///
    /// # Errors
    /// 403 if a condition fails and the failure policy is `Fail`.
    async fn meets_conditions(&self, hook: &Hook, request: &VersionedRequest<'_>) -> Result<bool, Status> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let attributes = request.attributes;
        // Upstream's metrics of conditions name the phases differently from its plugins.
        let labels = ConditionLabels { name: &hook.name, kind: "webhook", phase: self.condition_phase() };
        let checks = AuthorizerChecks::new(&self.authorizer, attributes.user);
        match hook.conditions.evaluate(request, &checks, &self.expressions, labels).await {
            MatchOutcome::Matched => Ok(true),
            MatchOutcome::Failed(why) if !hook.ignores_failures => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "match conditions of webhook failed, failing closed"
                );
                Err(Status::forbidden(&attributes.def.group_resource(), attributes.name, &why))
            }
            MatchOutcome::NotMatched { .. } | MatchOutcome::Failed(_) => {
                self.expressions.excluded(labels, attributes.operation);
                Ok(false)
            }
        }
    }

    fn condition_phase(&self) -> &'static str {
        if self.phase == "admit" { "admit" } else { "validate" }
    }
}

/// Returns the error for the client if the objects of a request cannot be converted.
fn unconverted(error: Status) -> Status {
    Status::internal(error.message)
}
