//! The document of version 2 with the paths of other servers.
//!
//! The parts of the other servers follow the parts of this server ([`joined_v2`](super::joined_v2)). This server's parts
//! are read one after the other for their names, and only types that another server has too are compared. There is no
//! tree of the whole document.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, Response};
use nave_codec::json as codec;
use nave_machinery::{Map, Status, Value};
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::joined_v2::{PATHS, SECTIONS};
use super::remote::{RemoteDocument, reference, refers, rename};
use super::segment::Segment;
use super::{Form, OpenApi, answer_v2, gnostic, hash_of, joined};
use crate::body::ResponseBody;

/// The parts that follow the document of this server.
pub(crate) struct MergedV2 {
    /// The fields of each section in JSON, each after a comma.
    json: [Segment; SECTIONS.len()],
    protobuf: Segment,
    /// The hash of the whole document.
    hash: String,
}

impl MergedV2 {
    /// Adds the documents of other servers to that of this server. Paths that exist stay. A type with the name of
    /// another one gets a new name.
    pub(super) fn new(own: &OpenApi, others: &[Arc<RemoteDocument>]) -> Self {
        let mut known = Known::new(others);
        for (at, segments) in own.v2.fields(own).iter().enumerate() {
            for segment in *segments {
                known.read(at, &segment.unpack());
            }
        }
        let (mut json, mut protobuf) = (SECTIONS.map(|_| Vec::new()), Vec::new());
        for other in others {
            for ((section, fields), json) in SECTIONS.iter().zip(known.add(other)).zip(&mut json) {
                for (name, value) in &fields {
                    write(name, value, json);
                    let field = Map::from_iter([(name.clone(), value.clone().into_owned())]);
                    let field = Map::from_iter([((*section).to_owned(), Value::Object(field))]);
                    // In protobuf, messages in a row are one message with the fields of all of them.
                    protobuf.extend(gnostic::v2::encode(&Value::Object(field)));
                }
            }
        }
        let hashes = others.iter().map(|other| other.hash.as_bytes());
        let hashes: Vec<&[u8]> = std::iter::once(own.v2_hash().as_bytes()).chain(hashes).collect();
        Self {
            json: json.map(|text| Segment::new(&text)),
            protobuf: Segment::new(&protobuf),
            hash: hash_of(&hashes),
        }
    }

    /// Serves the document. `own` is the document of this server that the others were added to.
    ///
    /// # Errors
    /// 406 if the client accepts no encoding.
    pub(crate) fn answer(
        &self,
        own: &OpenApi,
        headers: &HeaderMap,
    ) -> Result<Response<ResponseBody>, Status> {
        answer_v2(headers, &self.hash, |form| joined(&self.segments(form, own), form, headers))
    }

    /// Returns the segments of the whole document.
    pub(super) fn segments(&self, form: Form, own: &OpenApi) -> Vec<Segment> {
        match form {
            Form::Json => own.v2.join_with(own, &self.json),
            Form::Protobuf => {
                own.v2.join(form, own).iter().chain([&self.protobuf]).map(Segment::clone).collect()
            }
        }
    }
}

fn write(name: &str, value: &Value, to: &mut Vec<u8>) {
    to.push(b',');
    codec::encode_into(name, to);
    to.push(b':');
    codec::encode_into(value, to);
}

/// The fields of a section.
type Fields<'a> = BTreeMap<String, Cow<'a, Value>>;

/// The known fields in each section of the document.
struct Known<'a> {
    names: [HashSet<String>; SECTIONS.len()],
    /// The values that another server has too, or several of them.
    values: [HashMap<String, Cow<'a, Value>>; SECTIONS.len()],
    /// The names in the documents of other servers, with the number of these documents.
    others: [HashMap<&'a str, usize>; SECTIONS.len()],
}

impl<'a> Known<'a> {
    fn new(documents: &'a [Arc<RemoteDocument>]) -> Self {
        let mut others = SECTIONS.map(|_| HashMap::new());
        for document in documents {
            for (of_section, others) in document.sections().into_iter().zip(&mut others) {
                for name in of_section.keys() {
                    *others.entry(name.as_str()).or_default() += 1;
                }
            }
        }
        Self { names: Default::default(), values: Default::default(), others }
    }

    /// Reads fields of a section of this server's document.
    fn read(&mut self, section: usize, fields: &[u8]) {
        let fields = fields.strip_prefix(b",").unwrap_or(fields);
        let json = [b"{", fields, b"}"].concat();
        let read = Read { known: self, section };
        let read = serde_json::Deserializer::from_slice(&json).deserialize_map(read);
        debug_assert!(read.is_ok(), "the fields are those of an object: {read:?}");
    }

    /// Adds the document of another server, and returns the fields that are not known yet.
    fn add(&mut self, other: &'a RemoteDocument) -> [Fields<'a>; SECTIONS.len()] {
        let borrowed = |section: &'a Map| {
            section.iter().map(|(name, value)| (name.clone(), Cow::Borrowed(value))).collect::<Fields<'a>>()
        };
        let mut added = other.sections().map(borrowed);
        let mut renamed = BTreeMap::new();
        for (at, fields) in added.iter_mut().enumerate() {
            let names: Vec<_> =
                fields.keys().filter(|name| self.names[at].contains(*name)).cloned().collect();
            for name in names {
                let Some(value) = fields.remove(&name) else { continue };
                let is_same = || self.values[at].get(&name).is_some_and(|known| *known == value);
                if SECTIONS[at] == PATHS || is_same() {
                    continue;
                }
                let is_free = |name: &String| !self.names[at].contains(name) && !fields.contains_key(name);
                let mut numbered = (2_u32..).map(|number| format!("{name}_v{number}"));
                let Some(free) = numbered.find(is_free) else { continue };
                renamed.insert(reference(SECTIONS[at], &name), reference(SECTIONS[at], &free));
                fields.insert(free, value);
            }
        }
        if !renamed.is_empty() {
            let values = added.iter_mut().flat_map(BTreeMap::values_mut);
            values.filter(|value| refers(value, &renamed)).for_each(|value| rename(value.to_mut(), &renamed));
        }
        for (at, fields) in added.iter().enumerate() {
            self.names[at].extend(fields.keys().cloned());
            let is_repeated = |name: &String| self.others[at].get(name.as_str()).is_some_and(|of| *of > 1);
            let repeated = fields.iter().filter(|(name, _)| is_repeated(name));
            self.values[at].extend(repeated.map(|(name, value)| (name.clone(), value.clone())));
        }
        added
    }
}

