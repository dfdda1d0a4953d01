//! Messages of small schemas: known bytes, unusual encoders, and random schemas with random values.

use nave_machinery::{duration, limits};
use nave_schema::{
    AnyForm, Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType, TypeId, Wire,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json;

fn field(name: &str, number: u32, shape: Shape) -> Field {
    Field {
        name: name.to_owned(),
        shape,
        always: false,
        required: false,
        pointer: false,
        declared_atomic: false,
        granular: false,
        default: None,
        patch: PatchStrategy::default(),
        type_meta: None,
        enumeration: Vec::new(),
        wire: Wire { number, ..Wire::default() },
    }
}

fn list(items: Shape) -> Shape {
    Shape::List { items: Box::new(items), topology: ListTopology::Atomic }
}

fn map(values: Shape) -> Shape {
    Shape::Map { values: Box::new(values), atomic: false }
}

fn set(types: Vec<Vec<Field>>) -> SchemaSet {
    let types = types.into_iter().enumerate();
    let types = types.map(|(at, fields)| StructType::new(format!("T{at}"), fields, false));
    SchemaSet::new(types.collect())
}

/// Returns a set with one type that has these fields.
fn single(fields: Vec<Field>) -> SchemaSet {
    set(vec![fields])
}

const FIRST: TypeId = TypeId(0);

fn encoded(set: &SchemaSet, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(set, FIRST, value, &mut out).unwrap();
    out
}

fn transcoded(set: &SchemaSet, message: &[u8], root: Root<'_>) -> Result<String, ProtobufError> {
    let mut out = Vec::new();
    transcode_json(set, FIRST, message, root, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// Checks both directions, and that JSON text and value are the same document.
fn check(set: &SchemaSet, value: &Value, message: &[u8]) {
    assert_eq!(encoded(set, value), message, "{value}");
    assert_eq!(&decode(set, FIRST, message).unwrap(), value);
    let text = transcoded(set, message, Root::default()).unwrap();
    assert_eq!(&json::decode(text.as_bytes()).unwrap().value, value);
}

#[test]
fn encodes_and_decodes_scalars() {
    let scalar = Shape::Scalar;
    let set = single(vec![
        field("string", 1, scalar(Scalar::String)),
        field("bool", 2, scalar(Scalar::Bool)),
        field("int", 3, scalar(Scalar::Int32)),
        field("long", 4, scalar(Scalar::Int64)),
        field("double", 5, scalar(Scalar::Double)),
        field("bytes", 6, scalar(Scalar::Bytes)),
        field("time", 7, scalar(Scalar::Time)),
        field("micro", 8, scalar(Scalar::MicroTime)),
        field("duration", 9, scalar(Scalar::Duration)),
        field("quantity", 10, scalar(Scalar::Quantity)),
        field("port", 11, scalar(Scalar::IntOrString)),
    ]);
    check(&set, &json!({"string": "é\"\n\u{1}"}), b"\x0a\x05\xc3\xa9\"\n\x01");
    check(&set, &json!({"bool": true}), b"\x10\x01");
    check(&set, &json!({"int": -1}), b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    check(&set, &json!({"long": 300}), b"\x20\xac\x02");
    check(&set, &json!({"double": 1.5}), b"\x29\0\0\0\0\0\0\xf8\x3f");
    check(&set, &json!({"bytes": "AP8="}), b"\x32\x02\0\xff");
    check(&set, &json!({"time": "1970-01-01T00:00:01Z"}), b"\x3a\x04\x08\x01\x10\0");
    check(&set, &json!({"micro": "1970-01-01T00:00:01.000001Z"}), b"\x42\x05\x08\x01\x10\xe8\x07");
    check(&set, &json!({"duration": "1µs"}), b"\x4a\x03\x08\xe8\x07");
    check(&set, &json!({"quantity": "1Gi"}), b"\x52\x05\x0a\x031Gi");
    check(&set, &json!({"port": 80}), b"\x5a\x06\x08\0\x10\x50\x1a\0");
    check(&set, &json!({"port": "http"}), b"\x5a\x0a\x08\x01\x10\0\x1a\x04http");
    for (wrong, name) in
        [(json!({"int": "x"}), "int"), (json!({"int": 1i64 << 40}), "int"), (json!({"time": "now"}), "time")]
    {
        let error = encode(&set, FIRST, &wrong, &mut Vec::new()).unwrap_err();
        assert_eq!(error, ProtobufError::WrongType(name.to_owned()));
    }
}

#[test]
fn encodes_and_decodes_lists_maps_and_structs() {
    let set = set(vec![vec![
        field("names", 1, list(Shape::Scalar(Scalar::String))),
        field("ports", 2, list(Shape::Scalar(Scalar::Int32))),
        field("labels", 3, map(Shape::Scalar(Scalar::String))),
        field("child", 4, Shape::Struct(FIRST)),
        field("extra", 5, map(list(Shape::Scalar(Scalar::String)))),
        Field {
            wire: Wire { number: 6, wrapped: true, ..Wire::default() },
            ..field("verbs", 6, list(Shape::Scalar(Scalar::String)))
        },
    ]]);
    check(&set, &json!({"names": ["a", ""]}), b"\x0a\x01a\x0a\x00");
    check(&set, &json!({"ports": [1, 2]}), b"\x10\x01\x10\x02");
    check(
        &set,
        &json!({"labels": {"a": "1", "b": "2"}}),
        b"\x1a\x06\x0a\x01a\x12\x011\x1a\x06\x0a\x01b\x12\x012",
    );
    check(&set, &json!({"child": {"child": {}}}), b"\x22\x02\x22\x00");
    check(&set, &json!({"extra": {"k": ["v"]}}), b"\x2a\x08\x0a\x01k\x12\x03\x0a\x01v");
    check(&set, &json!({"verbs": ["get"]}), b"\x32\x05\x0a\x03get");

    // Valid messages that this encoder never writes: packed, out of order, split, repeated or unknown fields.
    let read = |message: &[u8]| decode(&set, FIRST, message).unwrap();
    assert_eq!(read(b"\x12\x02\x01\x02\x10\x03"), json!({"ports": [1, 2, 3]}));
    assert_eq!(read(b"\x10\x01\x0a\x01a\x10\x02\x0a\x01b"), json!({"names": ["a", "b"], "ports": [1, 2]}));
    assert_eq!(read(b"\x22\x03\x0a\x01a\x22\x03\x0a\x01b"), json!({"child": {"names": ["a", "b"]}}));
    assert_eq!(
        read(b"\x1a\x06\x0a\x01b\x12\x011\x1a\x06\x0a\x01a\x12\x012\x1a\x06\x0a\x01b\x12\x013"),
        json!({"labels": {"a": "2", "b": "3"}})
    );
    assert_eq!(read(b"\x1a\x03\x0a\x01a"), json!({"labels": {"a": ""}}));
    assert_eq!(read(b"\x78\x01\x10\x01"), json!({"ports": [1]}));
}

#[test]
fn decodes_inlined_messages_as_fields_of_the_object() {
    let at = |via: u32, number: u32, name: &str| Field {
        wire: Wire { number, via, ..Wire::default() },
        ..field(name, number, Shape::Scalar(Scalar::Int32))
    };
    let set = single(vec![
        at(0, 1, "own"),
        at(2, 1, "inner"),
        at(2, 3, "other"),
        at(2 << 16 | 2, 1, "innermost"),
        at(0, 3, "last"),
    ]);
    let value = json!({"own": 1, "inner": 2, "innermost": 3, "other": 4, "last": 5});
    check(&set, &value, b"\x08\x01\x12\x08\x08\x02\x12\x02\x08\x03\x18\x04\x18\x05");
    check(&set, &json!({"innermost": 3}), b"\x12\x04\x12\x02\x08\x03");
    assert_eq!(decode(&set, FIRST, b"\x12\x00\x10\x07").unwrap(), json!({}));
}

#[test]
fn adds_fields_that_json_always_has() {
    let always = |field: Field| Field { always: true, ..field };
    let set = set(vec![
        vec![
            always(field("metadata", 1, Shape::Struct(TypeId(1)))),
            always(field("rules", 2, list(Shape::Scalar(Scalar::String)))),
            always(field("replicas", 3, Shape::Scalar(Scalar::Int32))),
            Field {
                wire: Wire { number: 4, omit_zero: true, ..Wire::default() },
                ..field("paused", 4, Shape::Scalar(Scalar::Bool))
            },
            field("pointer", 5, Shape::Scalar(Scalar::Bool)),
            always(Field { pointer: true, ..field("text", 6, Shape::Scalar(Scalar::String)) }),
            always(Field { pointer: true, ..field("struct", 7, Shape::Struct(TypeId(1))) }),
        ],
        vec![
            field("name", 1, Shape::Scalar(Scalar::String)),
            field("resourceVersion", 6, Shape::Scalar(Scalar::String)),
            always(field("creationTimestamp", 8, Shape::Scalar(Scalar::Time))),
        ],
    ]);
    // An absent pointer is null, other absent values are zero.
    let empty = json!({"metadata": {"creationTimestamp": null}, "rules": null, "replicas": 0, "text": null, "struct": null});
    assert_eq!(decode(&set, FIRST, b"").unwrap(), empty);
    assert_eq!(decode(&set, FIRST, b"\x0a\x02\x42\x00\x20\x00").unwrap(), empty);
    assert_eq!(decode(&set, FIRST, b"\x28\x00").unwrap()["pointer"], json!(false));
    assert_eq!(decode(&set, FIRST, b"\x32\x00").unwrap()["text"], json!(""));

    let root = Root { api_version: "v1", kind: "Pod", resource_version: Some("12"), ..Root::default() };
    let text = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12","name":"a","creationTimestamp":null},"rules":null,"replicas":0,"text":null,"struct":null}"#;
    assert_eq!(transcoded(&set, b"\x0a\x06\x0a\x01a\x32\x019", root).unwrap(), text);
}

#[test]
fn encodes_and_decodes_untyped_values() {
    let any = |name: &str, number: u32, any: AnyForm| Field {
        wire: Wire { number, any, ..Wire::default() },
        ..field(name, number, Shape::Any)
    };
    let set = single(vec![
        field("raw", 1, Shape::Any),
        any("orBool", 2, AnyForm::SchemaOrBool),
        any("orArray", 3, AnyForm::SchemaOrArray),
        Field { shape: map(Shape::Any), ..any("orStrings", 4, AnyForm::SchemaOrStrings) },
        field("rawList", 5, list(Shape::Any)),
    ]);
    check(&set, &json!({"raw": {"a": [1, null]}}), b"\x0a\x10\x0a\x0e{\"a\":[1,null]}");
    check(&set, &json!({"orBool": true}), b"\x12\x02\x08\x01");
    check(&set, &json!({"orBool": {"orBool": false}}), b"\x12\x08\x08\x01\x12\x04\x12\x02\x08\x00");
    check(&set, &json!({"orArray": {}}), b"\x1a\x02\x0a\x00");
    check(&set, &json!({"orArray": [{}, {"orBool": true}]}), b"\x1a\x08\x12\x00\x12\x04\x12\x02\x08\x01");
    check(&set, &json!({"orStrings": {"k": ["v"]}}), b"\x22\x08\x0a\x01k\x12\x03\x12\x01v");
    check(&set, &json!({"raw": "a&b"}), b"\x0a\x0c\x0a\x0a\"a\\u0026b\"");
    check(&set, &json!({"rawList": [1, null]}), b"\x2a\x03\x0a\x011\x2a\x00");
    assert!(matches!(decode(&set, FIRST, b"\x0a\x06\x0a\x04k8s\0"), Err(ProtobufError::NotJson(..))));
    assert!(matches!(
        transcoded(&set, b"\x0a\x03\x0a\x01}", Root::default()),
        Err(ProtobufError::NotJson(..))
    ));
}

#[test]
fn limits_depth_in_both_directions() {
    let set = single(vec![field("child", 1, Shape::Struct(FIRST))]);
    let deep = |depth: usize| {
        (0..depth).fold(Vec::new(), |inner, _| {
            let mut out = Vec::new();
            wire::put_bytes(&mut out, 1, &inner);
            out
        })
    };
    let value = decode(&set, FIRST, &deep(MAX_DEPTH - 1)).unwrap();
    assert_eq!(limits::check(&value), Ok(()));
    assert_eq!(encoded(&set, &value), deep(MAX_DEPTH - 1));
    let too_deep = ProtobufError::Limit(LimitError::TooDeep);
    assert_eq!(decode(&set, FIRST, &deep(MAX_DEPTH)).as_ref(), Err(&too_deep));
    assert_eq!(decode(&set, FIRST, &deep(5000)).as_ref(), Err(&too_deep));
    let value = (0..MAX_DEPTH).fold(json!({}), |inner, _| json!({ "child": inner }));
    assert_eq!(encode(&set, FIRST, &value, &mut Vec::new()), Err(too_deep));
}

/// Nests a value by one or more levels.
type Step = fn(Value) -> Value;

/// Checks all combinations of nesting. Each function counts the levels of JSON, in both directions.
#[test]
fn depth_is_that_of_json_for_every_shape() {
    let any = |name: &str, number, form| Field {
        wire: Wire { number, any: form, ..Wire::default() },
        ..field(name, number, Shape::Any)
    };
    let wrapped = |name: &str, number, shape| Field {
        wire: Wire { number, wrapped: true, ..Wire::default() },
        ..field(name, number, shape)
    };
    let set = single(vec![
        field("child", 1, Shape::Struct(FIRST)),
        field("list", 2, list(Shape::Struct(FIRST))),
        field("map", 3, map(Shape::Struct(FIRST))),
        field("listOfLists", 4, list(list(Shape::Struct(FIRST)))),
        field("mapOfLists", 5, map(list(Shape::Struct(FIRST)))),
        wrapped("wrapped", 6, list(Shape::Struct(FIRST))),
        any("orBool", 7, AnyForm::SchemaOrBool),
        any("orArray", 8, AnyForm::SchemaOrArray),
        Field { shape: map(Shape::Any), ..any("orStrings", 9, AnyForm::SchemaOrStrings) },
        field("raw", 10, Shape::Any),
        field("rawList", 11, list(Shape::Any)),
    ]);
    let steps: [(usize, Step); 12] = [
        (1, |inner| json!({ "child": inner })),
        (2, |inner| json!({ "list": [inner] })),
        (2, |inner| json!({ "map": {"k": inner} })),
        (3, |inner| json!({ "listOfLists": [[inner]] })),
        (3, |inner| json!({ "mapOfLists": {"k": [inner]} })),
        (2, |inner| json!({ "wrapped": [inner] })),
        (1, |inner| json!({ "orBool": inner })),
        (1, |inner| json!({ "orArray": inner })),
        (2, |inner| json!({ "orArray": [inner] })),
        (2, |inner| json!({ "orStrings": {"k": inner} })),
        (1, |inner| json!({ "raw": inner })),
        (2, |inner| json!({ "rawList": [inner] })),
    ];
    let too_deep = ProtobufError::Limit(LimitError::TooDeep);
    for (levels, step) in steps {
        let nested = |times: usize| (0..times).fold(json!({"raw": 1}), |inner, _| step(inner));
        let most = (MAX_DEPTH - 1) / levels;
        let deepest = nested(most);
        assert_eq!(limits::check(&deepest), Ok(()));
        let message = encoded(&set, &deepest);
        assert_eq!(decode(&set, FIRST, &message).unwrap(), deepest);
        assert_eq!(
            json::decode(transcoded(&set, &message, Root::default()).unwrap().as_bytes()).unwrap().value,
            deepest
        );
        let beyond = nested(most + 1);
        assert_eq!(limits::check(&beyond), Err(LimitError::TooDeep));
        assert_eq!(encode(&set, FIRST, &beyond, &mut Vec::new()).as_ref(), Err(&too_deep), "{beyond}");
    }
    // A message one level too deep, as from an encoder without the limit.
    for number in [1u32, 2] {
        let inner = (0..MAX_DEPTH).fold(Vec::new(), |inner, _| {
            let mut out = Vec::new();
            wire::put_bytes(&mut out, number, &inner);
            out
        });
        assert_eq!(decode(&set, FIRST, &inner).as_ref(), Err(&too_deep));
        assert_eq!(transcoded(&set, &inner, Root::default()).as_ref(), Err(&too_deep));
    }
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, 1, format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)).as_bytes());
    let mut message = Vec::new();
    wire::put_bytes(&mut message, 10, &raw);
    assert_eq!(decode(&set, FIRST, &message).as_ref(), Err(&too_deep));
    assert_eq!(transcoded(&set, &message, Root::default()).as_ref(), Err(&too_deep));
}

#[test]
fn limits_memory_of_many_small_messages() {
    let set = single(vec![
        field("list", 1, list(Shape::Struct(FIRST))),
        field("n", 2, list(Shape::Scalar(Scalar::Int32))),
    ]);
    for item in [&b"\x0a\x00"[..], b"\x10\x01", b"\x0a\x02\x10\x01"] {
        let message = item.repeat(limits::MAX_TREE_BYTES / limits::cost::ITEM + 1);
        assert_eq!(
            decode(&set, FIRST, &message),
            Err(ProtobufError::Limit(LimitError::TooLarge)),
            "{item:?}"
        );
    }
}

#[test]
fn limits_nested_messages_in_pieces() {
    let set = single(vec![
        field("child", 1, Shape::Struct(FIRST)),
        field("text", 2, Shape::Scalar(Scalar::String)),
    ]);
    let mut message = Vec::new();
    wire::put_bytes(&mut message, 2, "x".repeat(1 << 20).as_bytes());
    for _ in 0..50 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 1, &message);
        wire::put_bytes(&mut outer, 1, &[]);
        message = outer;
    }
    assert_eq!(decode(&set, FIRST, &message), Err(ProtobufError::Limit(LimitError::TooLarge)));
}

