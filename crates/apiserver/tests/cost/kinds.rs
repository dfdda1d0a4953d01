//! Objects of every kind with one long list or map: measures the cost of the kind's strategy and of the errors that it
//! reports.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use nave_apiserver::endpoints::decode::{self, Body};
use nave_codec::json;
use nave_machinery::options::FieldValidation;
use nave_machinery::{FieldPath, limits};
use nave_machinery::{GroupVersionKind, Status, Value, names, time};
use nave_resources::{Registry, ResourceDef, Schema, table};
use nave_schema::{Scalar, Shape, TypeId, builtin};
use serde_json::{Map, json};

use crate::measure::{Bound, Case, Job};

/// Maximum depth of the search for lists.
const MAX_STEPS: usize = 9;

/// A step from an object to a list or a map in it.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item,
    Entry,
}

pub(crate) fn all() -> Vec<Case> {
    let registry = Registry::builtin(builtin());
    let mut cases = Vec::new();
    // A list whose type is shared by many kinds is tested only in the first kind.
    let mut tried = HashSet::new();
    for def in registry.all() {
        for version in &def.versions {
            let Some(id) = version.type_id() else { continue };
            let mut found = Vec::new();
            search(id, &mut Vec::new(), &mut tried, &mut found);
            for (path, shape) in found {
                let gvk = GroupVersionKind::new(&def.group, &version.name, &def.kind);
                cases.extend(of_list(def, &gvk, id, &path, &shape));
            }
        }
    }
    cases.extend(pairs(&registry));
    cases.push(other_finalizers());
    cases
}

/// Returns a test case that replaces all finalizers of an object that is being deleted.
fn other_finalizers() -> Case {
    let metadata = |size: usize, name: &str| {
        let names = listed(size, |at| json!(format!("example.com/{name}{at}")));
        json!({"name": "a", "deletionTimestamp": "2001-02-03T04:05:06Z", "finalizers": names})
    };
    Case::linear("finalizers of a deletion".to_owned(), move |size| {
        let (new, old) = (metadata(size, "new"), metadata(size, "old"));
        Job::new(size, move || {
            let errors = names::validate_object_meta_update(&new, &old, &FieldPath::new("metadata"));
            assert!(!errors.is_empty());
        })
    })
}

/// Collects the untested lists and maps below a type.
fn search(
    id: TypeId,
    path: &mut Vec<Step>,
    tried: &mut HashSet<(TypeId, String)>,
    found: &mut Vec<(Vec<Step>, Shape)>,
) {
    if path.len() > MAX_STEPS {
        return;
    }
    for field in &builtin().get(id).fields {
        let is_new = tried.insert((id, field.name.clone()));
        path.push(Step::Field(field.name.clone()));
        below(&field.shape, path, is_new, tried, found);
        path.pop();
    }
}

fn below(
    shape: &Shape,
    path: &mut Vec<Step>,
    is_new: bool,
    tried: &mut HashSet<(TypeId, String)>,
    found: &mut Vec<(Vec<Step>, Shape)>,
) {
    let (step, inner) = match shape {
        // Each type is entered only once, because recursive schemas would never end.
        Shape::Struct(id) if is_new => return search(*id, path, tried, found),
        Shape::List { items, .. } => (Step::Item, items),
        Shape::Map { values, .. } => (Step::Entry, values),
        _ => return,
    };
    if is_new {
        found.push((path.clone(), shape.clone()));
    }
    path.push(step);
    below(inner, path, is_new, tried, found);
    path.pop();
}

