//! Compiled expressions.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::authorizer::{Authorizer, NoAuthorizer};
use crate::check::{Checked, check};
use crate::cost::{Bounds, SizeEstimator, estimate};
use crate::deep::{may_be_deep, with_stack};
use crate::env::Env;
use crate::failure::Failure;
use crate::kinds::Type;
use crate::plan::{Node, Plan, plan};
use crate::run::{Context, Lazy, Machine};
use crate::schema::Decl;
use crate::syntax::{Issues, parse};
use crate::value::{Value, from_json, to_json, typed};

/// Maximum cost of one evaluation, as upstream.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// Memory of a step of a program in bytes. Measured by `benches/cel`.
const NODE_BYTES: usize = 200;

/// A checked expression.
#[derive(Debug)]
pub struct Ast {
    checked: Checked,
    text: Arc<str>,
    is_deep: bool,
}

/// A planned expression that can be evaluated any number of times, from many threads.
#[derive(Debug)]
pub struct Program {
    node: Node,
    plan: Plan,
    is_deep: bool,
}

/// The variables of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct Activation<'a> {
    variables: Vec<(&'a str, Result<Value<'a>, Failure>)>,
}

/// The result of an evaluation, and its cost.
#[derive(Debug)]
pub struct Outcome<'a> {
    result: Result<Value<'a>, Failure>,
    /// The cost, even if the evaluation failed.
    pub cost: u64,
}

impl Ast {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// The expression is invalid.
    pub fn compile(text: &str, env: &Env) -> Result<Self, Issues> {
        let is_deep = may_be_deep(text);
        let checked = with_stack(is_deep, || {
            let (expr, source) = parse(text, env.has_bindings())?;
            check(expr, source, env)
        });
        let checked =
            checked.unwrap_or_else(|| Err(Issues::unplaced("no resources to check the expression")))?;
        Ok(Self { checked, text: text.into(), is_deep })
    }

    /// Returns the source text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the type of the expression.
    pub fn output_type(&self) -> &Type {
        self.checked.type_of(self.checked.expr.id)
    }

    /// Estimates the cost of an evaluation.
    pub fn estimate(&self, sizes: &(dyn SizeEstimator + Sync)) -> Bounds {
        with_stack(self.is_deep, || estimate(&self.checked, sizes)).unwrap_or(Bounds::UNKNOWN)
    }

    /// Creates the program.
    ///
    /// # Errors
    /// A constant part of the expression fails.
    pub fn program(&self) -> Result<Program, Failure> {
        let planned = with_stack(self.is_deep, || plan(&self.checked));
        let (node, plan) = planned.unwrap_or(Err(Failure::Memory))?;
        Ok(Program { node, plan, is_deep: self.is_deep })
    }

    /// Returns the variables that the expression names.
    pub(crate) fn variables(&self) -> Vec<Arc<str>> {
        self.checked.variables()
    }

    /// Returns whether the expression names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.checked.uses(variable)
    }

    /// Returns whether the expression reads a field of a variable, in any notation.
    pub fn reads(&self, variable: &str, field: &str) -> bool {
        self.checked.reads(variable, field)
    }
}

impl Program {
    /// Returns the approximate memory of the program in bytes.
    pub(crate) fn estimated_bytes(&self) -> usize {
        let regexes = self.plan.regexes.values().map(|regex| regex.bytes()).sum::<usize>();
        size_of::<Self>() + self.plan.nodes * NODE_BYTES + regexes
    }

    /// Evaluates the program.
    pub fn evaluate<'a>(&'a self, activation: &Activation<'a>, limit: u64) -> Outcome<'a> {
        self.evaluate_with(activation, limit, &NoAuthorizer)
    }

    /// Evaluates the program, with an authorizer.
    pub fn evaluate_with<'a>(
        &'a self,
        activation: &Activation<'a>,
        limit: u64,
        authorizer: &'a dyn Authorizer,
    ) -> Outcome<'a> {
        self.evaluate_lazily(activation, limit, authorizer, None)
    }

    /// Evaluates the program. Evaluates fields of `variables` when they are read.
    pub(crate) fn evaluate_lazily<'a>(
        &'a self,
        activation: &Activation<'a>,
        limit: u64,
        authorizer: &'a dyn Authorizer,
        lazy: Option<Arc<dyn Lazy<'a> + 'a>>,
    ) -> Outcome<'a> {
        let find = |name: &Arc<str>| activation.variables.iter().find(|(known, _)| **known == **name);
        let variables = self.plan.variables.iter().map(|name| find(name).map(|(_, value)| value.clone()));
        let variables: Vec<_> = variables.collect();
        let outcome = with_stack(self.is_deep, || {
            let (names, regexes) = (&self.plan.variables, &self.plan.regexes);
            let context = Context::new(authorizer, names, variables, regexes, limit).with_lazy(lazy);
            let result = Machine::new(&context, self.plan.locals).eval(&self.node);
            Outcome { result, cost: context.cost() }
        });
        outcome.unwrap_or(Outcome { result: Err(Failure::Memory), cost: 0 })
    }
}

impl<'a> Activation<'a> {
    /// Creates an activation without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable with a JSON value that has no schema.
    #[must_use]
    pub fn with(self, name: &'a str, value: &'a Json) -> Self {
        self.with_value(name, Ok(from_json(value)))
    }

    /// Adds a variable with a JSON value that follows a schema.
    #[must_use]
    pub fn with_typed(self, name: &'a str, value: &'a Json, decl: &'a Decl) -> Self {
        self.with_value(name, typed(value, decl))
    }

    pub(crate) fn with_value(mut self, name: &'a str, value: Result<Value<'a>, Failure>) -> Self {
        self.variables.push((name, value));
        self
    }
}

impl<'a> Outcome<'a> {
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), cost: 0 }
    }

    /// Returns the value as JSON; `None` if it has no JSON form.
    ///
    /// # Errors
    /// The evaluation failed.
    pub fn json(&self) -> Result<Option<Json>, Failure> {
        self.result.as_ref().map(to_json).map_err(Clone::clone)
    }

    /// Returns the boolean; `None` if the value has another type.
    ///
    /// # Errors
    /// The evaluation failed.
    pub fn bool(&self) -> Result<Option<bool>, Failure> {
        match &self.result {
            Ok(Value::Bool(value)) => Ok(Some(*value)),
            Ok(_) => Ok(None),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Returns the string; `None` if the value has another type.
    ///
    /// # Errors
    /// The evaluation failed.
    pub fn string(&self) -> Result<Option<String>, Failure> {
        match &self.result {
            Ok(Value::String(text)) => Ok(Some((**text).to_owned())),
            Ok(_) => Ok(None),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Returns the error of the evaluation.
    pub fn failure(&self) -> Option<&Failure> {
        self.result.as_ref().err()
    }

    pub(crate) fn into_value(self) -> Result<Value<'a>, Failure> {
        self.result
    }

    pub(crate) fn value(&self) -> Result<&Value<'a>, &Failure> {
        self.result.as_ref()
    }
}
