//! JSON patches: the first line is the document, the second the patch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::json;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(document), Some(patch)) = (parts.next(), parts.next()) else { return };
    let (Ok(mut document), Ok(patch)) = (json::decode(document), json::decode(patch)) else { return };
    let _ = nave_patch::json_patch::apply(&mut document.value, &patch.value);
    let _ = nave_patch::merge::apply(&mut document.value, &patch.value);
});
