//! Sets odd values in each field of each kind, and random values in several fields at once. Each object must be
//! rejected with causes or remain valid (see `properties`).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failed test")]

mod properties;

use nave_machinery::Value;
use nave_schema::{Shape, builtin};
use properties::{Choices, KINDS, Kind, check, mutate, odd_values, sample};
use proptest::prelude::*;

/// The maximum depth of the tested fields.
const DEPTH: usize = 4;

#[test]
fn samples_are_accepted() {
    let refused: Vec<_> = KINDS.iter().filter(|kind| !check(kind, sample(kind))).map(name).collect();
    // No sample of these kinds is complete: they need the bytes of a request, a schema or an expression.
    let expected = [
        "certificatesigningrequests.certificates.k8s.io v1",
        "clustertrustbundles.certificates.k8s.io v1beta1",
        "customresourcedefinitions.apiextensions.k8s.io v1",
        "mutatingadmissionpolicies.admissionregistration.k8s.io v1",
        "podcertificaterequests.certificates.k8s.io v1",
    ];
    let unexpected: Vec<_> = refused.iter().filter(|name| !expected.contains(&name.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

fn name(kind: &Kind) -> String {
    format!("{} {}", kind.def.group_resource(), kind.version.name)
}

#[test]
fn odd_values_are_rejected_or_stay_valid() {
    let values = odd_values();
    for kind in KINDS.iter() {
        let mut places = Vec::new();
        collect(&Shape::Struct(kind.id), &mut Vec::new(), DEPTH, &mut places);
        assert!(!places.is_empty(), "{}", name(kind));
        for place in places {
            for value in &values {
                let mut object = sample(kind);
                set(&mut object, &place, value.clone());
                check(kind, object);
            }
        }
    }
}

/// A step from an object to a value in it.
#[derive(Clone)]
enum Step {
    Field(&'static str),
    First,
}

fn collect(shape: &Shape, path: &mut Vec<Step>, depth: usize, places: &mut Vec<Vec<Step>>) {
    if !path.is_empty() {
        places.push(path.clone());
    }
    if depth == 0 {
        return;
    }
    let mut below = |step: Step, shape: &Shape, depth: usize| {
        path.push(step);
        collect(shape, path, depth, places);
        path.pop();
    };
    match shape {
        Shape::Struct(id) => {
            for field in &builtin().get(*id).fields {
                below(Step::Field(&field.name), &field.shape, depth - 1);
            }
        }
        Shape::List { items, .. } => below(Step::First, items, depth),
        Shape::Map { values, .. } => below(Step::Field("a"), values, depth),
        Shape::Scalar(_) | Shape::Any => {}
    }
}

fn set(object: &mut Value, path: &[Step], value: Value) {
    let mut place = object;
    for step in path {
        place = match step {
            Step::Field(name) => {
                if !place.is_object() {
                    *place = Value::Object(nave_machinery::Map::new());
                }
                &mut place[*name]
            }
            Step::First => {
                if place.as_array().is_none_or(Vec::is_empty) {
                    *place = Value::Array(vec![Value::Null]);
                }
                &mut place[0]
            }
        };
    }
    *place = value;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_objects_are_rejected_or_stay_valid(
        choice: prop::sample::Index,
        bytes in prop::collection::vec(any::<u8>(), 0..96),
    ) {
        let kind = choice.get(&KINDS);
        let mut object = sample(kind);
        mutate(kind, &mut object, &mut Choices(&bytes));
        check(kind, object);
    }
}
