//! Generates valid objects of each kind with a few odd fields and checks properties of each object. Used by the tests
//! of this crate and by the fuzz target `kind`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::sync::LazyLock;

use nave_machinery::{FieldPath, GroupVersion, Map, Status, Value, names};
use nave_resources::{Registry, ResourceDef, ResourceVersion, convert};
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{Field, Scalar, Shape, TypeId, builtin, defaulting};
use serde_json::json;

/// A kind in one version.
pub(crate) struct Kind {
    pub(crate) def: &'static ResourceDef,
    pub(crate) version: &'static ResourceVersion,
    pub(crate) id: TypeId,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::builtin(builtin()));

/// Valid objects by kind.
static SAMPLES: LazyLock<Map> = LazyLock::new(|| serde_json::from_str(include_str!("samples.json")).unwrap());

/// Each stored kind in each served version.
pub(crate) static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let stored = REGISTRY.all().map(|def| &**def).filter(|def| def.storage.is_some());
    let versions = stored.flat_map(|def| def.versions.iter().map(move |version| (def, version)));
    versions.filter_map(|(def, version)| Some(Kind { def, version, id: version.type_id()? })).collect()
});

/// Strings that are special for some rule.
const TEXTS: [&str; 24] = [
    "",
    "a",
    "A b",
    "-",
    "*",
    "a.com/b",
    "a/b/c",
    "a.b.c",
    "1",
    "-1",
    "10%",
    "101%",
    "0",
    "1Gi",
    "1n",
    "true",
    "/",
    "//",
    "10.0.0.1",
    "fd00::/64",
    "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59.000000Z",
    "* * * * *",
    "Qg==",
];
const NUMBERS: [i64; 10] = [0, 1, -1, 2, 80, 65_536, 1 << 31, -(1 << 31), i64::MAX, i64::MIN];

/// Values for a field of any type.
pub(crate) fn odd_values() -> Vec<Value> {
    let texts = TEXTS.iter().map(|text| json!(text));
    let numbers = NUMBERS.iter().map(|number| json!(number));
    let others =
        [json!(null), json!({}), json!([]), json!([null]), json!(true), json!(1.5), json!("x".repeat(300))];
    texts.chain(numbers).chain(others).collect()
}

/// Returns the sample of a kind; without a sample, an object with only type and name.
pub(crate) fn sample(kind: &Kind) -> Value {
    let mut object =
        SAMPLES.get(&kind.def.kind).cloned().unwrap_or_else(|| json!({"metadata": {"name": "x"}}));
    if kind.def.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    let fields = object.as_object_mut().unwrap();
    let version = kind.def.group_version(&kind.version.name);
    fields.insert("apiVersion".to_owned(), json!(version.to_string()));
    fields.insert("kind".to_owned(), json!(kind.def.kind));
    if version.to_string() == "events.k8s.io/v1" {
        fields.remove("involvedObject");
        let event = json!({
            "regarding": {"namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "a",
            "reason": "r", "type": "Normal", "reportingController": "a.com/b", "reportingInstance": "i",
        });
        fields.extend(event.as_object().unwrap().clone());
    }
    object
}

/// Decodes an object, sets defaults, creates it, and updates it without changes. Returns whether it was accepted.
///
/// # Panics
/// Defaulting twice changes the object, an error has no field path, or an update rejects the unchanged stored object.
pub(crate) fn check(kind: &Kind, mut object: Value) -> bool {
    let Kind { def, version, id } = kind;
    if normalize(builtin(), *id, &mut object, Mode::Ignore).is_err()
        || defaulting::apply(builtin(), *id, &mut object).is_err()
    {
        return false;
    }
    def.strategy.default(&mut object, &version.name);
    let mut again = object.clone();
    defaulting::apply(builtin(), *id, &mut again).unwrap();
    def.strategy.default(&mut again, &version.name);
    assert_eq!(again, object, "setting defaults twice must not change the object");

    let stored_in = def.storage.as_ref().map(|storage| storage.version.clone()).unwrap();
    let Ok(mut object) = converted(kind, object, &stored_in) else { return false };
    if !object.get("metadata").is_some_and(Value::is_object) {
        object["metadata"] = json!({});
    }
    let status = object.get("status").cloned();
    if def.versions[0].has_status() && !def.rules.creates_with_status {
        object.as_object_mut().unwrap().remove("status");
    }
    object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    def.strategy.prepare_for_create(&mut object);
    if !is_valid(def, &object, def.strategy.validate(&object)) {
        return false;
    }
    def.strategy.canonicalize(&mut object);
    let _ = def.strategy.warnings(&object, None);

    let mut update = object.clone();
    def.strategy.prepare_for_update(&mut update, &object);
    assert_eq!(update, object, "an update without changes must not change the object");
    let errors = def.strategy.validate_update(&update, &object);
    assert!(errors.is_empty(), "{object}\nis not accepted as an update of itself: {errors:?}");
    def.strategy.canonicalize(&mut update);
    assert_eq!(update, object, "the stored form must be canonical");
    if let Some(status) = status.filter(|_| def.versions[0].has_status()) {
        check_status(def, &object, status);
    }
    true
}

/// Updates the status of an object, then updates the result without changes.
fn check_status(def: &ResourceDef, object: &Value, status: Value) {
    let mut update = object.clone();
    update["status"] = status;
    def.strategy.prepare_for_status_update(&mut update, object);
    if !is_valid(def, &update, def.strategy.validate_status_update(&update, object)) {
        return;
    }
    let mut again = update.clone();
    def.strategy.prepare_for_status_update(&mut again, &update);
    let errors = def.strategy.validate_status_update(&again, &update);
    assert!(errors.is_empty(), "{update}\nis not accepted as an update of its status: {errors:?}");
}

fn converted(
    kind: &Kind,
    mut object: Value,
    to: &GroupVersion,
) -> Result<Value, nave_resources::ConversionError> {
    let from = kind.def.group_version(&kind.version.name);
    if from != *to {
        convert(kind.def, &mut object, &from, to)?;
    }
    Ok(object)
}

fn is_valid(def: &ResourceDef, object: &Value, mut errors: nave_machinery::FieldErrors) -> bool {
    let metadata = FieldPath::new("metadata");
    let check_name = |name: &str| def.name_rule.check(name);
    errors.extend(names::validate_object_meta(&object["metadata"], def.namespaced, check_name, &metadata));
    if !errors.is_empty() {
        let status = Status::invalid(&def.group_kind(), "x", &errors).to_value();
        assert_eq!(status["code"], 422);
        let causes = status["details"]["causes"].as_array().unwrap();
        assert!(!causes.is_empty() && causes.iter().all(|cause| cause["reason"].is_string()), "{status}");
    }
    errors.is_empty()
}

/// Bytes that determine the generated object.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn pick<'t, T>(&mut self, list: &'t [T]) -> Option<&'t T> {
        if list.is_empty() { None } else { list.get(self.next() % list.len()) }
    }
}

