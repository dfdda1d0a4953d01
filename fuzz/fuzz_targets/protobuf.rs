//! Protobuf of every built-in type: decoding and transcoding give the same document, and a decoded value can be
//! encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::{
    json,
    protobuf::{self, Root},
};
use nave_schema::{TypeId, builtin};

fuzz_target!(|input: (u32, &[u8])| {
    let (choice, message) = input;
    let set = builtin();
    let id = TypeId(choice % set.types().len() as u32);
    let mut text = Vec::new();
    let transcoded = protobuf::transcode_json(set, id, message, Root::default(), &mut text);
    let Ok(value) = protobuf::decode(set, id, message) else {
        assert!(transcoded.is_err());
        return;
    };
    transcoded.expect("a message that can be decoded can be transcoded");
    let same = json::decode(&text).expect("the text is JSON").value;
    assert_eq!(json::encode(&same), json::encode(&value));
    let mut written = Vec::new();
    if protobuf::encode(set, id, &value, &mut written).is_ok() {
        protobuf::decode(set, id, &written).expect("encoded messages can be decoded");
    }
});
