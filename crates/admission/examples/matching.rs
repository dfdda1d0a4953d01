//! Measures the cost of webhook and policy criteria that do not match a request.
//!
//! `cargo run --release -p nave-admission --features testing --example matching -- [CONFIGURATIONS]` prints the time
//! of a pod create for each arrangement of configurations.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use nave_admission::matching::{Criteria, Index};
use nave_admission::testing::Request;
use nave_machinery::Value;
use nave_resources::Registry;
use serde_json::json;

const ROUNDS: u32 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(500), |text| text.parse())?;
    let registry = Registry::builtin(nave_schema::builtin());
    let pod = json!({"metadata": {"name": "p", "namespace": "ns"}});
    let request = Request::new(&registry, "", "pods", pod, Value::Null);
    let attributes = request.attributes("p", None);
    println!("{count} configurations that do not match a pod create: nanoseconds a request");
    let rule = |group: String, resource: String, operation: &str| json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": [operation]});
    for (name, rules) in [
        ("each for a resource of its own", (|n| ("example.com".to_owned(), format!("r{n}"), "*")) as Rules),
        ("each for all resources of a group of its own", |n| {
            (format!("g{n}.example.com"), "*".to_owned(), "*")
        }),
        ("all for deletions of pods", |_| (String::new(), "pods".to_owned(), "DELETE")),
        ("all for all subresources of deployments", |_| ("apps".to_owned(), "deployments/*".to_owned(), "*")),
    ] {
        let criteria = (0..count).map(|number| {
            let (group, resource, operation) = rules(number);
            let rules = [rule(group, resource, operation)];
            Criteria::of_webhook(&json!({"rules": rules, "matchPolicy": "Equivalent"}))
        });
        let criteria: Vec<Criteria> = criteria.collect();
        let index = Index::new(&criteria);
        let started = Instant::now();
        for _ in 0..ROUNDS {
            assert!(!black_box(&index).has_candidates(black_box(&attributes)), "{name}");
        }
        println!("{:8.0}   {name}", started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    Ok(())
}

/// The group, resource and operation of a configuration.
type Rules = fn(usize) -> (String, String, &'static str);
