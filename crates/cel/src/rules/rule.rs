//! Compiled rules.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;

use super::field_path;
use crate::cache::{Compiled, ProgramCache};
use crate::cost::{Bounds, SizeEstimator};
use crate::env::Env;
use crate::kinds::Type;
use crate::program::Ast;
use crate::schema::Decl;

/// A rule as written in the schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) expression: String,
    pub(super) message: String,
    pub(super) message_expression: String,
    pub(super) reason: Option<String>,
    pub(super) field_path: String,
    pub(super) optional_old_self: Option<bool>,
}

/// A rule and the result of compiling it.
#[derive(Debug, Default)]
pub(super) struct CompiledRule {
    pub(super) rule: Rule,
    pub(super) program: Option<Arc<Compiled>>,
    pub(super) error: Option<String>,
    pub(super) uses_old_self: bool,
    pub(super) max_cost: u64,
    pub(super) message: Option<Arc<Compiled>>,
    pub(super) message_error: Option<String>,
    pub(super) message_max_cost: u64,
    /// The field path, relative to the rule.
    pub(super) field_path: Option<String>,
}

/// The minor version of Kubernetes whose libraries rules can use: the version of the oldest supported server in the
/// cluster.
const COMPATIBILITY: u32 = 35;

impl Rule {
    fn read(json: &Json) -> Self {
        let text = |name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        Self {
            expression: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: json.get("reason").and_then(Json::as_str).map(str::to_owned),
            field_path: text("fieldPath"),
            optional_old_self: json.get("optionalOldSelf").and_then(Json::as_bool),
        }
    }

    /// Reads the rules of a schema.
    pub(super) fn read_all(schema: &Json) -> Vec<Self> {
        let rules = schema.get("x-kubernetes-validations").and_then(Json::as_array);
        rules.into_iter().flatten().map(Self::read).collect()
    }

    /// Returns the text that identifies the rule in errors.
    pub(super) fn shown(&self) -> &str {
        if self.message.is_empty() { self.expression.trim() } else { self.message.trim() }
    }

    /// Returns the message of a violation.
    pub(super) fn message_or_default(&self) -> String {
        if self.message.is_empty() {
            return format!("failed rule: {}", self.shown());
        }
        self.message.trim().to_owned()
    }

    /// Returns the rule as shown in errors of a definition: Go's JSON of the rule's struct.
    pub(super) fn go_json(&self) -> String {
        let text = |text: &str| go_json_text(text);
        let mut shown = String::new();
        let _ = write!(shown, "{{\"Rule\":{},\"Message\":{},", text(&self.expression), text(&self.message));
        let _ = write!(shown, "\"MessageExpression\":{},", text(&self.message_expression));
        let reason = self.reason.as_deref().map_or("null".to_owned(), text);
        let _ = write!(shown, "\"Reason\":{reason},\"FieldPath\":{},", text(&self.field_path));
        let optional = self.optional_old_self.map_or("null".to_owned(), |it| it.to_string());
        let _ = write!(shown, "\"OptionalOldSelf\":{optional}}}");
        shown
    }

    /// Compiles the rule for values of a schema.
    pub(super) fn compile(self, schema: &Json, compiler: &RuleCompiler<'_>) -> CompiledRule {
        let mut compiled = CompiledRule::default();
        if !self.expression.trim().is_empty() {
            self.compile_with(compiler, &mut compiled);
            if compiled.error.is_none() && compiled.message_error.is_none() && !self.field_path.is_empty() {
                compiled.field_path = field_path::normalize(&self.field_path, schema);
            }
        }
        CompiledRule { rule: self, ..compiled }
    }

    fn compile_with(&self, compiler: &RuleCompiler<'_>, compiled: &mut CompiledRule) {
        let env = if self.optional_old_self == Some(true) { &compiler.optional } else { &compiler.plain };
        match compiler.compile(&self.expression, env, &Type::Bool) {
            Ok((program, cost)) => {
                compiled.uses_old_self = program.uses("oldSelf");
                compiled.max_cost = cost;
                compiled.program = Some(program);
            }
            Err((why, uses_old_self)) => {
                compiled.uses_old_self = uses_old_self;
                compiled.error = Some(match why {
                    Invalid::Text(text) => format!("compilation failed: {text}"),
                    Invalid::Type => "cel expression must evaluate to a bool".to_owned(),
                    Invalid::Constant(text) => format!("program instantiation failed: {text}"),
                });
                return;
            }
        }
        if self.message_expression.is_empty() {
            return;
        }
        match compiler.compile(&self.message_expression, env, &Type::String) {
            Ok((program, cost)) => {
                compiled.message_max_cost = cost;
                compiled.message = Some(program);
            }
            Err((why, _)) => {
                compiled.message_error = Some(match why {
                    Invalid::Text(text) => format!("messageExpression compilation failed: {text}"),
                    Invalid::Type => "messageExpression must evaluate to a string".to_owned(),
                    Invalid::Constant(text) => format!("messageExpression instantiation failed: {text}"),
                });
            }
        }
    }
}

enum Invalid {
    Text(String),
    Type,
    Constant(String),
}

/// The sizes of `self` and `oldSelf`.
struct SelfSizes<'d>(&'d Decl);

impl SizeEstimator for SelfSizes<'_> {
    fn estimate_size(&self, path: &[String], _: &Type) -> Option<Bounds> {
        self.0.size_at(path.get(1..)?)
    }
}

/// The purpose of compiled rules.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'c> {
    /// To check a definition, with estimates of costs.
    Check,
    /// To validate objects, with programs from a cache.
    Validate(Option<&'c ProgramCache>),
}

/// Compiles the rules of one schema.
pub(super) struct RuleCompiler<'c> {
    decl: &'c Decl,
    purpose: Purpose<'c>,
    plain: Env,
    /// The environment of rules with `optionalOldSelf`.
    optional: Env,
}

impl<'c> RuleCompiler<'c> {
    pub(super) fn new(decl: &'c Decl, purpose: Purpose<'c>) -> Self {
        let ty = decl.to_type("selfType");
        let env = Env::new(COMPATIBILITY).with("self", ty.clone());
        let optional = env.clone().with("oldSelf", Type::optional(ty.clone()));
        Self { decl, purpose, plain: env.with("oldSelf", ty), optional }
    }

    /// Compiles an expression. Returns its estimated maximum cost if the purpose is to check it.
    fn compile(&self, text: &str, env: &Env, wanted: &Type) -> Result<(Arc<Compiled>, u64), (Invalid, bool)> {
        if let Purpose::Validate(Some(cache)) = self.purpose
            && let Ok(compiled) = cache.compile(text, env)
            && compiled.output_type() == wanted
        {
            return Ok((compiled, 0));
        }
        let ast = Ast::compile(text, env).map_err(|issues| (Invalid::Text(issues.to_string()), false))?;
        if ast.output_type() != wanted {
            return Err((Invalid::Type, false));
        }
        let compiled = Compiled::from_ast(&ast)
            .map_err(|failure| (Invalid::Constant(failure.to_string()), ast.uses("oldSelf")))?;
        let cost = match self.purpose {
            Purpose::Check => ast.estimate(&SelfSizes(self.decl)).max,
            Purpose::Validate(_) => 0,
        };
        Ok((Arc::new(compiled), cost))
    }
}

/// Encodes a string as Go's JSON, which also escapes HTML characters.
fn go_json_text(text: &str) -> String {
    let json = Json::String(text.to_owned()).to_string();
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escapes.iter().fold(json, |json, (plain, escaped)| json.replace(*plain, escaped))
}