/// Generates shapes whose values round-trip: no empty lists or maps.
fn any_shape() -> impl Strategy<Value = Shape> {
    let scalar = prop::sample::select(vec![
        Scalar::String,
        Scalar::Bool,
        Scalar::Int32,
        Scalar::Int64,
        Scalar::Double,
        Scalar::Bytes,
        Scalar::Time,
        Scalar::MicroTime,
        Scalar::Duration,
        Scalar::Quantity,
        Scalar::IntOrString,
    ]);
    // A struct refers only to later types of the set; type 1 is the leaf.
    let leaf = prop_oneof![4 => scalar.prop_map(Shape::Scalar), 1 => Just(Shape::Any), 1 => Just(Shape::Struct(TypeId(1)))];
    leaf.prop_recursive(2, 4, 1, |inner| prop_oneof![inner.clone().prop_map(list), inner.prop_map(map)])
}

fn any_fields() -> impl Strategy<Value = Vec<Field>> {
    prop::collection::btree_map(1u32..40, (any_shape(), 0u32..4, any::<bool>()), 1..8).prop_map(|fields| {
        let fields = fields.into_iter().map(|(number, (shape, via, wrapped))| {
            // Numbers 1 to 3 of the message are for inlined messages.
            let (via, number) = if via == 0 { (0, number + 3) } else { (via, number) };
            let made = field(&format!("f{via}x{number}"), number, shape);
            Field { wire: Wire { number, via, wrapped, ..Wire::default() }, ..made }
        });
        fields.collect()
    })
}

