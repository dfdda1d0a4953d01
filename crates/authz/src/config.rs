//! `AuthorizationConfiguration` (`apiserver.config.k8s.io` v1, v1beta1, v1alpha1): the authorizers and their order
//! (upstream: `apiserver/pkg/apis/apiserver`).

mod reload;
mod validation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{FieldError, Value, duration};
use nave_webhook::{Egress, FileError, Webhook};
use serde::Deserialize;

pub use reload::ConfigFile;

use crate::webhook::{Conditions, ReviewVersion, Settings, WebhookAuthorizer};
use crate::{Abac, AlwaysAllow, AlwaysDeny, Authorizer, Decision, Metrics, NamedAuthorizer, RuleResolver};

/// The content of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[serde(expecting = "an AuthorizationConfiguration")]
pub struct Configuration {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    /// The authorizers, in order.
    pub authorizers: Vec<Entry>,
}

/// One authorizer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// `Node`, `RBAC`, `Webhook`, `ABAC`, `AlwaysAllow` or `AlwaysDeny`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The authorizer's name.
    pub name: String,
    /// The settings of a webhook.
    pub webhook: Option<WebhookEntry>,
}

/// The settings of a webhook.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookEntry {
    /// The timeout of a call.
    pub timeout: Interval,
    /// The time for which allowed responses are cached.
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: Interval,
    /// True if allowed responses are cached.
    pub cache_authorized_requests: bool,
    /// The time for which other responses are cached.
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: Interval,
    /// True if other responses are cached.
    pub cache_unauthorized_requests: bool,
    /// The version of the reviews sent: `v1` or `v1beta1`.
    pub subject_access_review_version: String,
    /// The version of the review in match conditions: `v1`.
    pub match_condition_subject_access_review_version: String,
    /// The decision after a failed call: `NoOpinion` or `Deny`.
    pub failure_policy: String,
    /// The connection to the webhook.
    pub connection_info: ConnectionInfo,
    /// The conditions that a request must match for the webhook to be called.
    pub match_conditions: Vec<MatchCondition>,
}

/// The connection to a webhook.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionInfo {
    /// `KubeConfigFile` or `InClusterConfig`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kubeconfig file with address, CA and credentials.
    pub kube_config_file: Option<PathBuf>,
}

/// A match condition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchCondition {
    /// A CEL expression over `request`.
    pub expression: String,
}

/// A duration in a configuration file; `None` if it is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self(None)) };
        let wrong = || serde::de::Error::custom(format!("time: invalid duration {text:?}"));
        Ok(Self(Some(duration::parse(&text).ok_or_else(wrong)?)))
    }
}

impl Default for WebhookEntry {
    fn default() -> Self {
        Self {
            timeout: Interval(None),
            authorized_ttl: Interval(Some(DEFAULT_AUTHORIZED_TTL)),
            cache_authorized_requests: true,
            unauthorized_ttl: Interval(Some(DEFAULT_UNAUTHORIZED_TTL)),
            cache_unauthorized_requests: true,
            subject_access_review_version: String::new(),
            match_condition_subject_access_review_version: String::new(),
            failure_policy: String::new(),
            connection_info: ConnectionInfo::default(),
            match_conditions: Vec::new(),
        }
    }
}

/// The default time for which a webhook's allowed responses are cached.
pub const DEFAULT_AUTHORIZED_TTL: Duration = Duration::from_mins(5);
/// The default time for which a webhook's other responses are cached.
pub const DEFAULT_UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// The reasons why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The file is not YAML.
    #[error(transparent)]
    Yaml(#[from] nave_codec::yaml::YamlError),
    /// The file is not an `AuthorizationConfiguration`.
    #[error("{0}")]
    Shape(String),
    /// Fields have invalid values.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// A webhook's kubeconfig file cannot be used.
    #[error("authorizer {name}: {error}")]
    Webhook {
        /// The authorizer's name.
        name: String,
        /// The error in the file.
        error: FileError,
    },
    /// A dependency of an authorizer is missing.
    #[error("authorizer {name}: {why}")]
    Unavailable {
        /// The authorizer's name.
        name: String,
        /// The missing dependency.
        why: &'static str,
    },
}

