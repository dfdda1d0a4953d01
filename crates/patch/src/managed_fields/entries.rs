//! `metadata.managedFields`: the managers of an object and the fields that each manager owns (upstream:
//! `apimachinery/pkg/util/managedfields/internal/managedfields.go`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use nave_machinery::{Map, Value};

use super::fields_v1::FieldsError;
use super::set::FieldSet;

/// The identity of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ManagerId {
    pub manager: String,
    pub applied: bool,
    /// Empty for an apply manager: its fields are those of its last apply in any version.
    pub api_version: String,
    pub subresource: String,
}

/// The fields that a manager owns.
#[derive(Clone, Debug)]
pub(super) struct Entry<'v> {
    pub api_version: String,
    pub time: Option<String>,
    set: FieldSet,
    /// The stored entry; `None` once the set has changed.
    stored: Option<Cow<'v, Value>>,
}

/// The entries of an object, by manager.
pub(super) type Managers<'v> = BTreeMap<ManagerId, Entry<'v>>;

/// The error of an invalid list of entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntriesError {
    /// The value is not a list of objects.
    #[error("managedFields must be a list of entries")]
    NotAList,
    /// The operation is unknown.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// The version is missing.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// The type of the fields is missing.
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    /// The type of the fields is unknown.
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    /// The fields are not a valid set.
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

impl ManagerId {
    pub(super) fn new(manager: &str, applied: bool, api_version: &str, subresource: &str) -> Self {
        let api_version = if applied { "" } else { api_version };
        Self {
            manager: manager.to_owned(),
            applied,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

impl Entry<'_> {
    pub(super) fn new(api_version: &str, set: FieldSet, time: Option<String>) -> Self {
        Self { api_version: api_version.to_owned(), time, set, stored: None }
    }

    pub(super) fn set(&self) -> &FieldSet {
        &self.set
    }

    pub(super) fn into_set(self) -> FieldSet {
        self.set
    }

    /// Changes the set.
    pub(super) fn change(&mut self, change: impl FnOnce(FieldSet) -> FieldSet) {
        self.stored = None;
        self.set = change(std::mem::take(&mut self.set));
    }

    /// Adapts the set to a type in which some values may have become atomic.
    pub(super) fn reconcile(&mut self, ty: super::schema::TypeRef<'_>) {
        if self.set.reconcile(ty) {
            self.stored = None;
        }
    }
}

/// The source of entries. Entries from clients may have a different form from those that the server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Stored,
    Request,
}

/// Decodes the entries of a stored object. A missing or null list has no entries.
///
/// # Errors
/// An entry is malformed.
pub(super) fn decode(list: Option<&Value>) -> Result<Managers<'_>, EntriesError> {
    let decoded = items(list.unwrap_or(&Value::Null))?.iter().enumerate().map(|(at, entry)| {
        let (id, decoded) = decode_entry(at, entry, Origin::Stored)?;
        Ok((id, Entry { stored: Some(Cow::Borrowed(entry)), ..decoded }))
    });
    decoded.collect()
}

/// Decodes an owned copy of a stored object's entries. Unchanged entries are moved to the new list.
///
/// # Errors
/// An entry is malformed.
pub(super) fn decode_copy(list: Value) -> Result<Managers<'static>, EntriesError> {
    let list = match list {
        Value::Array(list) => list,
        other => return items(&other).map(|_| Managers::new()),
    };
    let decoded = list.into_iter().enumerate().map(|(at, entry)| {
        let (id, decoded) = decode_entry(at, &entry, Origin::Stored)?;
        Ok((id, Entry { stored: Some(Cow::Owned(entry)), ..decoded }))
    });
    decoded.collect()
}

/// Checks the entries of an object, as those of a request body (upstream: `ValidateManagedFields`). Null is an empty
/// list.
///
/// # Errors
/// An entry is malformed.
pub fn validate(list: &Value) -> Result<(), EntriesError> {
    if list.is_null() { Ok(()) } else { decode_request(list).map(drop) }
}

/// Decodes the entries of a request body.
///
/// # Errors
/// An entry is malformed.
pub(super) fn decode_request(list: &Value) -> Result<Managers<'static>, EntriesError> {
    let entries = items(list)?.iter().enumerate();
    entries.map(|(at, entry)| decode_entry(at, entry, Origin::Request)).collect()
}