/// Reads the names of an object, and the values that are compared.
struct Read<'k, 'a> {
    known: &'k mut Known<'a>,
    section: usize,
}

impl<'de> Visitor<'de> for Read<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { known: Known { names, values, others }, section } = self;
        while let Some(name) = map.next_key::<String>()? {
            if others[section].contains_key(name.as_str()) {
                values[section].insert(name.clone(), Cow::Owned(map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            names[section].insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> Arc<RemoteDocument> {
        Arc::new(RemoteDocument::read(document.to_string().as_bytes(), "/apis/a.example/v1").unwrap())
    }

    fn to(name: &str) -> Value {
        json!({"$ref": format!("#/definitions/{name}")})
    }

    #[test]
    fn fields_of_this_server_are_never_replaced() {
        let path = json!({"get": [to("Meta"), to("Pod"), to("Thing")]});
        let others = [read(&json!({
            "paths": {"/apis/a.example/v1/things": path, "/apis/a.example/v1/own": {"get": [to("Thing")]}},
            "definitions": {"Meta": {"same": true}, "Pod": {"other": to("Thing")}, "Thing": {"pod": to("Pod")}},
        }))];
        let mut known = Known::new(&others);
        known.read(0, br#""/api/":{},"/apis/a.example/v1/own":{}"#);
        known.read(1, br#""Meta":{"same":true},"Pod":{"own":true}"#);
        known.read(1, br#","Pod_v2":{}"#);
        known.read(2, b"");
        let added = known.add(&others[0]);
        let expected = json!([
            {"/apis/a.example/v1/things": {"get": [to("Meta"), to("Pod_v3"), to("Thing")]}},
            {"Pod_v3": {"other": to("Thing")}, "Thing": {"pod": to("Pod_v3")}},
            {},
        ]);
        assert_eq!(serde_json::to_value(&added).unwrap(), expected);
        assert!(matches!(added[0]["/apis/a.example/v1/things"], Cow::Owned(_)), "has a renamed reference");
        assert!(matches!(added[1]["Pod_v3"], Cow::Borrowed(_)), "has none");
    }

    #[test]
    fn types_that_several_servers_have_are_added_once() {
        let document = |thing: Value| {
            let path = json!({"get": [to("Meta"), to("Thing")]});
            let definitions = json!({"Meta": {"same": true}, "Thing": thing});
            read(&json!({"paths": {"/apis/a.example/v1/things": path}, "definitions": definitions}))
        };
        let others = [document(json!({"is": 1})), document(json!({"is": 2})), document(json!({"is": 1}))];
        let mut known = Known::new(&others);
        let added = others.each_ref().map(|other| serde_json::to_value(&known.add(other)[1]).unwrap());
        let first = json!({"Meta": {"same": true}, "Thing": {"is": 1}});
        assert_eq!(added, [first, json!({"Thing_v2": {"is": 2}}), json!({})]);
    }

    #[test]
    fn the_document_has_the_fields_of_all_servers_in_both_encodings() {
        let own = OpenApi::new(&Arc::new(Registry::builtin(nave_schema::builtin())));
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        let other = read(&json!({
            "paths": {"/apis/a.example/v1/things": {"get": {"parameters": [{"$ref": "#/parameters/p"}],
                "responses": {"200": {"description": "OK", "schema": to("Thing")}}}}},
            "definitions": {"Thing": {"properties": {"metadata": to(meta)}}, meta: {"type": "object"}},
            "parameters": {"p": {"name": "p", "in": "query"}},
        }));
        let merged = MergedV2::new(&own, &[Arc::clone(&other)]);
        let text = |form: Form| {
            let segments = merged.segments(form, &own);
            segments.iter().flat_map(|segment| segment.unpack().to_vec()).collect::<Vec<u8>>()
        };
        let document: Value = serde_json::from_slice(&text(Form::Json)).unwrap();
        let alone = own.v2.join(Form::Json, &own).iter().flat_map(|segment| segment.unpack().to_vec());
        let alone: Value = serde_json::from_slice(&alone.collect::<Vec<u8>>()).unwrap();
        let mut expected = alone.clone();
        let renamed = format!("{meta}_v2");
        expected["paths"]["/apis/a.example/v1/things"] =
            other.sections()[0]["/apis/a.example/v1/things"].clone();
        expected["definitions"]["Thing"] = json!({"properties": {"metadata": to(&renamed)}});
        expected["definitions"][&renamed] = json!({"type": "object"});
        expected["parameters"]["p"] = json!({"name": "p", "in": "query"});
        assert!(document == expected && document != alone);
        let protobuf = text(Form::Protobuf);
        let whole = gnostic::v2::encode(&expected);
        let pairs = super::super::tests::pairs;
        assert!(pairs(&protobuf) == pairs(&whole));
        assert_ne!(merged.hash, own.v2_hash());
    }
}