/// Returns test cases with long lists of equal, different and empty items.
fn of_list(
    def: &Arc<ResourceDef>,
    gvk: &GroupVersionKind,
    id: TypeId,
    path: &[Step],
    shape: &Shape,
) -> Vec<Case> {
    let case = |name: &str, item: fn(&Shape, usize) -> Value| {
        let (def, gvk, path, shape) = (Arc::clone(def), gvk.clone(), path.to_vec(), shape.clone());
        let name = format!("{}/{}/{name}", gvk.kind, written(&path));
        let work = move |size: usize| {
            let inner = many(&shape, size, item);
            let object = path.iter().rev().fold(inner, |inner, step| match step {
                Step::Field(name) => Value::Object(Map::from_iter([(name.clone(), inner)])),
                Step::Item => json!([inner]),
                Step::Entry => json!({"k": inner}),
            });
            job(&def, &gvk, id, object)
        };
        Case { name, bound: Bound::Objects, work: Box::new(work) }
    };
    vec![case("different", |shape, at| sample(shape, at, 3)), case("empty", |shape, _| empty(shape))]
}

fn written(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Item => "[]".to_owned(),
        Step::Entry => "{}".to_owned(),
    };
    path.iter().map(step).collect()
}

/// Returns test cases with pairs of lists that refer to each other and have the same number of items.
fn pairs(registry: &Registry) -> Vec<Case> {
    type Make = fn(usize) -> Value;
    let shapes: [(&str, &str, &str, Make); 6] = [
        ("", "Pod", "mounts and volumes", |size| {
            let volumes = listed(size / 4, |at| json!({"name": format!("v{at}"), "emptyDir": {}}));
            let mounts =
                listed(size / 4, |at| json!({"name": format!("v{at}"), "mountPath": format!("/{at}")}));
            let devices =
                listed(size / 4, |at| json!({"name": format!("v{at}"), "devicePath": format!("/{at}")}));
            json!({"spec": {"volumes": volumes, "containers": [{"name": "c", "image": "i", "volumeMounts": mounts, "volumeDevices": devices}]}})
        }),
        ("", "Pod", "containers and volumes", |size| {
            let volumes = listed(size / 2, |at| json!({"name": format!("v{at}"), "emptyDir": {}}));
            let containers =
                listed(size / 2, |at| json!({"name": format!("c{at}"), "volumeMounts": [{"name": "v"}]}));
            json!({"spec": {"volumes": volumes, "containers": containers}})
        }),
        ("", "Pod", "init containers and their statuses", |size| {
            let containers =
                listed(size / 2, |at| json!({"name": format!("c{at}"), "restartPolicy": "Always"}));
            let statuses = listed(
                size / 2,
                |at| json!({"name": format!("c{at}"), "state": {"terminated": {"exitCode": 0}}}),
            );
            json!({"spec": {"initContainers": containers}, "status": {"initContainerStatuses": statuses}})
        }),
        (
            "",
            "Pod",
            "tolerations",
            |size| json!({"spec": {"tolerations": listed(size, |at| json!({"key": format!("k{at}")}))}}),
        ),
        (
            "",
            "Service",
            "ports",
            |size| json!({"spec": {"ports": listed(size, |at| json!({"name": format!("p{at}"), "port": at}))}}),
        ),
        ("rbac.authorization.k8s.io", "Role", "rules", |size| {
            let words = |size: usize| listed(size, |at| json!(format!("w{at}")));
            json!({"rules": [{"apiGroups": words(size / 3), "resources": words(size / 3), "verbs": words(size / 3)}]})
        }),
    ];
    let case = |(group, kind, name, make): &(&str, &str, &str, Make)| {
        let mut all = registry.all();
        let def = Arc::clone(all.find(|def| def.group == *group && def.kind == *kind).unwrap());
        let version = &def.versions[0];
        let (gvk, id) = (GroupVersionKind::new(*group, &version.name, *kind), version.type_id().unwrap());
        let make = *make;
        let name = format!("{kind}/{name}");
        let work = move |size| job(&def, &gvk, id, make(size));
        Case { name, bound: Bound::Objects, work: Box::new(work) }
    };
    shapes.iter().map(case).collect()
}

/// Processes a parsed object up to the response, without admission: creates it, then updates it without changes.
fn job(def: &Arc<ResourceDef>, gvk: &GroupVersionKind, id: TypeId, mut object: Value) -> Job {
    object["apiVersion"] = json!(gvk.group_version().to_string());
    object["kind"] = json!(gvk.kind);
    let (def, gvk) = (Arc::clone(def), gvk.clone());
    let body = json::encode(&object);
    Job::new(body.len(), move || match validated(&def, &gvk, id, &body) {
        Ok(size) => drop(black_box(size)),
        Err(status) => {
            let text = json::encode(&status.to_value());
            assert!(text.len() < 1 << 20, "an answer of {} bytes", text.len());
        }
    })
}