/// Sets a few fields of an object to values of the same or another type.
pub(crate) fn mutate(kind: &Kind, object: &mut Value, choices: &mut Choices<'_>) {
    for _ in 0..=choices.next() % 4 {
        set_somewhere(&Shape::Struct(kind.id), object, choices, 12);
    }
}

fn set_somewhere(shape: &Shape, place: &mut Value, choices: &mut Choices<'_>, depth: usize) {
    let stops = depth == 0 || choices.next().is_multiple_of(8);
    match shape {
        Shape::Struct(id) if !stops => {
            let Some(field) = choices.pick(&builtin().get(*id).fields) else { return };
            if !place.is_object() {
                *place = json!({});
            }
            set_field(field, place, choices, depth - 1);
        }
        Shape::List { items, .. } if !stops => {
            if !place.is_array() {
                *place = json!([]);
            }
            let list = place.as_array_mut().unwrap();
            let index = choices.next() % (list.len().min(3) + 1);
            if index == list.len() {
                list.push(Value::Null);
            }
            set_somewhere(items, &mut list[index], choices, depth - 1);
        }
        Shape::Map { values, .. } if !stops => {
            if !place.is_object() {
                *place = json!({});
            }
            let key = *choices.pick(&TEXTS).unwrap();
            set_somewhere(values, &mut place[key], choices, depth - 1);
        }
        _ => *place = arbitrary(shape, choices),
    }
}

fn set_field(field: &Field, object: &mut Value, choices: &mut Choices<'_>, depth: usize) {
    let value = &mut object[field.name.as_str()];
    match choices.pick(&field.enumeration) {
        Some(text) if choices.next().is_multiple_of(2) => *value = json!(text),
        _ => set_somewhere(&field.shape, value, choices, depth),
    }
}

fn arbitrary(shape: &Shape, choices: &mut Choices<'_>) -> Value {
    let number = |choices: &mut Choices<'_>| json!(NUMBERS[choices.next() % NUMBERS.len()]);
    let text = |choices: &mut Choices<'_>| json!(TEXTS[choices.next() % TEXTS.len()]);
    if choices.next().is_multiple_of(16) {
        let odd = odd_values();
        return odd[choices.next() % odd.len()].clone();
    }
    match shape {
        Shape::Scalar(Scalar::Bool) => json!(choices.next().is_multiple_of(2)),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => number(choices),
        Shape::Scalar(Scalar::IntOrString | Scalar::Quantity) if choices.next().is_multiple_of(2) => {
            number(choices)
        }
        Shape::Scalar(_) => text(choices),
        Shape::List { .. } => json!([]),
        Shape::Struct(_) | Shape::Map { .. } | Shape::Any => json!({}),
    }
}
