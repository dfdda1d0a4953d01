//! The headers `Accept` and `Content-Type`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_codec::negotiate::{Format, accept, content_type};

fuzz_target!(|header: &str| {
    if let Some(accepted) = accept(Some(header), &[Format::Json, Format::Protobuf], |_| true) {
        assert_ne!(accepted.format, Format::Yaml);
    }
    let _ = content_type(header);
});
