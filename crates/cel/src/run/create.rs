//! Creation of lists, maps and objects, and evaluation of constants.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use nave_machinery::go_regex::Regex;

use super::{Context, Machine, Selected};
use crate::authorizer::NoAuthorizer;
use crate::failure::Failure;
use crate::messages;
use crate::plan::Node;
use crate::value::{Key, Map, Object, OwnedMap, Value, display, go_type};

impl<'a> Machine<'a, '_> {
    pub(super) fn list(&mut self, elements: &'a [(Node, bool)]) -> Result<Value<'a>, Failure> {
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

    pub(super) fn map(&mut self, nodes: &'a [(Node, Node, bool)]) -> Result<Value<'a>, Failure> {
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

    pub(super) fn object(
        &mut self,
        name: &Arc<str>,
        nodes: &'a [(Arc<str>, Node, bool)],
    ) -> Result<Value<'a>, Failure> {
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
}

/// Evaluates a node whose parts are constants. The value has no borrowed parts.
pub(crate) fn constant(node: &Node) -> Result<Value<'static>, Failure> {
    static NO_REGEXES: LazyLock<HashMap<String, Arc<Regex>>> = LazyLock::new(HashMap::new);
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

/// Returns the value of an entry; `None` for an optional entry without a value.
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
