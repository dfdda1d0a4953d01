//! Plans a checked tree as a program: resolves names to slots, folds constants, compiles regular expressions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use nave_machinery::go_regex::{self, Regex};

use crate::check::{Checked, Reference};
use crate::cost::Rule;
use crate::failure::Failure;
use crate::kinds::Type;
use crate::library::{Function, Overload};
use crate::run::constant;
use crate::syntax::ast::{Comprehension, Expr, Id, Kind, Literal, MapEntry, StructField};
use crate::value::{Key, Text, Value};

/// A step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    Attribute(Box<Attribute>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Equal {
        sides: Box<[Node; 2]>,
        negated: bool,
        rule: Rule,
    },
    /// Membership in a constant list of scalars.
    InSet(Box<Node>, BTreeSet<Key<'static>>),
    Call(Box<Call>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Node, bool)>,
    },
    Fold(Box<Fold>),
    /// `or` or `orValue` of an optional value.
    OptionalOr {
        sides: Box<[Node; 2]>,
        value: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static Function,
    /// The overload, if the checker found exactly one.
    pub(crate) only: Option<&'static Overload>,
    pub(crate) args: Vec<Node>,
    pub(crate) rule: Rule,
    /// True if an error in an argument ends the call before the next argument.
    pub(crate) sequential: bool,
    /// The slot of the accumulator if the first argument names the accumulator. The value can then be moved instead of
    /// shared.
    pub(crate) takes: Option<usize>,
}

/// A variable or value, and selections from it.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) root: Root,
    pub(crate) qualifiers: Vec<Qualifier>,
    /// True if only presence is tested.
    pub(crate) test: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Root {
    Variable(usize),
    Local(usize),
    Value(Node),
    Conditional { test: Node, yes: Box<Attribute>, no: Box<Attribute> },
}

