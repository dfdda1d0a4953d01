//! Patches of all types on objects of all built-in types: the result is within limits, can be traversed, and
//! round-trips.
//!
//! The first line is the object, the second the patch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::{json, yaml};
use nave_machinery::Value;
use nave_machinery::limits;
use nave_patch::{PatchError, json_patch, merge, strategic};
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{TypeId, builtin};

fuzz_target!(|input: (u32, &[u8])| {
    let (choice, bytes) = input;
    let set = builtin();
    let id = TypeId(choice % set.types().len() as u32);
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(object), Some(patch)) = (parts.next(), parts.next()) else { return };
    let (Ok(object), Ok(patch)) = (json::decode(object), json::decode(patch)) else { return };
    let (object, patch) = (object.value, patch.value);
    check(&object, |object| json_patch::apply(object, &patch));
    check(&object, |object| merge::apply(object, &patch));
    check(&object, |object| strategic::apply(set, id, object, &patch));
    let mut typed = object;
    if normalize(set, id, &mut typed, Mode::Report).is_ok() {
        check(&typed, |object| strategic::apply(set, id, object, &patch));
    }
});

fn check(object: &Value, apply: impl Fn(&mut Value) -> Result<(), PatchError>) {
    let mut patched = object.clone();
    if let Err(error) = apply(&mut patched) {
        // The patch may have been applied partially; the object must still be traversable.
        assert!(limits::is_within_depth(&patched, 2 * limits::MAX_DEPTH));
        let status = error.into_status();
        assert!((400..500).contains(&status.code) && status.message.len() <= limits::MAX_MESSAGE_BYTES + 3);
        return;
    }
    assert_eq!(limits::check(&patched), Ok(()));
    let written = json::encode(&patched);
    let read = json::decode(&written).expect("a patched object can be decoded").value;
    assert_eq!(json::encode(&read), written);
    let read = yaml::decode(&yaml::encode(&patched)).expect("a patched object can be decoded").value;
    assert_eq!(json::encode(&read), written);
    let mut again = object.clone();
    apply(&mut again).expect("a patch that was applied can be applied again");
    assert_eq!(again, patched);
}
