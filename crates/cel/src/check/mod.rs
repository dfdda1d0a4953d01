//! The type checker.

mod assign;
mod format_calls;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;

use crate::env::Env;
use crate::kinds::{ObjectType, Type};
use crate::library::{Function, Overload};
use crate::messages::{self, NULL_VALUE};
use crate::policies::VARIABLES_TYPE;
use crate::syntax::ast::{Comprehension, Expr, Id, Kind, Literal, MapEntry, StructField};
use crate::syntax::{Issue, Issues, Source};
use assign::{Substitutions, is_less_specific};

/// A checked tree.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) expr: Expr,
    pub(crate) source: Source,
    types: Vec<Option<Type>>,
    references: HashMap<Id, Reference>,
}

/// The declaration that a name or a call refers to.
#[derive(Clone, Debug)]
pub(crate) enum Reference {
    /// A variable, by its name without a leading dot.
    Variable(Arc<str>),
    /// A type as a value.
    Type(Type),
    /// The number of an enum value.
    Number(i64),
    /// A function and the matching overloads. `qualified` is true if the name includes the target, as in `optional.of`.
    Function { function: &'static Function, overloads: Vec<&'static Overload>, qualified: bool },
}

impl Checked {
    pub(crate) fn type_of(&self, id: Id) -> &Type {
        self.types.get(id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn reference(&self, id: Id) -> Option<&Reference> {
        self.references.get(&id)
    }
}

impl Checked {
    /// Returns the variables that the expression names.
    pub(crate) fn variables(&self) -> Vec<Arc<str>> {
        let names = self.references.values().filter_map(|reference| match reference {
            Reference::Variable(name) => Some(Arc::clone(name)),
            _ => None,
        });
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// Returns whether the expression names a variable.
    pub(crate) fn uses(&self, variable: &str) -> bool {
        self.references.values().any(|it| matches!(it, Reference::Variable(name) if **name == *variable))
    }

    /// Returns whether the expression reads a field of a variable, by selection or index.
    pub(crate) fn reads(&self, variable: &str, field: &str) -> bool {
        let mut found = false;
        self.expr.walk(&mut |expr| {
            let (operand, named) = match &expr.kind {
                Kind::Select { operand, field: name, .. } => (&**operand, &**name == field),
                Kind::Call { function, args, .. } if matches!(&**function, "_[_]" | "_[?_]" | "_?._") => {
                    let [operand, index] = args.as_slice() else { return };
                    let name = Literal::String(field.into());
                    (operand, index.kind == Kind::Literal(name))
                }
                _ => return,
            };
            found |= named && matches!(&operand.kind, Kind::Ident(name) if &**name == variable);
        });
        found
    }
}

/// Checks a tree.
///
/// # Errors
/// Names are undeclared, or types do not match.
pub(crate) fn check(expr: Expr, source: Source, env: &Env) -> Result<Checked, Issues> {
    let types = vec![None; source.id_count()];
    let mut checker = Checker {
        env,
        source: &source,
        substitutions: Substitutions::default(),
        types,
        references: HashMap::new(),
        scopes: Vec::new(),
        issues: Vec::new(),
    };
    checker.check(&expr);
    let Checker { substitutions, mut types, references, issues, .. } = checker;
    if !issues.is_empty() {
        return Err(source.issues(issues));
    }
    for ty in types.iter_mut().flatten() {
        *ty = substitutions.apply(ty, true);
    }
    let checked = Checked { expr, source, types, references };
    let issues = validate::validate(&checked, env);
    if issues.is_empty() { Ok(checked) } else { Err(checked.source.issues(issues)) }
}

struct Checker<'a> {
    env: &'a Env,
    source: &'a Source,
    substitutions: Substitutions,
    types: Vec<Option<Type>>,
    references: HashMap<Id, Reference>,
    scopes: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: String) {
        self.issues.push(self.source.issue_at(id, message));
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    /// Checks a node and returns its type.
    fn check(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Error => Type::Error,
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(expr.id, name).unwrap_or_else(|| self.undeclared(expr.id, name)),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(expr.id, name, fields),
            Kind::Comprehension(it) => self.comprehension(it),
        };
        if let Some(slot) = self.types.get_mut(expr.id as usize) {
            *slot = Some(ty.clone());
        }
        ty
    }

    fn ident(&mut self, id: Id, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((name, ty)) = self.scopes.iter().rev().find(|(declared, _)| **declared == *name) {
            self.references.insert(id, Reference::Variable(Arc::clone(name)));
            return Some(ty.clone());
        }
        if let Some((name, ty)) = self.env.variable(name) {
            self.references.insert(id, Reference::Variable(Arc::clone(name)));
            return Some(ty.clone());
        }
        if name == NULL_VALUE {
            self.references.insert(id, Reference::Number(0));
            return Some(Type::Int);
        }
        let ty = self.env.type_named(name)?;
        self.references.insert(id, Reference::Type(ty.clone()));
        Some(Type::type_of(ty))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        if let Some(name) = expr.qualified_name()
            && let Some(ty) = self.ident(expr.id, &name)
        {
            return ty;
        }
        let ty = self.field(expr.id, operand, field, false);
        if test { Type::Bool } else { self.substitutions.apply(&ty, false) }
    }

    fn field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        let operand = self.check(operand);
        let operand = self.substitutions.apply(&operand, false);
        let (target, is_optional) = operand.unwrap_optional();
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => self.object_field(id, object, field),
            Type::Parameter(_) | Type::Variable(_) => {
                self.substitutions.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.report(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(found) } else { found }
    }

    fn object_field(&mut self, id: Id, object: &ObjectType, field: &str) -> Type {
        if let Some(found) = self.env.field(object, field) {
            return found;
        }
        // The types of libraries have no declaration that could be looked up, unlike the one of composed variables.
        let is_of_library = ["kubernetes.", "net."].iter().any(|prefix| object.name.starts_with(prefix))
            && &*object.name != VARIABLES_TYPE;
        let error = if is_of_library && object.fields.is_empty() {
            format!("unexpected failed resolution of '{}'", object.name)
        } else {
            format!("undefined field '{field}'")
        };
        self.report(id, error);
        Type::Error
    }

    fn call(&mut self, expr: &Expr, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if name == "_?._"
            && let [operand, field] = args
            && let Kind::Literal(Literal::String(text)) = &field.kind
        {
            let ty = self.field(expr.id, operand, text, true);
            return self.substitutions.apply(&ty, false);
        }
        let mut types: Vec<Type> = args.iter().map(|arg| self.check(arg)).collect();
        let Some(target) = target else {
            return match self.env.function(name.strip_prefix('.').unwrap_or(name)) {
                Some(function) => self.resolve(expr, function, false, args, &types, false),
                None => self.undeclared(expr.id, name),
            };
        };
        if let Some(prefix) = target.qualified_name() {
            let prefix = prefix.strip_prefix('.').unwrap_or(&prefix);
            if let Some(function) = self.env.function(&format!("{prefix}.{name}")) {
                return self.resolve(expr, function, false, args, &types, true);
            }
        }
        types.insert(0, self.check(target));
        match self.env.function(name) {
            Some(function) => self.resolve(expr, function, true, args, &types, false),
            None => self.undeclared(expr.id, name),
        }
    }

    fn resolve(
        &mut self,
        expr: &Expr,
        function: &'static Function,
        member: bool,
        args: &[Expr],
        types: &[Type],
        qualified: bool,
    ) -> Type {
        if function.name == "_&&_" || function.name == "_||_" {
            return self.logic(expr, function, args, types);
        }
        let (mut fitting, mut result): (Vec<&Overload>, Option<Type>) = (Vec::new(), None);
        for overload in self.env.overloads(function) {
            if overload.member != member || overload.args.len() != types.len() {
                continue;
            }
            let (params, returns) = self.instantiate(overload);
            let pairs: Vec<(&Type, &Type)> = types.iter().zip(&params).collect();
            if !self.substitutions.all_assignable(&pairs) {
                continue;
            }
            fitting.push(overload);
            let returns = self.substitutions.apply(&returns, false);
            result = match result {
                None => Some(returns),
                Some(before) if before.is_dyn() || before == returns => Some(before),
                Some(_) => Some(Type::Dyn),
            };
        }
        let Some(result) = result else {
            let shown: Vec<String> =
                types.iter().map(|ty| self.substitutions.apply(ty, true).to_string()).collect();
            let signature = match (member, shown.as_slice()) {
                (true, [target, args @ ..]) => format!("{target}.({})", args.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = function.name;
            self.report(expr.id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            return Type::Error;
        };
        self.references.insert(expr.id, Reference::Function { function, overloads: fitting, qualified });
        result
    }

    fn logic(&mut self, expr: &Expr, function: &'static Function, args: &[Expr], types: &[Type]) -> Type {
        let mut fits = true;
        for (arg, ty) in args.iter().zip(types) {
            if !self.substitutions.assignable(ty, &Type::Bool) {
                self.mismatch(arg.id, &Type::Bool, ty);
                fits = false;
            }
        }
        if !fits {
            return Type::Error;
        }
        let overloads = self.env.overloads(function).collect();
        self.references.insert(expr.id, Reference::Function { function, overloads, qualified: false });
        Type::Bool
    }

    /// Returns argument and result types with new variables for the parameters.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let mut variables = HashMap::new();
        let args = overload.args.iter().map(|arg| self.rename(arg, &mut variables)).collect();
        (args, self.rename(&overload.result, &mut variables))
    }

    fn rename(&mut self, ty: &Type, variables: &mut HashMap<char, Type>) -> Type {
        match ty {
            Type::Parameter(name) => {
                variables.entry(*name).or_insert_with(|| self.substitutions.create_variable()).clone()
            }
            Type::List(of) => Type::list(self.rename(of, variables)),
            Type::Map(from, to) => Type::map(self.rename(from, variables), self.rename(to, variables)),
            Type::Opaque(name, Some(of)) => Type::Opaque(name, Some(Arc::new(self.rename(of, variables)))),
            Type::Type(Some(of)) => Type::type_of(self.rename(of, variables)),
            other => other.clone(),
        }
    }

    /// Returns the inner type of an optional element, or reports an error if it is not optional.
    fn unwrapped(&mut self, id: Id, ty: Type, optional: bool) -> Type {
        if !optional {
            return ty;
        }
        let (inner, is_optional) = ty.unwrap_optional();
        if !is_optional && !inner.is_dyn() {
            self.mismatch(id, &Type::optional(inner.clone()), inner);
        }
        inner.clone()
    }

    fn list(&mut self, elements: &[Expr], optional: &[bool]) -> Type {
        let mut joined = None;
        for (index, element) in elements.iter().enumerate() {
            let ty = self.check(element);
            let ty = self.unwrapped(element.id, ty, optional.get(index).copied().unwrap_or_default());
            joined = Some(self.join(joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.substitutions.create_variable()))
    }

    fn map(&mut self, entries: &[MapEntry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(keys, key));
            let value = self.check(&entry.value);
            let value = self.unwrapped(entry.value.id, value, entry.optional);
            values = Some(self.join(values, value));
        }
        let keys = keys.unwrap_or_else(|| self.substitutions.create_variable());
        Type::map(keys, values.unwrap_or_else(|| self.substitutions.create_variable()))
    }

    /// Returns the common type of elements. The module `validate` reports elements of different types.
    fn join(&mut self, before: Option<Type>, next: Type) -> Type {
        match before {
            None => next,
            Some(before) if self.substitutions.assignable(&before, &next) => {
                if is_less_specific(&before, &next) { before } else { next }
            }
            Some(_) => Type::Dyn,
        }
    }

    fn message(&mut self, id: Id, name: &str, fields: &[StructField]) -> Type {
        let short = name.strip_prefix('.').unwrap_or(name);
        let named = match self.env.type_named(short) {
            Some(ty) => ty,
            None => match self.env.variable(short) {
                Some((_, ty)) => {
                    let message = format!("'{}' is not a type", ty.runtime_name());
                    self.report(id, message);
                    Type::Error
                }
                None => return self.undeclared(id, name),
            },
        };
        self.references.insert(id, Reference::Type(named.clone()));
        let message = messages::fields(short).map(Arc::new);
        let object = match &named {
            _ if message.is_some() => message,
            Type::Object(object) => Some(Arc::clone(object)),
            Type::Error => None,
            other => {
                let message = format!("'{}' is not a message type", other.runtime_name());
                self.report(id, message);
                None
            }
        };
        for field in fields {
            let value = self.check(&field.value);
            let value = self.unwrapped(field.value.id, value, field.optional);
            let Some(object) = &object else { continue };
            let declared = self.object_field(field.id, object, &field.name);
            if !self.substitutions.assignable(&declared, &value) {
                let name = &field.name;
                let message =
                    format!("expected type of field '{name}' is '{declared}' but provided type is '{value}'");
                self.report(field.id, message);
            }
        }
        if object.is_some() { named } else { Type::Error }
    }

    fn comprehension(&mut self, it: &Comprehension) -> Type {
        let range = self.check(&it.range);
        let accumulator = self.check(&it.accu_init);
        let range = self.substitutions.apply(&range, false);
        let outer = self.scopes.len();
        self.scopes.push((Arc::clone(&it.accu_var), accumulator.clone()));
        let inner = self.scopes.len();
        let (first, second) = match &range {
            Type::List(of) if it.var2.is_some() => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Parameter(_) | Type::Variable(_) => {
                self.substitutions.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.report(
                    it.range.id,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension \
                         (must be list, map, or dynamic)"
                    ),
                );
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((Arc::clone(&it.var), first));
        if let Some(var2) = &it.var2 {
            self.scopes.push((Arc::clone(var2), second));
        }
        let condition = self.check(&it.condition);
        self.require(&it.condition, &Type::Bool, &condition);
        let step = self.check(&it.step);
        self.require(&it.step, &accumulator, &step);
        self.scopes.truncate(inner);
        let result = self.check(&it.result);
        self.scopes.truncate(outer);
        self.substitutions.apply(&result, false)
    }

    fn require(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        if !self.substitutions.assignable(expected, found) {
            self.mismatch(expr.id, expected, found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
