//! Compiled expressions, and the budget they share.

use std::time::Instant;

use nave_cel::policies::{PolicyExpression, PolicyRun};
use nave_cel::{Outcome, Type};

use super::programs::{Compiler, ExpressionTimes};

/// An expression, compiled when its configuration was read. An error of compilation is reported when the expression is
/// evaluated, so that the failure policy applies to it.
#[derive(Debug)]
pub(crate) struct Expression {
    text: String,
    program: Result<PolicyExpression, String>,
    times: ExpressionTimes,
}

/// The cost that the expressions of one evaluation may still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget(pub(crate) u64);

/// The budget is exhausted. No further expression may be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("validation failed due to running out of cost budget, no further validation rules will be run")]
pub(crate) struct OutOfBudget;

impl Expression {
    /// Compiles an expression whose type must be in `wanted`.
    pub(crate) fn compile(compiler: &Compiler, text: &str, wanted: &[Type]) -> Self {
        Self {
            text: text.to_owned(),
            program: compiler.compile(text, wanted),
            times: compiler.times().clone(),
        }
    }

    /// Compiles an expression that cannot use the authorizer.
    pub(crate) fn without_authorizer(compiler: &Compiler, text: &str, wanted: &[Type]) -> Self {
        let program = compiler.compile_without_authorizer(text, wanted);
        Self { text: text.to_owned(), program, times: compiler.times().clone() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the error of compilation.
    pub(crate) fn compile_error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Evaluates the expression; the inner error is upstream's text. An outcome that is returned has a value.
    pub(crate) fn evaluate<'a>(
        &'a self,
        run: &PolicyRun<'a>,
        budget: &mut Budget,
    ) -> Result<Result<Outcome<'a>, String>, OutOfBudget> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let started = Instant::now();
        let outcome = run.outcome(program);
        self.times.evaluated(started);
        budget.0 = budget.0.checked_sub(outcome.cost).ok_or(OutOfBudget)?;
        Ok(match outcome.failure() {
            Some(why) => Err(format!("expression '{}' resulted in error: {why}", self.text)),
            None => Ok(outcome),
        })
    }
}