fn validated(def: &ResourceDef, gvk: &GroupVersionKind, id: TypeId, body: &[u8]) -> Result<usize, Status> {
    let decoded = json::decode(body).map_err(json::JsonError::into_status)?;
    let body = Body { object: decoded.value, strict_errors: decoded.duplicates, json: None };
    let (mut object, _) = decode::typed(body, gvk, &Schema::Builtin(Some(id)), FieldValidation::Warn)?;
    decode::set_defaults(&mut object, &Schema::Builtin(Some(id)))?;
    let strategy = &def.strategy;
    strategy.default(&mut object, &gvk.version);
    limits::check(&object).map_err(limits::LimitError::into_status)?;
    let old = object.clone();
    let cells = def.versions.first().map(|version| table::row(&version.columns, &object, time::now()));
    let cells = cells.unwrap_or_default();
    strategy.prepare_for_create(&mut object);
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let at = FieldPath::new("metadata");
    let mut errors =
        names::validate_object_meta(metadata, def.namespaced, |name| def.name_rule.check(name), &at);
    errors.extend(strategy.validate(&object));
    strategy.prepare_for_update(&mut object, &old);
    errors.extend(strategy.validate_update(&object, &old));
    strategy.canonicalize(&mut object);
    if errors.is_empty() { Ok(cells.len()) } else { Err(Status::invalid(&gvk.group_kind(), "a", &errors)) }
}

/// Returns a list or map of about the given size, in bytes.
fn many(shape: &Shape, size: usize, item: fn(&Shape, usize) -> Value) -> Value {
    match shape {
        Shape::List { items, .. } => listed(size, |at| item(items, at)),
        Shape::Map { values, .. } => {
            let each = json::encode(&item(values, 1000)).len() + 10;
            (0..(size / each).max(1)).map(|at| (format!("k{at}"), item(values, at))).collect()
        }
        _ => Value::Null,
    }
}

fn listed(size: usize, item: impl Fn(usize) -> Value) -> Value {
    let each = json::encode(&item(1000)).len() + 1;
    (0..(size / each).max(1)).map(item).collect()
}

/// Returns a value of a shape with few fields, which differs at each position.
fn sample(shape: &Shape, at: usize, depth: usize) -> Value {
    match shape {
        Shape::Scalar(scalar) => match scalar {
            Scalar::Bool => json!(true),
            Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => json!(at),
            Scalar::Time | Scalar::MicroTime => json!("2026-01-01T00:00:00Z"),
            Scalar::Duration => json!("1s"),
            Scalar::Quantity => json!(at.to_string()),
            Scalar::Bytes => json!("AAAA"),
            Scalar::String => json!(format!("x{at}")),
        },
        Shape::Struct(id) if depth > 0 => {
            let fields = builtin()
                .get(*id)
                .fields
                .iter()
                .filter(|field| matches!(field.shape, Shape::Scalar(_)) || depth > 2);
            fields.take(4).map(|field| (field.name.clone(), sample(&field.shape, at, depth - 1))).collect()
        }
        Shape::List { items, .. } if depth > 0 => json!([sample(items, at, depth - 1)]),
        Shape::List { .. } => json!([]),
        Shape::Map { values, .. } if depth > 0 => json!({"k": sample(values, at, depth - 1)}),
        Shape::Map { .. } | Shape::Struct(_) => json!({}),
        Shape::Any => json!({"type": "object"}),
    }
}

fn empty(shape: &Shape) -> Value {
    match shape {
        Shape::Scalar(Scalar::String) => json!(""),
        Shape::Struct(_) | Shape::Map { .. } | Shape::Any => json!({}),
        Shape::List { .. } => json!([]),
        Shape::Scalar(_) => sample(shape, 0, 0),
    }
}
