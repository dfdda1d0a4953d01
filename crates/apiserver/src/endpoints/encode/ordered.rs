//! Documents with their fields in the order of kube-apiserver, because some clients compare the text of a `Status`.

use nave_machinery::{Value, meta};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The order of a document's fields. Others follow, sorted.
struct Order {
    fields: &'static [&'static str],
    /// The orders of fields that contain maps, or lists of maps.
    nested: &'static [(&'static str, Order)],
}

const OBJECT: Order = Order { fields: &["kind", "apiVersion", "metadata"], nested: &[] };
const CAUSE: Order = Order { fields: &["reason", "message", "field"], nested: &[] };
const DETAILS: Order = Order {
    fields: &["name", "group", "kind", "uid", "causes", "retryAfterSeconds"],
    nested: &[("causes", CAUSE)],
};
const STATUS: Order = Order {
    fields: &["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"],
    nested: &[("details", DETAILS)],
};

/// A value whose fields are encoded in an order.
pub(in crate::endpoints) struct Ordered<'a> {
    value: &'a Value,
    order: &'static Order,
}

/// Returns a document for an encoder.
pub(in crate::endpoints) fn ordered(document: &Value) -> Ordered<'_> {
    let is_status = (meta::kind(document), meta::api_version(document)) == ("Status", "v1");
    Ordered { value: document, order: if is_status { &STATUS } else { &OBJECT } }
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value, order } = self;
        match value {
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                let first = order.fields.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
                let rest = fields.iter().filter(|(name, _)| !order.fields.contains(&name.as_str()));
                for (name, value) in first.chain(rest.map(|(name, value)| (name.as_str(), value))) {
                    match order.nested.iter().find(|(nested, _)| *nested == name) {
                        Some((_, order)) => map.serialize_entry(name, &Ordered { value, order })?,
                        None => map.serialize_entry(name, value)?,
                    }
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(|value| Ordered { value, order })),
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_have_the_order_of_kube_apiserver() {
        let status = json!({
            "apiVersion": "v1", "code": 422, "details": {
                "causes": [{"field": "f", "message": "m", "reason": "r"}], "group": "g", "kind": "k", "name": "n",
                "retryAfterSeconds": 1, "uid": "u",
            },
            "kind": "Status", "message": "m", "metadata": {}, "reason": "Invalid", "status": "Failure",
        });
        let wanted = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"m","reason":"Invalid","details":{"name":"n","group":"g","kind":"k","uid":"u","causes":[{"reason":"r","message":"m","field":"f"}],"retryAfterSeconds":1},"code":422}"#;
        assert_eq!(serde_json::to_string(&ordered(&status)).unwrap(), wanted);
        let review = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"b": 1, "a": [{"z": 1}]}, "spec": {}, "data": null});
        let wanted =
            r#"{"kind":"K","apiVersion":"a/v1","metadata":{"a":[{"z":1}],"b":1},"data":null,"spec":{}}"#;
        assert_eq!(serde_json::to_string(&ordered(&review)).unwrap(), wanted);
        assert_eq!(serde_json::to_string(&ordered(&json!([1]))).unwrap(), "[1]");
    }
}
