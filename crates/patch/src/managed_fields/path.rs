//! Paths to fields, and their text forms (upstream: `structured-merge-diff/fieldpath`).

use std::cmp::Ordering;
use std::fmt::{self, Write};

use nave_machinery::Value;

use super::element_json::{KeyFields, Scalar, push_json, push_plain_key, push_quoted, push_text};
use super::field_name::FieldName;
use super::value;
use super::visits::visit;

/// An element of a path: a step from a map, struct or list to one of its values.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of a struct or an entry of a map.
    Field(FieldName),
    /// An item of a list map, identified by these fields, sorted by name.
    Key(Vec<(FieldName, Value)>),
    /// An item of a set.
    Value(Value),
    /// An item of a list, by its index.
    Index(i64),
}

/// A path from the root of an object.
pub(super) type Path = [PathElement];

/// The error of an invalid path element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ElementError {
    /// The kind of element is unknown. Such elements are ignored.
    UnknownKind,
    /// The text is malformed.
    Malformed(String),
}

impl PathElement {
    /// Creates the element of a field.
    pub fn field(name: &str) -> Self {
        Self::Field(FieldName::new(name))
    }

    /// Parses the `fieldsV1` form: `f:NAME`, `k:{"NAME":VALUE}`, `v:VALUE`, `i:INDEX`.
    pub(super) fn parse(text: &str) -> Result<Self, ElementError> {
        let malformed = |why: String| ElementError::Malformed(why);
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err(malformed(format!("a path element has two characters at least: {text:?}")));
        };
        let json = |error: serde_json::Error| malformed(format!("{text:?}: {error}"));
        match kind {
            FIELD => Ok(Self::field(rest)),
            "v:" => Ok(Self::Value(serde_json::from_str::<Scalar>(rest).map_err(json)?.0)),
            "k:" => {
                let KeyFields(mut fields) = serde_json::from_str(rest).map_err(json)?;
                fields.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
                Ok(Self::Key(fields))
            }
            "i:" => {
                let index = rest.parse().map_err(|_| malformed(format!("{text:?} has no index")))?;
                Ok(Self::Index(index))
            }
            _ if kind.ends_with(':') => Err(ElementError::UnknownKind),
            _ => Err(malformed(format!("missing colon: {text:?}"))),
        }
    }

    /// Appends the `fieldsV1` form.
    fn push_plain(&self, text: &mut String) {
        match self {
            Self::Field(name) => {
                text.push_str(FIELD);
                text.push_str(name.as_str());
            }
            Self::Key(fields) => {
                text.push_str("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        text.push(',');
                    }
                    push_text(text, name.as_str());
                    text.push(':');
                    push_json(text, value);
                }
                text.push('}');
            }
            Self::Value(value) => {
                text.push_str("v:");
                push_json(text, value);
            }
            Self::Index(index) => {
                // Writing to a string cannot fail.
                let _ = write!(text, "i:{index}");
            }
        }
    }

    /// Appends the `fieldsV1` form as a JSON string. `scratch` is a reusable buffer that saves an allocation per
    /// element.
    pub(super) fn push_serialized(&self, out: &mut String, scratch: &mut String) {
        match self {
            Self::Field(name) => return push_quoted(out, "\"f:", name.as_str()),
            Self::Key(fields) if push_plain_key(out, fields) => return,
            _ => {}
        }
        scratch.clear();
        self.push_plain(scratch);
        push_quoted(out, "\"", scratch);
    }

    /// Returns the `fieldsV1` form.
    pub(super) fn serialized(&self) -> String {
        let mut text = String::new();
        self.push_plain(&mut text);
        text
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        visit(1);
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Key(a), Self::Key(b)) => {
                let fields = a.iter().zip(b);
                let mut orders = fields.map(|((name, a), (other, b))| {
                    name.as_bytes().cmp(other.as_bytes()).then_with(|| value::compare(a, b))
                });
                orders.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => value::compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PathElement {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

/// Formats an element for errors: `.NAME`, `[name="x",port=80]`, `[="x"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{}", name.as_str()),
            Self::Key(fields) => {
                out.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(out, "{comma}{}={value}", name.as_str())?;
                }
                out.write_str("]")
            }
            Self::Value(value) => write!(out, "[={value}]"),
            Self::Index(index) => write!(out, "[{index}]"),
        }
    }
}