fn any_value(set: std::sync::Arc<SchemaSet>, shape: Shape) -> BoxedStrategy<Value> {
    match shape {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Quantity => "[a-z\"\\\\é\n]{1,8}".prop_map(Value::from).boxed(),
            Scalar::Bool => any::<bool>().prop_map(Value::from).boxed(),
            Scalar::Int32 => any::<i32>().prop_map(Value::from).boxed(),
            Scalar::Int64 => any::<i64>().prop_map(Value::from).boxed(),
            Scalar::Double => (-1e9f64..1e9).prop_map(|number| Value::from(number + 0.25)).boxed(),
            Scalar::Bytes => "([A-Za-z0-9+/]{4}){1,4}".prop_map(Value::from).boxed(),
            Scalar::Time => {
                (0i64..1 << 36).prop_map(|at| Value::from(scalar::time_text(at).unwrap().as_str())).boxed()
            }
            Scalar::MicroTime => (0i64..1 << 36, 0i32..1_000_000)
                .prop_map(|(at, micros)| {
                    Value::from(scalar::micro_time_text(at, micros * 1000).unwrap().as_str())
                })
                .boxed(),
            Scalar::Duration => {
                any::<i64>().prop_map(|nanos| Value::from(duration::write_nanos(nanos))).boxed()
            }
            Scalar::IntOrString => {
                prop_oneof![any::<i32>().prop_map(Value::from), "[a-z]{0,4}".prop_map(Value::from)].boxed()
            }
        },
        Shape::Any => {
            prop_oneof![Just(json!({"a": [1, "x"]})), Just(json!("text")), Just(json!(false))].boxed()
        }
        Shape::Struct(id) => any_object(&set, id),
        Shape::List { items, .. } => {
            prop::collection::vec(any_value(set, *items), 1..4).prop_map(Value::from).boxed()
        }
        Shape::Map { values, .. } => {
            prop::collection::btree_map("[a-z\"]{0,3}", any_value(set, *values), 1..4)
                .prop_map(|entries| entries.into_iter().collect())
                .boxed()
        }
    }
}

