//! Options of each verb, parsed from the query (delete: also from the body) and validated (upstream:
//! `apimachinery/pkg/apis/meta/v1` and its validation).

use std::num::{IntErrorKind, ParseIntError};

use serde::Deserialize;
use serde_json::Value;

use crate::names::validate_field_manager;
use crate::selector::{FieldSelector, LabelSelector, SelectorError};
use crate::{FieldError, FieldPath, GroupKind, Map, Reason, Status};

/// A decoded query string.
type Query = [(String, String)];

/// Handling of unknown and duplicate fields in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and send warnings.
    #[default]
    Warn,
    /// Reject the request.
    Strict,
}

/// Meaning of a list's resourceVersion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceVersionMatch {
    /// The state at exactly this revision.
    Exact,
    /// The state at this revision or a later one.
    NotOlderThan,
}

/// Treatment of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPropagation {
    /// Keeps them and removes the owner reference.
    Orphan,
    /// Deletes them after the object.
    Background,
    /// Deletes them before the object.
    Foreground,
}

/// Options of list and watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Selects objects by labels.
    pub label_selector: LabelSelector,
    /// Selects objects by fields.
    pub field_selector: FieldSelector,
    /// True if the request is a watch.
    pub watch: bool,
    /// True if the client accepts bookmarks.
    pub allow_watch_bookmarks: bool,
    /// The requested revision; `None` for the latest, 0 for any.
    pub resource_version: Option<u64>,
    /// The meaning of `resource_version`.
    pub resource_version_match: Option<ResourceVersionMatch>,
    /// The duration of a watch in seconds.
    pub timeout_seconds: Option<u64>,
    /// Maximum number of objects in a response; 0 for no limit.
    pub limit: usize,
    /// The continue token of the previous page; empty for the first page.
    pub continue_token: String,
    /// True if a watch starts with events for the initial state; `None` for the legacy behaviour.
    pub send_initial_events: Option<bool>,
}

/// Options of get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// The minimum revision of the response; `None` for the latest, 0 for any.
    pub resource_version: Option<u64>,
}

/// Options of create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// True to do everything except the write.
    pub dry_run: bool,
    /// The field manager's name; empty if not given.
    pub field_manager: String,
    /// The handling of unknown and duplicate fields; `None` if not given.
    pub field_validation: Option<FieldValidation>,
}

/// Options of update.
pub type UpdateOptions = CreateOptions;

/// Options of patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// The options shared with update.
    pub update: UpdateOptions,
    /// True if an apply takes ownership of conflicting fields from other managers.
    pub force: bool,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// True to do everything except the write.
    pub dry_run: bool,
    /// The grace period in seconds.
    pub grace_period_seconds: Option<i64>,
    /// Preconditions of the deletion.
    pub preconditions: Preconditions,
    /// Treatment of the dependents.
    pub propagation_policy: Option<DeletionPropagation>,
    /// The deprecated form of `propagation_policy`.
    pub orphan_dependents: Option<bool>,
}

/// Preconditions for the deletion of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resourceVersion.
    pub resource_version: Option<String>,
}

