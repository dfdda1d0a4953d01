//! Benchmarks the engine: `cargo run --release -p nave-cel --example bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nave_cel::{Activation, Ast, Decl, Env, PER_CALL_LIMIT, Program};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "max": {"type": "integer"},
        "items": {"type": "array", "items": {"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 64}, "weight": {"type": "integer"},
        }}},
    }});
    let decl = Decl::from_schema(&schema, false).ok_or("the schema has a type")?;
    let env = Env::default().with("self", decl.to_type("self"));
    let items: Vec<_> =
        (0..1000).map(|index| json!({"name": format!("item-{index}"), "weight": index})).collect();
    let value = json!({"replicas": 3, "max": 5, "items": items});
    let simple = "self.replicas <= self.max";
    let each = "self.items.all(i, i.name.startsWith('item-') && i.weight >= 0)";

    time("parse and check", || {
        let _ = black_box(Ast::compile(black_box(simple), &env));
    });
    let programs: Vec<Program> = [simple, each]
        .into_iter()
        .map(|text| Ok(Ast::compile(text, &env)?.program()?))
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let activation = Activation::new().with_typed("self", &value, &decl);
    for (program, text) in programs.iter().zip([simple, each]) {
        time(text, || {
            let _ = black_box(program.evaluate(&activation, PER_CALL_LIMIT).bool());
        });
    }
    Ok(())
}

/// Prints the time of one call, from the fastest of several rounds.
fn time(name: &str, mut call: impl FnMut()) {
    let mut best = Duration::MAX;
    let mut count: u32 = 1;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..count {
            call();
        }
        let round = start.elapsed();
        best = best.min(round / count);
        if round < Duration::from_millis(50) {
            count = count.saturating_mul(2);
        }
    }
    println!("{best:>12.1?}  {name}");
}
