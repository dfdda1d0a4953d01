//! The static estimate of an expression. Upstream: cel-go's `checker.Cost`.

use std::collections::HashMap;
use std::sync::Arc;

use super::REGEX;
use super::TRAVERSAL;
use super::bounds::Bounds;
use super::estimate::{CallEstimate, Estimator, NodePath, Operand, SizeEstimator};
use crate::check::{Checked, Reference};
use crate::kinds::Type;
use crate::library::Overload;
use crate::syntax::ast::{Comprehension, Expr, Id, Kind, Literal};

/// Estimates the cost of an expression.
pub(crate) fn estimate(checked: &Checked, sizes: &dyn SizeEstimator) -> Bounds {
    let mut coster = Coster {
        checked,
        estimator: Estimator { sizes },
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        scopes: Vec::new(),
    };
    coster.cost(&checked.expr)
}

/// The sizes of the elements of a list or map.
#[derive(Clone, Copy, Debug)]
struct Entries {
    is_list: bool,
    key: Bounds,
    value: Bounds,
}

struct LocalSize {
    name: Arc<str>,
    path: NodePath,
    size: Option<Bounds>,
    entries: Option<Entries>,
}

struct Coster<'c> {
    checked: &'c Checked,
    estimator: Estimator<'c>,
    paths: HashMap<Id, NodePath>,
    sizes: HashMap<Id, Bounds>,
    entries: HashMap<Id, Entries>,
    scopes: Vec<LocalSize>,
}