impl ListOptions {
    /// Parses the options of a list or watch.
    ///
    /// # Errors
    /// 400 for values that cannot be parsed, 422 for conflicting options.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let version = first(query, "resourceVersion").unwrap_or_default();
        let token = first(query, "continue").unwrap_or_default().to_owned();
        let watch = flag(query, "watch").unwrap_or(false);
        let initial = flag(query, "sendInitialEvents");
        let matching = first(query, "resourceVersionMatch").unwrap_or_default();
        // Texts that are not numbers are reported first.
        let timeout = number(query, "timeoutSeconds")?;
        let limit = number(query, "limit")?;
        let errors = if watch {
            check_watch(version, matching, &token, initial)
        } else {
            check_list(version, matching, &token, initial)
        };
        refuse("ListOptions", &errors)?;
        let selector_error = |error: SelectorError| Status::bad_request(error.to_string());
        Ok(Self {
            label_selector: LabelSelector::parse(first(query, "labelSelector").unwrap_or_default())
                .map_err(selector_error)?,
            field_selector: FieldSelector::parse(first(query, "fieldSelector").unwrap_or_default())
                .map_err(selector_error)?,
            watch,
            allow_watch_bookmarks: flag(query, "allowWatchBookmarks").unwrap_or(false),
            resource_version: Self::parse_version(version, watch, &token)?,
            resource_version_match: match matching {
                "Exact" => Some(ResourceVersionMatch::Exact),
                "NotOlderThan" => Some(ResourceVersionMatch::NotOlderThan),
                _ => None,
            },
            timeout_seconds: timeout.and_then(|seconds| u64::try_from(seconds).ok()),
            limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token: token,
            send_initial_events: initial,
        })
    }

    fn parse_version(version: &str, watch: bool, token: &str) -> Result<Option<u64>, Status> {
        parse_resource_version(version).or_else(|refusal| match (watch, token) {
            // Upstream passes the error of a watch on as an internal one without a reason.
            (true, _) => Err(Status { code: 500, reason: Some(Reason::Unknown), ..refusal }),
            (false, "") => {
                let message = format!("invalid resource version: {}", refusal.message);
                Err(Status { message, ..refusal })
            }
            // A list with a token is refused with any version, after the token is checked.
            (false, _) => Ok(Some(u64::MAX)),
        })
    }
}

impl GetOptions {
    /// Parses the options of a get; options of a list are ignored.
    ///
    /// # Errors
    /// 400 for values that cannot be parsed.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let version = first(query, "resourceVersion").unwrap_or_default();
        Ok(Self { resource_version: parse_resource_version(version)? })
    }
}

impl CreateOptions {
    /// Parses the options of a create.
    ///
    /// # Errors
    /// 422 for unsupported values.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let (options, errors) = Self::read(query);
        refuse("CreateOptions", &errors)?;
        Ok(options)
    }

    /// Parses the options of an update.
    ///
    /// # Errors
    /// 422 for unsupported values.
    pub fn parse_update(query: &Query) -> Result<UpdateOptions, Status> {
        let (options, errors) = Self::read(query);
        refuse("UpdateOptions", &errors)?;
        Ok(options)
    }

    /// Returns the handling of unknown and duplicate fields.
    pub fn validation(&self) -> FieldValidation {
        self.field_validation.unwrap_or_default()
    }

    /// Returns the options as an object of this kind, as passed to admission webhooks.
    pub fn to_value(&self, kind: &str) -> Value {
        let mut options = typed(kind);
        add_dry_run(&mut options, self.dry_run);
        if !self.field_manager.is_empty() {
            options.insert("fieldManager".to_owned(), self.field_manager.as_str().into());
        }
        if let Some(validation) = self.field_validation {
            options.insert("fieldValidation".to_owned(), validation.as_str().into());
        }
        Value::Object(options)
    }

    fn read(query: &Query) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let options = Self {
            dry_run: dry_run(values(query, "dryRun"), &mut errors),
            field_manager: field_manager(query, &mut errors),
            field_validation: field_validation(query, &mut errors),
        };
        (options, errors)
    }
}

impl PatchOptions {
    /// Parses the options of a patch; `apply` is true for server-side apply.
    ///
    /// # Errors
    /// 422 for unsupported values, or options not allowed for this kind of patch.
    pub fn parse(query: &Query, apply: bool) -> Result<Self, Status> {
        let (update, mut errors) = UpdateOptions::read(query);
        let force = flag(query, "force");
        if apply && update.field_manager.is_empty() {
            errors.push(FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch"));
        }
        if !apply && force.is_some() {
            let why = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&FieldPath::new("force"), why));
        }
        refuse("PatchOptions", &errors)?;
        Ok(Self { update, force: force.unwrap_or(false) })
    }
}

impl DeleteOptions {
    /// Parses the options of a delete, from the body if present, otherwise from the query.
    ///
    /// # Errors
    /// 400 for a body that is not a `DeleteOptions`, 422 for unsupported values or conflicting options.
    pub fn parse(query: &Query, body: &Value) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let (options, policy) =
            if body.is_null() { from_query(query, &mut errors)? } else { from_body(body, &mut errors)? };
        let at = FieldPath::new("propagationPolicy");
        if let Some(policy) = &policy {
            if options.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&at, policy.as_str(), why));
            } else if options.propagation_policy.is_none() {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&at, policy.as_str(), &known));
            }
        }
        refuse("DeleteOptions", &errors)?;
        Ok(options)
    }
}

