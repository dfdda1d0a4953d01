//! Match conditions of webhooks and policies (upstream: `webhook/matchconditions`).

use std::time::Instant;

use nave_cel::Type;
use nave_cel::policies::{PolicyCompiler, PolicyRun, PolicyVariables};
use nave_machinery::Value;

use super::{
    AuthorizerChecks, Budget, Compiler, Expression, ExpressionMetrics, Inputs, Programs, VERSION,
    VersionedRequest, Workload, request_resource,
};

/// Maximum cost of the match conditions of a webhook or policy for one request.
const MAX_COST: u64 = 2_500_000;

/// The compiled match conditions of a webhook or policy.
#[derive(Debug, Default)]
pub struct MatchConditions {
    conditions: Vec<Condition>,
    /// Empty: match conditions of webhooks have no variables. Policies pass theirs.
    none: PolicyVariables,
    workload: Workload,
}

#[derive(Debug)]
struct Condition {
    name: String,
    expression: Expression,
}

/// The result of match conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// All conditions are true.
    Matched,
    /// A condition is false, even if others fail.
    NotMatched {
        /// The name of the condition.
        condition: String,
    },
    /// No condition is false, and at least one failed. With the failure policy `Fail` the request is refused with this
    /// message, with `Ignore` it counts as not matched.
    Failed(String),
}

/// The labels of the metrics of match conditions.
#[derive(Clone, Copy, Debug)]
pub struct ConditionLabels<'a> {
    /// The name of the webhook or policy.
    pub name: &'a str,
    /// `webhook` or `policy`.
    pub kind: &'static str,
    /// The type of admission: `validate` or `admit`.
    pub phase: &'static str,
}

impl MatchConditions {
    /// Compiles the `matchConditions` of a webhook. The API has validated them, so errors of compilation only appear
    /// when they are evaluated.
    pub fn for_webhook(conditions: &[Value], programs: &Programs) -> Self {
        // Most webhooks have no conditions, and need no compiler.
        if conditions.is_empty() {
            return Self::default();
        }
        let compiler = programs.compiler(PolicyCompiler::without_variables(VERSION, false));
        Self::compile(&compiler, conditions)
    }