#[derive(Clone, Debug)]
pub(crate) struct Qualifier {
    pub(crate) index: Index,
    pub(crate) optional: bool,
    /// True if only presence is tested.
    pub(crate) test: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Index {
    Const(Value<'static>),
    /// An attribute. Reading it has no cost.
    Attribute(Box<Attribute>),
}

#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) two: bool,
    /// The slot of the accumulator. The slots of the variables follow.
    pub(crate) slot: usize,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// The data that a program needs besides its steps.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) variables: Vec<Arc<str>>,
    pub(crate) locals: usize,
    /// The number of planned nodes.
    pub(crate) nodes: usize,
    pub(crate) regexes: HashMap<String, Arc<Regex>>,
}

/// Plans a checked tree.
///
/// # Errors
/// A constant part of the expression fails.
pub(crate) fn plan(checked: &Checked) -> Result<(Node, Plan), Failure> {
    let mut planner = Planner { checked, plan: Plan::default(), scopes: Vec::new() };
    let node = planner.node(&checked.expr)?;
    Ok((node, planner.plan))
}

struct Planner<'c> {
    checked: &'c Checked,
    plan: Plan,
    /// Names of local variables, by slot.
    scopes: Vec<Option<Arc<str>>>,
}

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Result<Node, Failure> {
        self.plan.nodes += 1;
        match &expr.kind {
            Kind::Error => Err(Failure::new("unsupported expr")),
            Kind::Literal(literal) => Ok(Node::Const(literal_value(literal))),
            Kind::Ident(name) => self.ident(expr.id, name),
            Kind::Select { operand, field, test } => self.select(expr.id, operand, field, *test),
            Kind::Call { function, target, args } => self.call(expr.id, function, target.as_deref(), args),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(name, fields),
            Kind::Comprehension(it) => self.fold(it),
        }
    }

    fn ident(&mut self, id: Id, name: &str) -> Result<Node, Failure> {
        match self.checked.reference(id) {
            Some(Reference::Type(ty)) => type_value(ty),
            _ => Ok(Node::Attribute(Box::new(Attribute {
                root: self.place(name.strip_prefix('.').unwrap_or(name)),
                qualifiers: Vec::new(),
                test: false,
            }))),
        }
    }

    /// Returns the slot or index of a variable.
    fn place(&mut self, name: &str) -> Root {
        if let Some(slot) = self.scopes.iter().rposition(|local| local.as_deref() == Some(name)) {
            return Root::Local(slot);
        }
        let known = self.plan.variables.iter().position(|variable| **variable == *name);
        Root::Variable(known.unwrap_or_else(|| {
            self.plan.variables.push(name.into());
            self.plan.variables.len() - 1
        }))
    }

    fn select(&mut self, id: Id, operand: &Expr, field: &Arc<str>, test: bool) -> Result<Node, Failure> {
        match self.checked.reference(id) {
            Some(Reference::Type(ty)) => return type_value(ty),
            Some(Reference::Number(number)) => return Ok(Node::Const(Value::Int(*number))),
            Some(Reference::Variable(name)) => {
                let root = self.place(&Arc::clone(name));
                return Ok(Node::Attribute(Box::new(Attribute {
                    root,
                    qualifiers: Vec::new(),
                    test: false,
                })));
            }
            _ => {}
        }
        let mut attribute = self.attribute(operand)?;
        let index = Index::Const(Value::String(Text::Shared(Arc::clone(field))));
        attribute.qualify(&Qualifier { index, optional: false, test });
        attribute.test |= test;
        Ok(Node::Attribute(Box::new(attribute)))
    }

    /// Plans a node as the operand of selections.
    fn attribute(&mut self, expr: &Expr) -> Result<Attribute, Failure> {
        Ok(match self.node(expr)? {
            // The result of a presence test is a new value, not an attribute.
            Node::Attribute(attribute) if !attribute.test => *attribute,
            node => Attribute { root: Root::Value(node), qualifiers: Vec::new(), test: false },
        })
    }

    fn call(&mut self, id: Id, name: &str, target: Option<&Expr>, args: &[Expr]) -> Result<Node, Failure> {
        if matches!(name, "_[_]" | "_[?_]" | "_?._")
            && let [operand, index] = args
        {
            return self.index(operand, index, name != "_[_]");
        }
        let checked = self.checked;
        let Some(Reference::Function { function, overloads, qualified }) = checked.reference(id) else {
            return Err(Failure::new(format!("no such overload: {name}")));
        };
        let function = *function;
        let target = target.filter(|_| !qualified);
        let exprs: Vec<&Expr> = target.into_iter().chain(args).collect();
        if function.name == "_?_:_"
            && let [test, yes, no] = exprs.as_slice()
        {
            let test = self.node(test)?;
            let (yes, no) = (Box::new(self.branch(yes)?), Box::new(self.branch(no)?));
            let root = Root::Conditional { test, yes, no };
            return Ok(Node::Attribute(Box::new(Attribute { root, qualifiers: Vec::new(), test: false })));
        }
        let mut args: Vec<Node> = exprs.iter().map(|expr| self.node(expr)).collect::<Result<_, _>>()?;
        let only = match overloads.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        let rule = Rule::new(function.name, only.map(|only| only.id));
        if args.len() == 2 {
            let sides = |args: Vec<Node>| <Box<[Node; 2]>>::try_from(args).map_err(|_| Failure::overload());
            match function.name {
                "_&&_" => return Ok(Node::And(sides(args)?)),
                "_||_" => return Ok(Node::Or(sides(args)?)),
                "_==_" => return Ok(Node::Equal { sides: sides(args)?, negated: false, rule }),
                "_!=_" => return Ok(Node::Equal { sides: sides(args)?, negated: true, rule }),
                "or" => return Ok(Node::OptionalOr { sides: sides(args)?, value: false }),
                "orValue" => return Ok(Node::OptionalOr { sides: sides(args)?, value: true }),
                _ => {}
            }
        }
        if only.is_some_and(|only| only.id == "in_list")
            && let [item, Node::Const(Value::List(list))] = args.as_mut_slice()
        {
            if list.len() == 0 {
                return Ok(Node::Const(Value::Bool(false)));
            }
            if let Some(set) = constant_set(list) {
                return Ok(Node::InSet(Box::new(item.clone()), set));
            }
        }
        self.compile_regex(function, &args)?;
        let sequential = args.len() > 2 || function.name == "format";
        let takes = match (function.name, args.first()) {
            ("_+_" | "cel.@mapInsert", Some(Node::Attribute(first))) => match first.root {
                Root::Local(slot) if first.qualifiers.is_empty() && self.is_accumulator(slot) => Some(slot),
                _ => None,
            },
            _ => None,
        };
        let folds = args.len() == 1 && CONVERSIONS.contains(&function.name);
        let constant = matches!(args.as_slice(), [Node::Const(_)]);
        let node = Node::Call(Box::new(Call { function, only, args, rule, sequential, takes }));
        if folds && constant { constant_value(&node) } else { Ok(node) }
    }

    fn is_accumulator(&self, slot: usize) -> bool {
        self.scopes.get(slot).is_some_and(|name| name.as_deref() == Some("@result"))
    }

    fn compile_regex(&mut self, function: &Function, args: &[Node]) -> Result<(), Failure> {
        if matches!(function.name, "matches" | "find" | "findAll")
            && let Some(Node::Const(Value::String(pattern))) = args.get(1)
            && !self.plan.regexes.contains_key(&**pattern)
        {
            let regex = go_regex::compile(pattern).map_err(|error| Failure::new(error.to_string()))?;
            self.plan.regexes.insert((**pattern).to_owned(), Arc::new(regex));
        }
        Ok(())
    }

    fn branch(&mut self, expr: &Expr) -> Result<Attribute, Failure> {
        self.attribute(expr)
    }

    fn index(&mut self, operand: &Expr, index: &Expr, optional: bool) -> Result<Node, Failure> {
        let mut attribute = self.attribute(operand)?;
        let index = match self.node(index)? {
            Node::Const(value) if is_index(&value) => Index::Const(value),
            Node::Const(value) => {
                let name = crate::value::go_type(&value);
                return Err(Failure::new(format!("invalid qualifier type: {name}")));
            }
            Node::Attribute(attribute) => Index::Attribute(attribute),
            node => Index::Attribute(Box::new(Attribute {
                root: Root::Value(node),
                qualifiers: Vec::new(),
                test: false,
            })),
        };
        attribute.qualify(&Qualifier { index, optional, test: false });
        Ok(Node::Attribute(Box::new(attribute)))
    }

    fn list(&mut self, elements: &[Expr], optional: &[bool]) -> Result<Node, Failure> {
        let mut nodes = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            nodes.push((self.node(element)?, optional.get(index).copied().unwrap_or_default()));
        }
        let constant = nodes.iter().all(|(node, _)| matches!(node, Node::Const(_)));
        if constant { constant_value(&Node::List(nodes)) } else { Ok(Node::List(nodes)) }
    }

    fn map(&mut self, entries: &[MapEntry]) -> Result<Node, Failure> {
        let mut nodes = Vec::with_capacity(entries.len());
        for entry in entries {
            nodes.push((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional));
        }
        let is_const = |node: &Node| matches!(node, Node::Const(_));
        let constant = nodes.iter().all(|(key, value, _)| is_const(key) && is_const(value));
        if constant { constant_value(&Node::Map(nodes)) } else { Ok(Node::Map(nodes)) }
    }

    fn message(&mut self, name: &str, fields: &[StructField]) -> Result<Node, Failure> {
        let name = name.strip_prefix('.').unwrap_or(name).into();
        let mut nodes = Vec::with_capacity(fields.len());
        for field in fields {
            nodes.push((Arc::clone(&field.name), self.node(&field.value)?, field.optional));
        }
        Ok(Node::Struct { name, fields: nodes })
    }

    fn fold(&mut self, it: &Comprehension) -> Result<Node, Failure> {
        let init = self.node(&it.accu_init)?;
        let range = self.node(&it.range)?;
        let slot = self.scopes.len();
        self.scopes.push(Some(Arc::clone(&it.accu_var)));
        self.scopes.push(Some(Arc::clone(&it.var)));
        self.scopes.push(it.var2.clone());
        self.plan.locals = self.plan.locals.max(self.scopes.len());
        let condition = self.node(&it.condition)?;
        let step = self.node(&it.step)?;
        // Only the accumulator is in scope in the result.
        self.scopes.truncate(slot + 1);
        self.scopes.extend([None, None]);
        let result = self.node(&it.result)?;
        self.scopes.truncate(slot);
        let two = it.var2.is_some();
        Ok(Node::Fold(Box::new(Fold { range, two, slot, init, condition, step, result })))
    }
}

