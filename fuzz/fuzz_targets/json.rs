//! JSON: decoding gives the same result as `serde_json` and round-trips.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::json;
use nave_machinery::scan;

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoded) = json::decode(bytes) else { return };
    let written = json::encode(&decoded.value);
    let again = json::decode(&written).expect("encoded JSON can be decoded");
    assert_eq!(json::encode(&again.value), written);
    assert!(again.duplicates.is_empty());
    if let Some(name) = decoded.value.as_object().and_then(|object| object.keys().next()) {
        // The scanner does not find escaped names. The range of a found value lies within the text.
        if let Some(range) = scan::member(&written, name) {
            assert!(written.get(range).is_some());
        }
    }
});
