//! Compares recorded evaluations of admission policies: compiled expressions, decisions and costs of validations.

use nave_cel::facts::show;
use nave_cel::policies::{
    MAX_POLICY_COST, PolicyCompiler, PolicyExpression, PolicyInput, PolicyRun, PolicyVariables,
};
use nave_cel::{Authorizer, Decision, PathCheck, ResourceCheck, Type};
use serde_json::{Value, json};

use crate::share::Report;

/// The minor version of Kubernetes whose libraries policies can use.
const VERSION: u32 = 35;

/// The recorded authorizer: the first row that matches decides.
struct Rows<'c>(&'c [Value]);

impl Rows<'_> {
    fn decide(&self, asked: &[(&str, &str)]) -> Decision {
        let fits = |row: &&Value| {
            asked.iter().all(|(name, asked)| {
                row.get(*name).and_then(Value::as_str).is_none_or(|it| it.is_empty() || it == *asked)
            })
        };
        let Some(row) = self.0.iter().find(fits) else { return Decision::default() };
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let error = row.get("error").and_then(Value::as_str).map(str::to_owned);
        Decision { allowed: text("decision") == "allow", reason: text("reason").to_owned(), error }
    }
}

fn user(subject: &nave_cel::Subject) -> String {
    match &subject.service_account {
        Some((namespace, name)) => format!("system:serviceaccount:{namespace}:{name}"),
        None => "alice".to_owned(),
    }
}

impl Authorizer for Rows<'_> {
    fn check_path(&self, check: &PathCheck, verb: &str) -> Decision {
        let user = user(&check.subject);
        self.decide(&[
            ("path", &check.path),
            ("verb", verb),
            ("user", &user),
            ("resource", ""),
            ("group", ""),
        ])
    }

    fn check_resource(&self, check: &ResourceCheck, verb: &str) -> Decision {
        let user = user(&check.subject);
        self.decide(&[
            ("verb", verb),
            ("user", &user),
            ("group", &check.group),
            ("resource", &check.resource),
            ("subresource", &check.subresource),
            ("namespace", &check.namespace),
            ("name", &check.name),
            ("path", ""),
        ])
    }
}

type Compiled = Result<PolicyExpression, String>;
/// A validation in JSON, its expression and its message expression.
type Validation = (Value, Compiled, Option<PolicyExpression>);

/// Compares one case.
pub(crate) fn compare(case: &Value, report: &mut Report) {
    let spec = &case["spec"];
    let is_mutating = case["kind"] == "MutatingAdmissionPolicy";
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut compiler = PolicyCompiler::new(VERSION, spec.get("paramKind").is_some_and(|it| !it.is_null()));
    let mut found = Vec::new();
    let mut note = |field: String, result: Result<&Type, &String>| {
        found.push(match result {
            Ok(ty) => json!({"field": field, "type": ty.long_name()}),
            Err(error) => json!({"field": field, "error": error}),
        });
    };
    let text =
        |json: &Value, name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for (index, variable) in list("variables").iter().enumerate() {
        let compiled = compiler.declare(&text(variable, "name"), &text(variable, "expression"));
        note(format!("spec.variables[{index}].expression"), compiled.as_ref());
    }
    let mut conditions = Vec::new();
    for (index, condition) in list("matchConditions").iter().enumerate() {
        let compiled = compiler.compile(&text(condition, "expression"), &[Type::Bool]);
        note(format!("spec.matchConditions[{index}].expression"), compiled.as_ref().map(|it| &it.ty));
        conditions.push(compiled);
    }
    let mut mutations = Vec::new();
    if is_mutating {
        compiler = compiler.with_patch_types();
        for (index, mutation) in list("mutations").iter().enumerate() {
            let patches = Type::list(Type::object("JSONPatch", []));
            for (name, ty) in [("applyConfiguration", Type::object("Object", [])), ("jsonPatch", patches)] {
                let wanted = mutation["patchType"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name));
                let expression =
                    mutation.get(name).and_then(|it| it.get("expression")).and_then(Value::as_str);
                if let Some(expression) = expression.filter(|_| wanted) {
                    let compiled = compiler.compile(expression, &[ty]);
                    let field = format!("spec.mutations[{index}].{name}.expression");
                    note(field, compiled.as_ref().map(|it| &it.ty));
                    mutations.push(compiled);
                }
            }
        }
    }
    let mut validations: Vec<Validation> = Vec::new();
    for (index, validation) in list("validations").into_iter().enumerate() {
        let compiled = compiler.compile(&text(&validation, "expression"), &[Type::Bool]);
        note(format!("spec.validations[{index}].expression"), compiled.as_ref().map(|it| &it.ty));
        let message = text(&validation, "messageExpression");
        let message = (!message.is_empty()).then(|| compiler.compile(&message, &[Type::String]));
        if let Some(message) = &message {
            note(format!("spec.validations[{index}].messageExpression"), message.as_ref().map(|it| &it.ty));
        }
        validations.push((validation, compiled, message.and_then(Result::ok)));
    }
    for (index, annotation) in list("auditAnnotations").iter().enumerate() {
        let compiled = compiler.compile(&text(annotation, "valueExpression"), &[Type::String, Type::Null]);
        note(format!("spec.auditAnnotations[{index}].valueExpression"), compiled.as_ref().map(|it| &it.ty));
    }
    let outcome = &case["outcome"];
    let found = if found.is_empty() && outcome["compiled"].is_null() { Value::Null } else { json!(found) };
    report.count("policies: compiled", case, &outcome["compiled"], &found);
    if let (Some(expected), true) = (outcome.get("mutations"), is_mutating) {
        return mutate(case, compiler, &mutations, expected, report);
    }
    let Some(decisions) = outcome.get("decisions") else { return };
    decide(case, compiler, (&conditions, &validations), decisions, report);
}

