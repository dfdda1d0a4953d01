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

/// The compiled expressions of a policy, with their texts.
#[derive(Default)]
struct Policy {
    conditions: Vec<(String, Compiled)>,
    validations: Vec<(String, Compiled)>,
    /// One for each validation; `None` if it has no message expression.
    messages: Vec<Option<(String, Compiled)>>,
    annotations: Vec<(String, Compiled)>,
    mutations: Vec<(String, Compiled)>,
}

/// The inputs of the evaluations of a case.
struct Inputs<'c> {
    case: &'c Value,
    variables: &'c PolicyVariables,
    request: &'c Value,
    authorizer: &'c Rows<'c>,
}

/// The result of an expression: JSON, or an error.
type Evaluation = Result<Value, String>;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";
/// Maximum cost of the match conditions of a policy.
const MAX_CONDITIONS_COST: u64 = 2_500_000;

/// Compares one case.
pub(crate) fn compare(case: &Value, report: &mut Report) {
    let mut compiler =
        PolicyCompiler::new(VERSION, case["spec"].get("paramKind").is_some_and(|it| !it.is_null()));
    let mut fields = Vec::new();
    let mut policy = Policy::default();
    compile(case, &mut compiler, &mut policy, &mut fields);
    let outcome = &case["outcome"];
    let fields = if fields.is_empty() && outcome["compiled"].is_null() { Value::Null } else { json!(fields) };
    report.count("policies: compiled", case, &outcome["compiled"], &fields);
    let rows = case.get("authorizer").and_then(Value::as_array).cloned().unwrap_or_default();
    let (variables, request) = (compiler.into_variables(), request(case));
    let inputs = Inputs { case, variables: &variables, request: &request, authorizer: &Rows(&rows) };
    let matched = inputs.conditions(&policy.conditions, report);
    if let Some(expected) = outcome.get("match") {
        report.count("policies: match", case, expected, &matched);
    }
    if let Some(expected) = outcome.get("mutations").and_then(Value::as_array) {
        if matched["matches"] != json!(false) {
            inputs.mutate(&policy.mutations, expected, report);
        }
    } else if let Some(expected) = outcome.get("decisions") {
        inputs.decide(&policy, &matched, expected, report);
    }
    // The parts of the admission plugins, not of the engine.
    for part in ["apiErrors", "typeChecking", "final"] {
        if outcome.get(part).is_some() {
            report.skip(match part {
                "apiErrors" => "policies: validation of the policy by the API",
                "typeChecking" => "policies: types of built-in objects",
                _ => "policies: the object after mutations",
            });
        }
    }
}

/// Compiles the expressions of a policy, in upstream's order. Records the type or the error of each.
fn compile(case: &Value, compiler: &mut PolicyCompiler, policy: &mut Policy, fields: &mut Vec<Value>) {
    let spec = &case["spec"];
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |json: &Value, name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut note = |field: String, result: Result<&Type, &String>| {
        fields.push(match result {
            Ok(ty) => json!({"field": field, "type": ty.long_name()}),
            Err(error) => json!({"field": field, "error": error}),
        });
    };
    for (index, variable) in list("variables").iter().enumerate() {
        let compiled = compiler.declare(&text(variable, "name"), &text(variable, "expression"));
        note(format!("spec.variables[{index}].expression"), compiled.as_ref());
    }
    for (index, condition) in list("matchConditions").iter().enumerate() {
        let compiled = compiler.compile(&text(condition, "expression"), &[Type::Bool]);
        note(format!("spec.matchConditions[{index}].expression"), compiled.as_ref().map(|it| &it.ty));
        policy.conditions.push((text(condition, "name"), compiled));
    }
    if case["kind"] == "MutatingAdmissionPolicy" {
        let mutating = std::mem::replace(compiler, PolicyCompiler::new(VERSION, false)).with_patch_types();
        *compiler = mutating;
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
                    policy.mutations.push((expression.to_owned(), compiled));
                }
            }
        }
    }
    for (index, validation) in list("validations").into_iter().enumerate() {
        let expression = text(&validation, "expression");
        let compiled = compiler.compile(&expression, &[Type::Bool]);
        note(format!("spec.validations[{index}].expression"), compiled.as_ref().map(|it| &it.ty));
        policy.validations.push((expression, compiled));
        let message = text(&validation, "messageExpression");
        let message = (!message.is_empty()).then(|| {
            let compiled = compiler.compile_without_authorizer(&message, &[Type::String]);
            note(format!("spec.validations[{index}].messageExpression"), compiled.as_ref().map(|it| &it.ty));
            (message, compiled)
        });
        policy.messages.push(message);
    }
    for (index, annotation) in list("auditAnnotations").iter().enumerate() {
        let expression = text(annotation, "valueExpression");
        let compiled = compiler.compile(&expression, &[Type::String, Type::Null]);
        note(format!("spec.auditAnnotations[{index}].valueExpression"), compiled.as_ref().map(|it| &it.ty));
        policy.annotations.push((expression, compiled));
    }
}

