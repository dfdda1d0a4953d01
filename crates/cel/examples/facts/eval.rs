//! Compares recorded evaluations of single expressions.

use nave_cel::facts::{Recorded, show};
use nave_cel::{Activation, Ast, Bounds, Env, PER_CALL_LIMIT, SizeEstimator, Type};
use serde_json::{Value, json};

use crate::share::Report;

/// The recorded input of the estimator: sizes by path.
struct Sizes<'s> {
    sizes: &'s Value,
    vars: &'s [(String, Recorded)],
}

impl SizeEstimator for Sizes<'_> {
    fn estimate_size(&self, path: &[String], ty: &Type) -> Option<Bounds> {
        if let Some(max) = self.sizes.get(path.join(".")).and_then(Value::as_u64) {
            return Some(Bounds { min: 0, max });
        }
        let _ = (self.vars, ty);
        None
    }
}

/// Compares one case.
pub(crate) fn compare(case: &Value, report: &mut Report) {
    let expr = case["expr"].as_str().unwrap_or_default();
    let mut env = Env::default();
    if case.get("env").is_some() {
        env = env.with_patch_types();
    }
    let mut vars = Vec::new();
    for (name, var) in case.get("vars").and_then(Value::as_object).into_iter().flatten() {
        if let Some(var) = Recorded::read(var) {
            env = env.with(name, var.ty.clone());
            vars.push((name.clone(), var));
        }
    }
    let ast = match Ast::compile(expr, &env) {
        Ok(ast) => ast,
        Err(issues) => {
            let found = mask(&issues.to_string());
            report.count("errors: compile", case, &case["compile_text"], &json!(found));
            return;
        }
    };
    if let Some(text) = case.get("compile_text") {
        report.count("errors: compile", case, text, &json!("compiles"));
        return;
    }
    report.count("results: type", case, &case["type"], &json!(mask(&ast.output_type().long_name())));
    let none = json!({});
    let sizes = Sizes { sizes: case.get("sizes").unwrap_or(&none), vars: &vars };
    let bounds = ast.estimate(&sizes);
    report.count("costs: estimate", case, &case["estimate"], &json!([bounds.min, bounds.max]));
    let program = match ast.program() {
        Ok(program) => program,
        Err(failure) => {
            // Upstream panics here; this engine returns an error.
            let expected =
                case.get("program_error").cloned().unwrap_or_else(|| match case.get("program_panic") {
                    Some(_) => json!(failure.to_string()),
                    None => Value::Null,
                });
            report.count("errors: program", case, &expected, &json!(failure.to_string()));
            return;
        }
    };
    if let Some(error) = case.get("program_error").or(case.get("program_panic")) {
        report.count("errors: program", case, error, &Value::Null);
        return;
    }
    let mut activation = Activation::new();
    for (name, var) in &vars {
        activation = var.add(activation, name);
    }
    let outcome = program.evaluate(&activation, PER_CALL_LIMIT);
    let kind =
        if case["result"].get("error").is_some() { "errors: evaluation" } else { "results: evaluation" };
    let found = show(&outcome);
    let unstable = case.get("unstable").map(ToString::to_string).unwrap_or_default();
    let expected = if unstable.is_empty() || !unstable.contains(&found["value"].to_string()) {
        case["result"].clone()
    } else {
        found.clone()
    };
    report.count(kind, case, &expected, &found);
    report.count("costs: evaluation", case, &case["cost"], &json!(outcome.cost));
}

/// Masks generated type names, as the recordings do.
fn mask(text: &str) -> String {
    text.replace("selfType", "evalType#")
}
