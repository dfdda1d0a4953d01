//! The audit policy (`audit.k8s.io/v1` `Policy`; upstream: `apiserver/pkg/audit/policy`).

mod matching;
mod validation;

use std::path::Path;

use nave_machinery::{FieldError, Value};
use serde::{Deserialize, Serialize};

use crate::event::{Stage, Stages};

pub use matching::Request;

/// The amount of data in the events of a request. Each level includes the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// No events.
    #[default]
    None,
    /// The user, the request, the time and the result.
    Metadata,
    /// Also the request's object.
    Request,
    /// Also the response's object.
    RequestResponse,
}

impl Level {
    /// All levels, in order.
    pub const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    /// Returns the name in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// The settings for the events of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The level.
    pub level: Level,
    /// The stages without an event.
    pub omitted: Stages,
    /// True if `metadata.managedFields` is removed from objects.
    pub omit_managed_fields: bool,
}

/// A validated policy.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// The settings of a request that no rule matches.
    unmatched: Recording,
}

/// A rule of a policy.
#[derive(Clone, Debug)]
struct Rule {
    matches: RuleFile,
    recording: Recording,
}

/// A policy as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[serde(expecting = "an audit policy")]
struct PolicyFile {
    api_version: String,
    kind: String,
    rules: Nullable<RuleFile>,
    omit_stages: Nullable<String>,
    omit_managed_fields: bool,
}

/// A rule as it is written. Empty lists match everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuleFile {
    level: String,
    users: Nullable<String>,
    user_groups: Nullable<String>,
    verbs: Nullable<String>,
    resources: Nullable<GroupResources>,
    namespaces: Nullable<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Nullable<String>,
    omit_stages: Nullable<String>,
    omit_managed_fields: Option<bool>,
}

/// Resources of a group.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GroupResources {
    group: String,
    resources: Nullable<String>,
    resource_names: Nullable<String>,
}

/// A list that may be `null`.
#[derive(Clone, Debug)]
struct Nullable<T>(Vec<T>);

impl<T> Default for Nullable<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

impl<T> std::ops::Deref for Nullable<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// The reasons why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("failed to read file path {path:?}: {error}")]
    Read {
        /// The file.
        path: String,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The file is neither YAML nor JSON.
    #[error("failed decoding: {0}")]
    Yaml(#[from] nave_codec::yaml::YamlError),
    /// A field has the wrong type.
    #[error("failed decoding: {0}")]
    Shape(#[from] serde_json::Error),
    /// The document is not an audit policy.
    #[error("unknown group version field {api_version}, Kind={kind} in policy")]
    Kind {
        /// The document's `apiVersion`.
        api_version: String,
        /// The document's `kind`.
        kind: String,
    },
    /// Fields have invalid values.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// The file has no content.
    #[error("failed decoding: the file is empty")]
    NoContent,
    /// The policy has no rules.
    #[error("loaded illegal policy with 0 rules")]
    Empty,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        let read = |error| PolicyError::Read { path: path.display().to_string(), error };
        Self::parse(&std::fs::read(path).map_err(read)?)
    }

    /// Parses a policy in YAML or JSON. As upstream, unknown and duplicate fields are logged and ignored.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        let decoded = nave_codec::yaml::decode(document)?;
        if decoded.value.is_null() {
            return Err(PolicyError::NoContent);
        }
        let mut ignored = decoded.duplicates;
        ignored.extend(validation::unknown_fields(&decoded.value));
        let file: PolicyFile = serde_json::from_value(decoded.value)?;
        if file.api_version != API_VERSION || file.kind != "Policy" {
            return Err(PolicyError::Kind { api_version: file.api_version, kind: file.kind });
        }
        for error in ignored {
            tracing::warn!(error, "audit policy: field ignored");
        }
        let errors = validation::validate(&file);
        if !errors.is_empty() {
            return Err(PolicyError::Invalid(errors));
        }
        if file.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        Ok(Self::new(file))
    }

    fn new(file: PolicyFile) -> Self {
        let everywhere = stages(&file.omit_stages);
        let rules = file.rules.0.into_iter().map(|rule| {
            let recording = Recording {
                level: Level::parse(&rule.level).unwrap_or_default(),
                omitted: everywhere.and(stages(&rule.omit_stages)),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(file.omit_managed_fields),
            };
            Rule { matches: rule, recording }
        });
        let unmatched = Recording {
            level: Level::None,
            omitted: everywhere,
            omit_managed_fields: file.omit_managed_fields,
        };
        Self { rules: rules.collect(), unmatched }
    }

    /// Returns the settings of the first rule that matches the request.
    pub fn evaluate(&self, request: &Request<'_>) -> Recording {
        let rule = self.rules.iter().find(|rule| rule.matches.matches(request));
        rule.map_or(self.unmatched, |rule| rule.recording)
    }
}

fn stages(names: &[String]) -> Stages {
    names.iter().filter_map(|name| Stage::parse(name)).fold(Stages::default(), Stages::with)
}

fn list(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

/// The version of policies and events.
pub(crate) const API_VERSION: &str = "audit.k8s.io/v1";

/// The fields of each part of a policy, to report unknown ones.
fn known_fields(part: Part) -> &'static [&'static str] {
    match part {
        Part::Policy => &["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"],
        Part::Rule => &[
            "level",
            "users",
            "userGroups",
            "verbs",
            "resources",
            "namespaces",
            "nonResourceURLs",
            "omitStages",
            "omitManagedFields",
        ],
        Part::Resources => &["group", "resources", "resourceNames"],
    }
}

/// A part of a policy.
#[derive(Clone, Copy)]
enum Part {
    Policy,
    Rule,
    Resources,
}

/// Returns the elements of a list field.
fn elements<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