    /// Compiles the `matchConditions` of a policy, which can use its variables.
    pub(crate) fn compile(compiler: &Compiler, conditions: &[Value]) -> Self {
        let text = |condition: &Value, field: &str| {
            condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let conditions = conditions.iter().map(|condition| Condition {
            name: text(condition, "name"),
            expression: Expression::compile(compiler, &text(condition, "expression"), &[Type::Bool]),
        });
        Self { conditions: conditions.collect(), ..Self::default() }
    }

    /// Returns whether there are no conditions, so that every request matches.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Evaluates the conditions of a webhook.
    pub async fn evaluate(
        &self,
        request: &VersionedRequest<'_>,
        checks: &AuthorizerChecks<'_>,
        metrics: &ExpressionMetrics,
        labels: ConditionLabels<'_>,
    ) -> MatchOutcome {
        if self.is_empty() {
            return MatchOutcome::Matched;
        }
        let started = Instant::now();
        let (outcome, errors) = checks
            .settle(|| self.workload.run(|| self.evaluate_once(&self.none, request, None, checks)))
            .await;
        metrics.conditions_evaluated(labels, request.attributes.operation, started.elapsed(), errors);
        outcome
    }

    /// Evaluates the conditions once, without waiting for undecided checks. Returns the number of failures also.
    pub(crate) fn evaluate_once(
        &self,
        variables: &PolicyVariables,
        request: &VersionedRequest<'_>,
        params: Option<&Value>,
        checks: &AuthorizerChecks<'_>,
    ) -> (MatchOutcome, u64) {
        if self.is_empty() {
            return (MatchOutcome::Matched, 0);
        }
        let inputs = Inputs::for_conditions(request, params);
        let run = PolicyRun::new(variables, &inputs.input(), request_resource(request.attributes), checks);
        let (mut budget, mut errors) = (Budget(MAX_COST), Vec::new());
        let mut first_false = None;
        for condition in &self.conditions {
            if checks.is_void() {
                break;
            }
            match condition.expression.evaluate(&run, &mut budget) {
                // Exhausting the budget outweighs a condition that was false before.
                Err(exhausted) => return (MatchOutcome::Failed(exhausted.to_string()), 0),
                Ok(Err(error)) if !errors.contains(&error) => errors.push(error),
                Ok(Err(_)) => {}
                Ok(Ok(outcome)) => {
                    if matches!(outcome.bool(), Ok(Some(false))) {
                        first_false.get_or_insert(&condition.name);
                    }
                }
            }
        }
        let failures = errors.len() as u64;
        let outcome = match (first_false, errors.as_slice()) {
            (Some(name), _) => MatchOutcome::NotMatched { condition: name.clone() },
            (None, []) => MatchOutcome::Matched,
            (None, [error]) => MatchOutcome::Failed(error.clone()),
            (None, errors) => MatchOutcome::Failed(format!("[{}]", errors.join(", "))),
        };
        (outcome, failures)
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::{GroupVersionKind, GroupVersionResource};
    use serde_json::json;

    use super::*;
    use crate::testing::{Request, registry};
    use crate::versioned::VersionedObject;

    async fn evaluate(expressions: &[&str]) -> MatchOutcome {
        let conditions: Vec<Value> = expressions
            .iter()
            .enumerate()
            .map(|(index, it)| json!({"name": format!("c{index}"), "expression": it}))
            .collect();
        let conditions = MatchConditions::for_webhook(&conditions, &Programs::default());
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"hostNetwork": true}});
        let request = Request::new(registry(), "", "pods", pod.clone(), Value::Null).by("alice", &["devs"]);
        let attributes = request.attributes("p", None);
        let chain = nave_authz::Chain::new(
            Vec::new(),
            nave_authz::Metrics::new(&prometheus::Registry::new()).unwrap(),
        );
        let versioned = VersionedRequest {
            attributes: &attributes,
            kind: &GroupVersionKind::new("", "v1", "Pod"),
            resource: &GroupVersionResource::new("", "v1", "pods"),
            object: &VersionedObject::from(pod.clone()),
            old_object: &VersionedObject::default(),
        };
        let checks = AuthorizerChecks::new(&chain, attributes.user);
        let labels = ConditionLabels { name: "w", kind: "webhook", phase: "validate" };
        conditions.evaluate(&versioned, &checks, &ExpressionMetrics::default(), labels).await
    }

    #[tokio::test]
    async fn false_outweighs_errors_and_errors_outweigh_true() {
        let error = "object.metadata.labels.a == 'b'";
        let text = format!("expression '{error}' resulted in error: no such key: labels");
        let not = |name: &str| MatchOutcome::NotMatched { condition: name.to_owned() };
        let matched = MatchOutcome::Matched;
        for (expressions, expected) in [
            (&[][..], matched.clone()),
            (&["object.spec.hostNetwork == true", "oldObject == null"], matched.clone()),
            (&["request.userInfo.username == 'alice' && 'devs' in request.userInfo.groups"], matched.clone()),
            (&["request.operation == 'CREATE' && request.options.kind == 'CreateOptions'"], matched.clone()),
            (&["!has(request.subResource) && request.namespace == 'ns'"], matched),
            (&["authorizer.requestResource.check('create').allowed()"], not("c0")),
            (&[error, "false"], not("c1")),
            (&[error, "true", error], MatchOutcome::Failed(text.clone())),
            (
                &[error, "int(object.metadata.name) > 1"],
                MatchOutcome::Failed(format!(
                    "[{text}, expression 'int(object.metadata.name) > 1' resulted in error: type conversion error from 'string' to 'int']"
                )),
            ),
            (
                &["variables.a"],
                MatchOutcome::Failed(
                    "compilation error: compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')\n | variables.a\n | ^".to_owned(),
                ),
            ),
        ] {
            assert_eq!(evaluate(expressions).await, expected, "{expressions:?}");
        }
    }

    #[tokio::test]
    async fn expensive_conditions_exhaust_the_budget() {
        let loops = "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, \
                     [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, [a].size() + b + c + d + e >= 0)))))";
        let outcome = evaluate(&[loops, "false"]).await;
        assert_eq!(outcome, MatchOutcome::NotMatched { condition: "c1".to_owned() });
        let exhausted = MatchOutcome::Failed(crate::expressions::expression::OutOfBudget.to_string());
        assert_eq!(evaluate(&["false", loops, loops, loops]).await, exhausted);
    }
}
