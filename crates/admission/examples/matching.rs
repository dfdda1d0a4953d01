//! Measures the cost of webhook and policy criteria that do not match a request.
//!
//! `cargo run --release -p nave-admission --features testing --example matching -- [CONFIGURATIONS]` prints the time
//! of a pod create for each arrangement of configurations. One index is that of one plugin: mutating webhooks,
//! validating webhooks, mutating policies or validating policies.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use nave_admission::matching::{Criteria, Index, NewObject};
use nave_admission::testing::{MemoryCluster, Request};
use nave_machinery::{Object, Value};
use nave_resources::Registry;
use serde_json::json;

const ROUNDS: u32 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(500), |text| text.parse())?;
    let registry = Arc::new(Registry::builtin(nave_schema::builtin()));
    let cluster = MemoryCluster::default();
    cluster.namespaces.put(json!({"metadata": {"name": "ns", "labels": {"team": "t", "tier": "gold"}}}));
    let pod =
        json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web", "tier": "front"}}});
    let request = Request::new(&registry, "", "pods", pod.clone(), Value::Null);
    let attributes = request.attributes("p", None);
    let (matcher, pod) = (cluster.matcher(&registry), Object::try_from(pod)?);
    println!("{count} configurations that do not match a pod create: nanoseconds a request");
    let rule = |group: String, resource: String, operation: &str| json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": [operation]});
    for (name, webhook) in ARRANGEMENTS {
        let criteria: Vec<Criteria> = (0..count)
            .map(|number| {
                let ((group, resource, operation), selectors) = webhook(number);
                let mut fields =
                    json!({"rules": [rule(group, resource, operation)], "matchPolicy": "Equivalent"});
                if let (Value::Object(fields), Value::Object(selectors)) = (&mut fields, selectors) {
                    fields.extend(selectors);
                }
                Criteria::of_webhook(&fields)
            })
            .collect();
        let index = Index::new(&criteria);
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let index = black_box(&index);
            if index.has_candidates(black_box(&attributes)) {
                let request = matcher.request(black_box(&attributes));
                let found = request.candidates(index, NewObject::Final(Some(&pod)));
                assert!(black_box(found).is_empty(), "{name}");
            }
        }
        println!("{:8.0}   {name}", started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    Ok(())
}

/// The group, resource and operation of a configuration, and its selectors.
type Webhook = fn(usize) -> ((String, String, &'static str), Value);

const ARRANGEMENTS: [(&str, Webhook); 7] = [
    ("each for a resource of its own", |n| (("example.com".to_owned(), format!("r{n}"), "*"), Value::Null)),
    ("each for all resources of a group of its own", |n| {
        ((format!("g{n}.example.com"), "*".to_owned(), "*"), Value::Null)
    }),
    ("all for deletions of pods", |_| ((String::new(), "pods".to_owned(), "DELETE"), Value::Null)),
    ("all for all subresources of deployments", |_| {
        (("apps".to_owned(), "deployments/*".to_owned(), "*"), Value::Null)
    }),
    ("all for creates of pods, each in a namespace of its own", |n| {
        let labels = json!({"kubernetes.io/metadata.name": format!("ns{n}")});
        ((String::new(), "pods".to_owned(), "CREATE"), json!({"namespaceSelector": {"matchLabels": labels}}))
    }),
    ("all for everything, each in the namespaces of a team of its own", |n| {
        let labels = json!({"team": format!("team{n}"), "tier": "gold"});
        (("*".to_owned(), "*".to_owned(), "*"), json!({"namespaceSelector": {"matchLabels": labels}}))
    }),
    ("all for creates of pods, each of an application of its own", |n| {
        let labels = json!({"app": format!("app{n}")});
        ((String::new(), "pods".to_owned(), "CREATE"), json!({"objectSelector": {"matchLabels": labels}}))
    }),
];
