//! Strict decoding: the unknown and duplicate fields of a document of a known type, in the order of the document.
//!
//! | value | reported |
//! | --- | --- |
//! | struct | unknown fields, each path once; duplicates of known fields |
//! | map | duplicate keys |
//! | unknown field, and a value that Go reads with a decoder of its own (times, quantities, untyped JSON) | nothing |

use std::collections::HashSet;
use std::fmt;

use nave_machinery::limits;
use nave_schema::types::{SchemaSet, Shape, TypeId};
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{MAX_REPORTED, MAX_REPORTED_BYTES, Path};

/// Returns the errors of strict decoding for a well-formed document of type `id`, such as `unknown field "spec.x"`, at
/// most 100 (`sigs.k8s.io/json`, `UnmarshalStrict`).
///
/// ```
/// let set = nave_schema::builtin();
/// let id = set.find("io.k8s.api.core.v1.ConfigMap").unwrap();
/// let text = br#"{"z": {"b": 1}, "kind": "ConfigMap", "kind": "ConfigMap", "a": 1, "z": 2}"#;
/// let errors = nave_codec::json::strict_errors(text, set, id);
/// assert_eq!(errors, [r#"unknown field "z""#, r#"duplicate field "kind""#, r#"unknown field "a""#]);
/// ```
pub fn strict_errors(document: &[u8], set: &SchemaSet, id: TypeId) -> Vec<String> {
    let mut scan = Scan { set, errors: Vec::new(), reported: HashSet::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let root = Node { path: &Path::Root, form: Form::Struct(id), scan: &mut scan };
    // The caller has decoded the document, so it is well-formed and not too deep.
    let _ = root.deserialize(&mut deserializer);
    scan.errors
}

struct Scan<'a> {
    set: &'a SchemaSet,
    errors: Vec<String>,
    /// The reported errors, for lookup.
    reported: HashSet<String>,
}

impl Scan<'_> {
    fn report(&mut self, what: &str, path: &Path<'_>) {
        if self.errors.len() >= MAX_REPORTED {
            return;
        }
        let error = format!("{what} field {:?}", limits::clipped(path, MAX_REPORTED_BYTES));
        if self.reported.insert(error.clone()) {
            self.errors.push(error);
        }
    }
}

/// The type of a value.
#[derive(Clone, Copy)]
enum Form<'a> {
    Struct(TypeId),
    List(&'a Shape),
    Map(&'a Shape),
    /// A value that is not checked.
    Other,
}

impl<'a> From<&'a Shape> for Form<'a> {
    fn from(shape: &'a Shape) -> Self {
        match shape {
            Shape::Struct(id) => Self::Struct(*id),
            Shape::List { items, .. } => Self::List(items),
            Shape::Map { values, .. } => Self::Map(values),
            Shape::Scalar(_) | Shape::Any => Self::Other,
        }
    }
}

/// The value at `path`.
struct Node<'n, 'a> {
    path: &'n Path<'n>,
    form: Form<'a>,
    scan: &'n mut Scan<'a>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.form {
            Form::Other => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let form = match self.form {
            Form::List(items) => items.into(),
            _ => Form::Other,
        };
        for at in 0.. {
            let path = Path::Item(self.path, at);
            let item = Node { path: &path, form, scan: self.scan };
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let form = match self.form {
                Form::Struct(id) => self.scan.set.get(id).field(&name).map(|field| Form::from(&field.shape)),
                Form::Map(values) => Some(values.into()),
                Form::List(_) | Form::Other => Some(Form::Other),
            };
            match form {
                None => self.scan.report("unknown", &path),
                Some(_) if seen.contains(&name) => self.scan.report("duplicate", &path),
                Some(_) => {}
            }
            fields.next_value_seed(Node {
                path: &path,
                form: form.unwrap_or(Form::Other),
                scan: self.scan,
            })?;
            seen.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(type_name: &str, document: &str) -> Vec<String> {
        let set = nave_schema::builtin();
        strict_errors(document.as_bytes(), set, set.find(type_name).unwrap())
    }

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn reports_errors_in_the_order_of_the_document() {
        let document = r#"{"spec": {"zz": 1, "containers": [{"b": {"c": 1, "c": 2}, "name": "x", "name": "y", "a": 1}],
            "restartPolicy": "Never", "restartPolicy": "Never"}, "metadata": {"labels": {"l": "1", "l": "2"}}, "aa": 1}"#;
        assert_eq!(
            errors(POD, document),
            [
                r#"unknown field "spec.zz""#,
                r#"unknown field "spec.containers[0].b""#,
                r#"duplicate field "spec.containers[0].name""#,
                r#"unknown field "spec.containers[0].a""#,
                r#"duplicate field "spec.restartPolicy""#,
                r#"duplicate field "metadata.labels.l""#,
                r#"unknown field "aa""#,
            ]
        );
    }

    #[test]
    fn reports_each_field_once() {
        let document =
            r#"{"x": 1, "x": 2, "x": 3, "kind": "Pod", "kind": "Pod", "kind": "Pod", "Kind": "Pod"}"#;
        assert_eq!(
            errors(POD, document),
            [r#"unknown field "x""#, r#"duplicate field "kind""#, r#"unknown field "Kind""#]
        );
    }

    /// Go reads these values with decoders of their own, which are not strict.
    #[test]
    fn reports_nothing_within_values_with_their_own_decoder() {
        let revision = "io.k8s.api.apps.v1.ControllerRevision";
        assert!(errors(revision, r#"{"data": {"a": 1, "a": 2}}"#).is_empty());
        let managed = r#"{"metadata": {"managedFields": [{"fieldsV1": {"f:a": {}, "f:a": {}}}]}}"#;
        assert!(errors(POD, managed).is_empty());
        let schema = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let nested =
            r#"{"additionalProperties": {"x": 1, "type": "a", "type": "b"}, "items": {"x": 1}, "x": 1}"#;
        assert_eq!(errors(schema, nested), [r#"unknown field "x""#]);
    }

    #[test]
    fn reports_at_most_a_hundred_errors() {
        let fields: Vec<_> =
            (0..80).map(|at| format!(r#""x{at}": 1, "labels": {{"a": 1, "a": 1}}"#)).collect();
        let document = format!(r#"{{"metadata": {{{}}}, {}}}"#, fields.join(","), fields.join(","));
        let found = errors(POD, &document);
        assert_eq!(found.len(), 100);
    }

    #[test]
    fn never_panics_on_values_of_wrong_types() {
        for document in
            ["[]", "1", "{\"spec\": 1}", r#"{"spec": [{"a": 1}]}"#, r#"{"metadata": {"labels": [1]}}"#]
        {
            assert!(errors(POD, document).is_empty(), "{document}");
        }
    }
}
