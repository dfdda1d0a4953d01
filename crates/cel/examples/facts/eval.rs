//! Compares recorded evaluations of single expressions.

use nave_cel::facts::{Recorded, show};
use nave_cel::{Activation, Ast, Bounds, Env, PER_CALL_LIMIT, SizeEstimator, Type};
use serde_json::{Value, json};

use crate::share::Report;

/// The recorded input of the estimator: sizes by path.
struct Sizes<'s> {
    sizes: &'s Value,
}

impl SizeEstimator for Sizes<'_> {
    fn estimate_size(&self, path: &[String], _: &Type) -> Option<Bounds> {
        let max = self.sizes.get(path.join(".")).and_then(Value::as_u64)?;
        Some(Bounds { min: 0, max })
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
        let Some(var) = Recorded::read(var) else {
            return report.count("unreadable variables", case, &json!(name), &Value::Null);
        };
        env = env.with(name, var.ty.clone());
        vars.push((name.clone(), var));
    }
    let ast = match Ast::compile(expr, &env) {
        Ok(ast) => ast,
        Err(issues) => {
            let found = mask(&issues.to_string());
            let expected = case["compile_text"].as_str().unwrap_or_default();
            // Long texts are recorded up to an ellipsis.
            let is_start = expected.strip_suffix('…').is_some_and(|start| found.starts_with(start));
            let expected = if is_start { &found } else { expected };
            report.count("errors: compile", case, &json!(expected), &json!(found));
            return;
        }
    };
    if let Some(text) = case.get("compile_text") {
        report.count("errors: compile", case, text, &json!("compiles"));
        return;
    }
    report.count("results: type", case, &case["type"], &json!(mask(&ast.output_type().long_name())));
    let none = json!({});
    let sizes = Sizes { sizes: case.get("sizes").unwrap_or(&none) };
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
    report.count(kind, case, &any_order(case, &case["result"]), &any_order(case, &found));
    let costs = case["unstable"]["costs"].as_array().into_iter().flatten();
    let cost = json!(outcome.cost);
    let expected = costs.into_iter().find(|known| **known == cost).unwrap_or(&case["cost"]);
    report.count("costs: evaluation", case, expected, &cost);
}

/// Sorts the items of a list whose order was not the same in all recorded runs, because Go walks maps in random order.
fn any_order(case: &Value, result: &Value) -> Value {
    let mut result = result.clone();
    if case.get("unstable").is_some_and(|it| it.get("results").is_some())
        && let Some(items) = result.pointer_mut("/value/list").and_then(Value::as_array_mut)
    {
        items.sort_by_key(ToString::to_string);
    }
    result
}
/// Masks generated type names, as the recordings do.
fn mask(text: &str) -> String {
    text.replace("selfType", "evalType#")
}
