//! What the library promises, against models and against servers that do as a script says. Time is the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests meet, tests meet"
)]

mod cache;
mod delta_queue;
mod elections;
mod fake_leases;
mod fake_server;
mod http_source;
mod in_process;
mod informers;
mod objects;
mod queues;
mod recorder;
