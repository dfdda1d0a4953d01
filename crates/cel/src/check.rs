//! Checks names and types of an expression before it is evaluated (the subset of cel-go's checker for lists, maps and
//! objects).

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use crate::library;
use crate::types::Type;

/// An error and the ID of the subexpression it refers to.
pub(crate) struct Problem {
    pub(crate) id: u64,
    pub(crate) message: String,
}

/// Names of types, which are also values.
const TYPES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

/// The variables visible in an expression, with their types.
pub(crate) struct Scope<'e>(pub(crate) Vec<(&'e str, Type)>);

impl<'e> Scope<'e> {
    /// Returns the type of an expression.
    pub(crate) fn check(&mut self, expression: &'e IdedExpr) -> Result<Type, Problem> {
        let problem = |message| Problem { id: expression.id, message };
        match &expression.expr {
            Expr::Unspecified => Err(problem("the expression is empty".to_owned())),
            Expr::Literal(literal) => Ok(literal_type(literal)),
            Expr::Ident(name) => self.find(name).ok_or_else(|| problem(undeclared(name))),
            Expr::Select(select) => self.select(select, expression.id),
            Expr::Call(call) => self.call(call, expression.id),
            Expr::List(list) => {
                let mut joined = None::<Type>;
                for element in &list.elements {
                    let ty = self.check(element)?;
                    joined = Some(joined.map_or_else(|| ty.clone(), |joined| joined.join(&ty)));
                }
                Ok(Type::list(joined.unwrap_or(Type::Nothing)))
            }
            Expr::Map(map) => {
                let mut joined = None::<(Type, Type)>;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let (key, value) = (self.check(&entry.key)?, self.check(&entry.value)?);
                    joined = Some(match joined {
                        None => (key, value),
                        Some((keys, values)) => (keys.join(&key), values.join(&value)),
                    });
                }
                let (keys, values) = joined.unwrap_or((Type::Nothing, Type::Nothing));
                Ok(Type::map(keys, values))
            }
            Expr::Struct(expr) => Err(problem(undeclared(&expr.type_name))),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn find(&self, name: &str) -> Option<Type> {
        let declared = self.0.iter().rev().find(|(known, _)| *known == name);
        let type_name = || TYPES.contains(&name).then_some(Type::Type);
        declared.map(|(_, ty)| ty.clone()).or_else(type_name)
    }

    fn select(&mut self, select: &'e SelectExpr, id: u64) -> Result<Type, Problem> {
        let operand = self.check(&select.operand)?;
        let found = field_type(&operand, &select.field).map_err(|message| Problem { id, message })?;
        Ok(if select.test { Type::Bool } else { found })
    }

    fn call(&mut self, call: &'e CallExpr, id: u64) -> Result<Type, Problem> {
        // `a.?b`; the name of the field is a string literal.
        if let ("_?._", [operand, name]) = (call.func_name.as_str(), call.args.as_slice()) {
            let operand = self.check(operand)?;
            let Expr::Literal(LiteralValue::String(name)) = &name.expr else {
                return Err(Problem { id, message: "unsupported optional field selection".to_owned() });
            };
            let inner = if let Type::Optional(of) = &operand { of } else { &operand };
            let found = field_type(inner, name.inner()).map_err(|message| Problem { id, message })?;
            return Ok(if matches!(found, Type::Optional(_)) { found } else { Type::optional(found) });
        }
        let mut name = call.func_name.clone();
        let mut target = call.target.as_deref();
        if let Some(Expr::Ident(namespace)) = target.map(|target| &target.expr) {
            let qualified = format!("{namespace}.{name}");
            if self.find(namespace).is_none() && library::is_known(&qualified) {
                (name, target) = (qualified, None);
            }
        }
        if !library::is_known(&name) {
            return Err(Problem { id, message: undeclared(&name) });
        }
        let mut arguments = Vec::with_capacity(call.args.len() + 1);
        for argument in target.into_iter().chain(&call.args) {
            arguments.push(self.check(argument)?);
        }
        let member = target.is_some();
        library::result(&name, member, &arguments)
            .ok_or_else(|| Problem { id, message: no_overload(&name, member, &arguments) })
    }

    fn comprehension(&mut self, comprehension: &'e ComprehensionExpr) -> Result<Type, Problem> {
        let range = self.check(&comprehension.iter_range)?;
        let start = self.check(&comprehension.accu_init)?;
        let two = comprehension.iter_var2.is_some();
        let (first, second) = match range {
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(of) if two => (Type::Int, (*of).clone()),
            Type::List(of) => ((*of).clone(), Type::Dyn),
            Type::Map(keys, values) => ((*keys).clone(), (*values).clone()),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return Err(Problem { id: comprehension.iter_range.id, message });
            }
        };
        let depth = self.0.len();
        self.0.push((&comprehension.iter_var, first));
        self.0.extend(comprehension.iter_var2.as_deref().map(|name| (name, second)));
        self.0.push((&comprehension.accu_var, start));
        let outcome = (|| {
            self.check(&comprehension.loop_cond)?;
            // An accumulator that is initially empty gets its element type here.
            let filled = self.check(&comprehension.loop_step)?;
            self.0.push((&comprehension.accu_var, filled));
            self.check(&comprehension.result)
        })();
        self.0.truncate(depth);
        outcome
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// Returns the type of a field.
fn field_type(ty: &Type, name: &str) -> Result<Type, String> {
    match ty {
        Type::Dyn => Ok(Type::Dyn),
        Type::Map(_, values) => Ok((**values).clone()),
        Type::Optional(inner) => field_type(inner, name).map(Type::optional),
        Type::Object(object) => {
            let found = object.fields.iter().find(|(known, _)| *known == name);
            found.map(|(_, ty)| ty.clone()).ok_or_else(|| format!("undefined field '{name}'"))
        }
        other => Err(format!("type '{other}' does not support field selection")),
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

fn no_overload(name: &str, member: bool, arguments: &[Type]) -> String {
    let texts: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    let applied = match texts.split_first() {
        Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
        _ => format!("({})", texts.join(", ")),
    };
    format!("found no matching overload for '{name}' applied to '{applied}'")
}
