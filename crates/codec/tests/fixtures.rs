//! Tests the codec with small objects of built-in types and their protobuf, verified by hand against the message
//! definitions. Needs no recordings of another server.
//!
//! `fixtures/messages.txt` contains pairs of lines: an object in JSON, and its message in hexadecimal.
//! `UPDATE_EXPECT=1` rewrites the messages.

use std::{env, fs, path::Path};

use nave_codec::{json, protobuf};
use nave_schema::builtin;

#[test]
fn objects_have_the_recorded_messages() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages.txt");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut made = String::from("# type, object and message (hexadecimal) in turns; see fixtures.rs\n");
    for case in lines.chunks(3) {
        let &[name, object, expected] = case else { panic!("an incomplete case: {case:?}") };
        let value = json::decode(object.as_bytes()).unwrap().value;
        let id = builtin().find(name).unwrap_or_else(|| panic!("no type {name}"));
        let mut message = Vec::new();
        protobuf::encode(builtin(), id, &value, &mut message).unwrap();
        let decoded = protobuf::decode(builtin(), id, &message).unwrap();
        assert_eq!(decoded, value, "{name}: read back");
        let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        if env::var_os("UPDATE_EXPECT").is_none() {
            assert_eq!(hex, expected, "{name}: {object}");
        }
        made.extend(["\n", name, "\n", object, "\n", &hex, "\n"]);
    }
    assert!(lines.len() >= 15, "the cases are gone");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, made).unwrap();
    }
}
