//! The evaluator.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::authorizer::{Authorizer, NoAuthorizer};
use crate::failure::Failure;
use crate::library::{operators, regexes};
use crate::messages;
use crate::plan::{Attribute, Call, Fold, Index, Node, Qualifier, Root};
use crate::policies::VARIABLES;
use crate::value::{Key, Map, Object, OwnedMap, Value, display, equal, go_type};

/// Maximum size in bytes of the values that one evaluation creates.
const MAX_MEMORY: usize = 64 << 20;
/// Maximum number of patterns that are compiled during one evaluation and kept.
const MAX_PATTERNS: usize = 32;

/// Variables that are evaluated when they are read.
pub(crate) trait Lazy<'a>: Send + Sync {
    /// Returns the value of a variable, or nothing if it is not declared.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>>;
}

/// What an evaluation may use, and what it has used.
pub(crate) struct Context<'a> {
    authorizer: &'a dyn Authorizer,
    lazy: Option<Arc<dyn Lazy<'a> + 'a>>,
    variables: Vec<Option<Result<Value<'a>, Failure>>>,
    names: &'a [Arc<str>],
    regexes: &'a HashMap<String, Regex>,
    patterns: RefCell<HashMap<String, Regex>>,
    cost: Cell<u64>,
    limit: u64,
    memory: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        authorizer: &'a dyn Authorizer,
        names: &'a [Arc<str>],
        variables: Vec<Option<Result<Value<'a>, Failure>>>,
        regexes: &'a HashMap<String, Regex>,
        limit: u64,
    ) -> Self {
        let patterns = RefCell::default();
        let (cost, memory) = (Cell::new(0), Cell::new(0));
        Self { authorizer, lazy: None, variables, names, regexes, patterns, cost, limit, memory }
    }

    /// Adds variables that are evaluated when they are read.
    pub(crate) fn with_lazy(self, lazy: Option<Arc<dyn Lazy<'a> + 'a>>) -> Self {
        Self { lazy, ..self }
    }

    pub(crate) fn authorizer(&self) -> &'a dyn Authorizer {
        self.authorizer
    }

    /// Returns the cost so far.
    pub(crate) fn cost(&self) -> u64 {
        self.cost.get()
    }

    fn charge(&self, cost: u64) -> Result<(), Failure> {
        let total = self.cost.get().saturating_add(cost);
        self.cost.set(total);
        if total > self.limit { Err(Failure::Cost) } else { Ok(()) }
    }

    /// Ends the evaluation before work whose cost, charged afterwards, would exceed the limit.
    pub(crate) fn reserve_cost(&self, cost: u64) -> Result<(), Failure> {
        let total = self.cost.get().saturating_add(cost).saturating_add(CREATION_COST);
        if total > self.limit {
            self.cost.set(total);
            return Err(Failure::Cost);
        }
        Ok(())
    }

    /// Counts bytes that are about to be allocated.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<(), Failure> {
        let total = self.memory.get().saturating_add(bytes);
        self.memory.set(total);
        if total > MAX_MEMORY { Err(Failure::Memory) } else { Ok(()) }
    }

    /// Returns a compiled pattern.
    pub(crate) fn regex(&self, pattern: &str) -> Result<Regex, String> {
        if let Some(regex) = self.regexes.get(pattern) {
            return Ok(regex.clone());
        }
        if let Some(regex) = self.patterns.borrow().get(pattern) {
            return Ok(regex.clone());
        }
        let regex = regexes::compile(pattern)?;
        let mut patterns = self.patterns.borrow_mut();
        if patterns.len() < MAX_PATTERNS {
            patterns.insert(pattern.to_owned(), regex.clone());
        }
        Ok(regex)
    }
}

