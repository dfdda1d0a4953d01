//! Evaluation of a validating policy (upstream: `policy/validating/validator.go`).

use std::time::{Duration, Instant};

use nave_cel::policies::{MAX_POLICY_COST, PolicyCompiler, PolicyRun, PolicyVariables};
use nave_cel::{PER_CALL_LIMIT, Type};
use nave_machinery::{Object, Reason, Value};

use super::store::Policy;
use crate::expressions::{
    AuthorizerChecks, Budget, Compiler, Expression, Inputs, MatchConditions, MatchOutcome, OutOfBudget,
    Programs, VERSION, VersionedRequest, request_resource,
};

/// Maximum length of a message that an expression returns, in bytes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The compiled expressions of a validating policy.
pub(super) struct Validator {
    variables: PolicyVariables,
    conditions: MatchConditions,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: Reason,
}

/// The result of an evaluation with one parameter.
#[derive(Debug, Default)]
pub(super) struct Validated {
    /// One decision per validation; a single one if the evaluation ended early; empty if the policy does not match.
    pub(super) decisions: Vec<Decision>,
    pub(super) annotations: Vec<AuditAnnotation>,
    /// The number of match conditions that failed, and the time of their evaluation.
    pub(super) conditions: Option<(u64, Duration)>,
}

/// The decision of one validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) message: String,
    pub(super) reason: Option<Reason>,
    pub(super) took: Duration,
}

/// The verdict of a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    Deny,
    /// The expression failed; the failure policy decides.
    Error,
}

/// The value of an audit annotation.
#[derive(Debug)]
pub(super) struct AuditAnnotation {
    pub(super) key: String,
    /// `None` if the annotation is left out.
    pub(super) value: Result<Option<String>, String>,
    pub(super) took: Duration,
}

impl Decision {
    fn error(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Error, message: message.into(), reason: None, took: Duration::ZERO }
    }
}

/// Compiles a validating policy.
pub(super) fn compile(policy: &Object, programs: &Programs) -> Policy<Validator> {
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    let has_params = spec.get("paramKind").is_some_and(Value::is_object);
    let mut compiler = programs.compiler(PolicyCompiler::new(VERSION, has_params));
    declare_variables(&mut compiler, spec);
    let validator = Validator {
        conditions: MatchConditions::compile(&compiler, list(spec, "matchConditions")),
        validations: list(spec, "validations").iter().map(|it| Validation::new(&compiler, it)).collect(),
        annotations: list(spec, "auditAnnotations")
            .iter()
            .map(|annotation| {
                let value = text(annotation, "valueExpression");
                let wanted = [Type::String, Type::Null];
                (text(annotation, "key").to_owned(), Expression::compile(&compiler, value, &wanted))
            })
            .collect(),
        variables: compiler.into_variables(),
    };
    Policy::new(policy, validator)
}

/// Compiles the variables of a policy. Errors are reported when a variable is read.
pub(super) fn declare_variables(compiler: &mut Compiler, spec: &Value) {
    for variable in list(spec, "variables") {
        compiler.declare(text(variable, "name"), text(variable, "expression"));
    }
}

pub(super) fn list<'v>(fields: &'v Value, name: &str) -> &'v [Value] {
    fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text<'v>(fields: &'v Value, name: &str) -> &'v str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl Validation {
    fn new(compiler: &Compiler, validation: &Value) -> Self {
        let message = text(validation, "messageExpression");
        let has_message = !message.is_empty();
        Self {
            expression: Expression::compile(compiler, text(validation, "expression"), &[Type::Bool]),
            message: text(validation, "message").to_owned(),
            message_expression: has_message
                .then(|| Expression::without_authorizer(compiler, message, &[Type::String])),
            reason: match text(validation, "reason") {
                "Forbidden" => Reason::Forbidden,
                "Unauthorized" => Reason::Unauthorized,
                "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
                _ => Reason::Invalid,
            },
        }
    }
}

impl Validator {
    /// Evaluates the policy with one parameter, without waiting for undecided checks.
    pub(super) fn validate(
        &self,
        request: &VersionedRequest<'_>,
        namespace: &Value,
        params: Option<&Value>,
        checks: &AuthorizerChecks<'_>,
    ) -> Validated {
        let started = Instant::now();
        let (matched, failures) = self.conditions.evaluate_once(&self.variables, request, params, checks);
        let conditions = (!self.conditions.is_empty()).then(|| (failures, started.elapsed()));
        match matched {
            MatchOutcome::Matched => {}
            MatchOutcome::NotMatched { .. } => return Validated { conditions, ..Validated::default() },
            MatchOutcome::Failed(why) => {
                return Validated {
                    decisions: vec![Decision::error(why)],
                    conditions,
                    ..Validated::default()
                };
            }
        }
        let inputs = Inputs::new(request, namespace, params);
        let decisions = match self.decide(request, &inputs, checks) {
            Ok(decisions) => decisions,
            Err(exhausted) => {
                let decisions = vec![Decision::error(exhausted.to_string())];
                return Validated { decisions, conditions, ..Validated::default() };
            }
        };
        match self.annotate(&inputs) {
            Ok(annotations) => Validated { decisions, annotations, conditions },
            Err(exhausted) => {
                let decisions = vec![Decision::error(exhausted.to_string())];
                Validated { decisions, conditions, ..Validated::default() }
            }
        }
    }

