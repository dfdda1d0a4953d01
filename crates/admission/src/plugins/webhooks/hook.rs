//! A webhook, compiled from its configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::{Object, Value};
use nave_webhook::ClientConfig;

use crate::expressions::{MatchConditions, Programs};
use crate::matching::{Criteria, Index};

/// A webhook of a configuration.
#[derive(Debug)]
pub(super) struct Hook {
    /// The name, in errors, metrics and annotations.
    pub(super) name: String,
    /// The name of the configuration.
    pub(super) configuration: String,
    /// Identifies the webhook among all of its type. Names need not be unique.
    pub(super) uid: String,
    pub(super) criteria: Criteria,
    pub(super) conditions: MatchConditions,
    /// The client's configuration, or the error that is reported when the webhook is called.
    pub(super) client: Result<ClientConfig, String>,
    /// The version of `AdmissionReview`; `None` if the webhook accepts no known version.
    pub(super) version: Option<ReviewVersion>,
    pub(super) side_effects: SideEffects,
    pub(super) timeout: Option<Duration>,
    /// True for the failure policy `Ignore`.
    pub(super) ignores_failures: bool,
    /// True for the reinvocation policy `IfNeeded`.
    pub(super) is_reinvocable: bool,
}

/// A version of `AdmissionReview`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The side effects of a webhook, which decide whether a dry run may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SideEffects {
    /// Not set.
    Unset,
    /// None, or none on a dry run.
    NoneOnDryRun,
    /// Some, or unknown.
    Some,
}

/// All webhooks of one type, ordered by configuration name and position.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) list: Vec<Arc<Hook>>,
    pub(super) index: Index,
}

/// Compiles the webhooks of a configuration.
pub(super) fn compile(configuration: &Object, programs: &Programs) -> Vec<Arc<Hook>> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let webhooks = configuration.list_at(&["webhooks"]).iter();
    webhooks
        .map(|webhook| {
            let count = counts.entry(text(webhook, "name")).or_default();
            *count += 1;
            Arc::new(Hook::new(configuration.name(), webhook, *count - 1, programs))
        })
        .collect()
}

pub(super) fn summarize(configurations: &BTreeMap<String, Arc<Vec<Arc<Hook>>>>) -> Hooks {
    let list: Vec<_> = configurations.values().flat_map(|hooks| hooks.iter().cloned()).collect();
    let index = Index::new(list.iter().map(|hook| &hook.criteria));
    Hooks { list, index }
}

impl Hook {
    fn new(configuration: &str, webhook: &Value, number: usize, programs: &Programs) -> Self {
        let name = text(webhook, "name");
        let list = |field: &str| webhook.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let versions = list("admissionReviewVersions").iter().filter_map(Value::as_str);
        let client = ClientConfig::from_json(webhook.get("clientConfig").unwrap_or(&Value::Null));
        Self {
            name: name.to_owned(),
            configuration: configuration.to_owned(),
            uid: format!("{configuration}/{name}/{number}"),
            criteria: Criteria::of_webhook(webhook),
            conditions: MatchConditions::for_webhook(list("matchConditions"), programs),
            client: client.map_err(|error| error.to_string()),
            version: versions.into_iter().find_map(|version| match version {
                "v1" => Some(ReviewVersion::V1),
                "v1beta1" => Some(ReviewVersion::V1Beta1),
                _ => None,
            }),
            side_effects: match text(webhook, "sideEffects") {
                "" => SideEffects::Unset,
                "None" | "NoneOnDryRun" => SideEffects::NoneOnDryRun,
                _ => SideEffects::Some,
            },
            timeout: webhook.get("timeoutSeconds").and_then(Value::as_u64).map(Duration::from_secs),
            ignores_failures: text(webhook, "failurePolicy") == "Ignore",
            is_reinvocable: text(webhook, "reinvocationPolicy") == "IfNeeded",
        }
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