/// The cost of creating a list and of a call.
const CREATION_COST: u64 = 11;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// A local variable.
#[derive(Clone)]
enum Local<'a> {
    Unset,
    /// An accumulator that nobody has read: its initial value is evaluated when somebody does.
    Lazy(&'a Node),
    Value(Value<'a>),
    Failed(Failure),
}

/// The result of a selection: the value, or nothing if a part of it is absent.
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
                        // Values that cannot be compared differ.
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
                Ok(Value::Bool(set.find(&item)?.is_some()))
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

    /// Evaluates `&&` or `||`: a deciding value wins over errors on either side.
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

    /// Returns the value of an attribute, without the cost of the attribute itself.
    fn resolve(&mut self, attribute: &'a Attribute) -> Result<Value<'a>, Failure> {
        let root = match &attribute.root {
            Root::Variable(index) => match self.context.variables.get(*index) {
                Some(Some(value)) => value.clone()?,
                _ => {
                    let name = self.context.names.get(*index).map_or("", |name| name);
                    if name == VARIABLES && self.context.lazy.is_some() {
                        return self.lazy(attribute);
                    }
                    return Err(Failure::new(format!("no such attribute(s): {name}")));
                }
            },
            Root::Local(slot) => self.local(*slot)?,
            Root::Value(node) => self.eval(node)?,
            Root::Conditional { test, yes, no } => {
                return match self.eval(test)? {
                    Value::Bool(true) => self.resolve(yes),
                    Value::Bool(false) => self.resolve(no),
                    _ => Err(Failure::overload()),
                };
            }
        };
        if attribute.qualifiers.is_empty() {
            return Ok(collapsed(root));
        }
        self.selected(root, &attribute.qualifiers, attribute.test)
    }

    /// Returns the value of a variable that is evaluated now, and selects from it.
    fn lazy(&mut self, attribute: &'a Attribute) -> Result<Value<'a>, Failure> {
        let Some((first, rest)) = attribute.qualifiers.split_first() else { return Err(Failure::overload()) };
        let Index::Const(Value::String(name)) = &first.index else { return Err(Failure::overload()) };
        let found = self.context.lazy.as_ref().and_then(|lazy| lazy.get(name));
        self.context.charge(1)?;
        match found {
            _ if first.test => Ok(Value::Bool(found.is_some())),
            Some(value) if first.optional => self.selected(Value::some(value?), rest, attribute.test),
            Some(value) => self.selected(value?, rest, attribute.test),
            None => Err(Failure::new(format!("no such key: {}", &**name))),
        }
    }

    /// Selects from a value.
    fn selected(
        &mut self,
        root: Value<'a>,
        qualifiers: &'a [Qualifier],
        test: bool,
    ) -> Result<Value<'a>, Failure> {
        let (mut value, mut optional) = match root {
            Value::Optional(None) if test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, false),
        };
        if qualifiers.is_empty() {
            return Ok(if optional { Value::some(value) } else { value });
        }
        for qualifier in qualifiers {
            optional |= qualifier.optional;
            match self.qualify(&value, qualifier, optional)? {
                Some(found) => value = found,
                None if test => return Ok(Value::Bool(false)),
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(match (optional, test) {
            (true, true) => Value::Bool(true),
            (true, false) => Value::some(value),
            (false, _) => value,
        })
    }

    /// Selects from a value. Nothing is returned only for optional selections.
    fn qualify(&mut self, value: &Value<'a>, qualifier: &'a Qualifier, optional: bool) -> Selected<'a> {
        let (found, key) = match &qualifier.index {
            Index::Const(key) => (select(value, key), None),
            Index::Attribute(attribute) => {
                let key = self.resolve(attribute);
                fatal(&key)?;
                match key {
                    Ok(key) => (select(value, &key), Some(key)),
                    Err(failure) => (Err(failure), None),
                }
            }
        };
        if !optional || matches!(&found, Ok(Some(_))) {
            self.context.charge(1)?;
        }
        let found = found?;
        if qualifier.test {
            return match (optional, found) {
                (false, found) => Ok(Some(Value::Bool(found.is_some()))),
                (true, found) => Ok(found),
            };
        }
        if found.is_none() && !optional {
            let key = match (&qualifier.index, &key) {
                (Index::Const(key), _) => display(key),
                (_, Some(key)) => display(key),
                _ => String::new(),
            };
            let what = if matches!(value, Value::List(_)) { "index out of bounds" } else { "no such key" };
            return Err(Failure::new(format!("{what}: {key}")));
        }
        Ok(found)
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
            // The accumulator is replaced by the result, so its contents may move instead of being copied.
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

    /// Inserts into the accumulator's map, in place if nothing else has it.
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

    fn list(&mut self, elements: &'a [(Node, bool)]) -> Result<Value<'a>, Failure> {
        let mut items = Vec::with_capacity(elements.len());
        for (node, optional) in elements {
            let value = self.eval(node)?;
            match (optional, value) {
                (false, value) => items.push(value),
                (true, Value::Optional(value)) => items.extend(value.map(|it| (*it).clone())),
                (true, other) => {
                    let shown = display(&other);
                    return Err(Failure::new(format!(
                        "cannot initialize optional list element from non-optional value {shown}"
                    )));
                }
            }
        }
        self.context.allocate(items.len() * size_of::<Value<'_>>())?;
        Ok(Value::list(items))
    }

    fn map(&mut self, nodes: &'a [(Node, Node, bool)]) -> Result<Value<'a>, Failure> {
        let mut entries = OwnedMap::new();
        for (key, value, optional) in nodes {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            let Some(place) = Key::new(&key) else {
                return Err(Failure::new(format!("unsupported key type: {}", key.type_name())));
            };
            match present(*optional, &display(&key), value)? {
                Some(value) => entries.insert(place, value),
                None => entries.remove(&place),
            };
        }
        self.context.allocate(entries.len() * 2 * size_of::<Value<'_>>())?;
        Ok(Value::Map(Map::owned(entries)))
    }

    fn object(&mut self, name: &Arc<str>, nodes: &'a [(Arc<str>, Node, bool)]) -> Result<Value<'a>, Failure> {
        let mut fields = BTreeMap::new();
        for (field, node, optional) in nodes {
            let value = self.eval(node)?;
            match present(*optional, field, value)? {
                Some(value) => fields.insert(Arc::clone(field), value),
                None => fields.remove(field),
            };
        }
        if name.starts_with("google.protobuf.") {
            return messages::create(name, fields);
        }
        if &**name == "JSONPatch" {
            for field in ["op", "path", "from"] {
                if let Some(value) = fields.get(field).filter(|value| !matches!(value, Value::String(_))) {
                    let found = match value {
                        Value::Int(_) => "int64",
                        Value::Uint(_) => "uint64",
                        Value::Double(_) => "float64",
                        Value::Bool(_) => "bool",
                        other => go_type(other),
                    };
                    let message = format!("unexpected type {found} for JSONPatchType '{field}' field");
                    return Err(Failure::new(message));
                }
            }
        }
        Ok(Value::Object(Arc::new(Object { name: Arc::clone(name), fields })))
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Failure> {
        let range = self.eval(&fold.range)?;
        let before = self.locals.get(fold.slot..fold.slot + 3).map(<[Local<'a>]>::to_vec);
        if let Some(accumulator) = self.locals.get_mut(fold.slot) {
            *accumulator = Local::Lazy(&fold.init);
        }
        let result = self.iterate(fold, &range);
        if let (Some(before), Some(slots)) = (before, self.locals.get_mut(fold.slot..fold.slot + 3)) {
            slots.clone_from_slice(&before);
        }
        result
    }

    fn iterate(&mut self, fold: &'a Fold, range: &Value<'a>) -> Result<Value<'a>, Failure> {
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let more = if fold.two {
                        self.step(fold, &Ok(Value::Int(index as i64)), Some(&item))?
                    } else {
                        self.step(fold, &item, None)?
                    };
                    if !more {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = fold.two.then(|| {
                        map.find(&key).and_then(|value| value.ok_or_else(|| Failure::new("no such key")))
                    });
                    if !self.step(fold, &Ok(key), value.as_ref())? {
                        break;
                    }
                }
            }
            other if fold.two => {
                let name = go_type(other);
                return Err(Failure::new(format!("unsupported comprehension range type: {name}")));
            }
            other => return Err(Failure::new(format!("got '{}', expected iterable type", go_type(other)))),
        }
        self.eval(&fold.result)
    }

    /// Runs one iteration; returns whether there can be more.
    fn step(
        &mut self,
        fold: &'a Fold,
        first: &Result<Value<'a>, Failure>,
        second: Option<&Result<Value<'a>, Failure>>,
    ) -> Result<bool, Failure> {
        self.set(fold.slot + 1, first);
        if let Some(second) = second {
            self.set(fold.slot + 2, second);
        }
        let condition = self.eval(&fold.condition);
        fatal(&condition)?;
        if matches!(condition, Ok(Value::Bool(false))) {
            return Ok(false);
        }
        let value = self.eval(&fold.step);
        fatal(&value)?;
        if let Some(local) = self.locals.get_mut(fold.slot) {
            *local = match value {
                Ok(value) => Local::Value(value),
                Err(failure) => Local::Failed(failure),
            };
        }
        Ok(true)
    }
}

/// Evaluates a node whose parts are constants, so that its value borrows nothing.
pub(crate) fn constant(node: &Node) -> Result<Value<'static>, Failure> {
    static NO_REGEXES: LazyLock<HashMap<String, Regex>> = LazyLock::new(HashMap::new);
    let value = |node: &Node| match node {
        Node::Const(value) => Ok(value.clone()),
        _ => Err(Failure::overload()),
    };
    match node {
        Node::Call(call) => {
            let args: Vec<Value<'static>> = call.args.iter().map(value).collect::<Result<_, _>>()?;
            let context = Context::new(&NoAuthorizer, &[], Vec::new(), &NO_REGEXES, u64::MAX);
            call.function.call(call.only, &context, &args)
        }
        Node::List(elements) => {
            let mut items = Vec::with_capacity(elements.len());
            for (node, optional) in elements {
                items.extend(present(*optional, "", value(node)?)?);
            }
            Ok(Value::list(items))
        }
        Node::Map(nodes) => {
            let mut entries = OwnedMap::new();
            for (key, node, optional) in nodes {
                let key = value(key)?;
                let Some(place) = Key::new(&key) else {
                    return Err(Failure::new(format!("unsupported key type: {}", key.type_name())));
                };
                if let Some(value) = present(*optional, &display(&key), value(node)?)? {
                    entries.insert(place, value);
                }
            }
            Ok(Value::Map(Map::owned(entries)))
        }
        other => value(other),
    }
}

/// Returns the value of an entry, or nothing for an absent optional one.
fn present<'a>(optional: bool, name: &str, value: Value<'a>) -> Selected<'a> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(value)) => Ok(value.map(|it| (*it).clone())),
        (true, other) => {
            let shown = display(&other);
            Err(Failure::new(format!(
                "cannot initialize optional entry '{name}' from non-optional value {shown}"
            )))
        }
    }
}

/// Selects from a value by a key.
fn select<'a>(value: &Value<'a>, key: &Value<'_>) -> Selected<'a> {
    match key {
        Value::String(name) => match value {
            Value::Map(map) => map.field(name),
            other => other.get(key),
        },
        Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_) => value.get(key),
        other => Err(Failure::new(format!("invalid qualifier type: {}", go_type(other)))),
    }
}

/// Returns an optional value of an optional value as one, as cel-go's attributes do.
fn collapsed(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Optional(Some(outer)) => match &*outer {
            Value::Optional(Some(inner)) => Value::Optional(Some(Arc::clone(inner))),
            Value::Optional(None) => Value::some(Value::Null),
            _ => Value::Optional(Some(outer)),
        },
        other => other,
    }
}

/// Passes on errors that nothing absorbs.
fn fatal<T>(result: &Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.is_fatal() => Err(failure.clone()),
        _ => Ok(()),
    }
}
