//! Benchmarks each codec with a pod of about 3.7 KB of JSON: `cargo run --release --example pod_codec`. An argument
//! selects the benchmarks whose name contains it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nave_codec::{json, protobuf, protobuf::Root, yaml};
use nave_schema::builtin;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = builtin();
    let id = set.find("io.k8s.api.core.v1.Pod").ok_or("the table has no Pod")?;
    let value = json::decode(include_bytes!("pod.json"))?.value;
    let text = json::encode(&value);
    let mut message = Vec::new();
    protobuf::encode(set, id, &value, &mut message)?;
    let document = yaml::encode(&value);
    println!("json {} bytes, protobuf {} bytes, yaml {} bytes", text.len(), message.len(), document.len());

    let root = Root { api_version: "v1", kind: "Pod", resource_version: Some("123456"), ..Root::default() };
    let mut out = Vec::with_capacity(16 << 10);
    measure("json decode", || json::decode(&text).is_ok());
    measure("json decode (serde_json, no checks)", || {
        serde_json::from_slice::<serde_json::Value>(&text).is_ok()
    });
    measure("json encode", || !json::encode(&value).is_empty());
    measure("yaml decode", || yaml::decode(&document).is_ok());
    measure("yaml encode", || !yaml::encode(&value).is_empty());
    measure("protobuf encode", || {
        out.clear();
        protobuf::encode(set, id, &value, &mut out).is_ok()
    });
    measure("protobuf decode", || protobuf::decode(set, id, &message).is_ok());
    measure("protobuf to json", || {
        out.clear();
        protobuf::transcode_json(set, id, &message, root, &mut out).is_ok()
    });
    Ok(())
}

/// Prints the best mean of many short rounds, because other load affects the best mean least.
fn measure(name: &str, mut work: impl FnMut() -> bool) {
    const CALLS: u32 = 100;
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..CALLS {
            assert!(black_box(work()), "{name} failed");
        }
        best = best.min(start.elapsed() / CALLS);
    }
    println!("{name:<36} {:>8.2} µs", best.as_secs_f64() * 1e6);
}