    fn decide(
        &self,
        request: &VersionedRequest<'_>,
        inputs: &Inputs<'_>,
        checks: &AuthorizerChecks<'_>,
    ) -> Result<Vec<Decision>, OutOfBudget> {
        let resource = request_resource(request.attributes);
        let run = PolicyRun::new(&self.variables, &inputs.input(), resource, checks);
        let mut budget = Budget(MAX_POLICY_COST);
        let mut decisions = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            if checks.is_void() {
                return Ok(decisions);
            }
            let started = Instant::now();
            let outcome = validation.expression.evaluate(&run, &mut budget)?;
            let (verdict, message) = match outcome {
                Err(why) => (Verdict::Error, why),
                Ok(outcome) if outcome.bool() == Ok(Some(true)) => (Verdict::Admit, String::new()),
                Ok(_) => (Verdict::Deny, String::new()),
            };
            decisions.push(Decision { verdict, message, reason: None, took: started.elapsed() });
        }
        // Release the variables before they are evaluated again for messages.
        drop(run);
        self.explain(&mut decisions, inputs, budget);
        Ok(decisions)
    }

    /// Sets the messages and reasons of denials.
    ///
    /// Upstream evaluates all message expressions; exhausting the budget turns all decisions into errors. They are
    /// evaluated here only if a validation failed or if they could exhaust the budget.
    fn explain(&self, decisions: &mut [Decision], inputs: &Inputs<'_>, mut budget: Budget) {
        let expressions = self.validations.iter().filter(|it| it.message_expression.is_some()).count();
        let most = (expressions + self.variables.len()) as u64 * PER_CALL_LIMIT;
        let is_denied = decisions.iter().any(|decision| decision.verdict == Verdict::Deny);
        if !is_denied && (expressions == 0 || most < budget.0) {
            return;
        }
        let run = PolicyRun::without_authorizer(&self.variables, &inputs.input());
        let mut messages = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            let evaluated =
                validation.message_expression.as_ref().map(|message| message.evaluate(&run, &mut budget));
            match evaluated.transpose() {
                Ok(message) => messages.push(message.and_then(Result::ok).and_then(|it| it.string().ok()?)),
                Err(exhausted) => {
                    for decision in decisions.iter_mut().filter(|it| it.verdict != Verdict::Error) {
                        decision.verdict = Verdict::Error;
                        decision.message = format!("failed messageExpression: {exhausted}");
                    }
                    return;
                }
            }
        }
        let denials = decisions.iter_mut().zip(&self.validations).zip(messages);
        for ((decision, validation), message) in denials.filter(|((it, _), _)| it.verdict == Verdict::Deny) {
            decision.message = validation.message(message.as_deref());
            decision.reason = Some(validation.reason);
        }
    }

    fn annotate(&self, inputs: &Inputs<'_>) -> Result<Vec<AuditAnnotation>, OutOfBudget> {
        if self.annotations.is_empty() {
            return Ok(Vec::new());
        }
        let run = PolicyRun::without_authorizer(&self.variables, &inputs.input());
        let mut budget = Budget(MAX_POLICY_COST);
        let mut found = Vec::with_capacity(self.annotations.len());
        for (key, expression) in &self.annotations {
            let started = Instant::now();
            let value = expression.evaluate(&run, &mut budget)?.map(|outcome| {
                let value = outcome.string().ok().flatten().map(|text| text.trim().to_owned());
                value.filter(|text| !text.is_empty())
            });
            found.push(AuditAnnotation { key: key.clone(), value, took: started.elapsed() });
        }
        Ok(found)
    }
}

impl Validation {
    /// Returns the message of a denial: that of the expression, the fixed one, or the expression itself.
    fn message(&self, evaluated: Option<&str>) -> String {
        let usable =
            |text: &&str| !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n');
        let fixed = Some(self.message.trim()).filter(|text| !text.is_empty());
        match evaluated.map(str::trim).filter(usable).or(fixed) {
            Some(message) => message.to_owned(),
            None => format!("failed expression: {}", self.expression.text().trim()),
        }
    }
}
