//! Converts objects with every field set, written by Kubernetes, from JSON to protobuf and back. The protobuf must be
//! equal byte for byte.

use std::{env, fs, path::PathBuf};

use nave_codec::{json, protobuf, protobuf::envelope};
use nave_machinery::Value;
use nave_schema::{SchemaSet, TypeId, builtin};

/// Fields of the recorded objects that the API has since removed. Decoders skip them.
const RETIRED: [&str; 1] = ["workloadRef"];

#[test]
fn every_recorded_object_converts_both_ways() {
    let folder = reference().join("wire-vectors");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("SKIPPED: no recorded objects at {}", folder.display());
        return;
    };
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    names.sort();
    assert!(!names.is_empty(), "no recorded objects in {}", folder.display());
    let failures: Vec<String> = names
        .iter()
        .filter_map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let (json, message) = (fs::read(path).unwrap(), fs::read(path.with_extension("pb")).unwrap());
            convert(builtin(), &stem, &json, &message).err().map(|reason| format!("{stem}: {reason}"))
        })
        .collect();
    println!("{} of {} recorded objects convert both ways", names.len() - failures.len(), names.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn objects_of_a_new_cluster_round_trip() {
    for file in ["bootstrap-objects.json", "bootstrap-rbac.json"] {
        let path = reference().join(file);
        match fs::read(&path) {
            Ok(text) => check_round_trip(json::decode(&text).unwrap().value.as_array().unwrap()).unwrap(),
            Err(_) => println!("SKIPPED: no recorded objects at {}", path.display()),
        }
    }
}

fn check_round_trip(objects: &[Value]) -> Result<(), String> {
    let set = builtin();
    for object in objects {
        let (Some(api_version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
            return Err(format!("an object without a type: {object}"));
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        let Some(id) = type_of(set, &format!("{group}.{version}.{kind}")) else {
            // nave has no protobuf for kinds of API groups that other servers serve.
            assert_eq!(kind, "APIService");
            continue;
        };
        let mut message = Vec::new();
        protobuf::encode(set, id, object, &mut message).map_err(|error| format!("encoding: {error}"))?;
        let root = protobuf::Root { api_version, kind, ..Default::default() };
        let decoded =
            protobuf::decode_object(set, id, &message, root).map_err(|error| format!("decoding: {error}"))?;
        if decoded != *object {
            return Err(format!("{kind}: {}", difference("", object, &decoded)));
        }
    }
    Ok(())
}

fn reference() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    env::var_os("NAVE_REFERENCE").map_or_else(|| default.into(), PathBuf::from)
}

fn convert(set: &SchemaSet, name: &str, json: &[u8], wrapped: &[u8]) -> Result<(), String> {
    let mut value = json::decode(json).map_err(|error| error.to_string())?.value;
    let retired = retire(&mut value) > 0;
    let unknown = envelope::unwrap(wrapped).map_err(|error| error.to_string())?;
    let id = type_of(set, name).ok_or("no such type")?;

    let mut message = Vec::new();
    protobuf::encode(set, id, &value, &mut message).map_err(|error| format!("encoding: {error}"))?;
    let root = protobuf::Root { api_version: unknown.api_version, kind: unknown.kind, ..Default::default() };
    let decoded =
        protobuf::decode_object(set, id, unknown.raw, root).map_err(|error| format!("decoding: {error}"))?;
    if decoded != value {
        return Err(format!("decoded differently: {}", difference("", &value, &decoded)));
    }
    let mut text = Vec::new();
    protobuf::transcode_json(set, id, unknown.raw, root, &mut text)
        .map_err(|error| format!("transcoding: {error}"))?;
    if json::decode(&text).map_err(|error| error.to_string())?.value != value {
        return Err("transcoded differently".to_owned());
    }
    let same = envelope::wrap(unknown.api_version, unknown.kind, &message);
    if retired {
        let again = protobuf::decode_object(set, id, &message, root).map_err(|error| error.to_string())?;
        return if again == value { Ok(()) } else { Err("read back differently".to_owned()) };
    }
    if same != wrapped {
        return Err(format!("{} bytes instead of {}", same.len(), wrapped.len()));
    }
    Ok(())
}

/// Removes the retired fields and counts them.
fn retire(value: &mut Value) -> usize {
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|name, _| !RETIRED.contains(&name.as_str()));
            before - fields.len() + fields.values_mut().map(retire).sum::<usize>()
        }
        Value::Array(items) => items.iter_mut().map(retire).sum(),
        _ => 0,
    }
}

/// Returns the type of the object in the file `GROUP.VERSION.KIND`.
fn type_of(set: &SchemaSet, name: &str) -> Option<TypeId> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (group, version) = rest.rsplit_once('.')?;
    let package = group.split('.').next()?;
    set.find(&format!("io.k8s.api.{package}.{version}.{kind}"))
        .or_else(|| set.find(&format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}")))
}

fn difference(path: &str, want: &Value, got: &Value) -> String {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => want
            .keys()
            .chain(got.keys())
            .find(|key| want.get(*key) != got.get(*key))
            .map_or_else(String::new, |key| {
                let null = Value::Null;
                difference(
                    &format!("{path}.{key}"),
                    want.get(key).unwrap_or(&null),
                    got.get(key).unwrap_or(&null),
                )
            }),
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => want
            .iter()
            .zip(got)
            .enumerate()
            .find(|(_, (want, got))| want != got)
            .map_or_else(String::new, |(at, (want, got))| difference(&format!("{path}[{at}]"), want, got)),
        _ => format!("{path} is {got} instead of {want}"),
    }
}
