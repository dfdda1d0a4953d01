//! Bodies in each encoding: decoded, normalized, defaulted and encoded again, as on the server.

use std::hint::black_box;

use nave_apiserver::endpoints::decode;
use nave_codec::negotiate::Format;
use nave_codec::protobuf::{self, envelope};
use nave_codec::{json, yaml};
use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::options::FieldValidation;
use nave_machinery::{GroupVersionKind, Status};
use nave_schema::builtin;

use crate::measure::{Case, Job};

/// A document of about the given size, in bytes.
type Shape = (&'static str, fn(usize) -> String);

/// A message of about the given size, in bytes.
type Message = fn(usize) -> Vec<u8>;

/// JSON documents, which are also valid YAML.
const DOCUMENTS: [Shape; 26] = [
    ("too deep", |size| "[".repeat(size)),
    ("too deep objects", |size| "{\"a\":".repeat(size / 5)),
    ("deep", |size| list(size, &format!("{}{}", "[".repeat(MAX_DEPTH - 8), "]".repeat(MAX_DEPTH - 8)))),
    ("deep objects", |size| {
        list(size, &format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH - 8), "}".repeat(MAX_DEPTH - 8)))
    }),
    ("numbers", |size| list(size, "0")),
    ("long numbers", |size| list(size, &"9".repeat(300))),
    ("one number", |size| "9".repeat(size)),
    ("doubles", |size| list(size, "1.7976931348623157e+308")),
    ("fractions", |size| list(size, "0.000012345678901234567890123456789")),
    ("booleans", |size| list(size, "true")),
    ("strings", |size| list(size, "\"\"")),
    ("short strings", |size| list(size, "\"x\"")),
    ("one string", |size| format!("\"{}\"", "x".repeat(size))),
    ("unicode", |size| format!("\"{}\"", "\u{1f600}é".repeat(size / 6))),
    ("escapes", |size| format!("\"{}\"", "\\u00e9\\n".repeat(size / 8))),
    ("control characters", |size| format!("\"{}\"", "\\u0001".repeat(size / 6))),
    ("lists", |size| list(size, "[]")),
    ("lists of one", |size| list(size, "[0]")),
    ("objects", |size| list(size, "{}")),
    ("objects of one", |size| list(size, "{\"\":0}")),
    ("objects in objects", |size| list(size, "{\"a\":{\"b\":{}}}")),
    ("fields", |size| fields(size, |at| format!("\"k{at}\":0"))),
    ("fields backwards", |size| fields(size, |at| format!("\"k{}\":0", 9_999_999 - at))),
    ("the same field", |size| fields(size, |_| "\"a\":0".to_owned())),
    ("fields twice", |size| fields(size, |at| format!("\"k{}\":0", at / 2))),
    ("fields twice below a long name", |size| {
        format!("{{\"{}\":{}}}", "x".repeat(size / 2), fields(size / 2, |at| format!("\"k{}\":0", at / 2)))
    }),
];

/// Documents that are only valid YAML.
const YAML_DOCUMENTS: [Shape; 20] = [
    ("aliases of a text", |size| anchored(size, &"x".repeat(size / 2), "*a")),
    ("aliases of a list", |size| anchored(size, &format!("[{}]", "1,".repeat(size / 4)), "*a")),
    ("aliases of an object", |size| anchored(size, &format!("{{{}}}", "x".repeat(size / 2)), "*a")),
    ("aliases as names", |size| anchored(size, &"x".repeat(size / 2), "{*a : 1}")),
    ("small aliases", |size| anchored(size, "x", "*a")),
    ("merges", |size| anchored(size, &fields(size / 2, |at| format!("k{at}: 0")), "{<<: *a}")),
    ("merges of lists", |size| anchored(size, "{k: 1}", "{<<: [*a, *a, *a, *a]}")),
    ("anchors", |size| list(size, "&a x")),
    ("anchors in anchors", |size| list(size, "&a [&b [&c [&d [&e [x]]]]]")),
    ("laughs", |size| {
        let line = |at: usize| format!("a{}: &a{} [{}]\n", at + 1, at + 1, format!("*a{at},").repeat(9));
        format!("a0: &a0 [x]\n{}", lines(size / 50, line))
    }),
    ("lines", |size| "- x\n".repeat(size / 4)),
    ("names", |size| lines(size / 9, |at| format!("k{at}: x\n"))),
    ("marked names", |size| lines(size / 14, |at| format!("? k{at}\n: x\n"))),
    ("names twice", |size| lines(size / 9, |at| format!("k{}: x\n", at / 2))),
    ("indented", |size| lines(size / 42, |at| format!("{}- \n", " ".repeat(at % 80)))),
    ("blocks", |size| "- |\n  a\n  b\n".repeat(size / 12)),
    ("a block", |size| format!("a: |\n{}", "  x\n".repeat(size / 4))),
    ("a folded block", |size| format!("a: >\n{}", "  x\n\n".repeat(size / 5))),
    ("a plain text of lines", |size| format!("a:\n{}", "  x\n".repeat(size / 4))),
    ("comments", |size| "# x\n".repeat(size / 4)),
];

