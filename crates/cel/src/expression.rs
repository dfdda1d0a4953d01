//! Expressions: compiled when a configuration is loaded, evaluated for each request.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::objects::Key;
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value as CelValue};
use serde_json::Value;

use crate::budget;
use crate::check::{Problem, Scope};
use crate::types::Type;

/// The CEL environment: optionals, and the string and list extensions, as in Kubernetes.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists] {
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(%error, "cannot enable a CEL extension");
        }
    }
    Arc::new(env)
});

/// Maximum number of elements that one evaluation iterates over.
const MAX_ELEMENTS: u64 = 100_000;

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
    Compilation(String),
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
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A runtime error, or the cost limit is exceeded.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// The value cannot be represented in JSON.
    #[error("the value of the expression cannot be represented in JSON")]
    NoJson,
}

/// The value of the variable, converted once for any number of expressions.
#[derive(Debug)]
pub struct Input {
    name: &'static str,
    value: CelValue,
}

impl Input {
    /// Converts a JSON value.
    pub fn new(name: &'static str, value: &Value) -> Self {
        Self { name, value: to_cel(value) }
    }
}

/// A compiled expression.
pub struct Expression {
    text: String,
    tree: IdedExpr,
    charged: IdedExpr,
}

impl Expression {
    /// Compiles an expression with one variable and checks that its type is `result`; [`Type::Dyn`] accepts any.
    ///
    /// # Errors
    /// The expression is invalid.
    pub fn compile(text: &str, variable: &Variable, result: &Type) -> Result<Self, CompileError> {
        let program = ENVIRONMENT.compile(text);
        let program =
            program.map_err(|error| CompileError::Compilation(error.to_string().replace("\n| ", "\n | ")))?;
        let mut scope = Scope(vec![(variable.name, variable.ty.clone())]);
        let found = scope.check(program.expression());
        let found =
            found.map_err(|problem| CompileError::Compilation(format_problem(text, &program, &problem)))?;
        if *result != Type::Dyn && found != *result {
            return Err(CompileError::Result { wanted: result.clone(), found });
        }
        let tree = program.expression().clone();
        Ok(Self { text: text.to_owned(), charged: budget::charged(tree.clone()), tree })
    }

    /// Returns the source text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether the expression reads `VARIABLE.FIELD`, with any syntax.
    pub fn reads(&self, variable: &str, field: &str) -> bool {
        reads(&self.tree, variable, field)
    }

    /// Returns the value of the expression as JSON.
    ///
    /// # Errors
    /// The evaluation fails, or its value cannot be represented in JSON.
    pub fn evaluate(&self, input: &Input) -> Result<Value, EvaluationError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.add_variable_from_value(input.name, input.value.clone());
        budget::limit(&mut context, MAX_ELEMENTS);
        let found = context.resolve(&self.charged)?;
        found.json().map_err(|_| EvaluationError::NoJson)
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

/// Converts a JSON value. Integers become signed, so that arithmetic on them works.
fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => CelValue::Int(whole),
            (None, number) => CelValue::Float(number.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(values) => CelValue::List(Arc::new(values.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (Key::from(name.as_str()), to_cel(value)));
            let map: HashMap<_, _> = fields.collect();
            CelValue::Map(map.into())
        }
    }
}

/// Formats a problem as cel-go does: the position, the line, and a mark below it.
fn format_problem(text: &str, program: &Program, problem: &Problem) -> String {
    let start = program.source_info().offset_for(problem.id).map_or(0, |(start, _)| start as usize);
    let before = text.get(..start).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count(), before.rsplit('\n').next().map_or(0, |it| it.chars().count()));
    let snippet = text.lines().nth(line).unwrap_or_default();
    let mark = ".".repeat(column);
    format!("ERROR: <input>:{}:{}: {}\n | {snippet}\n | {mark}^", line + 1, column + 1, problem.message)
}

fn reads(expression: &IdedExpr, variable: &str, field: &str) -> bool {
    let is_variable = |it: &IdedExpr| matches!(&it.expr, Expr::Ident(name) if name == variable);
    let within = |it: &IdedExpr| reads(it, variable, field);
    match &expression.expr {
        // Struct expressions do not compile: no struct types are declared.
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => false,
        Expr::Select(select) => {
            (select.field == field && is_variable(&select.operand)) || within(&select.operand)
        }
        Expr::Call(call) => {
            let by_name = match (call.func_name.as_str(), call.args.as_slice()) {
                ("_[_]" | "_[?_]" | "_?._", [of, name]) => {
                    is_variable(of)
                        && matches!(&name.expr, Expr::Literal(LiteralValue::String(it)) if it.inner() == field)
                }
                _ => false,
            };
            by_name || call.target.as_deref().into_iter().chain(&call.args).any(within)
        }
        Expr::List(list) => list.elements.iter().any(within),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => within(&entry.key) || within(&entry.value),
            EntryExpr::StructField(entry) => within(&entry.value),
        }),
        Expr::Comprehension(it) => {
            [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result].into_iter().any(within)
        }
    }
}

#[cfg(test)]
mod tests;