fn any_object(set: &std::sync::Arc<SchemaSet>, id: TypeId) -> BoxedStrategy<Value> {
    let fields = set.get(id).fields.iter();
    let fields: Vec<_> = fields
        .map(|field| {
            prop::option::of(any_value(set.clone(), field.shape.clone())).prop_map({
                let name = field.name.clone();
                move |value| value.map(|value| (name.clone(), value))
            })
        })
        .collect();
    fields.prop_map(|fields| fields.into_iter().flatten().collect()).boxed()
}

fn any_world() -> impl Strategy<Value = (std::sync::Arc<SchemaSet>, Value)> {
    let leaf =
        [field("a", 1, Shape::Scalar(Scalar::String)), field("b", 9, list(Shape::Scalar(Scalar::Int32)))];
    any_fields()
        .prop_map(move |fields| {
            let leaf =
                leaf.iter().map(|known| field(&known.name, known.wire.number, known.shape.clone())).collect();
            std::sync::Arc::new(set(vec![fields, leaf]))
        })
        .prop_flat_map(|set| (Just(set.clone()), any_object(&set, FIRST)))
}

proptest! {
    #[test]
    fn encoded_objects_round_trip((set, value) in any_world()) {
        let message = encoded(&set, &value);
        prop_assert_eq!(&decode(&set, FIRST, &message).unwrap(), &value);
        let text = transcoded(&set, &message, Root::default()).unwrap();
        prop_assert_eq!(json::decode(text.as_bytes()).unwrap(), crate::DecodedDocument { value, duplicates: vec![] });
    }

    #[test]
    fn damaged_messages_give_the_same_result_in_both_decoders(
        (set, value) in any_world(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut message = encoded(&set, &value);
        if !message.is_empty() {
            let at = at.index(message.len());
            message[at] = byte;
        }
        match (decode(&set, FIRST, &message), transcoded(&set, &message, Root::default())) {
            (Ok(value), Ok(text)) => {
                let read = json::decode(text.as_bytes()).unwrap();
                prop_assert_eq!(json::encode(&read.value), json::encode(&value));
                prop_assert!(read.duplicates.is_empty());
            }
            (Err(one), Err(other)) => prop_assert_eq!(one, other),
            (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
        }
    }

    #[test]
    fn decoding_never_panics((set, _) in any_world(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&set, FIRST, &bytes);
        let _ = envelope::unwrap(&bytes);
        let _ = envelope::unwrap(&[&envelope::PREFIX[..], &bytes].concat());
    }
}

#[test]
fn stored_objects_get_the_types_of_embedded_objects() {
    let set = nave_schema::builtin();
    let id = set.find("io.k8s.api.apps.v1.StatefulSet").unwrap();
    let claim = json!({"metadata": {"name": "data"}, "spec": {}, "status": {}});
    let object = json!({"metadata": {"name": "s"}, "spec": {"volumeClaimTemplates": [claim]}});
    let mut message = Vec::new();
    encode(set, id, &object, &mut message).unwrap();
    let of_claim = |object: &Value| {
        let claim = &object["spec"]["volumeClaimTemplates"][0];
        json!([claim["apiVersion"], claim["kind"], claim["metadata"]["name"]])
    };
    let typed = json!(["v1", "PersistentVolumeClaim", "data"]);
    assert_eq!(of_claim(&decode_stored(set, id, &message).unwrap()), typed);
    assert_eq!(of_claim(&decode(set, id, &message).unwrap()), json!([null, null, "data"]));
    let root = Root { embedded_types: true, ..Root::default() };
    let mut text = Vec::new();
    transcode_json(set, id, &message, root, &mut text).unwrap();
    assert_eq!(of_claim(&json::decode(&text).unwrap().value), typed);
}
