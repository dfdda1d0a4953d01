//! CEL expressions: any that compiles evaluates or fails in bounded time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nave_cel::{Expression, Input, Type, Variable};
use serde_json::json;

fuzz_target!(|text: &str| {
    let claims = Variable { name: "claims", ty: Type::map(Type::String, Type::Dyn) };
    let Ok(expression) = Expression::compile(text, &claims, &Type::Dyn) else { return };
    let input = json!({"sub": "alice", "n": 7, "groups": ["dev", "ops"], "nested": {"a": [1, 2.5, null, true]}});
    let _ = expression.evaluate(&Input::new("claims", &input));
    let _ = expression.reads("claims", "sub");
});
