//! Macros: calls that expand to comprehensions and presence tests.

use std::sync::Arc;

use super::ast::{Comprehension, Expr, Id, Kind, Literal};
use super::macros_two;
use super::source::Source;

/// The accumulator of comprehensions. No identifier can have this name.
pub(crate) const ACCUMULATOR: &str = "@result";
/// The name of the accumulator in older parsers. Variables must not have this name.
const OLD_ACCUMULATOR: &str = "__result__";
/// The iteration variable of comprehensions that only bind a variable.
const UNUSED: &str = "#unused";
/// Maximum number of nodes of a tree up to which a macro may copy a part.
const MAX_NODES: usize = 250_000;
const SORT_INPUT: &str = "@__sortBy_input__";

/// The result of expanding a call.
pub(super) enum Expanded {
    Expr(Expr),
    Error(Id, String),
    /// The call itself: no macro has this name and number of arguments.
    Call(Option<Expr>, Vec<Expr>),
}

/// Creates the nodes of one expansion, all at the position of the call.
pub(super) struct Builder<'a> {
    pub(super) source: &'a mut Source,
    pub(super) id: Id,
    /// True if the macro `cel.bind` exists.
    pub(super) bindings: bool,
}

/// A macro's error: the node and the message.
pub(super) type MacroError = (Id, String);

