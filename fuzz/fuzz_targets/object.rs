//! Objects of every kind, from decoding to validation errors: no panics, objects stay within limits and round-trip
//! through storage, and responses are small.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nave_codec::protobuf::{self, envelope};
use nave_codec::{json, yaml};
use nave_machinery::limits::{self, LimitError};
use nave_machinery::{FieldPath, Status, Value, names, time};
use nave_resources::{Registry, ResourceDef, ResourceVersion, table};
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{TypeId, builtin, defaulting};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::builtin(builtin()));

/// Every version of every kind that has a type.
static KINDS: LazyLock<Vec<(&ResourceDef, &ResourceVersion, TypeId)>> = LazyLock::new(|| {
    let versions = REGISTRY.all().flat_map(|def| def.versions.iter().map(move |version| (&**def, version)));
    versions.filter_map(|(def, version)| Some((def, version, version.type_id()?))).collect()
});

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (choice, format, bytes) = input;
    let (def, version, id) = KINDS[usize::from(choice) % KINDS.len()];
    let decoded = match format % 3 {
        0 => json::decode(bytes).map(|it| it.value).map_err(|error| error.into_status()),
        1 => yaml::decode(bytes).map(|it| it.value).map_err(|error| error.into_status()),
        _ => protobuf::decode(builtin(), id, bytes).map_err(|error| error.into_status()),
    };
    let Ok(mut object) = decoded.inspect_err(check_status) else { return };
    assert_eq!(limits::check(&object), Ok(()));
    match normalize(builtin(), id, &mut object, Mode::Report) {
        Ok(found) => assert!(found.unknown.iter().all(|path| path.len() <= 515)),
        Err(_) => return,
    }
    if defaulting::apply(builtin(), id, &mut object).is_err() {
        return;
    }
    def.strategy.default(&mut object, &version.name);
    if limits::check(&object) == Err(LimitError::TooLarge) {
        return;
    }
    validate(def, version, &mut object);
    let mut message = Vec::new();
    if protobuf::encode(builtin(), id, &object, &mut message).is_ok() {
        let stored = envelope::wrap("v1", "Kind", &message);
        let unknown = envelope::unwrap(&stored).expect("a wrapped message can be unwrapped");
        protobuf::decode_stored(builtin(), id, unknown.raw).expect("encoded objects can be decoded");
        let mut text = Vec::new();
        protobuf::transcode_json(builtin(), id, unknown.raw, protobuf::Root::default(), &mut text)
            .expect("encoded objects can be transcoded");
        json::decode(&text).expect("transcoded JSON can be decoded");
    }
});

/// Validates the object as a create and as an update of itself, and converts it to a table row.
fn validate(def: &ResourceDef, version: &ResourceVersion, object: &mut Value) {
    let old = object.clone();
    let _ = table::row(version, object, time::now());
    def.strategy.prepare_for_create(object);
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let at = FieldPath::new("metadata");
    let mut errors = names::validate_object_meta(metadata, def.namespaced, |name| def.name_rule.check(name), &at);
    errors.extend(def.strategy.validate(object));
    def.strategy.prepare_for_update(object, &old);
    errors.extend(def.strategy.validate_update(object, &old));
    def.strategy.prepare_for_status_update(object, &old);
    errors.extend(def.strategy.validate_status_update(object, &old));
    let _ = def.strategy.warnings(object, Some(&old));
    def.strategy.canonicalize(object);
    check_status(&Status::invalid(&def.group_kind(), "name", &errors));
}

fn check_status(status: &Status) {
    assert!((400..500).contains(&status.code));
    assert!(json::encode(&status.to_value()).len() < 1 << 20);
}
