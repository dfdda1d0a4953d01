//! Expressions of admission policies: their variables and types, and validations with lazily evaluated variables.
//!
//! Upstream: `apiserver/pkg/admission/plugin/cel` and `…/policy/validating`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;

use crate::authorizer::{Authorizer, authorizer_type, resource_check_type};
use crate::env::Env;
use crate::failure::Failure;
use crate::kinds::{ObjectType, Type};
use crate::program::{Activation, Ast, Outcome, PER_CALL_LIMIT, Program};
use crate::run::Lazy;
use crate::value::Value;

/// The name of the variable whose fields are the composed variables.
pub(crate) const VARIABLES: &str = "variables";
/// Maximum cost of all expressions of a policy for one request.
pub const MAX_POLICY_COST: u64 = 10_000_000;

/// Compiles the expressions of a policy, in order. Later expressions can use earlier variables.
#[derive(Debug)]
pub struct PolicyCompiler {
    env: Env,
    fields: Vec<(Arc<str>, Type)>,
    variables: Vec<(Arc<str>, Result<Program, String>)>,
}

/// The compiled variables of a policy.
#[derive(Debug)]
pub struct PolicyVariables(Vec<(Arc<str>, Result<Program, String>)>);

/// A compiled expression of a policy.
#[derive(Debug)]
pub struct PolicyExpression {
    program: Program,
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
        Self { env: env.with(VARIABLES, variables_type(&[])), fields: Vec::new(), variables: Vec::new() }
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
        let ast = Ast::compile(text, &self.env).map_err(|issues| format!("compilation failed: {issues}"))?;
        let ty = ast.output_type().clone();
        if !wanted.is_empty() && !wanted.contains(&ty) {
            let names: Vec<String> = wanted.iter().map(Type::long_name).collect();
            let names = match names.as_slice() {
                [one] => one.clone(),
                several => format!("one of [{}]", several.join(" ")),
            };
            return Err(format!("must evaluate to {names} but got {}", ty.long_name()));
        }
        let program = ast.program().map_err(|failure| format!("program instantiation failed: {failure}"))?;
        Ok(PolicyExpression { program, ty })
    }

    /// Compiles a variable and declares it for later expressions. Returns its type.
    ///
    /// # Errors
    /// The expression is invalid. The variable then has a dynamic type.
    pub fn declare(&mut self, name: &str, text: &str) -> Result<Type, String> {
        let compiled = self.compile(text, &[]);
        let ty = compiled.as_ref().map_or(Type::Dyn, |compiled| compiled.ty.clone());
        self.fields.push((name.into(), ty.clone()));
        self.env = self.env.clone().with(VARIABLES, variables_type(&self.fields));
        let (result, program) = match compiled {
            Ok(compiled) => (Ok(ty), Ok(compiled.program)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        self.variables.push((name.into(), program));
        result
    }

    /// Returns the declared variables.
    pub fn into_variables(self) -> PolicyVariables {
        PolicyVariables(self.variables)
    }
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
        resource: crate::authorizer::ResourceCheck,
        authorizer: &'a dyn Authorizer,
    ) -> Self {
        let activation = Activation::new()
            .with("object", input.object)
            .with("oldObject", input.old_object)
            .with("request", input.request)
            .with("namespaceObject", input.namespace)
            .with_value("authorizer", Ok(Value::Authorizer(Arc::default())))
            .with_value("authorizer.requestResource", Ok(Value::ResourceCheck(Arc::new(resource))));
        let activation = match input.params {
            Some(params) => activation.with("params", params),
            None => activation,
        };
        let (values, cost) = (Mutex::default(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { variables, activation, authorizer, values, cost }) }
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
        let mut outcome = expression.program.evaluate_lazily(
            &shared.activation,
            PER_CALL_LIMIT,
            shared.authorizer,
            Some(lazy),
        );
        let variables = shared.cost.swap(0, Ordering::Relaxed);
        outcome.cost = outcome.cost.saturating_add(variables);
        outcome
    }
}

/// A handle that variables pass on to the variables they read.
struct Again<'a>(Arc<Shared<'a>>);

impl<'a> Lazy<'a> for Again<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>> {
        self.0.find(name)
    }
}

impl<'a> Lazy<'a> for Shared<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Failure>> {
        self.find(name)
    }
}

impl<'a> Shared<'a> {
    /// Returns the value of a variable. Evaluates it on the first read.
    fn find(&self, name: &str) -> Option<Result<Value<'a>, Failure>> {
        let known = self.values.lock().ok()?.get(name).cloned();
        if known.is_some() {
            return known;
        }
        let (name, program) = self.variables.0.iter().find(|(known, _)| &**known == name)?;
        let value = match program {
            Ok(program) => {
                // Variables read only earlier variables, so the recursion ends.
                let again = Arc::new(Again(Arc::new(Shared {
                    variables: self.variables,
                    activation: self.activation.clone(),
                    authorizer: self.authorizer,
                    values: Mutex::new(self.values.lock().ok()?.clone()),
                    cost: AtomicU64::new(0),
                })));
                let lazy: Arc<dyn Lazy<'a> + 'a> = Arc::clone(&again) as _;
                let outcome =
                    program.evaluate_lazily(&self.activation, PER_CALL_LIMIT, self.authorizer, Some(lazy));
                let cost = outcome.cost.saturating_add(again.0.cost.load(Ordering::Relaxed));
                self.cost.fetch_add(cost, Ordering::Relaxed);
                // Keeps the values of the variables that this evaluation read.
                let inner = again.0.values.lock().ok()?.clone();
                self.values.lock().ok()?.extend(inner);
                let failed = |failure: Failure| {
                    let message = format!("composited variable \"{name}\" fails to evaluate: {failure}");
                    if failure.is_fatal() { failure } else { Failure::new(message) }
                };
                outcome.into_value().map_err(failed)
            }
            Err(why) => Err(Failure::new(format!("composited variable \"{name}\" fails to compile: {why}"))),
        };
        self.values.lock().ok()?.insert(Arc::clone(name), value.clone());
        Some(value)
    }
}

fn variables_type(fields: &[(Arc<str>, Type)]) -> Type {
    let fields = fields.iter().cloned().collect();
    Type::Object(Arc::new(ObjectType { name: "kubernetes.variables".into(), fields }))
}

fn texts<const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = (&'static str, Type)> {
    names.into_iter().map(|name| (name, Type::String))
}

fn request_type() -> Type {
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

fn namespace_type() -> Type {
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
