//! Expressions of admission policies: their variables and types, and validations with lazily evaluated variables.
//!
//! Upstream: `apiserver/pkg/admission/plugin/cel` and `…/policy/validating`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde_json::Value as Json;

use crate::authorizer::{Authorizer, NoAuthorizer, ResourceCheck, authorizer_type, resource_check_type};
use crate::cache::{Compiled, ProgramCache};
use crate::deep::with_stack;
use crate::env::{Env, NEWEST};
use crate::expression::CompileError;
use crate::failure::Failure;
use crate::kinds::Type;
use crate::program::{Activation, Ast, Outcome, PER_CALL_LIMIT, Program};
use crate::run::{Consumption, Lazy};
use crate::value::Value;

/// The name of the variable whose fields are the composed variables.
pub(crate) const VARIABLES: &str = "variables";
/// The name of the type of that variable.
pub(crate) const VARIABLES_TYPE: &str = "kubernetes.variables";
/// The minor version of Kubernetes whose libraries admission expressions can use. As upstream's default compatibility
/// version, it is the release before the server's.
pub const COMPATIBILITY_VERSION: u32 = NEWEST - 1;
/// Maximum cost of all expressions of a policy for one request.
pub const MAX_POLICY_COST: u64 = 10_000_000;

/// Compiles the expressions of a policy, in order. Later expressions can use earlier variables.
#[derive(Debug)]
pub struct PolicyCompiler {
    env: Env,
    variables: PolicyVariables,
    cache: Option<Arc<ProgramCache>>,
}

/// The compiled variables of a policy.
#[derive(Debug, Default)]
pub struct PolicyVariables(HashMap<Arc<str>, Result<Arc<Compiled>, String>>);

impl PolicyVariables {
    /// Returns the number of variables.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no variables.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A compiled expression of a policy.
#[derive(Debug)]
pub struct PolicyExpression {
    compiled: Arc<Compiled>,
    /// The type of the expression.
    pub ty: Type,
}

impl PolicyCompiler {
    /// Creates a compiler. `version` is the minor version of Kubernetes whose libraries expressions can use.
    pub fn new(version: u32, with_params: bool) -> Self {
        let env = Env::new(version)
            .with("object", Type::Dyn)
            .with("oldObject", Type::Dyn)
            .with("request", request_type())
            .with("namespaceObject", namespace_type())
            .with("authorizer", authorizer_type())
            .with("authorizer.requestResource", resource_check_type());
        let env = if with_params { env.with("params", Type::Dyn) } else { env };
        let variables = Type::object(VARIABLES_TYPE, []);
        Self { env: env.with(VARIABLES, variables), variables: PolicyVariables::default(), cache: None }
    }

    /// Creates a compiler for expressions without composed variables, such as match conditions of webhooks.
    pub fn without_variables(version: u32, with_params: bool) -> Self {
        let compiler = Self::new(version, with_params);
        Self { env: compiler.env.without(VARIABLES), ..compiler }
    }

