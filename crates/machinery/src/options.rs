//! The options of each verb, from the query (and for a deletion the body), checked
//! (upstream: `apimachinery/pkg/apis/meta/v1` and its validation).

use serde::Deserialize;
use serde_json::Value;

use crate::selector::{FieldSelector, LabelSelector};
use crate::{FieldError, FieldPath, GroupKind, Map, Status};

/// A decoded query string.
type Query = [(String, String)];

/// The longest name of a field manager, in bytes.
pub const FIELD_MANAGER_MAX: usize = 128;

/// What is done about unknown and duplicate fields of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the client is told.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// How exactly a list must be at its resourceVersion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceVersionMatch {
    /// The state at exactly this revision.
    Exact,
    /// The state at this revision or later.
    NotOlderThan,
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPropagation {
    /// They stay, without the owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// The options of list and watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Objects must have these labels.
    pub label_selector: LabelSelector,
    /// Objects must have these fields.
    pub field_selector: FieldSelector,
    /// Whether it is a watch.
    pub watch: bool,
    /// Whether the client takes bookmarks.
    pub allow_watch_bookmarks: bool,
    /// The revision asked for; `None` for the latest, 0 for any.
    pub resource_version: Option<u64>,
    /// How exactly.
    pub resource_version_match: Option<ResourceVersionMatch>,
    /// After how many seconds a watch ends.
    pub timeout_seconds: Option<u64>,
    /// At most so many objects in one answer; 0 for all.
    pub limit: usize,
    /// Where the page before ended; empty for the first page.
    pub continue_token: String,
    /// Whether a watch begins with the state as events; `None` for the older rules.
    pub send_initial_events: Option<bool>,
}

/// The options of get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// The revision that the answer must not be older than; `None` for the latest, 0 for any.
    pub resource_version: Option<u64>,
}

/// The options of create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Whether everything is done but the write.
    pub dry_run: bool,
    /// The name of the client as a manager of fields; empty if not given.
    pub field_manager: String,
    /// The handling of unknown and duplicate fields; `None` if not given.
    pub field_validation: Option<FieldValidation>,
}

/// The options of update.
pub type UpdateOptions = CreateOptions;

/// The options of patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// The options that a patch shares with an update.
    pub update: UpdateOptions,
    /// Whether an apply takes fields over from other managers.
    pub force: bool,
}

/// The options of delete and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Whether everything is done but the write.
    pub dry_run: bool,
    /// How many seconds the object may go on to live.
    pub grace_period_seconds: Option<i64>,
    /// What must hold of the object.
    pub preconditions: Preconditions,
    /// What becomes of the dependents.
    pub propagation_policy: Option<DeletionPropagation>,
    /// The older form of `propagation_policy`.
    pub orphan_dependents: Option<bool>,
}

/// What must hold of an object for it to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its resourceVersion.
    pub resource_version: Option<String>,
}

impl ListOptions {
    /// Reads the options of a list or a watch.
    ///
    /// # Errors
    /// 400 for text that cannot be read, 422 for options that do not go together.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let version = first(query, "resourceVersion").unwrap_or_default();
        let token = first(query, "continue").unwrap_or_default().to_owned();
        let watch = flag(query, "watch").unwrap_or(false);
        let initial = flag(query, "sendInitialEvents");
        let matching = first(query, "resourceVersionMatch").unwrap_or_default();
        let errors = if watch {
            check_watch(matching, &token, initial)
        } else {
            check_list(version, matching, &token, initial)
        };
        refuse("ListOptions", &errors)?;
        let selector_error = |name: &str, error: &dyn std::fmt::Display| {
            Status::bad_request(format!("unable to parse the {name} selector: {error}"))
        };
        Ok(Self {
            label_selector: LabelSelector::parse(first(query, "labelSelector").unwrap_or_default())
                .map_err(|error| Status::bad_request(error.to_string()))?,
            field_selector: FieldSelector::parse(first(query, "fieldSelector").unwrap_or_default())
                .map_err(|error| selector_error("field", &error))?,
            watch,
            allow_watch_bookmarks: flag(query, "allowWatchBookmarks").unwrap_or(false),
            resource_version: parse_resource_version(version)?,
            resource_version_match: match matching {
                "Exact" => Some(ResourceVersionMatch::Exact),
                "NotOlderThan" => Some(ResourceVersionMatch::NotOlderThan),
                _ => None,
            },
            timeout_seconds: number(query, "timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()),
            limit: number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            continue_token: token,
            send_initial_events: initial,
        })
    }
}

impl GetOptions {
    /// Reads the options of a get, which knows none of a list's.
    ///
    /// # Errors
    /// 400 for text that cannot be read.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let version = first(query, "resourceVersion").unwrap_or_default();
        Ok(Self { resource_version: parse_resource_version(version)? })
    }
}

impl CreateOptions {
    /// Reads the options of a create or an update.
    ///
    /// # Errors
    /// 422 for values that are not known.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        let (options, errors) = Self::read(query);
        refuse("CreateOptions", &errors)?;
        Ok(options)
    }

    /// Reads the options of an update.
    ///
    /// # Errors
    /// 422 for values that are not known.
    pub fn parse_update(query: &Query) -> Result<UpdateOptions, Status> {
        let (options, errors) = Self::read(query);
        refuse("UpdateOptions", &errors)?;
        Ok(options)
    }

    /// Returns the handling of unknown and duplicate fields.
    pub fn validation(&self) -> FieldValidation {
        self.field_validation.unwrap_or_default()
    }

    /// The options as an object of this kind, as admission webhooks are given them.
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
    /// Reads the options of a patch; `apply` if it is a server-side apply.
    ///
    /// # Errors
    /// 422 for values that are not known, or not for this kind of patch.
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
    /// Reads the options of a deletion: those of the body if there is one, else those of the query.
    ///
    /// # Errors
    /// 400 for a body that is no `DeleteOptions`, 422 for values that are not known or do not go together.
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
    /// The options as an object, as admission webhooks are given them.
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
    /// The value of the query parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "Ignore",
            Self::Warn => "Warn",
            Self::Strict => "Strict",
        }
    }
}

impl DeletionPropagation {
    /// The value in `propagationPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// Options of a kind, without any that is set.
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
    // Clients send options in any group's version, custom resources' included.
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

/// The body of a deletion. Unknown fields are ignored, as upstream ignores them; a field of another type is an error.
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

/// Which options of a list go together.
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

/// Which options of a watch go together.
fn check_watch(matching: &str, token: &str, initial: Option<bool>) -> Vec<FieldError> {
    let at = FieldPath::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if initial.is_some() && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&at, why));
    }
    if !matching.is_empty() && initial.is_none() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(&at, why));
    }
    errors.extend(check_match(matching));
    if !matching.is_empty() && !token.is_empty() {
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
    // Rust's numbers may have a sign, the API's may not.
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

/// A boolean of a query: anything but `false` and `0` is true.
fn flag(query: &Query, name: &str) -> Option<bool> {
    first(query, name).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = first(query, name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let error = |_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    text.parse().map(Some).map_err(error)
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut dry = false;
    for value in values {
        if value != "All" {
            errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), value, &["All"]));
        }
        dry = true;
    }
    dry
}

fn field_manager(query: &Query, errors: &mut Vec<FieldError>) -> String {
    let manager = first(query, "fieldManager").unwrap_or_default();
    let at = FieldPath::new("fieldManager");
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(FieldError::too_long(&at, FIELD_MANAGER_MAX));
    } else if manager.chars().any(char::is_control) {
        errors.push(FieldError::invalid(&at, manager, "should only contain printable characters"));
    }
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
