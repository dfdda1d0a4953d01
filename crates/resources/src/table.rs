//! The columns of a resource's `Table`, and common cells.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use nave_machinery::selector::LabelSelector;
use nave_machinery::time::{self, Timestamp};
use nave_machinery::{Map, Value};
use serde_json::json;

use crate::read;

/// A column of a resource's `Table`.
#[derive(Clone)]
pub struct Column {
    /// The column's heading.
    pub name: Cow<'static, str>,
    /// The OpenAPI type of its cells: `string`, `integer`, `boolean`, `date`.
    pub kind: Cow<'static, str>,
    /// The OpenAPI format; `name` marks the column with the object's name.
    pub format: Cow<'static, str>,
    /// 0 for columns that are always shown, 1 for columns in wide output only.
    pub priority: i32,
    /// The help text for clients.
    pub description: Description,
    cell: Cell,
}

type Cell = Arc<dyn Fn(&Value, Timestamp) -> Value + Send + Sync>;

/// The description of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// A custom text.
    Own(Cow<'static, str>),
    /// The API documentation of a field.
    OfField {
        /// The OpenAPI definition name of the type.
        type_name: String,
        /// The field's JSON name.
        field: &'static str,
    },
}

impl Column {
    /// Creates a string column that is always shown.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        cell: impl Fn(&Value, Timestamp) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            kind: "string".into(),
            format: "".into(),
            priority: 0,
            description: Description::Own("".into()),
            cell: Arc::new(cell),
        }
    }

    /// Returns the cell of an object at the time `now`.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        (self.cell)(object, now)
    }

    /// Shows the column in wide output only.
    #[must_use]
    pub fn wide(self) -> Self {
        self.with_priority(1)
    }

    /// Sets the priority.
    #[must_use]
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// Sets the type of the cells.
    #[must_use]
    pub fn of_kind(self, kind: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: kind.into(), ..self }
    }

    /// Sets the format.
    #[must_use]
    pub fn with_format(self, format: impl Into<Cow<'static, str>>) -> Self {
        Self { format: format.into(), ..self }
    }

    /// Sets a custom description.
    #[must_use]
    pub fn about(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { description: Description::Own(text.into()), ..self }
    }

    /// Uses the API documentation of a field as the description. `type_name` may omit `io.k8s.api.`.
    #[must_use]
    pub fn described_by(self, type_name: &str, field: &'static str) -> Self {
        let type_name = if type_name.starts_with("io.") {
            type_name.to_owned()
        } else {
            format!("io.k8s.api.{type_name}")
        };
        Self { description: Description::OfField { type_name, field }, ..self }
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Column({})", self.name)
    }
}

/// Returns the cells of an object in the order of the columns.
pub fn row(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    columns.iter().map(|column| column.cell(object, now)).collect()
}

/// Returns the columns of an `autoscaling/v1` `Scale`.
pub fn of_scale() -> Vec<Column> {
    let count = |name, path: &'static str| {
        Column::new(name, move |object: &Value, _| json!(read::int(object, path))).of_kind("integer")
    };
    let desired = count("Desired", "spec.replicas").described_by("autoscaling.v1.ScaleSpec", "replicas");
    let available =
        count("Available", "status.replicas").described_by("autoscaling.v1.ScaleStatus", "replicas");
    vec![name(), desired, available, age()]
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Returns the column with the name.
pub fn name() -> Column {
    name_with(|_| false)
}

/// A name column that marks default objects.
pub(crate) fn name_with(is_default: fn(&Value) -> bool) -> Column {
    Column::new("Name", move |object: &Value, _| {
        let name = read::text(object, "metadata.name");
        if is_default(object) { json!(format!("{name} (default)")) } else { json!(name) }
    })
    .with_format("name")
    .described_by(OBJECT_META, "name")
}

/// Returns the column with the age.
pub fn age() -> Column {
    Column::new("Age", |object, now| json!(since(object, "metadata.creationTimestamp", now)))
        .described_by(OBJECT_META, "creationTimestamp")
}