impl DeleteOptions {
    /// Returns the options as an object, as passed to admission webhooks.
    pub fn to_value(&self) -> Value {
        let mut options = typed("DeleteOptions");
        if let Some(seconds) = self.grace_period_seconds {
            options.insert("gracePeriodSeconds".to_owned(), seconds.into());
        }
        let Preconditions { uid, resource_version } = &self.preconditions;
        let preconditions = [("uid", uid), ("resourceVersion", resource_version)].into_iter();
        let preconditions: Map = preconditions
            .filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into())))
            .collect();
        if !preconditions.is_empty() {
            options.insert("preconditions".to_owned(), Value::Object(preconditions));
        }
        if let Some(orphan) = self.orphan_dependents {
            options.insert("orphanDependents".to_owned(), orphan.into());
        }
        if let Some(policy) = self.propagation_policy {
            options.insert("propagationPolicy".to_owned(), policy.as_str().into());
        }
        add_dry_run(&mut options, self.dry_run);
        Value::Object(options)
    }
}

impl FieldValidation {
    /// Returns the value of the query parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "Ignore",
            Self::Warn => "Warn",
            Self::Strict => "Strict",
        }
    }
}

impl DeletionPropagation {
    /// Returns the value of `propagationPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// Returns an options object of this kind with no options set.
fn typed(kind: &str) -> Map {
    [("kind", kind), ("apiVersion", "meta.k8s.io/v1")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn add_dry_run(options: &mut Map, dry_run: bool) {
    if dry_run {
        options.insert("dryRun".to_owned(), vec!["All"].into());
    }
}

fn from_query(
    query: &Query,
    errors: &mut Vec<FieldError>,
) -> Result<(DeleteOptions, Option<String>), Status> {
    let policy = first(query, "propagationPolicy").map(str::to_owned);
    let uid = first(query, "uid").filter(|uid| !uid.is_empty()).map(str::to_owned);
    let options = DeleteOptions {
        dry_run: dry_run(values(query, "dryRun"), errors),
        grace_period_seconds: number(query, "gracePeriodSeconds")?,
        preconditions: Preconditions { uid, resource_version: None },
        propagation_policy: policy.as_deref().and_then(propagation),
        orphan_dependents: flag(query, "orphanDependents"),
    };
    Ok((options, policy))
}

fn from_body(body: &Value, errors: &mut Vec<FieldError>) -> Result<(DeleteOptions, Option<String>), Status> {
    let refused = |why: String| {
        Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: {why}"))
    };
    if !body.is_object() {
        return Err(refused("not an object".to_owned()));
    }
    let body = DeleteOptionsBody::deserialize(body).map_err(|error| refused(error.to_string()))?;
    if let Some(kind) = body.kind.filter(|kind| !matches!(kind.as_str(), "" | "DeleteOptions")) {
        return Err(refused(format!("the kind is {kind}")));
    }
    // Clients send options in any API version, including the versions of custom resources.
    if body.api_version.as_deref().is_some_and(|version| version.matches('/').count() > 1) {
        return Err(refused("the apiVersion is not a group and a version".to_owned()));
    }
    let policy = body.propagation_policy;
    let preconditions = Value::Object(body.preconditions.unwrap_or_default());
    let preconditions = PreconditionsBody::deserialize(preconditions);
    let preconditions = preconditions.map_err(|error| refused(error.to_string()))?;
    let options = DeleteOptions {
        dry_run: dry_run(body.dry_run.iter().flatten().map(String::as_str), errors),
        grace_period_seconds: body.grace_period_seconds,
        preconditions: Preconditions {
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
        },
        propagation_policy: policy.as_deref().and_then(propagation),
        orphan_dependents: body.orphan_dependents,
    };
    Ok((options, policy))
}

/// The body of a delete. As upstream, ignores unknown fields and rejects fields of the wrong type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptionsBody {
    kind: Option<String>,
    api_version: Option<String>,
    dry_run: Option<Vec<String>>,
    grace_period_seconds: Option<i64>,
    preconditions: Option<Map>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    #[serde(rename = "ignoreStoreReadErrorWithClusterBreakingPotential")]
    _ignore_store_read_error: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreconditionsBody {
    uid: Option<String>,
    resource_version: Option<String>,
}

fn propagation(policy: &str) -> Option<DeletionPropagation> {
    let known =
        [DeletionPropagation::Orphan, DeletionPropagation::Background, DeletionPropagation::Foreground];
    known.into_iter().find(|known| known.as_str() == policy)
}

/// Checks combinations of list options.
fn check_list(version: &str, matching: &str, token: &str, initial: Option<bool>) -> Vec<FieldError> {
    let at = FieldPath::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if !matching.is_empty() && version.is_empty() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        errors.push(FieldError::forbidden(&at, why));
    }
    if !matching.is_empty() && !token.is_empty() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        errors.push(FieldError::forbidden(&at, why));
    }
    errors.extend(check_match(matching));
    if matching == "Exact" && version == "0" {
        let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        errors.push(FieldError::forbidden(&at, why));
    }
    if initial.is_some() {
        let at = FieldPath::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&at, "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// Checks combinations of watch options.
fn check_watch(version: &str, matching: &str, token: &str, initial: Option<bool>) -> Vec<FieldError> {
    const STREAMED: &str = "NotOlderThan";
    let at = FieldPath::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if initial.is_some() && matching != STREAMED {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&at, why));
    }
    if !matching.is_empty() && initial.is_none() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(&at, why));
    }
    if !matching.is_empty() && matching != STREAMED {
        errors.push(FieldError::not_supported(&at, matching, &[STREAMED]));
    }
    // Without both, a watch from the latest state has them by default.
    let is_matched = !matching.is_empty() || (initial.is_none() && matches!(version, "" | "0"));
    if is_matched && !token.is_empty() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        errors.push(FieldError::forbidden(&at, why));
    }
    errors
}

