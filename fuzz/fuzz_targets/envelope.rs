//! The `k8s\0` envelope: unwrapping and wrapping round-trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::protobuf::envelope::{self, PREFIX};

fuzz_target!(|bytes: &[u8]| {
    let wrapped = [&PREFIX[..], bytes].concat();
    let Ok(unknown) = envelope::unwrap(&wrapped) else { return };
    let _ = envelope::metadata(unknown.raw);
    let again = envelope::wrap(unknown.api_version, unknown.kind, unknown.raw);
    let again = envelope::unwrap(&again).expect("a wrapped message can be unwrapped");
    assert_eq!((again.api_version, again.kind, again.raw), (unknown.api_version, unknown.kind, unknown.raw));
});
