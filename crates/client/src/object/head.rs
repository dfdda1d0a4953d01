//! Frequently read metadata of an object, as ranges in its JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::ObjectError;
use nave_machinery::scan;

/// A range in the object's JSON. Ranges past its end refer to [`Head::escaped`].
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

pub(super) struct Head {
    pub(super) name: Span,
    pub(super) namespace: Span,
    pub(super) uid: Span,
    pub(super) resource_version: Span,
    pub(super) deletion_timestamp: Span,
    pub(super) labels: Box<[(Span, Span)]>,
    pub(super) finalizers: Box<[Span]>,
    pub(super) owners: Box<[Owner]>,
    /// The unescaped text of strings that are escaped in the JSON. Rarely needed.
    escaped: Option<Box<str>>,
}

pub(super) struct Owner {
    pub(super) api_version: Span,
    pub(super) kind: Span,
    pub(super) name: Span,
    pub(super) uid: Span,
    pub(super) controller: bool,
    pub(super) block_owner_deletion: bool,
}

impl Head {
    pub(super) fn read(json: &[u8]) -> Result<Self, ObjectError> {
        if u32::try_from(json.len()).is_err() {
            return Err(ObjectError::TooLarge(json.len()));
        }
        let range = scan::member(json, "metadata").ok_or(ObjectError::NoMetadata)?;
        let metadata: Metadata<'_> =
            serde_json::from_slice(&json[range]).map_err(|error| ObjectError::Metadata(error.into()))?;
        let mut places = Places { json, escaped: String::new() };
        let (owners, labels) =
            (metadata.owner_references.unwrap_or_default(), metadata.labels.unwrap_or_default());
        let labels =
            labels.0.into_iter().map(|(key, value)| (places.span_of(Some(key)), places.span_of(Some(value))));
        Ok(Self {
            labels: labels.collect(),
            finalizers: places.spans_of(metadata.finalizers.unwrap_or_default()),
            owners: owners.into_iter().map(|owner| owner.placed(&mut places)).collect(),
            name: places.span_of(metadata.name),
            namespace: places.span_of(metadata.namespace),
            uid: places.span_of(metadata.uid),
            resource_version: places.span_of(metadata.resource_version),
            deletion_timestamp: places.span_of(metadata.deletion_timestamp),
            escaped: (!places.escaped.is_empty()).then(|| places.escaped.into()),
        })
    }

    pub(super) fn text<'a>(&'a self, json: &'a [u8], span: Span) -> &'a str {
        let (start, length) = (span.start as usize, span.length as usize);
        let text = match start.checked_sub(json.len()) {
            None => json.get(start..start + length),
            Some(start) => self.escaped.as_ref().and_then(|text| text.as_bytes().get(start..start + length)),
        };
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

/// Converts parsed strings to ranges.
struct Places<'a> {
    json: &'a [u8],
    escaped: String,
}

impl<'a> Places<'a> {
    fn span_of(&mut self, text: Option<Text<'a>>) -> Span {
        let Some(Text(text)) = text else { return Span::default() };
        let start = match &text {
            Cow::Borrowed(text) => text.as_ptr().addr() - self.json.as_ptr().addr(),
            Cow::Owned(text) => {
                let start = self.json.len() + self.escaped.len();
                self.escaped.push_str(text);
                start
            }
        };
        Span { start: start as u32, length: text.len() as u32 }
    }

    fn spans_of(&mut self, texts: Vec<Text<'a>>) -> Box<[Span]> {
        texts.into_iter().map(|text| self.span_of(Some(text))).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    resource_version: Option<Text<'a>>,
    #[serde(borrow)]
    deletion_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    labels: Option<Pairs<'a>>,
    #[serde(borrow)]
    finalizers: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    owner_references: Option<Vec<OwnerText<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerText<'a> {
    #[serde(borrow)]
    api_version: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

impl<'a> OwnerText<'a> {
    fn placed(self, places: &mut Places<'a>) -> Owner {
        Owner {
            api_version: places.span_of(self.api_version),
            kind: places.span_of(self.kind),
            name: places.span_of(self.name),
            uid: places.span_of(self.uid),
            controller: self.controller.unwrap_or(false),
            block_owner_deletion: self.block_owner_deletion.unwrap_or(false),
        }
    }
}

/// A string, borrowed from the JSON unless it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of a JSON object with string values.
#[derive(Default)]
struct Pairs<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfPairs<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for OfPairs<'a> {
            type Value = Pairs<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with string values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'a>, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0).min(PAIRS));
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(OfPairs(PhantomData))
    }
}

/// The maximum capacity to reserve before the pairs are read.
const PAIRS: usize = 64;