    /// Takes programs from a cache, and adds new ones to it.
    #[must_use]
    pub fn with_cache(self, cache: Arc<ProgramCache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Adds the types that mutations create.
    #[must_use]
    pub fn with_patch_types(self) -> Self {
        Self { env: self.env.with_patch_types(), ..self }
    }

    /// Compiles an expression whose type must be in `wanted`. An empty list accepts any type.
    ///
    /// # Errors
    /// The expression is invalid. The message is the API's.
    pub fn compile(&self, text: &str, wanted: &[Type]) -> Result<PolicyExpression, String> {
        self.compile_in(&self.env, text, wanted)
    }

    /// Compiles an expression that cannot use the authorizer, such as a message expression.
    ///
    /// # Errors
    /// See [`Self::compile`].
    pub fn compile_without_authorizer(
        &self,
        text: &str,
        wanted: &[Type],
    ) -> Result<PolicyExpression, String> {
        let env = self.env.clone().without("authorizer").without("authorizer.requestResource");
        self.compile_in(&env, text, wanted)
    }

    /// Compiles a variable and declares it for later expressions. Returns its type.
    ///
    /// # Errors
    /// The expression is invalid. The variable then has a dynamic type.
    pub fn declare(&mut self, name: &str, text: &str) -> Result<Type, String> {
        let compiled = self.compile(text, &[]);
        let ty = compiled.as_ref().map_or(Type::Dyn, |compiled| compiled.ty.clone());
        self.env.declare_field(VARIABLES, name, &ty);
        let (result, program) = match compiled {
            Ok(compiled) => (Ok(ty), Ok(compiled.compiled)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        self.variables.0.insert(name.into(), program);
        result
    }

    fn compile_in(&self, env: &Env, text: &str, wanted: &[Type]) -> Result<PolicyExpression, String> {
        let compiled = match &self.cache {
            Some(cache) => cache.compile(text, env),
            None => Compiled::new(text, env).map(Arc::new),
        };
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error @ CompileError::Constant(_)) => {
                // A wrong type is reported first.
                let ast = Ast::compile(text, env).map_err(|issues| issues.to_string())?;
                require(ast.output_type(), wanted)?;
                return Err(error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        let ty = compiled.output_type().clone();
        require(&ty, wanted)?;
        Ok(PolicyExpression { compiled, ty })
    }

    /// Returns the declared variables.
    pub fn into_variables(self) -> PolicyVariables {
        self.variables
    }
}

/// Checks that a type is in `wanted`. An empty list accepts any type.
fn require(ty: &Type, wanted: &[Type]) -> Result<(), String> {
    if wanted.is_empty() || wanted.contains(ty) {
        return Ok(());
    }
    let names: Vec<String> = wanted.iter().map(Type::long_name).collect();
    let names = match names.as_slice() {
        [one] => one.clone(),
        several => format!("one of [{}]", several.join(" ")),
    };
    Err(format!("must evaluate to {names} but got {}", ty.long_name()))
}

/// The evaluations of a policy for one request. Each variable is evaluated at most once.
pub struct PolicyRun<'a> {
    shared: Arc<Shared<'a>>,
}

struct Shared<'a> {
    variables: &'a PolicyVariables,
    activation: Activation<'a>,
    authorizer: &'a dyn Authorizer,
    values: Mutex<HashMap<Arc<str>, Result<Value<'a>, Failure>>>,
    /// The cost of variables since the last expression.
    cost: AtomicU64,
    consumption: Arc<Consumption>,
    /// The bytes of the variables' values.
    variable_bytes: AtomicUsize,
    /// The number of variables that are being evaluated, each for the one before.
    depth: AtomicUsize,
    this: Weak<Shared<'a>>,
}

/// The variables of a request. Missing values are null.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'a> {
    /// The new object.
    pub object: &'a Json,
    /// The old object.
    pub old_object: &'a Json,
    /// The admission request.
    pub request: &'a Json,
    /// The namespace.
    pub namespace: &'a Json,
    /// The parameters.
    pub params: Option<&'a Json>,
}

impl<'a> PolicyRun<'a> {
    /// Starts a run with the variables of a request.
    pub fn new(
        variables: &'a PolicyVariables,
        input: &PolicyInput<'a>,
        resource: ResourceCheck,
        authorizer: &'a dyn Authorizer,
    ) -> Self {
        let activation = activation(input)
            .with_value("authorizer", Ok(Value::Authorizer(Arc::default())))
            .with_value("authorizer.requestResource", Ok(Value::ResourceCheck(Arc::new(resource))));
        Self::start(variables, activation, authorizer)
    }

    /// Starts a run in which reading the authorizer is an error, as for messages and audit annotations.
    pub fn without_authorizer(variables: &'a PolicyVariables, input: &PolicyInput<'a>) -> Self {
        Self::start(variables, activation(input), &NoAuthorizer)
    }

    fn start(
        variables: &'a PolicyVariables,
        activation: Activation<'a>,
        authorizer: &'a dyn Authorizer,
    ) -> Self {
        let shared = Arc::new_cyclic(|this| Shared {
            variables,
            activation,
            authorizer,
            values: Mutex::default(),
            cost: AtomicU64::new(0),
            consumption: Arc::default(),
            variable_bytes: AtomicUsize::new(0),
            depth: AtomicUsize::new(0),
            this: Weak::clone(this),
        });
        Self { shared }
    }

    /// Evaluates an expression. The cost includes the evaluation of variables that no earlier expression read.
    pub fn evaluate(&self, expression: &'a PolicyExpression) -> (Result<Option<Json>, Failure>, u64) {
        let outcome = self.outcome(expression);
        (outcome.json(), outcome.cost)
    }

