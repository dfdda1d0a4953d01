//! Model test of `Indexer`. The model is a map that scans all objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nave_client::{Indexer, NAMESPACE_INDEX, NoSuchIndex, Object, ObjectName};
use proptest::prelude::*;

use crate::objects::labelled;

#[derive(Clone, Debug)]
enum Step {
    Put(String, String),
    Remove(String),
    Replace(Vec<(String, String)>),
    AddIndex,
}

/// Returns the letters of the label as index values: zero, one or several.
fn letters(object: &Object) -> Vec<String> {
    object.label("colour").unwrap_or_default().chars().map(String::from).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (key, label) = ("[ab]/[xyz]", "[rgb]{0,3}");
    let step = prop_oneof![
        5 => (key, label).prop_map(|(key, label)| Step::Put(key, label)),
        3 => key.prop_map(Step::Remove),
        1 => proptest::collection::vec((key, label), 0..5).prop_map(Step::Replace),
        1 => Just(Step::AddIndex),
    ];
    proptest::collection::vec(step, 0..40)
}

fn keys(objects: &[Object]) -> BTreeSet<String> {
    objects.iter().map(|object| object.key().to_string()).collect()
}

proptest! {
    #[test]
    fn index_lookups_match_a_scan(steps in steps()) {
        let (cache, mut model) = (Indexer::new(), BTreeMap::<String, String>::new());
        let mut indexed = false;
        for (version, step) in steps.into_iter().enumerate() {
            let object = |key: &str, label: &str| labelled(key, "u", version as u64, label);
            match step {
                Step::Put(key, label) => {
                    let old = cache.put(object(&key, &label));
                    let expected = model.insert(key, label);
                    prop_assert_eq!(old.and_then(|old| old.label("colour").map(str::to_owned)), expected);
                }
                Step::Remove(key) => {
                    let removed = cache.remove(&ObjectName::from(&*key)).is_some();
                    prop_assert_eq!(removed, model.remove(&key).is_some());
                }
                Step::Replace(all) => {
                    cache.replace_all(all.iter().map(|(key, label)| object(key, label)).collect());
                    model = all.into_iter().collect();
                }
                Step::AddIndex => {
                    cache.add_index("letters", Arc::new(letters));
                    indexed = true;
                }
            }
            prop_assert_eq!(keys(&cache.list()), model.keys().cloned().collect());
            for namespace in ["a", "b"] {
                let expected = model.keys().filter(|key| key.starts_with(namespace)).cloned().collect();
                prop_assert_eq!(keys(&cache.by_index(NAMESPACE_INDEX, namespace).unwrap()), expected);
            }
            let values: BTreeSet<_> = model.values().flat_map(|label| label.chars().map(String::from)).collect();
            for letter in ["r", "g", "b"] {
                let found = cache.by_index("letters", letter);
                if indexed {
                    let bears = |(_, label): &(&String, &String)| label.contains(letter);
                    let expected = model.iter().filter(bears).map(|(key, _)| key.clone()).collect();
                    prop_assert_eq!(keys(&found.unwrap()), expected);
                    let found: BTreeSet<_> = cache.index_values("letters").unwrap().into_iter().collect();
                    prop_assert_eq!(&found, &values);
                    prop_assert_eq!(cache.is_index_empty("letters").unwrap(), values.is_empty());
                } else {
                    prop_assert_eq!(found.unwrap_err(), NoSuchIndex("letters".into()));
                }
            }
        }
    }
}
