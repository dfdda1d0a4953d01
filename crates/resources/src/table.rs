//! The columns of a resource's `Table`, and what most cells are made of.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use nave_machinery::selector::LabelSelector;
use nave_machinery::time::{self, Timestamp};
use nave_machinery::{Map, Value};
use serde_json::json;

use crate::def::ResourceDef;
use crate::read;

/// A column of a resource's `Table`.
#[derive(Clone)]
pub struct Column {
    /// The heading.
    pub name: Cow<'static, str>,
    /// The OpenAPI type of its cells: `string`, `integer`, `boolean`, `date`.
    pub kind: Cow<'static, str>,
    /// The OpenAPI format; `name` marks the column that holds the object's name.
    pub format: Cow<'static, str>,
    /// 0 for columns that are always shown, 1 for those of the wide form.
    pub priority: i32,
    /// What the column shows.
    pub description: Description,
    cell: Cell,
}

type Cell = Arc<dyn Fn(&Value, Timestamp) -> Value + Send + Sync>;

/// The description of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// A text.
    Own(Cow<'static, str>),
    /// The API's documentation of a field.
    OfField {
        /// The OpenAPI definition name of the type.
        type_name: String,
        /// The field's JSON name.
        field: &'static str,
    },
}

impl Column {
    /// A column of text that is always shown.
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

    /// The cell of an object, which is in its storage version, as of `now`.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        (self.cell)(object, now)
    }

    /// The same column, shown in the wide form only.
    #[must_use]
    pub fn wide(self) -> Self {
        self.with_priority(1)
    }

    /// The same column with another priority.
    #[must_use]
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// The same column with cells of another type.
    #[must_use]
    pub fn of_kind(self, kind: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: kind.into(), ..self }
    }

    /// The same column with a format.
    #[must_use]
    pub fn with_format(self, format: impl Into<Cow<'static, str>>) -> Self {
        Self { format: format.into(), ..self }
    }

    /// The same column with a description of our own.
    #[must_use]
    pub fn about(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { description: Description::Own(text.into()), ..self }
    }

    /// The same column, described as the API documents a field. `type_name` may leave out `io.k8s.api.`.
    #[must_use]
    pub fn of(self, type_name: &str, field: &'static str) -> Self {
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

/// The cells of an object, which is in its storage version, in the order of the columns.
pub fn row(def: &ResourceDef, object: &Value, now: Timestamp) -> Vec<Value> {
    def.columns.iter().map(|column| column.cell(object, now)).collect()
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The column of names.
pub fn name() -> Column {
    name_with(|_| false)
}

/// The column of names that marks an object that is the default of its kind.
pub(crate) fn name_with(is_default: fn(&Value) -> bool) -> Column {
    let cell = move |object: &Value, _| {
        let name = read::text(object, "metadata.name");
        if is_default(object) { json!(format!("{name} (default)")) } else { json!(name) }
    };
    Column::new("Name", cell).with_format("name").of(OBJECT_META, "name")
}

/// The column of ages.
pub fn age() -> Column {
    Column::new("Age", |object, now| json!(since(object, "metadata.creationTimestamp", now)))
        .of(OBJECT_META, "creationTimestamp")
}

/// The columns of a kind that upstream has no printer for: the name and the time of creation.
pub(crate) fn name_and_creation() -> Vec<Column> {
    let created =
        Column::new("Created At", |object, _| json!(read::text(object, "metadata.creationTimestamp")));
    vec![name(), created.of_kind("date").of(OBJECT_META, "creationTimestamp")]
}

/// A column of the text at a path, or of `missing` if there is none.
pub(crate) fn field(name: &'static str, path: &'static str, missing: &'static str) -> Column {
    Column::new(name, move |object, _| json!(read::text_or(object, path, missing)))
}

/// A column of the whole number at a path; 0 if there is none.
pub(crate) fn number(name: &'static str, path: &'static str) -> Column {
    Column::new(name, move |object, _| json!(read::int(object, path))).of_kind("integer")
}

/// A column of the number of elements at a path.
pub(crate) fn length(name: &'static str, path: &'static str) -> Column {
    Column::new(name, move |object, _| {
        let elements = match read::at(object, path) {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        };
        json!(elements)
    })
    .of_kind("integer")
}

/// A column of the truth value at a path, or of `missing`.
pub(crate) fn flag(name: &'static str, path: &'static str, missing: bool) -> Column {
    Column::new(name, move |object, _| {
        json!(read::at(object, path).and_then(Value::as_bool).unwrap_or(missing))
    })
    .of_kind("boolean")
}

/// A column of a computed text.
pub(crate) fn text(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column::new(name, move |object, _| Value::String(cell(object)))
}

/// A column of the time since the moment at a path.
pub(crate) fn elapsed(name: &'static str, path: &'static str, missing: &'static str) -> Column {
    Column::new(name, move |object, now| match read::at(object, path) {
        Some(Value::String(_)) => json!(since(object, path, now)),
        _ => json!(missing),
    })
}

/// The three wide columns of a workload: its containers, their images, its selector.
pub(crate) fn containers(spec: &'static str) -> [Column; 2] {
    [
        Column::new("Containers", move |object, _| json!(joined(object, spec, "name")))
            .wide()
            .about("The containers of the template, by name"),
        Column::new("Images", move |object, _| json!(joined(object, spec, "image")))
            .wide()
            .about("The images that the template's containers run"),
    ]
}

/// A wide column of a label selector; `empty` is shown for one that selects by nothing.
pub(crate) fn selector(path: &'static str, empty: &'static str) -> Column {
    Column::new("Selector", move |object, _| json!(format_selector(read::at(object, path), empty))).wide()
}

/// The time since the moment at a path, as people say it; `<unknown>` if there is none.
pub(crate) fn since(object: &Value, path: &str, now: Timestamp) -> String {
    moment(object, path)
        .map_or_else(|| "<unknown>".to_owned(), |then| time::human_duration(now.seconds_since(then)))
}

/// The moment at a path, whichever of the API's two forms it has.
pub(crate) fn moment(object: &Value, path: &str) -> Option<Timestamp> {
    Timestamp::parse(read::text(object, path))
}

/// Labels as `key=value` pairs; `<none>` if there are none.
pub(crate) fn format_labels(labels: Option<&Map>) -> String {
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A `LabelSelector` as text.
pub(crate) fn format_selector(selector: Option<&Value>, empty: &str) -> String {
    let Some(selector) = selector else { return empty.to_owned() };
    match LabelSelector::from_value(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) if selector.is_empty() => empty.to_owned(),
        Ok(selector) => selector.to_string(),
    }
}

/// One field of every element of a list, joined with commas.
pub(crate) fn joined(object: &Value, list: &str, field: &str) -> String {
    read::list(object, list).iter().map(|element| read::text(element, field)).collect::<Vec<_>>().join(",")
}

/// The strings of a list, joined with commas.
pub(crate) fn joined_strings(object: &Value, list: &str) -> String {
    read::list(object, list).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

/// The first `shown` of all `items`, and how many there are beyond.
pub(crate) fn abridged(items: &[String], shown: usize, separator: &str) -> String {
    let first = items.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(separator);
    if items.len() > shown { format!("{first} + {} more...", items.len() - shown) } else { first }
}
