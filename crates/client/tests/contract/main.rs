//! Tests the guarantees of the library against models and scripted servers, with paused time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests meet, tests meet"
)]

mod cache;
mod delta_queue;
mod elections;
mod events;
mod fake_leases;
mod fake_server;
mod http_source;
mod in_process;
mod informers;
mod objects;
mod queues;
mod recorder;

/// Runs a test with paused time, like `tokio::test`. Used by property tests.
fn with_paused_time(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}