pub(crate) fn json() -> Vec<Case> {
    cases("json", Format::Json, &DOCUMENTS, true)
}

pub(crate) fn yaml() -> Vec<Case> {
    let mut all = cases("yaml", Format::Yaml, &DOCUMENTS, true);
    all.extend(cases("yaml", Format::Yaml, &YAML_DOCUMENTS, false));
    for (name, document) in DOCUMENTS {
        let work = move |size: usize| {
            let text =
                json::decode(document(size).as_bytes()).map(|it| yaml::encode(&it.value)).unwrap_or_default();
            job(text, Format::Yaml)
        };
        all.push(Case::linear(format!("yaml/written/{name}"), work));
    }
    all
}

/// Returns test cases with each document by itself, as raw JSON in an object, and in place of a string.
fn cases(format_name: &str, format: Format, shapes: &'static [Shape], embedded: bool) -> Vec<Case> {
    let mut all = Vec::new();
    for (name, document) in shapes.iter().copied() {
        let whole = move |size: usize| job(document(size).into_bytes(), format);
        all.push(Case::linear(format!("{format_name}/{name}"), whole));
        if !embedded {
            continue;
        }
        let raw = move |size: usize| job(revision(&document(size)), format);
        all.push(Case::linear(format!("{format_name}/raw/{name}"), raw));
        let typed = move |size: usize| job(config_map(&document(size)), format);
        all.push(Case::linear(format!("{format_name}/data/{name}"), typed));
    }
    all
}

fn revision(document: &str) -> Vec<u8> {
    let head =
        r#"{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"a"},"revision":1,"data":"#;
    format!("{head}{document}}}").into_bytes()
}

fn config_map(document: &str) -> Vec<u8> {
    let head = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":"#;
    format!("{head}{document}}}").into_bytes()
}

pub(crate) fn protobuf() -> Vec<Case> {
    let shapes: [(&str, &str, Message); 14] = [
        ("containers", "Pod", |size| field(2, &repeated(size, &field(2, &[])))),
        ("containers of one", "Pod", |size| field(2, &repeated(size, &field(2, &field(1, b"c"))))),
        ("arguments", "Pod", |size| field(2, &field(2, &repeated(size, &field(3, b"x"))))),
        ("empty arguments", "Pod", |size| field(2, &field(2, &repeated(size, &field(3, b""))))),
        ("specs in pieces", "Pod", |size| repeated(size, &field(2, &field(2, &[])))),
        ("unknown fields", "Pod", |size| repeated(size, &field(200, &[]))),
        ("unknown numbers", "Pod", |size| repeated(size, &[0x78, 1])),
        ("the same number", "Pod", |size| field(2, &repeated(size, &[0x20, 1]))),
        ("entries", "ConfigMap", |size| entries(size, |at| at)),
        ("entries backwards", "ConfigMap", |size| entries(size, |at| 9_999_999 - at)),
        ("entries twice", "ConfigMap", |size| entries(size, |at| at / 2)),
        ("the same entry", "ConfigMap", |size| entries(size, |_| 0)),
        ("one text", "ConfigMap", |size| field(2, &[field(1, b"a"), field(2, &vec![b'x'; size])].concat())),
        ("messages in pieces", "Pod", |size| {
            let inner = vec![b'x'; size / 2];
            let term = field(1, &inner);
            (0..40).fold(term, |inner, _| [field(2, &inner), field(2, b"")].concat())
        }),
    ];
    let mut all = Vec::new();
    for (name, kind, message) in shapes {
        let work = move |size: usize| job(envelope::wrap("v1", kind, &message(size)), Format::Protobuf);
        all.push(Case::linear(format!("protobuf/{name}"), work));
    }
    for (name, document) in DOCUMENTS {
        let work = move |size: usize| {
            let data = field(2, &field(1, document(size).as_bytes()));
            job(envelope::wrap("apps/v1", "ControllerRevision", &data), Format::Protobuf)
        };
        all.push(Case::linear(format!("protobuf/raw/{name}"), work));
    }
    all
}

