//! The results of strategies: defaulted and prepared objects, or validation errors.
//!
//! `strategies.json` contains the cases: a resource, an object to create, and the `old` object for an update.
//! `UPDATE_EXPECT=1` rewrites `strategies.expected`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fmt::Write;
use std::{env, fs, path::Path};

use nave_machinery::{GroupVersionResource, Value};
use nave_resources::{Registry, ResourceDef};
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{builtin, defaulting};

/// Returns the object after decoding.
fn decoded(def: &ResourceDef, version: &str, object: &Value) -> Value {
    let id = def.version(version).and_then(nave_resources::ResourceVersion::type_id).expect("a type");
    let mut object = object.clone();
    normalize(builtin(), id, &mut object, Mode::Ignore).expect("an object of its type");
    defaulting::apply(builtin(), id, &mut object).unwrap();
    def.strategy.default(&mut object, version);
    object
}

fn created(def: &ResourceDef, version: &str, object: &Value) -> Value {
    let mut object = decoded(def, version, object);
    object["metadata"]["uid"] = "u".into();
    def.strategy.prepare_for_create(&mut object);
    object
}

#[test]
fn strategies_match_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(folder.join("strategies.json")).unwrap()).unwrap();
    let registry = Registry::builtin(builtin());
    let mut shown = String::new();
    for case in &cases {
        let [group, version, resource] =
            ["group", "version", "resource"].map(|it| case[it].as_str().unwrap());
        let def = registry.lookup(&GroupVersionResource::new(group, version, resource)).expect("a resource");
        let (mut object, errors) = match case.get("old") {
            None => {
                let object = created(def, version, &case["object"]);
                let errors = def.strategy.validate(&object);
                (object, errors)
            }
            Some(old) => {
                let old = created(def, version, old);
                let mut object = decoded(def, version, &case["object"]);
                def.strategy.prepare_for_update(&mut object, &old);
                let errors = def.strategy.validate_update(&object, &old);
                (object, errors)
            }
        };
        writeln!(shown, "## {}", case["name"].as_str().unwrap()).unwrap();
        if errors.is_empty() {
            def.strategy.canonicalize(&mut object);
            let mut again = object.clone();
            def.strategy.default(&mut again, version);
            assert_eq!(again, object, "{}: defaults are set once", case["name"]);
            writeln!(shown, "{}", serde_json::to_string_pretty(&object).unwrap()).unwrap();
        }
        for error in &errors {
            writeln!(shown, "{error}").unwrap();
        }
        shown.push('\n');
    }
    let path = folder.join("strategies.expected");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(shown == expected, "{} differs; UPDATE_EXPECT=1 rewrites it:\n{shown}", path.display());
}