/// The prefix of a field name in `fieldsV1`.
const FIELD: &str = "f:";

/// Formats a path for errors.
pub(super) fn display<'p>(path: impl Iterator<Item = &'p PathElement> + Clone) -> impl fmt::Display {
    fmt::from_fn(move |out| path.clone().try_for_each(|element| fmt::Display::fmt(element, out)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_round_trip() {
        for text in [
            "f:name",
            "f:",
            "f:with:colon \"quoted\"",
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"v:"a\u003cb""#,
            "v:1.5",
            "i:0",
        ] {
            assert_eq!(PathElement::parse(text).unwrap().serialized(), text);
        }
    }

    #[test]
    fn serialized_elements_are_the_plain_form_as_a_json_string() {
        for text in [
            "f:a\"b",
            "k:{}",
            r#"k:{"name":"x","port":80}"#,
            r#"k:{"name":"a b","port":8.5}"#,
            r#"k:{"a\"b":"\\"}"#,
            r#"k:{"a":true}"#,
            r#"v:"x\"""#,
        ] {
            let element = PathElement::parse(text).unwrap();
            let mut written = String::new();
            element.push_serialized(&mut written, &mut String::new());
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), element.serialized());
        }
    }

    #[test]
    fn names_of_any_length_are_held() {
        let names: Vec<String> =
            (0..40).map(|length| "é".repeat(length / 2) + &"a".repeat(length % 2)).collect();
        for name in &names {
            let element = PathElement::field(name);
            assert_eq!(element.to_string(), format!(".{name}"));
            assert_eq!(element, PathElement::parse(&element.serialized()).unwrap());
        }
        let mut elements: Vec<PathElement> = names.iter().map(|name| PathElement::field(name)).collect();
        elements.sort();
        let mut sorted = names;
        sorted.sort();
        assert_eq!(elements, sorted.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
    }

    #[test]
    fn whole_doubles_are_written_as_integers() {
        for (read, written) in [
            (r#"k:{"port":80.0}"#, r#"k:{"port":80}"#),
            ("v:-0.0", "v:0"),
            ("v:1e16", "v:10000000000000000"),
            ("v:0.5", "v:0.5"),
        ] {
            assert_eq!(PathElement::parse(read).unwrap().serialized(), written);
        }
    }

    #[test]
    fn number_keys_are_ordered_by_value() {
        let texts = [
            r#"k:{"port":8080}"#,
            r#"k:{"port":80.5}"#,
            r#"k:{"port":443}"#,
            r#"k:{"port":80}"#,
            "v:10",
            "v:9",
        ];
        let mut elements = texts.map(|text| PathElement::parse(text).unwrap());
        elements.sort();
        let sorted = elements.each_ref().map(PathElement::serialized);
        let expected = [
            r#"k:{"port":80}"#,
            r#"k:{"port":80.5}"#,
            r#"k:{"port":443}"#,
            r#"k:{"port":8080}"#,
            "v:9",
            "v:10",
        ];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn keys_are_sorted_by_name() {
        let element = PathElement::parse(r#"k:{"protocol":"TCP","containerPort":80}"#).unwrap();
        assert_eq!(element.to_string(), r#"[containerPort=80,protocol="TCP"]"#);
    }

    #[test]
    fn rejects_malformed_elements() {
        for text in ["", "f", "name", "k:{", "k:[]", "k:{\"a\":[]}", "v:", "v:[0]", "v:{}", "i:x", "é"] {
            assert!(matches!(PathElement::parse(text), Err(ElementError::Malformed(_))), "{text}");
        }
        assert_eq!(PathElement::parse("x:future"), Err(ElementError::UnknownKind));
    }

    #[test]
    fn orders_elements_of_different_kinds() {
        let field = PathElement::field("z");
        let key = |port: u16| PathElement::Key(vec![(FieldName::new("port"), json!(port))]);
        let sorted = [field, key(80), key(443), PathElement::Value(json!("a")), PathElement::Index(0)];
        assert!(sorted.is_sorted());
    }
}