fn decide(
    case: &Value,
    compiler: PolicyCompiler,
    (conditions, validations): (&[Compiled], &[Validation]),
    expected: &Value,
    report: &mut Report,
) {
    let (none, rows) =
        (Value::Null, case.get("authorizer").and_then(Value::as_array).cloned().unwrap_or_default());
    let authorizer = Rows(&rows);
    let variables = compiler.into_variables();
    let request = request(case);
    let object = case.get("object").unwrap_or(&none);
    let old = case.get("oldObject").unwrap_or(&none);
    let input = PolicyInput {
        object,
        old_object: old,
        request: &request,
        namespace: case.get("namespace").unwrap_or(&none),
        params: case["spec"]
            .get("paramKind")
            .filter(|it| !it.is_null())
            .map(|_| case.get("params").unwrap_or(&none)),
    };
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let resource = ResourceCheck {
        group: request["resource"]["group"].as_str().unwrap_or_default().to_owned(),
        resource: request["resource"]["resource"].as_str().unwrap_or_default().to_owned(),
        subresource: text("subResource"),
        namespace: text("namespace"),
        name: text("name"),
        ..ResourceCheck::default()
    };
    let run = PolicyRun::new(&variables, &input, resource, &authorizer);
    let failure = if case["spec"]["failurePolicy"] == "Ignore" { "admit" } else { "deny" };
    if !conditions.is_empty() {
        let matched = matches(conditions, &variables, &input, &authorizer);
        match matched {
            Ok(true) => {}
            Ok(false) => return report.count("policies: decisions", case, expected, &json!([])),
            Err(_) if failure == "admit" => {
                return report.count("policies: decisions", case, expected, &json!([]));
            }
            Err(why) => {
                let decision =
                    json!([{"action": failure, "evaluation": "error", "reason": "", "message": why}]);
                return report.count("policies: decisions", case, expected, &decision);
            }
        }
    }
    let (mut decisions, mut costs) = (Vec::new(), Vec::new());
    let mut budget = MAX_POLICY_COST;
    for (validation, compiled, message) in validations {
        let expression = validation["expression"].as_str().unwrap_or_default().trim();
        let error = |message: String| json!({"action": failure, "evaluation": "error", "reason": "", "message": message});
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(why) => {
                decisions.push(error(format!("compilation error: {why}")));
                costs.push(json!(0));
                continue;
            }
        };
        let (result, cost) = run.evaluate(compiled);
        let Some(rest) = budget.checked_sub(cost) else {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            decisions = vec![error(why.to_owned())];
            costs.push(json!(why));
            break;
        };
        budget = rest;
        costs.push(json!(cost));
        decisions.push(match result {
            Err(why) => error(format!("expression '{expression}' resulted in error: {why}")),
            Ok(Some(Value::Bool(true))) => {
                json!({"action": "admit", "evaluation": "admit", "reason": "", "message": ""})
            }
            Ok(_) => {
                let own = message.as_ref().and_then(|it| run.evaluate(it).0.ok().flatten());
                let own = own.as_ref().and_then(Value::as_str).map(str::trim);
                let own = own.filter(|it| !it.is_empty() && it.len() <= 5120 && !it.contains('\n'));
                let fixed = validation.get("message").and_then(Value::as_str).map(str::trim);
                let message = own.or(fixed.filter(|it| !it.is_empty()));
                let message =
                    message.map_or_else(|| format!("failed expression: {expression}"), str::to_owned);
                let reason = validation.get("reason").and_then(Value::as_str).unwrap_or("Invalid");
                json!({"action": "deny", "evaluation": "deny", "reason": reason, "message": message})
            }
        });
    }
    report.count("policies: decisions", case, expected, &json!(decisions));
    report.count("policies: costs", case, &case["outcome"]["cost"]["validations"], &json!(costs));
}

