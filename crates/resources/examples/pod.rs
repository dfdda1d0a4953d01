//! Measures the stages of a pod's create that the rules of pods decide: `cargo run --release -p nave-resources --example
//! pod`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nave_machinery::{FieldPath, GroupVersionResource, names};
use nave_resources::{Registry, ResourceDef};
use nave_schema::{builtin, defaulting};
use serde_json::Value;

/// Small enough that a batch is rarely interrupted by other processes.
const ROUNDS: u32 = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::builtin(builtin());
    let def =
        registry.lookup(&GroupVersionResource::new("", "v1", "pods")).ok_or("the registry has no pods")?;
    let id = builtin().find("io.k8s.api.core.v1.Pod").ok_or("the table has no Pod")?;
    let mut pod: Value = serde_json::from_slice(include_bytes!("../../codec/examples/pod.json"))?;
    defaulting::apply(builtin(), id, &mut pod)?;
    let strategy = &def.strategy;
    strategy.default(&mut pod, "v1");
    println!("pod: {} bytes", pod.to_string().len());

    let defaulting = fastest(|| strategy.default(black_box(&mut pod), "v1"));
    println!("defaults: {defaulting:?}");
    let preparing = fastest(|| {
        black_box(strategy.warnings_before_create(&pod));
        strategy.prepare_for_create(black_box(&mut pod));
    });
    println!("preparation: {preparing:?}");
    let checking = fastest(|| assert_eq!(validate_metadata(def, black_box(&pod)), 0));
    println!("validation of the metadata: {checking:?}");
    let validating = fastest(|| assert_eq!(strategy.validate(black_box(&pod)), []));
    println!("validation: {validating:?}");
    let warning = fastest(|| drop(black_box(strategy.warnings(black_box(&pod), None))));
    println!("warnings: {warning:?}");
    Ok(())
}

/// Returns the number of errors.
fn validate_metadata(def: &ResourceDef, pod: &Value) -> usize {
    let path = FieldPath::new("metadata");
    names::validate_object_meta(&pod["metadata"], true, |name| def.name_rule.check(name), &path).len()
}

/// Returns the time per round of the fastest of many batches. Other load on the machine only adds time.
fn fastest(mut work: impl FnMut()) -> Duration {
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        start.elapsed() / ROUNDS
    };
    (0..100).map(batch).min().unwrap_or_default()
}