fn items(list: &Value) -> Result<&[Value], EntriesError> {
    match list {
        Value::Null => Ok(&[]),
        Value::Array(list) => Ok(list),
        _ => Err(EntriesError::NotAList),
    }
}

fn decode_entry(
    at: usize,
    entry: &Value,
    origin: Origin,
) -> Result<(ManagerId, Entry<'static>), EntriesError> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let applied = match text("operation") {
        APPLY => true,
        UPDATE => false,
        _ => return Err(EntriesError::Operation),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err(EntriesError::ApiVersion);
    }
    match text("fieldsType") {
        FIELDS_V1 => {}
        "" => return Err(EntriesError::NoFieldsType(at)),
        other => return Err(EntriesError::FieldsType(other.to_owned(), at)),
    }
    let id = ManagerId::new(text("manager"), applied, api_version, text("subresource"));
    let set = match entry.get(FIELDS) {
        Some(Value::String(text)) if origin == Origin::Stored => FieldSet::from_fields_v1_text(text)?,
        fields => FieldSet::from_fields_v1(fields.unwrap_or(&Value::Null))?,
    };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((id, Entry { api_version: api_version.to_owned(), time, set, stored: None }))
}

/// The form of `fieldsV1`; see [`nave_machinery::managed_fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Tree,
    /// JSON text. Unchanged sets keep their stored form.
    Text,
}

impl Form {
    fn allows(self, fields: Option<&Value>) -> bool {
        match fields {
            Some(Value::Object(_)) => true,
            Some(Value::String(_)) => self == Self::Text,
            _ => false,
        }
    }
}

/// Encodes the entries in upstream's order: applies first, then by time. Returns `None` if the list is empty.
///
/// # Errors
/// A set is nested too deeply.
pub(super) fn encode(managers: Managers<'_>, form: Form) -> Result<Option<Value>, FieldsError> {
    let mut entries: Vec<(ManagerId, Entry<'_>)> = managers.into_iter().collect();
    // All times have the same format, so their strings sort by time. Entries without a time sort first.
    entries.sort_by(|(a, left), (b, right)| {
        (!a.applied, &left.time, &a.manager, &left.api_version, &a.subresource).cmp(&(
            !b.applied,
            &right.time,
            &b.manager,
            &right.api_version,
            &b.subresource,
        ))
    });
    let list: Vec<Value> =
        entries.into_iter().map(|(id, entry)| encode_entry(id, entry, form)).collect::<Result<_, _>>()?;
    Ok((!list.is_empty()).then_some(Value::Array(list)))
}

fn encode_entry(id: ManagerId, entry: Entry<'_>, form: Form) -> Result<Value, FieldsError> {
    if let Some(stored) = entry.stored.filter(|stored| form.allows(stored.get(FIELDS))) {
        return Ok(stored.into_owned());
    }
    let fields = match form {
        Form::Text => Value::String(entry.set.to_fields_v1_text()?),
        Form::Tree => entry.set.to_fields_v1()?,
    };
    Ok(entry_value(id, entry.api_version, entry.time.unwrap_or_default(), fields))
}

/// Returns the entry of a new update manager, with this text of `fieldsV1`.
pub(super) fn new_entry(id: ManagerId, time: &str, fields: String) -> Value {
    let api_version = id.api_version.clone();
    entry_value(id, api_version, time.to_owned(), Value::String(fields))
}

fn entry_value(id: ManagerId, api_version: String, time: String, fields: Value) -> Value {
    let mut encoded = Map::new();
    let mut put = |name: &str, text: String| {
        if !text.is_empty() {
            encoded.insert(name.to_owned(), Value::String(text));
        }
    };
    put("manager", id.manager);
    put("operation", if id.applied { APPLY } else { UPDATE }.to_owned());
    put("apiVersion", api_version);
    put("time", time);
    put("fieldsType", FIELDS_V1.to_owned());
    put("subresource", id.subresource);
    encoded.insert(FIELDS.to_owned(), fields);
    Value::Object(encoded)
}

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
const FIELDS_V1: &str = "FieldsV1";
const FIELDS: &str = "fieldsV1";
