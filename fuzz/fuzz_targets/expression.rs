//! CEL expressions: parsing any text returns a result or an error; any checked expression evaluates or fails within its
//! limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_cel::{Activation, Ast, Env, Type, Unlimited};
use serde_json::json;

const LIMIT: u64 = 100_000;

fuzz_target!(|text: &str| {
    let env = Env::default().with("claims", Type::map(Type::String, Type::Dyn));
    let Ok(ast) = Ast::compile(text, &env) else { return };
    let _ = ast.estimate(&Unlimited);
    let _ = ast.reads("claims", "sub");
    let Ok(program) = ast.program() else { return };
    let claims = json!({"sub": "alice", "n": 7, "groups": ["dev", "ops"], "nested": {"a": [1, 2.5, null, true]}});
    let activation = Activation::new().with("claims", &claims);
    let _ = program.evaluate(&activation, LIMIT).json();
});
