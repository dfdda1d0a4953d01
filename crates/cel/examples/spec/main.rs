//! Runs CEL's conformance tests: `cargo run --release -p nave-cel --example spec -- FOLDER/*.textproto`.
//!
//! The files are in the repository `google/cel-spec`, in `tests/simple/testdata`. Prints the share of equal results for
//! each file, and the number of tests that do not apply to Kubernetes' environment, by reason. With `--show`, also
//! prints the differences.

mod textproto;
mod values;

use std::collections::BTreeMap;

use nave_cel::facts::{Recorded, read_type, show};
use nave_cel::{Activation, Ast, Env, PER_CALL_LIMIT};
use serde_json::{Value as Json, json};

use textproto::Message;

/// The outcome of a test.
enum Verdict {
    Equal,
    Different(String),
    /// The reason why the test does not apply.
    Skipped(&'static str),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut all, mut skipped, mut show) = ((0, 0), BTreeMap::<&str, usize>::new(), false);
    for path in std::env::args().skip(1) {
        if path == "--show" {
            show = true;
            continue;
        }
        let file =
            Message::parse(&std::fs::read_to_string(&path)?).map_err(|why| format!("{path}: {why}"))?;
        let (mut equal, mut run, mut apart) = (0, 0, 0);
        for section in file.all("section") {
            for test in section.all("test") {
                match verdict(&file.text("name"), &section.text("name"), test) {
                    Verdict::Equal => (equal, run) = (equal + 1, run + 1),
                    Verdict::Skipped(reason) => {
                        apart += 1;
                        *skipped.entry(reason).or_default() += 1;
                    }
                    Verdict::Different(why) => {
                        run += 1;
                        if show {
                            println!(
                                "{}/{}/{} {:?}\n  {why}",
                                file.text("name"),
                                section.text("name"),
                                test.text("name"),
                                test.text("expr")
                            );
                        }
                    }
                }
            }
        }
        all = (all.0 + equal, all.1 + run);
        println!(
            "{:16} {equal:5} of {run:5}  {:6.2} %  ({apart} do not apply)",
            file.text("name"),
            share(equal, run)
        );
    }
    println!("{:16} {:5} of {:5}  {:6.2} %", "all", all.0, all.1, share(all.0, all.1));
    for (reason, count) in skipped {
        println!("does not apply   {count:5}  {reason}");
    }
    Ok(())
}

fn share(equal: usize, all: usize) -> f64 {
    if all == 0 { 100.0 } else { 100.0 * equal as f64 / all as f64 }
}

/// Extensions that Kubernetes' environment does not have.
const ABSENT: [(&str, &str); 4] = [
    ("bindings_ext", "cel.bind is not in the environment"),
    ("block_ext", "cel.block is not in the environment"),
    ("encoders_ext", "base64 is not in the environment"),
    ("math_ext", "math is not in the environment"),
];

/// Tests whose expectation differs from Kubernetes' environment, by section and name. An empty name means the whole
/// section.
const DIFFERENT: [(&str, &str, &str); 14] = [
    ("quoted_map_fields", "", "escaped field names are not enabled"),
    ("map_fields", "map_bad_key_type_or_true", FOLDED),
    ("map_fields", "map_bad_key_type_and_false", FOLDED),
    ("qualified_identifier_resolution", "map_value_repeat_key", "cel-go keeps the last of repeated keys"),
    ("namespace_shadowing", "", "cel-go 0.26 prefers qualified names to local variables"),
    ("ipv4", "ipv4_equals_ipv6", "Kubernetes rejects IPv4 addresses mapped to IPv6"),
    ("ipv4", "ipv4_not_equals_ipv6", "Kubernetes rejects IPv4 addresses mapped to IPv6"),
    ("optionals", "map_null_entry_no_such_key", "presence tests of scalars are false"),
    ("optionals", "map_present_key_invalid_field", "presence tests of scalars are false"),
    ("reverse", "", "the string extension has version 2, without reverse"),
    ("format", "", "the string extension has version 2, with another format"),
    ("value_errors", "indexof_out_of_range", "cel-go returns -1 beyond the end"),
    ("value_errors", "lastindexof_out_of_range", "cel-go returns -1 beyond the end"),
    ("duration_converters", "get_milliseconds", "cel-go returns the whole duration"),
];
const FOLDED: &str = "a constant index of a wrong type is an error of the program";

/// Runs a test.
fn verdict(file: &str, section: &str, test: &Message) -> Verdict {
    let verdict = outcome(file, test);
    let name = test.text("name");
    let known =
        DIFFERENT.iter().find(|(place, only, _)| *place == section && (only.is_empty() || *only == name));
    match (verdict, known) {
        (Verdict::Different(_), Some((_, _, reason))) => Verdict::Skipped(reason),
        (verdict, _) => verdict,
    }
}

fn outcome(file: &str, test: &Message) -> Verdict {
    let expr = test.text("expr");
    if let Some((_, reason)) = ABSENT.iter().find(|(name, _)| *name == file) {
        return Verdict::Skipped(reason);
    }
    if !test.text("container").is_empty()
        || expr.contains("TestAllTypes")
        || expr.contains("cel.expr.conformance")
    {
        return Verdict::Skipped("uses messages of the test suite, or a container");
    }
    if test.text("disable_macros") == "true" {
        return Verdict::Skipped("disables macros");
    }
    let mut env = Env::default();
    for declared in test.all("type_env") {
        let Some(ty) = declared.message("ident").and_then(|it| it.message("type")) else {
            return Verdict::Skipped("declares a function");
        };
        let Some(ty) = values::type_name(ty).and_then(|name| read_type(&name)) else {
            return Verdict::Skipped("declares a type that is not in the environment");
        };
        env = env.with(&declared.text("name"), ty);
    }
    let mut bindings = Vec::new();
    for binding in test.all("bindings") {
        let value = binding.message("value").and_then(|it| it.message("value"));
        let value = value.and_then(values::shown).and_then(|shown| values::binding(&shown));
        let Some(recorded) = value.and_then(|it| Recorded::read(&json!({"type": "dyn", "value": it}))) else {
            return Verdict::Skipped("binds a value that is not in the environment");
        };
        bindings.push((binding.text("key"), recorded));
    }
    let expected = match expected(test) {
        Ok(expected) => expected,
        Err(reason) => return Verdict::Skipped(reason),
    };
    let unchecked = test.text("disable_check") == "true";
    let ast = match Ast::compile(&expr, &env) {
        Ok(ast) => ast,
        Err(_) if expected.is_none() => return Verdict::Equal,
        Err(issues) => {
            let text = issues.to_string();
            return match () {
                () if unchecked => Verdict::Skipped("evaluates an expression that the checker rejects"),
                // Kubernetes declares list and map literals of one type only, and fewer functions and messages.
                () if text.contains("expected type") && !text.contains("overload") => {
                    Verdict::Skipped("has a literal with elements of several types")
                }
                () => Verdict::Different(text),
            };
        }
    };
    if let Some(wanted) = test.message("typed_result").and_then(|it| it.message("deduced_type")) {
        let wanted = values::type_name(wanted).and_then(|name| read_type(&name));
        if wanted.as_ref() != Some(ast.output_type()) {
            return Verdict::Different(format!("want type {wanted:?}, have {}", ast.output_type()));
        }
    }
    if test.text("check_only") == "true" {
        return Verdict::Equal;
    }
    let program = match ast.program() {
        Ok(program) => program,
        Err(_) if expected.is_none() => return Verdict::Equal,
        Err(failure) => return Verdict::Different(failure.to_string()),
    };
    let activation = bindings.iter().fold(Activation::new(), |all, (name, value)| value.add(all, name));
    let found = without_parameters(show(&program.evaluate(&activation, PER_CALL_LIMIT)));
    match expected {
        None if found.get("error").is_some() => Verdict::Equal,
        Some(value) if found == json!({"value": value}) => Verdict::Equal,
        expected => {
            Verdict::Different(format!("want {}\n  have {found}", expected.unwrap_or(Json::from("an error"))))
        }
    }
}

/// Removes the parameters of a shown type.
fn without_parameters(mut shown: Json) -> Json {
    if let Some(ty) = shown.pointer_mut("/value/type")
        && let Some((name, _)) = ty.as_str().and_then(|text| text.split_once('('))
    {
        *ty = Json::from(name);
    }
    shown
}

/// Returns the expected value in shown form; `None` for an error.
fn expected(test: &Message) -> Result<Option<Json>, &'static str> {
    if test.get("eval_error").is_some() || test.get("any_eval_errors").is_some() {
        return Ok(None);
    }
    if test.get("unknown").is_some() || test.get("any_unknowns").is_some() {
        return Err("expects unknown values");
    }
    let value = test.message("value").or_else(|| test.message("typed_result")?.message("result"));
    match value {
        Some(value) => values::shown(value).map(Some).ok_or("expects a value that is not in the environment"),
        // A test without an expectation expects `true`.
        None => Ok(Some(json!({"bool": true}))),
    }
}