/// Processes a body: decodes it, converts it to an object of its kind, and encodes a valid object in each encoding.
fn job(body: Vec<u8>, format: Format) -> Job {
    Job::new(body.len(), move || match answered(&body, format) {
        Ok(bytes) => drop(black_box(bytes)),
        Err(status) => drop(black_box(json::encode(&status.to_value()))),
    })
}

fn answered(body: &[u8], format: Format) -> Result<usize, Status> {
    let body = decode::parse(body, format, "Pod")?;
    let kind = body.object.get("kind").and_then(|kind| kind.as_str()).unwrap_or("ConfigMap").to_owned();
    let (group, package) = if kind == "ControllerRevision" { ("apps", "apps") } else { ("", "core") };
    let gvk = GroupVersionKind::new(group, "v1", &kind);
    let type_id = builtin().find(&format!("io.k8s.api.{package}.v1.{kind}"));
    let schema = nave_resources::Schema::Builtin(type_id);
    let (mut object, warnings) = decode::typed(body, &gvk, &schema, FieldValidation::Warn)?;
    decode::set_defaults(&mut object, &schema)?;
    let mut message = Vec::new();
    if let Some(id) = type_id {
        protobuf::encode(builtin(), id, &object, &mut message)
            .map_err(protobuf::ProtobufError::into_status)?;
        let mut text = Vec::new();
        let read = protobuf::transcode_json(builtin(), id, &message, protobuf::Root::default(), &mut text);
        read.map_err(protobuf::ProtobufError::into_status)?;
    }
    Ok(message.len() + warnings.len() + json::encode(&object).len() + yaml::encode(&object).len())
}

fn list(size: usize, item: &str) -> String {
    let count = (size / (item.len() + 1)).max(1);
    format!("[{}]", vec![item; count].join(","))
}

fn fields(size: usize, field: fn(usize) -> String) -> String {
    let mut text = "{".to_owned();
    for at in 0.. {
        text.push_str(&field(at));
        if text.len() >= size {
            break;
        }
        text.push(',');
    }
    text + "}"
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for at in 0..count {
        text.push_str(&line(at));
    }
    text
}

/// Returns a document with an anchored value and a list of aliases.
fn anchored(size: usize, value: &str, alias: &str) -> String {
    format!("a: &a {value}\nb: {}\n", list(size / 2, alias))
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    protobuf_tag(number, &mut out);
    varint(content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

fn protobuf_tag(number: u8, out: &mut Vec<u8>) {
    varint(usize::from(number) << 3 | 2, out);
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn repeated(size: usize, piece: &[u8]) -> Vec<u8> {
    piece.repeat((size / piece.len()).max(1))
}

fn entries(size: usize, name: fn(usize) -> usize) -> Vec<u8> {
    let mut out = Vec::new();
    for at in 0.. {
        out.extend(field(2, &[field(1, format!("k{}", name(at)).as_bytes()), field(2, b"")].concat()));
        if out.len() >= size {
            break;
        }
    }
    out
}
