//! YAML: decoded values can be encoded and decode to equal values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::{json, yaml};

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoded) = yaml::decode(bytes) else { return };
    let written = yaml::encode(&decoded.value);
    let again = yaml::decode(&written).expect("encoded YAML can be decoded");
    assert_eq!(json::encode(&again.value), json::encode(&decoded.value));
});
