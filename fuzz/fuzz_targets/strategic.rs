//! Strategic merge patches of pods: the first line is the pod, the second the patch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::json;
use nave_schema::builtin;

fuzz_target!(|bytes: &[u8]| {
    let set = builtin();
    let pod = set.find("io.k8s.api.core.v1.Pod").expect("pods are built in");
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(document), Some(patch)) = (parts.next(), parts.next()) else { return };
    let (Ok(mut document), Ok(patch)) = (json::decode(document), json::decode(patch)) else { return };
    let _ = nave_patch::strategic::apply(set, pod, &mut document.value, &patch.value);
});
