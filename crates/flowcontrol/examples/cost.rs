//! Measures the cost of a request without contention: classification, seats, and their return.
//!
//! `cargo run --release -p nave-flowcontrol --example cost`

use std::sync::Arc;
use std::time::{Duration, Instant};

use nave_flowcontrol::matching::RequestAttributes;
use nave_flowcontrol::metrics::FlowMetrics;
use nave_flowcontrol::work::WorkEstimate;
use nave_flowcontrol::{Controller, Request, Stored, bootstrap};
use nave_machinery::RequestedResource;
use nave_machinery::user::UserInfo;

/// The figure is that of the fastest batch, because other processes slow down some of them.
const BATCHES: u32 = 1_000;
const BATCH: u32 = 1_000;

struct GetPod;

impl RequestAttributes for GetPod {
    fn verb(&self) -> &'static str {
        "get"
    }

    fn path(&self) -> &'static str {
        "/api/v1/namespaces/default/pods/p"
    }

    fn resource(&self) -> Option<RequestedResource<'_>> {
        Some(RequestedResource {
            version: "v1",
            resource: "pods",
            namespace: "default",
            name: "p",
            ..RequestedResource::default()
        })
    }
}

fn stored<S: serde::de::DeserializeOwned>(objects: Vec<bootstrap::Bootstrap>) -> Vec<Stored<S>> {
    let stored = |object: bootstrap::Bootstrap| {
        let spec = serde_json::from_value(object.spec).ok()?;
        Some(Stored { name: object.name.to_owned(), uid: String::new(), spec })
    };
    objects.into_iter().filter_map(stored).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), prometheus::Error> {
    let controller = Controller::new(600, FlowMetrics::new(&prometheus::Registry::new())?);
    controller.configure(stored(bootstrap::levels()), stored(bootstrap::schemas()));
    for (name, group) in
        [("admin", "system:masters"), ("node", "system:nodes"), ("user", "system:authenticated")]
    {
        let groups = vec![group.to_owned(), "system:authenticated".to_owned()];
        let user = Arc::new(UserInfo { name: name.to_owned(), groups, ..UserInfo::default() });
        let request = Request {
            user,
            attributes: Arc::new(GetPod),
            mutating: false,
            is_watch: false,
            wait_until: tokio::time::Instant::now() + Duration::from_mins(10),
        };
        let mut fastest = u128::MAX;
        for _ in 0..BATCHES {
            let started = Instant::now();
            for _ in 0..BATCH {
                drop(controller.admit(&request, |_| WorkEstimate::seats(1)).await);
            }
            fastest = fastest.min(started.elapsed().as_nanos());
        }
        println!("{name}: {} ns per request", fastest / u128::from(BATCH));
    }
    Ok(())
}
