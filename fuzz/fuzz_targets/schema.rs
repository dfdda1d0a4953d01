//! Schemas of custom resource definitions, and objects validated against them: rules terminate, compiled schemas prune,
//! default and validate in bounded time, errors are few, and results are stable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::json;
use nave_machinery::{FieldPath, Value, limits};
use nave_structural::rules::{self, Requirements};
use nave_structural::{Malformed, Structural};

// The input is one document with the members `schema`, `new`, `old` and `path`, so that the fuzzer can extend them
// together.
fuzz_target!(|input: &[u8]| {
    let Ok(mut input) = json::decode(input).map(|decoded| decoded.value) else { return };
    let mut member = |name: &str| input.get_mut(name).map(Value::take).unwrap_or_default();
    let (schema, mut new, old, field) = (member("schema"), member("new"), member("old"), member("path"));
    let path = FieldPath::new("schema");
    let report = rules::check(&schema, &path, Requirements::of_update(&[&schema]));
    assert!(report.errors.iter().all(|error| error.to_string().len() < 16 * 1024));
    let _ = (rules::unrecognized_formats(&schema), rules::has_extensions(&schema));
    let _ = rules::field_path(&schema, field.as_str().unwrap_or(".spec"));
    let Ok(compiled) = Structural::compile(&schema) else { return };
    if !new.is_object() {
        return;
    }
    assert!(compiled.prune(&mut new).len() <= 100);
    assert!(compiled.prune(&mut new).is_empty());
    compiled.drop_nulls(&mut new);
    if compiled.coerce_metadata(&mut new, Malformed::Drop).is_err() || compiled.default(&mut new).is_err() {
        return;
    }
    let once = new.clone();
    if compiled.default(&mut new).is_ok() {
        assert_eq!(once, new);
    }
    if limits::check(&new).is_err() {
        return;
    }
    let created = compiled.validate(&new, None);
    let updated = compiled.validate(&new, Some(&old));
    assert!(created.errors.len() <= 1000 && (!created.errors.is_empty() || updated.errors.is_empty()));
    let _ = compiled.validate_status(&new, &old);
});