/// Expands a macro.
pub(super) fn expand(
    builder: &mut Builder<'_>,
    function: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Expanded {
    let expanded = match (function, target, args.len()) {
        ("has", None, 1) => builder.has(args),
        ("all" | "exists" | "exists_one", Some(target), 2) => builder.quantifier(function, target, args),
        ("map", Some(target), 2 | 3) => builder.map(target, args),
        ("filter", Some(target), 2) => builder.filter(target, args),
        ("optMap" | "optFlatMap", Some(target), 2) => builder.optional_map(function, target, args),
        ("sortBy", Some(target), 2) => builder.sort_by(target, args),
        ("all" | "exists" | "exists_one" | "existsOne", Some(target), 3) => {
            macros_two::quantifier(builder, function, target, args)
        }
        ("transformList" | "transformMap" | "transformMapEntry", Some(target), 3 | 4) => {
            macros_two::transform(builder, function, target, args)
        }
        ("bind", Some(target), 3) if builder.bindings && is_cel(&target) => builder.named_value(args),
        (_, target, _) => return Expanded::Call(target, args),
    };
    match expanded {
        Ok(expr) => Expanded::Expr(expr),
        Err((id, message)) => Expanded::Error(id, message),
    }
}

/// Removes and returns the first argument. The caller has checked the number of arguments.
fn pop_first(args: &mut Vec<Expr>) -> Expr {
    if args.is_empty() { Expr { id: 0, kind: Kind::Error } } else { args.remove(0) }
}

impl Builder<'_> {
    pub(super) fn node(&mut self, kind: Kind) -> Expr {
        let id = self.source.create_id(self.source.offset(self.id));
        Expr { id, kind }
    }

    pub(super) fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: None, args })
    }

    fn member_call(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.node(Kind::Call { function: function.into(), target: Some(Box::new(target)), args })
    }

    pub(super) fn literal(&mut self, value: Literal) -> Expr {
        self.node(Kind::Literal(value))
    }

    pub(super) fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let optional = vec![false; elements.len()];
        self.node(Kind::List { elements, optional })
    }

    pub(super) fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    pub(super) fn accumulator(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    /// Copies a tree with new identifiers.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        let offset = self.source.offset(expr.id);
        expr.id = self.source.create_id(offset);
        match &mut expr.kind {
            Kind::Error | Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.renumber(operand),
            Kind::Call { target, args, .. } => {
                for child in target.as_deref_mut().into_iter().chain(args) {
                    self.renumber(child);
                }
            }
            Kind::List { elements, .. } => {
                for child in elements {
                    self.renumber(child);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    self.renumber(&mut entry.key);
                    self.renumber(&mut entry.value);
                }
            }
            Kind::Struct { fields, .. } => {
                for field in fields {
                    self.renumber(&mut field.value);
                }
            }
            Kind::Comprehension(it) => {
                for child in
                    [&mut it.range, &mut it.accu_init, &mut it.condition, &mut it.step, &mut it.result]
                {
                    self.renumber(child);
                }
            }
        }
    }

    pub(super) fn comprehension(&mut self, it: Comprehension) -> Expr {
        self.node(Kind::Comprehension(Box::new(it)))
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let arg = pop_first(&mut args);
        match arg.kind {
            Kind::Select { operand, field, .. } => Ok(self.node(Kind::Select { operand, field, test: true })),
            _ => Err((arg.id, "invalid argument to has() macro".to_owned())),
        }
    }

    /// Returns initial value, condition, step and result of a quantifier.
    pub(super) fn quantifier_parts(&mut self, function: &str, predicate: Expr) -> (Expr, Expr, Expr, Expr) {
        match function {
            "all" | "exists" => {
                let all = function == "all";
                let init = self.literal(Literal::Bool(all));
                let accumulator = self.accumulator();
                let tested = if all { accumulator } else { self.call("!_", vec![accumulator]) };
                let condition = self.call("@not_strictly_false", vec![tested]);
                let accumulator = self.accumulator();
                let step = self.call(if all { "_&&_" } else { "_||_" }, vec![accumulator, predicate]);
                (init, condition, step, self.accumulator())
            }
            _ => {
                let init = self.literal(Literal::Int(0));
                let condition = self.literal(Literal::Bool(true));
                let (before, one) = (self.accumulator(), self.literal(Literal::Int(1)));
                let next = self.call("_+_", vec![before, one]);
                let same = self.accumulator();
                let step = self.call("_?_:_", vec![predicate, next, same]);
                let (count, one) = (self.accumulator(), self.literal(Literal::Int(1)));
                let result = self.call("_==_", vec![count, one]);
                (init, condition, step, result)
            }
        }
    }

    fn quantifier(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let var = variable(&pop_first(&mut args), "argument must be a simple name")?;
        let predicate = pop_first(&mut args);
        let (accu_init, condition, step, result) = self.quantifier_parts(function, predicate);
        let accu_var = ACCUMULATOR.into();
        Ok(self.comprehension(Comprehension {
            range: target,
            var,
            var2: None,
            accu_var,
            accu_init,
            condition,
            step,
            result,
        }))
    }

    fn map(&mut self, target: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let var = variable(&pop_first(&mut args), "argument is not an identifier")?;
        let first = pop_first(&mut args);
        let (filter, transform) = match args.pop() {
            Some(transform) => (Some(first), transform),
            None => (None, first),
        };
        Ok(self.collect(target, var, None, filter, transform))
    }

    fn filter(&mut self, target: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let name = pop_first(&mut args);
        let var = variable(&name, "argument is not an identifier")?;
        let filter = pop_first(&mut args);
        Ok(self.collect(target, var, None, Some(filter), name))
    }

    /// Creates a comprehension that appends values to a list.
    pub(super) fn collect(
        &mut self,
        range: Expr,
        var: Arc<str>,
        var2: Option<Arc<str>>,
        filter: Option<Expr>,
        transform: Expr,
    ) -> Expr {
        let accu_init = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(true));
        let (before, added) = (self.accumulator(), self.list(vec![transform]));
        let step = self.call("_+_", vec![before, added]);
        let step = self.only_if(filter, step);
        let result = self.accumulator();
        let accu_var = ACCUMULATOR.into();
        self.comprehension(Comprehension { range, var, var2, accu_var, accu_init, condition, step, result })
    }

    /// Makes a step conditional on the filter, if any.
    pub(super) fn only_if(&mut self, filter: Option<Expr>, step: Expr) -> Expr {
        let Some(filter) = filter else { return step };
        let same = self.accumulator();
        self.call("_?_:_", vec![filter, step, same])
    }

    /// Creates a comprehension over an empty list that binds a variable.
    fn bind(&mut self, var: Arc<str>, value: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(&var);
        self.comprehension(Comprehension {
            range,
            var: UNUSED.into(),
            var2: None,
            accu_var: var,
            accu_init: value,
            condition,
            step,
            result,
        })
    }

    /// Expands `cel.bind(name, value, result)`.
    fn named_value(&mut self, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        let name = pop_first(&mut args);
        let Kind::Ident(var) = &name.kind else {
            return Err((name.id, "cel.bind() variable names must be simple identifiers".to_owned()));
        };
        let value = pop_first(&mut args);
        Ok(self.bind(Arc::clone(var), value, pop_first(&mut args)))
    }

    fn optional_map(
        &mut self,
        function: &str,
        target: Expr,
        mut args: Vec<Expr>,
    ) -> Result<Expr, MacroError> {
        let name = pop_first(&mut args);
        let Kind::Ident(var) = &name.kind else {
            return Err((name.id, format!("{function}() variable name must be a simple identifier")));
        };
        // Each nested use doubles the size of the tree.
        if self.source.id_count() > MAX_NODES {
            return Err((name.id, "the expression is too large".to_owned()));
        }
        let copy = self.copy(&target);
        let tested = self.member_call("hasValue", target, Vec::new());
        let value = self.member_call("value", copy, Vec::new());
        let mapped = pop_first(&mut args);
        let bound = self.bind(Arc::clone(var), value, mapped);
        let found = if function == "optMap" { self.call("optional.of", vec![bound]) } else { bound };
        let none = self.call("optional.none", Vec::new());
        Ok(self.call("_?_:_", vec![tested, found, none]))
    }

    fn sort_by(&mut self, target: Expr, mut args: Vec<Expr>) -> Result<Expr, MacroError> {
        if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct { .. } | Kind::Error) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target.id, message.to_owned()));
        }
        let var = variable(&pop_first(&mut args), "argument is not an identifier")?;
        let input = self.ident(SORT_INPUT);
        let keys = self.collect(input, var, None, None, pop_first(&mut args));
        let input = self.ident(SORT_INPUT);
        let sorted = self.member_call("@sortByAssociatedKeys", input, vec![keys]);
        Ok(self.bind(SORT_INPUT.into(), target, sorted))
    }
}

/// Returns whether the target of a call is the namespace of CEL's own macros.
fn is_cel(target: &Expr) -> bool {
    matches!(&target.kind, Kind::Ident(name) if &**name == "cel")
}

/// Returns the name of an iteration variable.
pub(super) fn variable(expr: &Expr, message: &str) -> Result<Arc<str>, MacroError> {
    let Kind::Ident(name) = &expr.kind else { return Err((expr.id, message.to_owned())) };
    check_variable(expr.id, name)?;
    Ok(Arc::clone(name))
}

/// Checks that an iteration variable does not hide the accumulator.
pub(super) fn check_variable(id: Id, name: &str) -> Result<(), MacroError> {
    if name == ACCUMULATOR || name == OLD_ACCUMULATOR {
        return Err((id, "iteration variable overwrites accumulator variable".to_owned()));
    }
    Ok(())
}