    /// Like [`Self::evaluate`], without converting the value to JSON.
    pub fn outcome(&self, expression: &'a PolicyExpression) -> Outcome<'a> {
        let shared = &self.shared;
        let lazy: Arc<dyn Lazy<'a> + 'a> = Arc::clone(shared) as _;
        let mut outcome = expression.compiled.program().evaluate_lazily(
            &shared.activation,
            PER_CALL_LIMIT,
            shared.authorizer,
            Some(lazy),
        );
        let variables = shared.cost.swap(0, Ordering::Relaxed);
        outcome.cost = outcome.cost.saturating_add(variables);
        // The values of the expression are dropped, and those of the variables stay until the end of the run.
        shared.consumption.reset_memory(shared.variable_bytes.load(Ordering::Relaxed));
        outcome
    }
}

impl<'a> Lazy<'a> for Shared<'a> {
    /// Returns the value of a variable. Evaluates it on the first read.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>> {
        let known = self.values.lock().ok()?.get(name).cloned();
        if known.is_some() {
            return known;
        }
        let (name, program) = self.variables.0.get_key_value(name)?;
        let value = match program {
            Ok(compiled) => self.evaluate(name, compiled.program()),
            Err(why) => Err(Failure::new(format!("composited variable \"{name}\" fails to compile: {why}"))),
        };
        self.values.lock().ok()?.insert(Arc::clone(name), value.clone());
        Some(value)
    }

    fn consumption(&self) -> &Arc<Consumption> {
        &self.consumption
    }
}

impl<'a> Shared<'a> {
    /// Evaluates a variable. Variables read only earlier variables, so the recursion ends.
    fn evaluate(&self, name: &str, program: &'a Program) -> Result<Value<'a>, Failure> {
        let depth = self.depth.fetch_add(1, Ordering::Relaxed);
        let before = self.consumption.memory();
        let outcome = if depth > MAX_DEPTH {
            let why = format!("variables must not read each other through more than {MAX_DEPTH} others");
            Outcome::failed(Failure::new(why))
        } else {
            let lazy = || self.this.upgrade().map(|this| this as Arc<dyn Lazy<'a> + 'a>);
            let run = || program.evaluate_lazily(&self.activation, PER_CALL_LIMIT, self.authorizer, lazy());
            with_stack(depth == SHALLOW, run).unwrap_or_else(|| Outcome::failed(Failure::Memory))
        };
        if depth == 0 {
            let created = self.consumption.memory().saturating_sub(before);
            self.variable_bytes.fetch_add(created, Ordering::Relaxed);
        }
        self.depth.fetch_sub(1, Ordering::Relaxed);
        self.cost.fetch_add(outcome.cost, Ordering::Relaxed);
        outcome.into_value().map_err(|failure| {
            // A variable that exceeds its cost limit is an error value of the expression that reads it, as upstream.
            match failure {
                Failure::Memory => failure,
                failure => {
                    Failure::new(format!("composited variable \"{name}\" fails to evaluate: {failure}"))
                }
            }
        })
    }
}

/// Number of variables that read each other before the evaluation moves to a large stack.
const SHALLOW: usize = 8;
/// Maximum number of variables that read each other.
const MAX_DEPTH: usize = 256;

/// Returns the variables that all expressions can use.
fn activation<'a>(input: &PolicyInput<'a>) -> Activation<'a> {
    let activation = Activation::new()
        .with("object", input.object)
        .with("oldObject", input.old_object)
        .with("request", input.request)
        .with("namespaceObject", input.namespace);
    match input.params {
        Some(params) => activation.with("params", params),
        None => activation,
    }
}

fn texts<const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = (&'static str, Type)> {
    names.into_iter().map(|name| (name, Type::String))
}

pub(crate) fn request_type() -> Type {
    let list = || Type::list(Type::String);
    let kind = Type::object("kubernetes.GroupVersionKind", texts(["group", "version", "kind"]));
    let resource = Type::object("kubernetes.GroupVersionResource", texts(["group", "version", "resource"]));
    let user =
        texts(["username", "uid"]).chain([("groups", list()), ("extra", Type::map(Type::String, list()))]);
    let user = Type::object("kubernetes.UserInfo", user);
    let names = texts(["subResource", "requestSubResource", "name", "namespace", "operation"]);
    Type::object(
        "kubernetes.AdmissionRequest",
        names.chain([
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ]),
    )
}

