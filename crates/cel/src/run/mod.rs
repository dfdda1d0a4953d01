//! The evaluator.

mod consumption;
mod context;
mod create;
mod fold;
mod select;

use std::sync::Arc;

use crate::cost::Rule;
use crate::failure::Failure;
use crate::library::operators;
use crate::plan::{Call, Node, Root};
use crate::value::{Key, Map, Value, equal};
pub(crate) use consumption::Consumption;
pub(crate) use context::{Context, Lazy};
pub(crate) use create::constant;

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// A local variable.
#[derive(Clone)]
enum Local<'a> {
    Unset,
    /// An unread accumulator. Its initial value is evaluated on the first read.
    Lazy(&'a Node),
    Value(Value<'a>),
    Failed(Failure),
}

/// The result of a selection: the value, or `None` if a selected part is absent.
type Selected<'a> = Result<Option<Value<'a>>, Failure>;

/// An evaluation.
pub(crate) struct Machine<'a, 'c> {
    context: &'c Context<'a>,
    locals: Vec<Local<'a>>,
}

impl<'a, 'c> Machine<'a, 'c> {
    pub(crate) fn new(context: &'c Context<'a>, locals: usize) -> Self {
        Self { context, locals: vec![Local::Unset; locals] }
    }

    /// Evaluates a node.
    pub(crate) fn eval(&mut self, node: &'a Node) -> Result<Value<'a>, Failure> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attribute(attribute) => {
                let value = self.resolve(attribute);
                fatal(&value)?;
                if !attribute.test && !matches!(attribute.root, Root::Conditional { .. }) {
                    self.context.charge(1)?;
                }
                value
            }
            Node::And(sides) => self.logic(sides, false),
            Node::Or(sides) => self.logic(sides, true),
            Node::Equal { sides, negated, rule } => {
                let [left, right] = sides.as_ref();
                let (left, right) = (self.eval(left), self.eval(right));
                fatal(&left)?;
                fatal(&right)?;
                let result = match (&left, &right) {
                    (Ok(left), Ok(right)) => match equal(left, right) {
                        Ok(same) => Ok(Value::Bool(same != *negated)),
                        // Values that cannot be compared are not equal.
                        Err(_) if *negated => Ok(Value::Bool(true)),
                        Err(failure) => Err(failure),
                    },
                    (Err(failure), _) | (_, Err(failure)) => Err(failure.clone()),
                };
                self.context.charge(rule.cost(&[left, right], &result))?;
                result
            }
            Node::InSet(item, set) => {
                let item = self.eval(item)?;
                Ok(Value::Bool(Key::to_find(&item).is_some_and(|key| set.contains(&key))))
            }
            Node::Call(call) => self.call(call),
            Node::List(elements) => {
                let list = self.list(elements);
                fatal(&list)?;
                self.context.charge(LIST_COST)?;
                list
            }
            Node::Map(entries) => {
                let map = self.map(entries);
                fatal(&map)?;
                self.context.charge(MAP_COST)?;
                map
            }
            Node::Struct { name, fields } => {
                let object = self.object(name, fields);
                fatal(&object)?;
                self.context.charge(STRUCT_COST)?;
                object
            }
            Node::Fold(fold) => self.fold(fold),
            Node::OptionalOr { sides, value } => {
                let [left, right] = sides.as_ref();
                match self.eval(left)? {
                    Value::Optional(Some(found)) if *value => Ok((*found).clone()),
                    Value::Optional(None) => self.eval(right),
                    other => Ok(other),
                }
            }
        }
    }

    /// Evaluates `&&` or `||`. A deciding value takes precedence over an error on the other side.
    fn logic(&mut self, sides: &'a [Node; 2], decisive: bool) -> Result<Value<'a>, Failure> {
        let mut error = None;
        for side in sides {
            match self.eval(side) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => {
                    error.get_or_insert_with(Failure::overload);
                }
                Err(failure) if failure.is_fatal() => return Err(failure),
                Err(failure) => {
                    error.get_or_insert(failure);
                }
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn local(&mut self, slot: usize) -> Result<Value<'a>, Failure> {
        match self.locals.get(slot) {
            Some(Local::Value(value)) => return Ok(value.clone()),
            Some(Local::Failed(failure)) => return Err(failure.clone()),
            Some(Local::Lazy(init)) => {
                let init = *init;
                let value = self.eval(init);
                fatal(&value)?;
                self.set(slot, &value);
                return value;
            }
            Some(Local::Unset) | None => {}
        }
        Err(Failure::new("no such attribute(s)"))
    }

    fn set(&mut self, slot: usize, value: &Result<Value<'a>, Failure>) {
        if let Some(local) = self.locals.get_mut(slot) {
            *local = match value {
                Ok(value) => Local::Value(value.clone()),
                Err(failure) => Local::Failed(failure.clone()),
            };
        }
    }

    fn call(&mut self, call: &'a Call) -> Result<Value<'a>, Failure> {
        if call.function.name == "@not_strictly_false" {
            let value = call.args.first().map_or_else(|| Err(Failure::overload()), |arg| self.eval(arg));
            fatal(&value)?;
            self.context.charge(1)?;
            return Ok(match value {
                Ok(Value::Bool(value)) => Value::Bool(value),
                _ => Value::Bool(true),
            });
        }
        if let ([left, right], Rule::Fixed(cost), None, false) =
            (call.args.as_slice(), call.rule, call.takes, call.sequential)
        {
            // The path of most operators, without allocation.
            let (left, right) = (self.eval(left), self.eval(right));
            fatal(&left)?;
            fatal(&right)?;
            let result = match (left, right) {
                (Ok(left), Ok(right)) => call.function.call(call.only, self.context, &[left, right]),
                (Err(failure), _) | (_, Err(failure)) => Err(failure),
            };
            fatal(&result)?;
            self.context.charge(cost)?;
            return result;
        }
        let mut args: Vec<Result<Value<'a>, Failure>> = Vec::with_capacity(call.args.len());
        for (index, arg) in call.args.iter().enumerate() {
            let value = self.eval(arg);
            fatal(&value)?;
            if call.sequential && value.is_err() && index + 1 < call.args.len() {
                return value;
            }
            args.push(value);
        }
        let error = args.iter().find_map(|arg| arg.as_ref().err().cloned());
        let result = match error {
            Some(failure) => Err(failure),
            None => self.apply(call, &mut args),
        };
        fatal(&result)?;
        self.context.charge(call.rule.cost(&args, &result))?;
        result
    }

    fn apply(
        &mut self,
        call: &'a Call,
        args: &mut Vec<Result<Value<'a>, Failure>>,
    ) -> Result<Value<'a>, Failure> {
        if let Some(slot) = call.takes {
            // The result replaces the accumulator, so the accumulator's contents can be moved instead of copied.
            if let [Ok(Value::List(_)), Ok(Value::List(added))] = args.as_slice() {
                let added = added.clone();
                if let Some(local) = self.locals.get_mut(slot) {
                    *local = Local::Unset;
                }
                let Ok(Value::List(list)) = args.swap_remove(0) else { return Err(Failure::overload()) };
                self.context.allocate(added.len() * size_of::<Value<'_>>())?;
                return Ok(Value::List(list.add(&added)?));
            }
            if matches!(args.as_slice(), [Ok(Value::Map(Map::Owned(_))), _, ..]) {
                if let Some(local) = self.locals.get_mut(slot) {
                    *local = Local::Unset;
                }
                return self.insert(args);
            }
        }
        let values: Vec<Value<'a>> = args.iter().flatten().cloned().collect();
        call.function.call(call.only, self.context, &values)
    }

    /// Inserts into the accumulator's map, in place if the map is not shared.
    fn insert(&self, args: &mut Vec<Result<Value<'a>, Failure>>) -> Result<Value<'a>, Failure> {
        let added = match args.get(1..) {
            Some([Ok(key), Ok(value)]) => vec![(key.clone(), value.clone())],
            Some([Ok(Value::Map(added))]) => added.entries()?,
            _ => return Err(Failure::overload()),
        };
        let Ok(Value::Map(Map::Owned(entries))) = args.swap_remove(0) else {
            return Err(Failure::overload());
        };
        let mut entries = Arc::try_unwrap(entries).unwrap_or_else(|entries| (*entries).clone());
        self.context.allocate(added.len() * 2 * size_of::<Value<'_>>())?;
        for (key, value) in added {
            operators::insert(&mut entries, &key, value)?;
        }
        Ok(Value::Map(Map::owned(entries)))
    }
}

/// Returns the error if it always ends the evaluation.
fn fatal<T>(result: &Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.is_fatal() => Err(failure.clone()),
        _ => Ok(()),
    }
}