fn check_match(matching: &str) -> Option<FieldError> {
    let known = ["Exact", "NotOlderThan", ""];
    let at = FieldPath::new("resourceVersionMatch");
    (!known.contains(&matching)).then(|| FieldError::not_supported(&at, matching, &known))
}

fn parse_resource_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    // Rust accepts a sign, but the API does not.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = if digits { "value out of range" } else { "invalid syntax" };
    text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {wrong}"
        ))
    })
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&GroupKind { group: "meta.k8s.io".to_owned(), kind: kind.to_owned() }, "", errors))
}

fn values<'a>(query: &'a Query, name: &str) -> impl Iterator<Item = &'a str> {
    query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn first<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    values(query, name).next()
}

/// Parses a boolean query parameter: any value except `false` and `0` is true.
fn flag(query: &Query, name: &str) -> Option<bool> {
    first(query, name).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = first(query, name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let error = |error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    };
    text.parse().map(Some).map_err(error)
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let given: Vec<&str> = values.collect();
    if given.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), given.clone(), &["All"]));
    }
    !given.is_empty()
}

fn field_manager(query: &Query, errors: &mut Vec<FieldError>) -> String {
    let manager = first(query, "fieldManager").unwrap_or_default();
    errors.extend(validate_field_manager(manager, &FieldPath::new("fieldManager")));
    manager.to_owned()
}

fn field_validation(query: &Query, errors: &mut Vec<FieldError>) -> Option<FieldValidation> {
    let given = first(query, "fieldValidation").filter(|given| !given.is_empty())?;
    let known = [FieldValidation::Ignore, FieldValidation::Strict, FieldValidation::Warn];
    let found = known.into_iter().find(|known| known.as_str() == given);
    if found.is_none() {
        let known = ["", "Ignore", "Strict", "Warn"];
        errors.push(FieldError::not_supported(&FieldPath::new("fieldValidation"), given, &known));
    }
    found
}

#[cfg(test)]
mod tests;
