//! The webhook authorizer: sends a `SubjectAccessReview` over HTTPS (upstream:
//! `apiserver/plugin/pkg/authorizer/webhook`).
//!
//! ```text
//! request ─► conditions ─► cache ─► call ─► allowed, denied, or no opinion
//!               │ do not match                 │ fails
//!               └► no opinion                  └► failure policy: no opinion or denied, and an error
//! ```

mod cache;
mod conditions;
mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use nave_webhook::{CallError, ClientError, Webhook};
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Decision, Verdict};

use cache::Cache;
pub use conditions::{ConditionError, Conditions};
pub use review::ReviewVersion;

/// The maximum total length of the attributes of a cached request. Clients could fill memory with longer attributes.
const LONGEST_CACHED: usize = 10_000;

/// The settings of a webhook authorizer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The authorizer's name, for metrics.
    pub name: Arc<str>,
    /// The version of the reviews sent.
    pub version: ReviewVersion,
    /// The time for which allowed responses are cached; zero disables caching.
    pub authorized_ttl: Duration,
    /// The time for which other responses are cached; zero disables caching.
    pub unauthorized_ttl: Duration,
    /// The decision after a failed call: no opinion or deny.
    pub on_failure: Decision,
}

/// The webhook authorizer.
pub struct WebhookAuthorizer {
    webhook: Webhook,
    settings: Settings,
    conditions: Conditions,
    cache: Mutex<Cache>,
    metrics: Metrics,
}

impl WebhookAuthorizer {
    /// Creates an authorizer that calls `webhook` for requests that match all conditions.
    pub fn new(webhook: Webhook, settings: Settings, conditions: Conditions, metrics: Metrics) -> Self {
        Self { webhook, settings, conditions, cache: Mutex::default(), metrics }
    }

    /// Returns the cached response, or calls the webhook.
    async fn review(&self, attributes: &Attributes<'_>) -> Result<review::Outcome, String> {
        let key = cache::key(attributes);
        if let Some(outcome) = self.cache.lock().get(&key, Instant::now()) {
            return Ok(outcome);
        }
        let started = Instant::now();
        let answer = self.webhook.call(&review::request(attributes, self.settings.version)).await;
        self.count(&answer, started.elapsed());
        let outcome = review::read(&answer.map_err(|error| error.to_string())?)?;
        let ttl = if outcome.allowed { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
        if !ttl.is_zero() && review::size(attributes) < LONGEST_CACHED {
            self.cache.lock().put(key, outcome.clone(), Instant::now() + ttl);
        }
        Ok(outcome)
    }

    fn count(&self, answer: &Result<serde_json::Value, CallError>, elapsed: Duration) {
        let result = match answer {
            Ok(_) => "success",
            Err(CallError::Client(ClientError::TimedOut(_))) => "timeout",
            Err(_) => "error",
        };
        let labels = [&*self.settings.name, result];
        self.metrics.webhook_calls.with_label_values(&labels).inc();
        self.metrics.webhook_durations.with_label_values(&labels).observe(elapsed.as_secs_f64());
        if result != "success" && self.settings.on_failure == Decision::NoOpinion {
            self.metrics.webhook_fail_open.with_label_values(&labels).inc();
        }
    }

    /// Returns whether the request matches the conditions.
    fn matches(&self, attributes: &Attributes<'_>) -> Result<bool, ConditionError> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let labels = ["Webhook", &*self.settings.name];
        let started = Instant::now();
        let matches = self.conditions.match_request(attributes);
        let elapsed = started.elapsed().as_secs_f64();
        self.metrics.condition_durations.with_label_values(&labels).observe(elapsed);
        match &matches {
            Ok(true) => {}
            Ok(false) => self.metrics.condition_exclusions.with_label_values(&labels).inc(),
            Err(_) => self.metrics.condition_errors.with_label_values(&labels).inc(),
        }
        matches
    }

    fn failed(&self, error: String) -> Verdict {
        tracing::warn!(webhook = &*self.settings.name, error, "authorization webhook call failed");
        Verdict { decision: self.settings.on_failure, reason: "".into(), error: Some(error) }
    }
}

#[async_trait]
impl Authorizer for WebhookAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        match self.matches(attributes) {
            Ok(true) => {}
            Ok(false) => return Verdict::no_opinion(""),
            Err(error) => return self.failed(error.to_string()),
        }
        let outcome = match self.review(attributes).await {
            Ok(outcome) => outcome,
            Err(error) => return self.failed(error),
        };
        match (outcome.denied, outcome.allowed) {
            (true, true) => {
                let error = "webhook subject access review returned both allow and deny response".to_owned();
                Verdict { error: Some(error), ..Verdict::deny(outcome.reason) }
            }
            (true, false) => Verdict::deny(outcome.reason),
            (false, true) => Verdict::allow(outcome.reason),
            (false, false) => Verdict::no_opinion(outcome.reason),
        }
    }
}

impl RuleResolver for WebhookAuthorizer {
    fn rules_for(&self, _: &UserInfo, _: &str) -> UserRules {
        UserRules::unknown("webhook authorizer does not support user rule resolution")
    }
}
