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

/// Number of definitions of each size.
const COUNT: usize = 60;

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
    for (first, bytes, limit) in [(100, 8_000, 30_000), (200, 50_000, 55_000)] {
        ALLOCATOR.reset_peak_memory();
        for number in first..first + COUNT {
            let created = client.send(Call::new("POST", DEFINITIONS).json(&definition(number, bytes))).await;
            assert_eq!(created.code, 201, "{}", created.text());
        }
        for number in first..first + COUNT {
            while client.call(&format!("GET {}", objects(number))).await.code != 200 {
                tokio::task::yield_now().await;
            }
        }
        cluster.caught_up().await;
        let each = live() / COUNT;
        println!("each of {COUNT} definitions of {bytes} bytes adds {each} bytes");
        assert!(each <= limit, "each of {COUNT} definitions of {bytes} bytes adds {each} bytes");
    }
    background.abort();
}
