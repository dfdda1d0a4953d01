//! The managed fields of a create for generated objects of every built-in kind: they are the same whether they are
//! written directly, as for an object without managed fields, or found by comparison, as for an object whose request
//! names another manager.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod generated;

use nave_machinery::{Value, meta};
use nave_patch::managed_fields::{FieldManager, FieldSet, PathElement, TypeRef, Versions};
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{TypeId, builtin};
use proptest::prelude::*;
use serde_json::json;

use self::generated::{Choices, DEPTH, kinds};

struct Kind {
    id: TypeId,
    reset: FieldSet,
}

impl Versions for Kind {
    fn type_of(&self, _: &str) -> Option<TypeRef<'_>> {
        Some(TypeRef::Struct(builtin(), self.id))
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        Some(&self.reset)
    }
}

impl Kind {
    /// Returns the fields of the manager after a create by `object`.
    fn created(&self, empty: &Value, mut object: Value) -> Option<Value> {
        let (api_version, now) = ("g/v1", "2026-01-02T03:04:05Z");
        let fields = FieldManager { versions: self, api_version, kind: "K", subresource: "", now, empty };
        fields.update(None, &mut object, "creator");
        let entries = meta::field(&object, "managedFields")?.as_array()?;
        entries.iter().find(|entry| entry["manager"] == "creator").map(|entry| entry["fieldsV1"].clone())
    }
}

proptest! {
    #[test]
    fn both_ways_find_the_same_fields(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        is_normalized: bool,
        reset in prop::sample::subsequence(vec![vec!["status"], vec!["spec"], vec!["metadata", "labels"]], 0..=2),
    ) {
        let mut choices = Choices(&bytes);
        let kinds = kinds();
        let id = kinds[choices.next(kinds.len())];
        let normalized = |mut value: Value| {
            normalize(builtin(), id, &mut value, Mode::Ignore).map(|_| value)
        };
        let mut object = Value::Object(choices.object(id, DEPTH));
        meta::remove(&mut object, "managedFields");
        let empty = if is_normalized { normalized(json!({})).unwrap() } else { json!({}) };
        let object = if is_normalized { normalized(object.clone()).unwrap_or(object) } else { object };

        let mut kind = Kind { id, reset: FieldSet::default() };
        for path in reset {
            let path: Vec<PathElement> = path.into_iter().map(PathElement::field).collect();
            kind.reset.insert(&path);
        }
        let direct = kind.created(&empty, object.clone());
        let mut named = object;
        let other = json!([{"manager": "other", "operation": "Update", "apiVersion": "g/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:other": {}}}}]);
        named["metadata"]["managedFields"] = other;
        let compared = kind.created(&empty, named);
        prop_assert_eq!(direct, compared);
    }
}