/// Evaluates match conditions. A false condition decides, even if others fail.
fn matches<'a>(
    conditions: &'a [Compiled],
    variables: &'a PolicyVariables,
    input: &PolicyInput<'a>,
    authorizer: &'a Rows<'_>,
) -> Result<bool, String> {
    let input = PolicyInput { namespace: &Value::Null, ..*input };
    let run = PolicyRun::new(variables, &input, ResourceCheck::default(), authorizer);
    let mut error = None;
    for condition in conditions {
        match condition {
            Err(why) => {
                error.get_or_insert_with(|| format!("compilation error: {why}"));
            }
            Ok(condition) => match run.evaluate(condition).0 {
                Ok(Some(Value::Bool(false))) => return Ok(false),
                Ok(_) => {}
                Err(why) => {
                    error.get_or_insert_with(|| why.to_string());
                }
            },
        }
    }
    error.map_or(Ok(true), Err)
}

/// Compares the values and costs of mutations. Later mutations see the changes of earlier ones, so only the first is
/// compared.
fn mutate(
    case: &Value,
    compiler: PolicyCompiler,
    mutations: &[Compiled],
    expected: &Value,
    report: &mut Report,
) {
    let (none, rows) =
        (Value::Null, case.get("authorizer").and_then(Value::as_array).cloned().unwrap_or_default());
    let authorizer = Rows(&rows);
    let variables = compiler.into_variables();
    let request = request(case);
    let input = PolicyInput {
        object: case.get("object").unwrap_or(&none),
        old_object: case.get("oldObject").unwrap_or(&none),
        request: &request,
        namespace: case.get("namespace").unwrap_or(&none),
        params: case["spec"]
            .get("paramKind")
            .filter(|it| !it.is_null())
            .map(|_| case.get("params").unwrap_or(&none)),
    };
    let run = PolicyRun::new(&variables, &input, ResourceCheck::default(), &authorizer);
    let (Some(first), Some(expected)) = (mutations.first(), expected.get(0)) else { return };
    let spec = &case["spec"]["mutations"][0];
    let expression =
        ["applyConfiguration", "jsonPatch"].iter().find_map(|name| spec[*name]["expression"].as_str());
    let text = expression.unwrap_or_default();
    let found = match first {
        Err(why) => json!({"compileError": why}),
        Ok(mutation) => {
            let outcome = run.outcome(mutation);
            let shown = show(&outcome);
            match shown.get("error") {
                Some(error) => {
                    let error = error.as_str().unwrap_or_default();
                    let error = format!("expression '{text}' resulted in error: {error}");
                    json!({"evalError": error, "cost": outcome.cost})
                }
                None => json!({"value": shown["value"], "cost": outcome.cost}),
            }
        }
    };
    let names = ["compileError", "evalError", "value", "cost"];
    let known = names.into_iter().filter_map(|name| Some((name.to_owned(), expected.get(name)?.clone())));
    report.count("policies: mutations", case, &Value::Object(known.collect()), &found);
}

/// Builds the admission request of a case.
fn request(case: &Value) -> Value {
    let object =
        case.get("object").filter(|it| !it.is_null()).or(case.get("oldObject")).unwrap_or(&Value::Null);
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = format!("{}s", kind.to_lowercase());
    let kind = json!({"group": group, "version": version, "kind": kind});
    let resource = json!({"group": group, "version": version, "resource": resource});
    let default = json!({"username": "alice", "uid": "u-1", "groups": ["system:authenticated", "devs"]});
    let mut request = json!({
        "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
        "operation": case["operation"], "userInfo": case.get("user").cloned().unwrap_or(default),
        "dryRun": false, "options": case.get("options").cloned().unwrap_or(Value::Null),
    });
    // An absent subresource stays absent in the request.
    if let Some(subresource) = case.get("subresource") {
        request["subResource"] = subresource.clone();
        request["requestSubResource"] = subresource.clone();
    }
    request
}