impl Coster<'_> {
    fn cost(&mut self, expr: &Expr) -> Bounds {
        match &expr.kind {
            Kind::Error | Kind::Literal(_) => Bounds::ZERO,
            Kind::Ident(name) => {
                let name = name.strip_prefix('.').unwrap_or(name);
                let path = self.local(name).map_or_else(|| vec![name.to_owned()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Bounds::ONE
            }
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List { elements, .. } => self.list(expr, elements),
            Kind::Map(entries) => {
                let mut sum = Bounds::ZERO;
                let mut sizes = (empty_union(entries.is_empty()), empty_union(entries.is_empty()));
                for entry in entries {
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    sizes.0 = sizes.0.union(self.size_or_unknown(&entry.key));
                    sizes.1 = sizes.1.union(self.size_or_unknown(&entry.value));
                }
                let (key, value) = sizes;
                self.entries.insert(expr.id, Entries { is_list: false, key, value });
                sum.add(Bounds::fixed(30))
            }
            Kind::Struct { fields, .. } => {
                let sum = fields.iter().fold(Bounds::ZERO, |sum, field| sum.add(self.cost(&field.value)));
                sum.add(Bounds::fixed(40))
            }
            Kind::Comprehension(it) if it.is_bind() && &*it.accu_var != "__result__" => self.bind(expr, it),
            Kind::Comprehension(it) => self.comprehension(expr, it),
        }
    }

    fn list(&mut self, expr: &Expr, elements: &[Expr]) -> Bounds {
        let mut sum = Bounds::ZERO;
        let mut value = empty_union(elements.is_empty());
        for element in elements {
            sum = sum.add(self.cost(element));
            value = value.union(self.size_or_unknown(element));
        }
        self.entries.insert(expr.id, Entries { is_list: true, key: Bounds::ONE, value });
        sum.add(Bounds::fixed(10))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Bounds {
        // The checker has resolved a qualified name to one identifier.
        if let Some(Reference::Type(_) | Reference::Number(_) | Reference::Variable(_)) =
            self.checked.reference(expr.id)
        {
            self.paths.insert(expr.id, expr.qualified_name().into_iter().collect());
            return Bounds::ONE;
        }
        let sum = self.cost(operand);
        if test {
            return sum;
        }
        let ty = self.checked.type_of(operand.id);
        let charged = matches!(ty, Type::Map(..) | Type::Object(_)) || ty.is_parameter();
        let mut path = self.path(operand);
        path.push(field.to_owned());
        self.paths.insert(expr.id, path);
        if charged { sum.add(Bounds::ONE) } else { sum }
    }

    fn call(&mut self, expr: &Expr, name: &str, target: Option<&Expr>, args: &[Expr]) -> Bounds {
        if name == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(arg).add(Bounds::ONE);
            self.copy_sizes(expr.id, arg);
            return cost;
        }
        let mut costs = Vec::with_capacity(args.len());
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            costs.push(self.cost(arg));
            operands.push(self.operand(arg));
        }
        let (function, overloads, qualified): (&str, Vec<&Overload>, bool) =
            match self.checked.reference(expr.id) {
                Some(Reference::Function { function, overloads, qualified }) => {
                    (function.name, overloads.clone(), *qualified)
                }
                // An optional selection costs 1, like a call.
                None if name == "_?._" => {
                    let sum = costs.iter().fold(Bounds::ONE, |sum, cost| sum.add(*cost));
                    if let Some(size) = self.size(expr) {
                        self.sizes.insert(expr.id, size);
                    }
                    return sum;
                }
                _ => return Bounds::ZERO,
            };
        let mut sum = Bounds::ZERO;
        let target = target.filter(|_| !qualified).map(|target| {
            sum = sum.add(self.cost(target));
            self.operand(target)
        });
        let mut total = Bounds { min: u64::MAX, max: 0 };
        let mut result = None;
        for overload in overloads {
            let (cost, size) =
                self.overload(expr, function, overload.id, target.as_ref(), &operands, args, &costs);
            total = total.union(cost);
            if let Some(size) = size {
                result = Some(result.map_or(size, |known: Bounds| known.union(size)));
            }
            if let (id @ ("index_list" | "index_map"), [of, ..]) = (overload.id, args) {
                result = self.entries(of).map(|entries| entries.value);
                let mut path = self.path(of);
                path.push(if id == "index_list" { "@items" } else { "@values" }.to_owned());
                self.paths.insert(expr.id, path);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        if let Some(size) = result {
            self.sizes.insert(expr.id, size);
        }
        sum.add(total)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call")]
    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Operand>,
        operands: &[Operand],
        args: &[Expr],
        costs: &[Bounds],
    ) -> CallEstimate {
        let all = costs.iter().fold(Bounds::ZERO, |sum, cost| sum.add(*cost));
        if let Some((cost, size)) = self.estimator.call(function, overload, target, operands) {
            return (cost.add(all), size);
        }
        let size = |operand: &Operand| operand.size.unwrap_or(Bounds::UNKNOWN);
        let (cost, result) = match (overload, target, operands) {
            ("string_format", Some(target), _) => (size(target).scale(TRAVERSAL), None),
            ("string_to_bytes", _, [arg]) => {
                let size = size(arg);
                (size.scale(TRAVERSAL), Some(Bounds { min: size.min, max: size.max.wrapping_mul(4) }))
            }
            ("bytes_to_string", _, [arg]) => {
                let size = size(arg);
                (size.scale(TRAVERSAL), Some(Bounds { min: size.min / 4, max: size.max }))
            }
            ("strings_quote", _, [arg]) => {
                let size = size(arg);
                let result = Bounds { min: size.min + 2, max: size.max.wrapping_mul(2).wrapping_add(2) };
                (size.scale(TRAVERSAL), Some(result))
            }
            ("starts_with_string" | "ends_with_string", _, [arg]) => (size(arg).scale(TRAVERSAL), None),
            ("in_list", _, [_, list]) => (size(list).scale(1.0), None),
            ("matches_string", Some(target), [pattern]) => {
                let text = size(target).add(Bounds::ONE).scale(TRAVERSAL);
                (text.multiply(size(pattern).scale(REGEX)), None)
            }
            ("contains_string", Some(target), [part]) => {
                (size(target).scale(TRAVERSAL).multiply(size(part).scale(TRAVERSAL)), None)
            }
            ("logical_or" | "logical_and", _, [_, _]) => {
                let [left, right] = costs else { return (Bounds::ZERO, None) };
                return (Bounds { min: left.min, max: left.max.saturating_add(right.max) }, None);
            }
            ("conditional", _, [_, yes, no]) => {
                let [test, yes_cost, no_cost] = costs else { return (Bounds::ZERO, None) };
                let result = size(yes).union(size(no));
                if let [_, yes, no] = args
                    && let Some(entries) = union_entries(self.entries(yes), self.entries(no))
                {
                    self.entries.insert(expr.id, entries);
                }
                return (test.add(yes_cost.union(*no_cost)), Some(result));
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => {
                let result = size(left).add(size(right));
                if let [left, right] = args
                    && let Some(entries) = union_entries(self.entries(left), self.entries(right))
                {
                    self.entries.insert(expr.id, entries);
                }
                let cost = if overload == "add_list" { Bounds::ONE } else { result.scale(TRAVERSAL) };
                (cost, Some(result))
            }
            ("equals" | "not_equals", _, [left, right]) => (smaller(size(left), size(right)), None),
            (id, _, [left, right])
                if (id.starts_with("less_") || id.starts_with("greater_"))
                    && (id.ends_with("_string") || id.ends_with("_bytes")) =>
            {
                (smaller(size(left), size(right)), None)
            }
            _ => (Bounds::ONE, None),
        };
        (cost.add(all), result)
    }

    fn comprehension(&mut self, expr: &Expr, it: &Comprehension) -> Bounds {
        let mut sum = self.cost(&it.range).add(self.cost(&it.accu_init));
        let outer = self.scopes.len();
        self.push_value(&it.accu_var, &it.accu_init);
        let inner = self.scopes.len();
        self.push_variables(it);
        let each = self.cost(&it.condition).add(self.cost(&it.step));
        self.scopes.truncate(inner);
        sum = sum.add(self.cost(&it.result));
        self.scopes.truncate(outer);
        let count = self.size_or_unknown(&it.range);
        sum = sum.add(count.multiply(each));
        match &it.accu_init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&it.accu_init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entries(&it.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn bind(&mut self, expr: &Expr, it: &Comprehension) -> Bounds {
        let mut sum = self.cost(&it.range).add(self.cost(&it.accu_init));
        let outer = self.scopes.len();
        self.push_value(&it.accu_var, &it.accu_init);
        sum = sum.add(self.cost(&it.result));
        self.scopes.truncate(outer);
        self.copy_sizes(expr.id, &it.result);
        sum
    }

    fn push_value(&mut self, name: &Arc<str>, value: &Expr) {
        let (path, entries, size) = (self.path(value), self.entries(value), self.size(value));
        self.scopes.push(LocalSize { name: Arc::clone(name), path, size, entries });
    }

    fn push_variables(&mut self, it: &Comprehension) {
        let entries = self.entries(&it.range);
        let is_list = match entries {
            Some(entries) => entries.is_list,
            None => matches!(self.checked.type_of(it.range.id), Type::List(_)),
        };
        let path = self.path(&it.range);
        let mut push = |name: &Arc<str>, part: &str, size: Option<Bounds>| {
            let mut path = path.clone();
            path.push(part.to_owned());
            self.scopes.push(LocalSize { name: Arc::clone(name), path, size, entries: None });
        };
        let (key, value) = (entries.map(|it| it.key), entries.map(|it| it.value));
        match &it.var2 {
            Some(var2) => {
                push(&it.var, if is_list { "@indices" } else { "@keys" }, key);
                push(var2, if is_list { "@items" } else { "@values" }, value);
            }
            None if is_list => push(&it.var, "@items", value),
            None => push(&it.var, "@keys", key),
        }
    }

    fn local(&self, name: &str) -> Option<&LocalSize> {
        self.scopes.iter().rev().find(|local| *local.name == *name)
    }

    fn local_of(&self, expr: &Expr) -> Option<&LocalSize> {
        match &expr.kind {
            Kind::Ident(name) => self.local(name.strip_prefix('.').unwrap_or(name)),
            _ => None,
        }
    }

    fn path(&self, expr: &Expr) -> NodePath {
        match self.local_of(expr) {
            Some(local) => local.path.clone(),
            None => self.paths.get(&expr.id).cloned().unwrap_or_default(),
        }
    }

    fn operand(&mut self, expr: &Expr) -> Operand {
        let path = self.path(expr);
        let own = path.first().is_none_or(|first| first == "@result" || first == "__result__");
        let literal = match &expr.kind {
            Kind::Literal(Literal::Int(value)) => Some(*value),
            _ => None,
        };
        Operand {
            path: (!own).then_some(path),
            ty: self.checked.type_of(expr.id).clone(),
            size: self.size(expr),
            literal,
            is_literal: matches!(expr.kind, Kind::Literal(_)),
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Bounds {
        self.size(expr).unwrap_or(Bounds::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Bounds> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let fixed = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = fixed {
            return Some(Bounds::fixed(size as u64));
        }
        let ty = self.checked.type_of(expr.id);
        if let Some(size) = self.estimator.sizes.estimate_size(&self.path(expr), ty) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if ty.is_scalar() {
            return Some(Bounds::ONE);
        }
        self.local_of(expr).and_then(|local| local.size)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        let known = self.entries.get(&expr.id).copied();
        known.or_else(|| self.local_of(expr).and_then(|local| local.entries))
    }

    fn copy_sizes(&mut self, to: Id, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to, size);
        }
        if let Some(entries) = self.entries(from) {
            self.entries.insert(to, entries);
        }
    }
}

/// Returns the initial value for the union of element sizes; 0 if the collection is empty.
fn empty_union(is_empty: bool) -> Bounds {
    Bounds { min: if is_empty { 0 } else { u64::MAX }, max: 0 }
}

fn union_entries(left: Option<Entries>, right: Option<Entries>) -> Option<Entries> {
    let (left, right) = (left?, right?);
    let (key, value) = (left.key.union(right.key), left.value.union(right.value));
    Some(Entries { is_list: left.is_list, key, value })
}

fn smaller(left: Bounds, right: Bounds) -> Bounds {
    let max = left.max.min(right.max);
    Bounds { min: u64::from(max > 0), max }.scale(TRAVERSAL)
}
