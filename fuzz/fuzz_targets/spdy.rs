//! Frames of SPDY/3.1, from clients through a tunnel and from kubelets.
#![no_main]

use futures_executor::block_on;
use libfuzzer_sys::fuzz_target;
use nave_streams::spdy::frame::FrameReader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = FrameReader::new(bytes);
    // Reading from memory never waits, so no executor of sockets is needed.
    block_on(async { while let Ok(Some(_)) = reader.next().await {} });
});
