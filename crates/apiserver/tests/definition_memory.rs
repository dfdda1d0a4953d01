//! The memory that a definition without objects keeps.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers may fail the test")]

mod common;
#[path = "definitions/family.rs"]
mod family;

use std::alloc::System;
use std::hint::black_box;

use peakmem_alloc::{INSTRUMENTED_SYSTEM, PeakMemAlloc, PeakMemAllocTrait};
use serde_json::json;

use common::{Call, Client, Cluster};
use family::{definition, objects};

#[global_allocator]
static ALLOCATOR: &PeakMemAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Larger than any transient peak, in bytes. The block is never written, so it takes no memory.
const BLOCK: usize = 1 << 32;

/// Number of definitions of a round.
const COUNT: usize = 60;

/// Number of rounds for each size.
const ROUNDS: usize = 5;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Returns the bytes allocated since the last reset that are not freed.
fn live() -> usize {
    drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
    ALLOCATOR.get_peak_memory().saturating_sub(BLOCK)
}

/// Writes more than the bounded buffers of the store hold, so that they do not grow afterwards.
async fn fill_buffers(client: &Client) {
    let path = "/api/v1/namespaces/default/configmaps";
    for number in 0..300 {
        let map =
            json!({"metadata": {"name": format!("map-{number}")}, "data": {"text": "x".repeat(100_000)}});
        let created = client.send(Call::new("POST", path).json(&map)).await;
        assert_eq!(created.code, 201, "{}", created.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_without_objects_are_small() {
    let cluster = Cluster::start(&[]).await;
    let server = cluster.server.clone();
    let background = tokio::spawn(async move { server.run_background_tasks(|| false).await });
    let client = cluster.admin();
    fill_buffers(&client).await;
    for (first, bytes, limit) in [(1000, 8_000, 22_000), (2000, 50_000, 40_000)] {
        // Bounded buffers also grow and shrink, so single rounds differ by a megabyte.
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            ALLOCATOR.reset_peak_memory();
            let numbers = first + round * COUNT..first + (round + 1) * COUNT;
            for number in numbers.clone() {
                let object = definition(number, bytes);
                let created = client.send(Call::new("POST", DEFINITIONS).json(&object)).await;
                assert_eq!(created.code, 201, "{}", created.text());
            }
            for number in numbers {
                while client.call(&format!("GET {}", objects(number))).await.code != 200 {
                    tokio::task::yield_now().await;
                }
            }
            cluster.caught_up().await;
            let each = live() / COUNT;
            println!("each of {COUNT} definitions of {bytes} bytes adds {each} bytes");
            rounds.push(each);
        }
        rounds.sort_unstable();
        let median = rounds[ROUNDS / 2];
        assert!(median <= limit, "each definition of {bytes} bytes adds {median} bytes: {rounds:?}");
    }
    background.abort();
}