fn list(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

/// The authorizers and dependencies that exist once per server.
#[derive(Clone)]
pub struct Parts {
    /// Roles and bindings.
    pub rbac: Arc<crate::rbac::Rbac>,
    /// The node authorizer.
    pub node: Arc<crate::node::Node>,
    /// The policies of `--authorization-policy-file`.
    pub abac: Option<Arc<Abac>>,
    /// The metrics.
    pub metrics: Metrics,
    /// The way to webhooks.
    pub egress: Egress,
}

impl Configuration {
    /// Parses and validates a YAML or JSON file.
    ///
    /// # Errors
    /// [`ConfigError`], except the errors of [`Self::build`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let decoded = nave_codec::yaml::decode(bytes)?;
        if let Some(duplicate) = decoded.duplicates.into_iter().next() {
            return Err(ConfigError::Shape(duplicate));
        }
        let read: Self =
            serde_json::from_value(decoded.value).map_err(|error| ConfigError::Shape(error.to_string()))?;
        let versions =
            ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
        if read.kind != "AuthorizationConfiguration" || !versions.contains(&read.api_version) {
            let why =
                format!("{:?} of {:?} is not an AuthorizationConfiguration", read.kind, read.api_version);
            return Err(ConfigError::Shape(why));
        }
        read.check()?;
        Ok(read)
    }

    /// Creates a configuration from the authorizer types in `--authorization-mode`. Each authorizer is named after its
    /// type.
    pub fn of_modes<'a>(modes: impl IntoIterator<Item = &'a str>, webhook: Option<&WebhookEntry>) -> Self {
        let entry = |kind: &str| Entry {
            kind: kind.to_owned(),
            name: if kind == "Webhook" { "default".to_owned() } else { kind.to_lowercase() },
            webhook: webhook.filter(|_| kind == "Webhook").cloned(),
        };
        Self { authorizers: modes.into_iter().map(entry).collect(), ..Self::default() }
    }

    /// Validates all fields.
    ///
    /// # Errors
    /// All invalid fields.
    pub fn check(&self) -> Result<(), ConfigError> {
        let errors = validation::validate(self);
        if errors.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(errors)) }
    }

    /// Creates the authorizers.
    ///
    /// # Errors
    /// A webhook's kubeconfig is invalid, or a dependency of an authorizer is missing.
    pub fn build(&self, parts: &Parts) -> Result<Vec<NamedAuthorizer>, ConfigError> {
        self.authorizers.iter().map(|entry| entry.build(parts)).collect()
    }

    /// The types other than webhooks, sorted.
    pub fn built_in(&self) -> Vec<&str> {
        let kinds = self.authorizers.iter().map(|entry| entry.kind.as_str());
        let mut kinds: Vec<&str> = kinds.filter(|kind| *kind != "Webhook").collect();
        kinds.sort_unstable();
        kinds
    }
}

impl Entry {
    fn build(&self, parts: &Parts) -> Result<NamedAuthorizer, ConfigError> {
        let unavailable = |why| ConfigError::Unavailable { name: self.name.clone(), why };
        match self.kind.as_str() {
            "Node" => Ok(self.named("Node", &parts.node)),
            "RBAC" => Ok(self.named("RBAC", &parts.rbac)),
            "ABAC" => {
                let abac = parts.abac.as_ref().ok_or_else(|| unavailable("no policy file is configured"))?;
                Ok(self.named("ABAC", abac))
            }
            "AlwaysAllow" => Ok(self.named("AlwaysAllow", &Arc::new(AlwaysAllow))),
            "AlwaysDeny" => Ok(self.named("AlwaysDeny", &Arc::new(AlwaysDeny))),
            "Webhook" => {
                let webhook =
                    self.webhook.as_ref().ok_or_else(|| unavailable("the webhook is not configured"))?;
                Ok(self.named("Webhook", &Arc::new(webhook.build(&self.name, parts)?)))
            }
            _ => Err(unavailable("unknown authorizer type")),
        }
    }

    fn named<A: Authorizer + RuleResolver + 'static>(
        &self,
        kind: &'static str,
        authorizer: &Arc<A>,
    ) -> NamedAuthorizer {
        NamedAuthorizer {
            kind,
            name: self.name.as_str().into(),
            authorizer: Arc::clone(authorizer) as _,
            resolver: Some(Arc::clone(authorizer) as _),
        }
    }
}

impl WebhookEntry {
    fn build(&self, name: &str, parts: &Parts) -> Result<WebhookAuthorizer, ConfigError> {
        let unavailable = |why| ConfigError::Unavailable { name: name.to_owned(), why };
        let file = self.connection_info.kube_config_file.as_deref();
        let file = file.ok_or_else(|| unavailable("a webhook requires a kubeconfig file"))?;
        let timeout = self.timeout.0.unwrap_or(MAX_TIMEOUT);
        let webhook = Webhook::with_egress(file, timeout, parts.egress.clone())
            .map_err(|error| ConfigError::Webhook { name: name.to_owned(), error })?;
        let ttl = |cached: bool, ttl: Interval| ttl.0.filter(|_| cached).unwrap_or_default();
        let version = ReviewVersion::parse(&self.subject_access_review_version);
        let settings = Settings {
            name: name.into(),
            version: version.ok_or_else(|| unavailable("unknown version of SubjectAccessReview"))?,
            authorized_ttl: ttl(self.cache_authorized_requests, self.authorized_ttl),
            unauthorized_ttl: ttl(self.cache_unauthorized_requests, self.unauthorized_ttl),
            on_failure: if self.failure_policy == "Deny" { Decision::Deny } else { Decision::NoOpinion },
        };
        let mut conditions = Conditions::default();
        for condition in &self.match_conditions {
            conditions.add(&condition.expression).map_err(|error| ConfigError::Shape(error.to_string()))?;
        }
        Ok(WebhookAuthorizer::new(webhook, settings, conditions, parts.metrics.clone()))
    }
}

/// The maximum timeout of a webhook call.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// Converts a string for error messages.
fn json_string(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests;