pub(crate) fn namespace_type() -> Type {
    let list = || Type::list(Type::String);
    let map = || Type::map(Type::String, Type::String);
    let names = texts(["name", "generateName", "namespace", "UID", "resourceVersion"]);
    let metadata = names.chain([
        ("labels", map()),
        ("annotations", map()),
        ("creationTimestamp", Type::Timestamp),
        ("deletionTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("generation", Type::Int),
        ("finalizers", list()),
    ]);
    let metadata = Type::object("kubernetes.NamespaceMetadata", metadata);
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", list())]);
    let condition =
        texts(["type", "status", "reason", "message"]).chain([("lastTransitionTime", Type::Timestamp)]);
    let conditions = Type::list(Type::object("kubernetes.NamespaceCondition", condition));
    let status = texts(["phase"]).chain([("conditions", conditions)]);
    let status = Type::object("kubernetes.NamespaceStatus", status);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INPUT: PolicyInput<'static> = PolicyInput {
        object: &Json::Null,
        old_object: &Json::Null,
        request: &Json::Null,
        namespace: &Json::Null,
        params: None,
    };

    /// Declares `v0` to `vN`, each twice as long as the one before.
    fn doubling(count: usize) -> PolicyCompiler {
        let mut compiler = PolicyCompiler::new(COMPATIBILITY_VERSION, false);
        compiler.declare("v0", "[1]").unwrap();
        for index in 1..=count {
            let before = index - 1;
            let text = format!("variables.v{before} + variables.v{before}");
            compiler.declare(&format!("v{index}"), &text).unwrap();
        }
        compiler
    }

    /// Later expressions see scalars, and lists and maps of them, with their types; other variables are dynamic.
    #[test]
    fn declares_types_of_variables() {
        let cases = [
            ("1", "int"),
            ("[[1.5]]", "list(list(double))"),
            ("{'a': b'x'}", "map(string, bytes)"),
            ("timestamp(0)", "timestamp"),
            ("optional.of(1)", "dyn"),
            ("[optional.of(1)]", "list(dyn)"),
            ("type(1)", "dyn"),
            ("ip('1.2.3.4')", "dyn"),
            ("request.userInfo", "dyn"),
            ("namespaceObject.metadata", "dyn"),
        ];
        for (text, wanted) in cases {
            let mut compiler = PolicyCompiler::new(COMPATIBILITY_VERSION, false);
            compiler.declare("x", text).unwrap();
            assert_eq!(compiler.compile("variables.x", &[]).unwrap().ty.to_string(), wanted, "{text}");
        }
        let compiler = PolicyCompiler::new(COMPATIBILITY_VERSION, false);
        let error = compiler.compile("variables.x", &[]).map(|compiled| compiled.ty).unwrap_err();
        assert!(error.contains("undefined field 'x'"), "{error}");
    }

    #[test]
    fn variables_share_one_memory_limit() {
        let mut compiler = doubling(18);
        for index in 0..60 {
            compiler.declare(&format!("w{index}"), &format!("variables.v18 + [{index}]")).unwrap();
        }
        let size = |index: usize| format!("variables.w{index}.size() > 0");
        let one = compiler.compile(&size(0), &[]).unwrap();
        let all: Vec<String> = (0..60).map(size).collect();
        let all = compiler.compile(&all.join(" && "), &[]).unwrap();
        let each: Vec<_> = (0..60).map(|index| compiler.compile(&size(index), &[]).unwrap()).collect();
        let variables = compiler.into_variables();
        let start = || PolicyRun::without_authorizer(&variables, &INPUT);
        assert_eq!(start().evaluate(&one).0, Ok(Some(json!(true))));
        assert_eq!(start().evaluate(&all).0, Err(Failure::Memory));
        // Values of variables stay in memory between expressions.
        let run = start();
        let failures = each.iter().filter(|it| run.evaluate(it).0 == Err(Failure::Memory)).count();
        assert!((30..60).contains(&failures), "{failures}");
        assert!(run.shared.consumption.memory() <= 64 << 20);
    }

    #[test]
    fn expressions_release_their_memory() {
        let compiler = doubling(18);
        let text = "(variables.v18 + [1]).size() > 0";
        let expression = compiler.compile(text, &[]).unwrap();
        let variables = compiler.into_variables();
        let run = PolicyRun::without_authorizer(&variables, &INPUT);
        for _ in 0..100 {
            assert_eq!(run.evaluate(&expression).0, Ok(Some(json!(true))));
        }
    }

    #[test]
    fn names_the_variable_that_exceeds_the_cost_limit() {
        let mut compiler = PolicyCompiler::new(COMPATIBILITY_VERSION, false);
        let text = "lists.range(1000).all(i, lists.range(1000).all(j, i + j >= 0))";
        compiler.declare("costly", text).unwrap();
        let read = compiler.compile("variables.costly", &[]).unwrap();
        let either = compiler.compile("variables.costly || true", &[]).unwrap();
        let variables = compiler.into_variables();
        let run = PolicyRun::without_authorizer(&variables, &INPUT);
        let (result, cost) = run.evaluate(&read);
        let expected = "composited variable \"costly\" fails to evaluate: operation cancelled: actual cost limit exceeded";
        assert_eq!(result.unwrap_err().to_string(), expected);
        assert!(cost > PER_CALL_LIMIT);
        // The failure is an error value.
        assert_eq!(run.evaluate(&either).0, Ok(Some(json!(true))));
    }
}
