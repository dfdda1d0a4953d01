//! Expressions over one variable, as in configuration files. Compiled when a file is loaded, evaluated for each
//! request.

use serde_json::Value as Json;

use crate::env::Env;
use crate::failure::Failure;
use crate::kinds::Type;
use crate::program::{Activation, Ast, PER_CALL_LIMIT, Program};
use crate::syntax::Issues;

/// The variable available to expressions.
#[derive(Clone, Debug)]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// The type.
    pub ty: Type,
}

/// Error of compiling an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A syntax, name or type error, in cel-go's format with the position.
    #[error("compilation failed: {0}")]
    Compilation(#[from] Issues),
    /// The evaluation of a constant part of the expression fails.
    #[error("program instantiation failed: {0}")]
    Constant(#[from] Failure),
    /// The expression has the wrong type.
    #[error("must evaluate to {wanted} but got {found}")]
    Result {
        /// The required type.
        wanted: Type,
        /// The type of the expression.
        found: Type,
    },
}

/// Error of evaluating an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A runtime error, or a limit is exceeded.
    #[error(transparent)]
    Execution(#[from] Failure),
    /// The value cannot be represented in JSON.
    #[error("the value of the expression cannot be represented in JSON")]
    NoJson,
}

/// The value of the variable. Can be used for many expressions.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    name: &'static str,
    value: &'a Json,
}

impl<'a> Input<'a> {
    /// Creates an input from a JSON value.
    pub fn new(name: &'static str, value: &'a Json) -> Self {
        Self { name, value }
    }
}

/// A compiled expression.
pub struct Expression {
    ast: Box<Ast>,
    program: Box<Program>,
}

impl Expression {
    /// Compiles an expression with one variable and checks that its type is `result`; [`Type::Dyn`] accepts any.
    ///
    /// # Errors
    /// The expression is invalid.
    pub fn compile(text: &str, variable: &Variable, result: &Type) -> Result<Self, CompileError> {
        let env = Env::default().with(variable.name, variable.ty.clone());
        let ast = Ast::compile(text, &env)?;
        let found = ast.output_type();
        if *result != Type::Dyn && found != result {
            return Err(CompileError::Result { wanted: result.clone(), found: found.clone() });
        }
        let program = Box::new(ast.program()?);
        Ok(Self { ast: Box::new(ast), program })
    }

    /// Returns the source text.
    pub fn text(&self) -> &str {
        self.ast.text()
    }

    /// Returns whether the expression reads `VARIABLE.FIELD`, with any syntax.
    pub fn reads(&self, variable: &str, field: &str) -> bool {
        self.ast.reads(variable, field)
    }

    /// Returns the value of the expression as JSON.
    ///
    /// # Errors
    /// The evaluation fails, or its value cannot be represented in JSON.
    pub fn evaluate(&self, input: &Input<'_>) -> Result<Json, EvaluationError> {
        let activation = Activation::new().with(input.name, input.value);
        let outcome = self.program.evaluate(&activation, PER_CALL_LIMIT);
        outcome.json()?.ok_or(EvaluationError::NoJson)
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests;