/// Evaluates expressions with a common budget. Returns an error if the budget is exhausted.
fn evaluate<'a>(
    run: &PolicyRun<'a>,
    expressions: impl Iterator<Item = Option<&'a (String, Compiled)>>,
    budget: &mut u64,
    costs: &mut Vec<Value>,
) -> Result<Vec<Option<Evaluation>>, String> {
    let mut results = Vec::new();
    for expression in expressions {
        let Some((text, compiled)) = expression else {
            results.push(None);
            continue;
        };
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(why) => {
                costs.push(json!(0));
                results.push(Some(Err(format!("compilation error: {why}"))));
                continue;
            }
        };
        let (result, cost) = run.evaluate(compiled);
        let Some(rest) = budget.checked_sub(cost) else {
            costs.push(json!(OUT_OF_BUDGET));
            return Err(OUT_OF_BUDGET.to_owned());
        };
        *budget = rest;
        costs.push(json!(cost));
        results.push(Some(match result {
            Ok(value) => Ok(value.unwrap_or_default()),
            Err(why) => Err(format!("expression '{text}' resulted in error: {why}")),
        }));
    }
    Ok(results)
}

impl<'c> Inputs<'c> {
    fn fails(&self) -> bool {
        self.case["spec"]["failurePolicy"] != "Ignore"
    }

