//! Expressions: compiled when a file is loaded, evaluated when a request asks.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::objects::Key;
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value as CelValue};
use serde_json::Value;

use crate::budget;
use crate::check::{Problem, Scope};
use crate::types::Type;

/// The language as Kubernetes has it here: optionals and the functions of texts and lists.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists] {
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(%error, "an extension of the expression language is not there");
        }
    }
    Arc::new(env)
});

/// Elements that one evaluation goes through at most.
const MAX_ELEMENTS: u64 = 100_000;

/// The variable that expressions speak of.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: Type,
}

/// Why a text is no expression that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is not in the language, or a name or a type in it is wrong. As cel-go tells it, with the place.
    #[error("compilation failed: {0}")]
    Compilation(String),
    /// Its value is of another type than is asked for.
    #[error("must evaluate to {wanted} but got {found}")]
    Result {
        /// The type asked for.
        wanted: Type,
        /// The expression's.
        found: Type,
    },
}

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// Something in it has none, or it costs too much.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// It has one that JSON cannot say.
    #[error("the value of the expression is not of a kind that can be used")]
    NoJson,
}

/// A variable's value, ready for any number of expressions.
#[derive(Debug)]
pub struct Input {
    name: &'static str,
    value: CelValue,
}

impl Input {
    /// A variable's value.
    pub fn new(name: &'static str, value: &Value) -> Self {
        Self { name, value: of_json(value) }
    }
}

/// A compiled expression.
pub struct Expression {
    text: String,
    tree: IdedExpr,
    charged: IdedExpr,
}

impl Expression {
    /// Reads an expression about one variable, whose value is of a type; [`Type::Dyn`] for any.
    ///
    /// # Errors
    /// It is none.
    pub fn compile(text: &str, variable: &Variable, result: &Type) -> Result<Self, CompileError> {
        let program = ENVIRONMENT.compile(text);
        let program =
            program.map_err(|error| CompileError::Compilation(error.to_string().replace("\n| ", "\n | ")))?;
        let mut scope = Scope(vec![(variable.name, variable.of.clone())]);
        let found = scope.check(program.expression());
        let found = found.map_err(|problem| CompileError::Compilation(shown(text, &program, &problem)))?;
        if *result != Type::Dyn && found != *result {
            return Err(CompileError::Result { wanted: result.clone(), found });
        }
        let tree = program.expression().clone();
        Ok(Self { text: text.to_owned(), charged: budget::charged(tree.clone()), tree })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `VARIABLE.FIELD` is read, in whatever way that is written.
    pub fn reads(&self, variable: &str, field: &str) -> bool {
        reads(&self.tree, variable, field)
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// It has none that can be used.
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

/// A value of the language. Numbers without a fraction are signed, so that they can be reckoned with.
fn of_json(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => CelValue::Int(whole),
            (None, number) => CelValue::Float(number.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(values) => CelValue::List(Arc::new(values.iter().map(of_json).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (Key::from(name.as_str()), of_json(value)));
            let map: HashMap<_, _> = fields.collect();
            CelValue::Map(map.into())
        }
    }
}

/// A problem as cel-go shows it: the place, the line, and a mark under it.
fn shown(text: &str, program: &Program, problem: &Problem) -> String {
    let start = program.source_info().offset_for(problem.at).map_or(0, |(start, _)| start as usize);
    let before = text.get(..start).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count(), before.rsplit('\n').next().map_or(0, |it| it.chars().count()));
    let snippet = text.lines().nth(line).unwrap_or_default();
    let mark = ".".repeat(column);
    format!("ERROR: <input>:{}:{}: {}\n | {snippet}\n | {mark}^", line + 1, column + 1, problem.what)
}

fn reads(expression: &IdedExpr, variable: &str, field: &str) -> bool {
    let is_variable = |it: &IdedExpr| matches!(&it.expr, Expr::Ident(name) if name == variable);
    let within = |it: &IdedExpr| reads(it, variable, field);
    match &expression.expr {
        // There is no type whose values could be written as structs.
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
