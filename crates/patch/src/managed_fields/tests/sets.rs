use std::collections::BTreeSet;

use nave_machinery::Value;
use proptest::prelude::*;
use serde_json::json;

use super::super::field_name::FieldName;
use super::super::path::{PathElement, display};
use super::super::{FieldSet, FieldsError};

type Paths = BTreeSet<Vec<PathElement>>;

fn element() -> impl Strategy<Value = PathElement> {
    let name = prop::sample::select(vec!["a", "b", "c.d", ".", "\"<&"]);
    let value = prop_oneof![
        (0..3i64).prop_map(|number| json!(number)),
        Just(json!("x")),
        Just(json!(true)),
        Just(json!("é\u{2028}<")),
    ];
    prop_oneof![
        3 => name.prop_map(PathElement::field),
        1 => value.clone().prop_map(|value| PathElement::Key(vec![(FieldName::new("k"), value)])),
        1 => value.prop_map(PathElement::Value),
        2 => (0..40i64).prop_map(PathElement::Index),
    ]
}

fn paths() -> impl Strategy<Value = Paths> {
    prop::collection::btree_set(prop::collection::vec(element(), 1..4), 0..40)
}

fn set(paths: &Paths) -> FieldSet {
    FieldSet::from_paths(paths.iter().map(Vec::as_slice))
}

fn paths_of(set: &FieldSet) -> Paths {
    set.paths().into_iter().collect()
}

proptest! {
    #[test]
    fn sets_round_trip(paths in paths()) {
        let set = set(&paths);
        let written = set.to_fields_v1().unwrap();
        let text = written.to_string();
        let read: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&FieldSet::from_fields_v1(&read).unwrap(), &set);
        prop_assert_eq!(paths_of(&set), paths);
    }

    #[test]
    fn operations_agree_with_plain_sets_of_paths(a in paths(), b in paths()) {
        let (left, right) = (set(&a), set(&b));
        prop_assert_eq!(paths_of(&left.clone().union(right.clone())), a.union(&b).cloned().collect::<Paths>());
        prop_assert_eq!(paths_of(&left.intersection(&right)), a.intersection(&b).cloned().collect::<Paths>());
        prop_assert_eq!(paths_of(&left.clone().difference(&right)), a.difference(&b).cloned().collect::<Paths>());
        prop_assert_eq!(left.intersects(&right), a.intersection(&b).next().is_some());
        let below = |path: &Vec<PathElement>| b.iter().any(|prefix| path.starts_with(prefix));
        let outside: Paths = a.iter().filter(|path| !below(path)).cloned().collect();
        prop_assert_eq!(paths_of(&left.clone().recursive_difference(&right)), outside);
        let leaf = |path: &Vec<PathElement>| !a.iter().any(|other| other.len() > path.len() && other.starts_with(path));
        let leaves: Paths = a.iter().filter(|path| leaf(path)).cloned().collect();
        prop_assert_eq!(paths_of(&left.leaves()), leaves);
    }

    #[test]
    fn parsing_never_panics(text in "[fkvi:{}\"a1.\\[\\]]{0,12}") {
        let _ = FieldSet::from_fields_v1(&json!({ text: {} }));
    }
}

#[test]
fn a_field_and_fields_below_it_are_distinct() {
    let written = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "k:{\"n\":1}": {"f:d": {}}});
    let set = FieldSet::from_fields_v1(&written).unwrap();
    let shown: Vec<String> = set.paths().iter().map(|path| display(path.iter()).to_string()).collect();
    assert_eq!(shown, [".a", ".c", ".a.b", "[n=1].d"]);
    assert_eq!(set.to_fields_v1().unwrap(), written);
}

#[test]
fn rejects_invalid_sets() {
    for fields in
        [json!([]), json!("x"), json!({"f:a": 5}), json!({"f:a": {"nothing": {}}}), json!({"k:{": {}})]
    {
        assert!(FieldSet::from_fields_v1(&fields).is_err(), "{fields}");
    }
    let deep = (0..200).fold(json!({}), |inner, _| json!({"f:a": inner}));
    assert_eq!(FieldSet::from_fields_v1(&deep), Err(FieldsError::TooDeep));
    let path = vec![PathElement::field("a"); 98];
    assert_eq!(FieldSet::from_paths([path.as_slice()]).to_fields_v1(), Err(FieldsError::TooDeep));
}

#[test]
fn ignores_unknown_kinds_of_elements() {
    let set = FieldSet::from_fields_v1(&json!({"x:new": {"f:a": {}}, "f:b": {}})).unwrap();
    assert_eq!(set.to_fields_v1().unwrap(), json!({"f:b": {}}));
}

/// Integers that doubles cannot represent, and doubles. An order by rounded numbers would not be total.
#[test]
fn sorts_numbers_of_any_size() {
    let precise = 1i64 << 53;
    let fields: serde_json::Map<String, Value> = (precise - 50..precise + 50)
        .flat_map(|number| {
            [format!("v:{number}"), format!("v:{number}.0"), format!("k:{{\"p\":{number}e0}}")]
        })
        .map(|element| (element, json!({})))
        .collect();
    let set = FieldSet::from_fields_v1(&Value::Object(fields)).unwrap();
    assert!(set.paths().is_sorted());
    assert!((100..300).contains(&set.paths().len()));
}

#[test]
fn equal_elements_are_merged() {
    let set =
        FieldSet::from_fields_v1(&json!({"k:{\"p\":1}": {"f:a": {}}, "k:{\"p\":1.0}": {"f:b": {}}})).unwrap();
    assert_eq!(set.paths().len(), 2);
    assert_eq!(set.into_nodes().count(), 1);
}