    fn input(&self) -> PolicyInput<'c> {
        let part = |name: &str| self.case.get(name).unwrap_or(&Value::Null);
        let has_params = self.case["spec"].get("paramKind").is_some_and(|it| !it.is_null());
        PolicyInput {
            object: part("object"),
            old_object: part("oldObject"),
            request: self.request,
            namespace: part("namespace"),
            params: has_params.then(|| part("params")),
        }
    }

    fn run(&self, input: &PolicyInput<'c>) -> PolicyRun<'c> {
        let text = |json: &Value, name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let resource = ResourceCheck {
            group: text(&self.request["resource"], "group"),
            resource: text(&self.request["resource"], "resource"),
            subresource: text(self.request, "subResource"),
            namespace: text(self.request, "namespace"),
            name: text(self.request, "name"),
            ..ResourceCheck::default()
        };
        PolicyRun::new(self.variables, input, resource, self.authorizer)
    }

    /// Evaluates match conditions. A false condition decides, even if others fail.
    fn conditions(&self, conditions: &'c [(String, Compiled)], report: &mut Report) -> Value {
        let outcome = |matches: bool, failed: &str, error: Option<String>| json!({"matches": matches, "failedCondition": failed, "error": error});
        let run = self.run(&PolicyInput { namespace: &Value::Null, ..self.input() });
        let mut costs = Vec::new();
        let results =
            evaluate(&run, conditions.iter().map(Some), &mut MAX_CONDITIONS_COST.clone(), &mut costs);
        if let Some(expected) = self.case["outcome"]["cost"].get("matchConditions") {
            report.count("policies: costs", self.case, expected, &json!(costs));
        }
        let errors = match results {
            Err(why) => vec![why],
            Ok(results) => {
                let is_false = |result: &Option<Evaluation>| *result == Some(Ok(json!(false)));
                if let Some(at) = results.iter().position(is_false) {
                    return outcome(false, &conditions[at].0, None);
                }
                results.into_iter().flatten().filter_map(Result::err).collect()
            }
        };
        match errors.as_slice() {
            [] => outcome(true, "", None),
            _ if !self.fails() => outcome(false, "", None),
            [one] => outcome(false, "", Some(one.clone())),
            several => outcome(false, "", Some(format!("[{}]", several.join(", ")))),
        }
    }

    fn decide(&self, policy: &'c Policy, matched: &Value, expected: &Value, report: &mut Report) {
        let case = self.case;
        let failure = if self.fails() { "deny" } else { "admit" };
        let error = |message: &str| json!({"action": failure, "evaluation": "error", "reason": "", "message": message});
        let mut costs = serde_json::Map::new();
        let (mut decisions, mut annotations) = (Vec::new(), Vec::new());
        let run = self.run(&self.input());
        let mut budget = MAX_POLICY_COST;
        let mut spent = Vec::new();
        let results = evaluate(&run, policy.validations.iter().map(Some), &mut budget, &mut spent);
        costs.insert("validations".to_owned(), json!(spent));
        let run = PolicyRun::without_authorizer(self.variables, &self.input());
        let mut spent = Vec::new();
        let messages = evaluate(&run, policy.messages.iter().map(Option::as_ref), &mut budget, &mut spent);
        costs.insert("messageExpressions".to_owned(), json!(spent));
        let run = PolicyRun::without_authorizer(self.variables, &self.input());
        let mut spent = Vec::new();
        let values =
            evaluate(&run, policy.annotations.iter().map(Some), &mut MAX_POLICY_COST.clone(), &mut spent);
        costs.insert("auditAnnotations".to_owned(), json!(spent));
        let validations = case["spec"]["validations"].as_array().cloned().unwrap_or_default();
        match results {
            _ if matched["error"].is_string() => {
                decisions.push(error(matched["error"].as_str().unwrap_or_default()));
            }
            _ if matched["matches"] == json!(false) => {}
            Err(why) => decisions.push(error(&why)),
            Ok(results) => {
                for (index, (result, validation)) in
                    results.into_iter().flatten().zip(&validations).enumerate()
                {
                    decisions.push(match (result, &messages) {
                        (Err(why), _) => error(&why),
                        (_, Err(why)) => error(&format!("failed messageExpression: {why}")),
                        (Ok(Value::Bool(true)), _) => {
                            json!({"action": "admit", "evaluation": "admit", "reason": "", "message": ""})
                        }
                        (Ok(_), Ok(messages)) => {
                            let own = messages.get(index).and_then(|it| it.as_ref()?.as_ref().ok()?.as_str());
                            denial(validation, own)
                        }
                    });
                }
                let keys = case["spec"]["auditAnnotations"].as_array().cloned().unwrap_or_default();
                for (value, annotation) in values.unwrap_or_default().into_iter().flatten().zip(&keys) {
                    annotations.push(audit(&annotation["key"], value, self.fails()));
                }
            }
        }
        report.count("policies: decisions", case, expected, &json!(decisions));
        if let Some(expected) = case["outcome"].get("auditAnnotations") {
            report.count("policies: audit annotations", case, expected, &json!(annotations));
        }
        for (name, cost) in costs {
            if let Some(expected) = case["outcome"]["cost"].get(&name) {
                report.count("policies: costs", case, expected, &cost);
            }
        }
    }

    /// Compares the values and costs of mutations. Each one sees the changes of the JSON patches before it.
    fn mutate(&self, mutations: &'c [(String, Compiled)], expected: &[Value], report: &mut Report) {
        let mut object = self.input().object.clone();
        for (index, expected) in expected.iter().enumerate() {
            let Some((text, compiled)) = mutations.get(index) else {
                report.count("policies: mutations", self.case, expected, &Value::Null);
                continue;
            };
            let current = object.clone();
            let found = match compiled {
                Err(why) => json!({"compileError": why}),
                Ok(mutation) => {
                    let resource = PolicyInput { object: &current, ..self.input() };
                    let run =
                        PolicyRun::new(self.variables, &resource, ResourceCheck::default(), self.authorizer);
                    let outcome = run.outcome(mutation);
                    if let Ok(Some(patch)) = outcome.json() {
                        let mut patched = current.clone();
                        if patch.is_array() && nave_patch::json_patch::apply(&mut patched, &patch).is_ok() {
                            object = patched;
                        }
                    }
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
            let mut known = expected.clone();
            for part in ["patchError", "convertError"] {
                if known.as_object_mut().is_some_and(|it| it.remove(part).is_some()) {
                    report.skip("policies: errors of applying mutations");
                }
            }
            report.count("policies: mutations", self.case, &known, &found);
        }
    }
}

/// Returns the decision for a validation that is false.
fn denial(validation: &Value, own: Option<&str>) -> Value {
    let text = |name: &str| validation.get(name).and_then(Value::as_str);
    let own = own.map(str::trim).filter(|it| it.len() <= 5120 && !it.contains('\n'));
    let fixed = text("message").map(str::trim);
    let message = own.filter(|it| !it.is_empty()).or(fixed.filter(|it| !it.is_empty()));
    let expression = text("expression").unwrap_or_default().trim();
    let message = message.map_or_else(|| format!("failed expression: {expression}"), str::to_owned);
    json!({"action": "deny", "evaluation": "deny", "reason": text("reason").unwrap_or("Invalid"), "message": message})
}

fn audit(key: &Value, value: Evaluation, fails: bool) -> Value {
    let (action, value, error) = match value {
        Err(why) => (if fails { "error" } else { "exclude" }, String::new(), why),
        Ok(value) => match value.as_str().map(str::trim) {
            Some(text) if !text.is_empty() => ("publish", text.to_owned(), String::new()),
            _ => ("exclude", String::new(), String::new()),
        },
    };
    json!({"key": key, "action": action, "value": value, "error": error})
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