impl Attribute {
    /// Adds a selection. For a conditional value, adds it to both branches.
    fn qualify(&mut self, qualifier: &Qualifier) {
        match &mut self.root {
            Root::Conditional { yes, no, .. } => {
                yes.qualify(qualifier);
                no.qualify(qualifier);
            }
            _ => self.qualifiers.push(qualifier.clone()),
        }
    }
}

const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

fn is_index(value: &Value<'_>) -> bool {
    matches!(value, Value::String(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_))
}

fn type_value(ty: &Type) -> Result<Node, Failure> {
    match ty {
        Type::Object(object) if crate::env::is_patch_object(&object.name) => {
            Err(Failure::new(format!("reference to undefined type: {}", object.name)))
        }
        ty => Ok(Node::Const(Value::Type(ty.clone()))),
    }
}

fn literal_value(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(it) => Value::Bool(*it),
        Literal::Int(it) => Value::Int(*it),
        Literal::Uint(it) => Value::Uint(*it),
        Literal::Double(it) => Value::Double(*it),
        Literal::String(it) => Value::String(Text::Shared(Arc::clone(it))),
        Literal::Bytes(it) => Value::Bytes(Arc::clone(it)),
    }
}

/// Evaluates a node of constants.
fn constant_value(node: &Node) -> Result<Node, Failure> {
    constant(node).map(Node::Const)
}

/// Returns a list of scalars as a set, with the equal numbers of other types.
fn constant_set(list: &crate::value::List<'static>) -> Option<BTreeSet<Key<'static>>> {
    let mut set = BTreeSet::new();
    for item in list.iter() {
        let item = item.ok().filter(is_index)?;
        let key = Key::new(&item)?;
        set.extend(key.equal_numbers());
        set.insert(key);
    }
    Some(set)
}