/// The columns of a kind for which upstream has no printer: name and creation time.
pub(crate) fn name_and_creation() -> Vec<Column> {
    let created =
        Column::new("Created At", |object, _| json!(read::text(object, "metadata.creationTimestamp")));
    vec![name(), created.of_kind("date").described_by(OBJECT_META, "creationTimestamp")]
}

/// A column with the string at a path, or `missing`.
pub(crate) fn field(name: &'static str, path: &'static str, missing: &'static str) -> Column {
    Column::new(name, move |object, _| json!(read::text_or(object, path, missing)))
}

/// A column with the integer at a path; 0 if absent.
pub(crate) fn number(name: &'static str, path: &'static str) -> Column {
    Column::new(name, move |object, _| json!(read::int(object, path))).of_kind("integer")
}

/// A column with the number of items at a path.
pub(crate) fn length(name: &'static str, path: &'static str) -> Column {
    Column::new(name, move |object, _| {
        let elements = match read::value_at(object, path) {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        };
        json!(elements)
    })
    .of_kind("integer")
}

/// A column with the boolean at a path, or `missing`.
pub(crate) fn flag(name: &'static str, path: &'static str, missing: bool) -> Column {
    Column::new(name, move |object, _| {
        json!(read::value_at(object, path).and_then(Value::as_bool).unwrap_or(missing))
    })
    .of_kind("boolean")
}

/// A column with a computed string.
pub(crate) fn text(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column::new(name, move |object, _| Value::String(cell(object)))
}

/// A column with the time elapsed since the time at a path.
pub(crate) fn elapsed(name: &'static str, path: &'static str, missing: &'static str) -> Column {
    Column::new(name, move |object, now| match read::value_at(object, path) {
        Some(Value::String(_)) => json!(since(object, path, now)),
        _ => json!(missing),
    })
}

/// The two wide columns with a workload's containers and images.
pub(crate) fn containers(spec: &'static str) -> [Column; 2] {
    [
        Column::new("Containers", move |object, _| json!(joined(object, spec, "name")))
            .wide()
            .about("The names of the containers in the template"),
        Column::new("Images", move |object, _| json!(joined(object, spec, "image")))
            .wide()
            .about("The images of the containers in the template"),
    ]
}

/// A wide column with a label selector; shows `empty` for an empty selector.
pub(crate) fn selector(path: &'static str, empty: &'static str) -> Column {
    Column::new("Selector", move |object, _| json!(format_selector(read::value_at(object, path), empty)))
        .wide()
}

/// Formats the time since the time at a path for humans; `<unknown>` if absent.
pub(crate) fn since(object: &Value, path: &str, now: Timestamp) -> String {
    moment(object, path)
        .map_or_else(|| "<unknown>".to_owned(), |then| time::human_duration(now.seconds_since(then)))
}

/// Parses the time at a path, in either of the API's two formats.
pub(crate) fn moment(object: &Value, path: &str) -> Option<Timestamp> {
    Timestamp::parse(read::text(object, path))
}

/// Formats labels as `key=value` pairs; `<none>` without labels.
pub(crate) fn format_labels(labels: Option<&Map>) -> String {
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// Formats a `LabelSelector`.
pub(crate) fn format_selector(selector: Option<&Value>, empty: &str) -> String {
    let Some(selector) = selector else { return empty.to_owned() };
    match LabelSelector::from_value(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) if selector.is_empty() => empty.to_owned(),
        Ok(selector) => selector.to_string(),
    }
}

/// Joins one field of all items of a list with commas.
pub(crate) fn joined(object: &Value, list: &str, field: &str) -> String {
    read::list(object, list).iter().map(|element| read::text(element, field)).collect::<Vec<_>>().join(",")
}

/// Joins the strings of a list with commas.
pub(crate) fn joined_strings(object: &Value, list: &str) -> String {
    read::list(object, list).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

/// Joins the first `shown` items, followed by the number of remaining items.
pub(crate) fn abridged(items: &[String], shown: usize, separator: &str) -> String {
    let first = items.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(separator);
    if items.len() > shown { format!("{first} + {} more...", items.len() - shown) } else { first }
}
