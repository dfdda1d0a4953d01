//! Benchmarks `nave-cel` beside the `cel` crate, which does not check or cost expressions:
//! `cargo run --release` in this folder.

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nave_cel::{Activation, Ast, Compiled, Decl, DeclSizes, Env, PER_CALL_LIMIT, ProgramCache};
use serde_json::json;

/// Counts the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: calls the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Number of programs whose memory is measured.
const PROGRAMS: usize = 5000;

/// Expressions as in definitions and policies. `#` becomes the number of the program.
const RULES: [&str; 8] = [
    "self.replicas <= self.max + #",
    "self.replicas >= 1 && self.replicas <= # && self.max > self.replicas",
    "has(self.name) && self.name.startsWith('web-#')",
    "self.items.all(i, i.name.startsWith('item-') && i.weight < #)",
    "self.items.exists_one(i, i.name == 'main-#')",
    "self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?-#$')",
    "self.items.filter(i, i.weight > #).map(i, i.name).size() <= 3",
    "size(self.name) <= 63 ? self.max < # : self.name.endsWith('-#')",
];

fn main() -> Result<(), Box<dyn Error>> {
    let text = json!({"type": "string", "maxLength": 64});
    let item = json!({"type": "object", "properties": {"name": text, "weight": {"type": "integer"}}});
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "max": {"type": "integer"}, "name": text,
        "items": {"type": "array", "maxItems": 2000, "items": item},
    }});
    let decl = Decl::from_schema(&schema, false).ok_or("the schema has a type")?;
    let env = Env::default().with("self", decl.to_type("self"));
    let items: Vec<_> =
        (0..1000).map(|index| json!({"name": format!("item-{index}"), "weight": index})).collect();
    let value = json!({"replicas": 3, "max": 5, "name": "web-1", "items": items});
    let simple = "self.replicas <= self.max";
    let each = "self.items.all(i, i.name.startsWith('item-') && i.weight >= 0)";

    println!("{:>12} {:>12}", "nave-cel", "cel");
    let nave = time(|| {
        let _ = black_box(Ast::compile(black_box(simple), &env));
    });
    let cel = time(|| {
        let _ = black_box(cel::Program::compile(black_box(simple)));
    });
    row("parse (nave-cel: and check)", nave, cel);
    let ast = Ast::compile(each, &env)?;
    let nave = time(|| {
        black_box(ast.estimate(&DeclSizes(vec![("self", &decl)])));
    });
    println!("{nave:>12.1?} {:>12} estimate of the rule over 1,000 items", "-");
    let activation = Activation::new().with_typed("self", &value, &decl);
    let mut context = cel::Context::default();
    context.add_variable("self", &value).map_err(|error| error.to_string())?;
    for text in [simple, each] {
        let program = Ast::compile(text, &env)?.program()?;
        let other = cel::Program::compile(text).map_err(|error| error.to_string())?;
        let nave = time(|| {
            let _ = black_box(program.evaluate(&activation, PER_CALL_LIMIT).bool());
        });
        let cel = time(|| {
            let _ = black_box(other.execute(&context));
        });
        row(text, nave, cel);
    }
    let nave = time(|| {
        black_box(Activation::new().with_typed("self", black_box(&value), &decl));
    });
    let cel = time(|| {
        let mut context = cel::Context::default();
        let _ = black_box(context.add_variable("self", black_box(&value)));
    });
    row("bind an object with 1,000 items", nave, cel);
    memory(&env)
}

/// Prints the memory of many programs.
fn memory(env: &Env) -> Result<(), Box<dyn Error>> {
    let rules: Vec<String> =
        (0..PROGRAMS).map(|index| RULES[index % RULES.len()].replace('#', &index.to_string())).collect();
    let (before, mut programs) = (IN_USE.load(Ordering::Relaxed), Vec::with_capacity(PROGRAMS));
    for rule in &rules {
        programs.push(Compiled::new(rule, env)?);
    }
    let nave = IN_USE.load(Ordering::Relaxed) - before;
    let (before, mut others) = (IN_USE.load(Ordering::Relaxed), Vec::with_capacity(PROGRAMS));
    for rule in &rules {
        others.push(cel::Program::compile(rule).map_err(|error| error.to_string())?);
    }
    let cel = IN_USE.load(Ordering::Relaxed) - before;
    println!("{:>10} K {:>10} K memory of {PROGRAMS} programs", nave >> 10, cel >> 10);
    drop((programs, others));
    let cache = Arc::new(ProgramCache::new(PROGRAMS, 1 << 30));
    let before = IN_USE.load(Ordering::Relaxed);
    for rule in &rules {
        cache.compile(rule, env)?;
    }
    let used = IN_USE.load(Ordering::Relaxed) - before;
    println!("{:>10} K {:>12} memory of the cache with them; estimate {} K", used >> 10, "-", cache.bytes() >> 10);
    for (kind, rule) in RULES.iter().enumerate() {
        let before = IN_USE.load(Ordering::Relaxed);
        let kept: Vec<_> = (0..100)
            .map(|index| Compiled::new(&rule.replace('#', &(index + kind).to_string()), env))
            .collect::<Result<_, _>>()?;
        println!("{:>12} {:>12} bytes: {rule}", (IN_USE.load(Ordering::Relaxed) - before) / kept.len(), "-");
    }
    let hit = time(|| {
        let _ = black_box(cache.compile(black_box(&rules[7]), env));
    });
    println!("{hit:>12.1?} {:>12} find in the cache", "-");
    Ok(())
}

fn row(name: &str, nave: Duration, cel: Duration) {
    println!("{nave:>12.1?} {cel:>12.1?} {name}");
}

/// Returns the time of one call, from the fastest of several rounds.
fn time(mut call: impl FnMut()) -> Duration {
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
    best
}
