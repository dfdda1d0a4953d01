//! Evaluation of a mutating policy (upstream: `policy/mutating/patch`).

use nave_cel::Type;
use nave_cel::policies::{MAX_POLICY_COST, PolicyCompiler, PolicyRun, PolicyVariables};
use nave_machinery::{Object, Status, Value};
use nave_patch::{PatchError, json_patch};

use super::metrics::ErrorType;
use super::store::Policy;
use super::validator::{declare_variables, list, text};
use crate::attributes::Attributes;
use crate::expressions::{
    AuthorizerChecks, Budget, Compiler, Expression, Inputs, MatchConditions, Programs, VERSION,
    VersionedRequest, request_resource,
};
use crate::matching::MatchedResource;
use crate::objects::ObjectInterfaces;

/// The compiled expressions of a mutating policy.
pub(super) struct Mutator {
    pub(super) variables: PolicyVariables,
    pub(super) conditions: MatchConditions,
    pub(super) mutations: Vec<Mutation>,
    /// True if a later change of the object invokes the policy again.
    pub(super) is_reinvocable: bool,
}

/// A mutation.
pub(super) struct Mutation {
    kind: PatchKind,
    expression: Expression,
}

#[derive(Clone, Copy)]
enum PatchKind {
    ApplyConfiguration,
    JsonPatch,
}

/// The error of a mutation.
#[derive(Debug)]
pub(super) enum MutationError {
    /// The failure policy decides.
    Failed(String, ErrorType),
    /// The request is refused with this status, whatever the failure policy is.
    Status(Status),
}

impl MutationError {
    pub(super) fn error_type(&self) -> ErrorType {
        match self {
            Self::Failed(_, error) => *error,
            Self::Status(_) => ErrorType::Invalid,
        }
    }
}

/// Compiles a mutating policy.
pub(super) fn compile(policy: &Object, programs: &Programs) -> Policy<Mutator> {
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    let has_params = spec.get("paramKind").is_some_and(Value::is_object);
    let mut compiler = programs.compiler(PolicyCompiler::new(VERSION, has_params));
    declare_variables(&mut compiler, spec);
    let conditions = MatchConditions::compile(&compiler, list(spec, "matchConditions"));
    // Variables and conditions cannot create objects, as upstream.
    let compiler = compiler.with_patch_types();
    let mutations = list(spec, "mutations").iter().filter_map(|it| Mutation::new(&compiler, it));
    let mutator = Mutator {
        conditions,
        mutations: mutations.collect(),
        variables: compiler.into_variables(),
        is_reinvocable: text(spec, "reinvocationPolicy") == "IfNeeded",
    };
    Policy::new(policy, mutator)
}

impl Mutation {
    fn new(compiler: &Compiler, mutation: &Value) -> Option<Self> {
        let (kind, field) = match text(mutation, "patchType") {
            "ApplyConfiguration" => (PatchKind::ApplyConfiguration, "applyConfiguration"),
            "JSONPatch" => (PatchKind::JsonPatch, "jsonPatch"),
            _ => return None,
        };
        let expression = text(mutation.get(field)?, "expression");
        Some(Self { kind, expression: Expression::compile(compiler, expression, &[kind.wanted()]) })
    }

    /// Evaluates the expression to a patch, without waiting for undecided checks.
    pub(super) fn evaluate(
        &self,
        variables: &PolicyVariables,
        request: &VersionedRequest<'_>,
        namespace: &Value,
        params: Option<&Value>,
        checks: &AuthorizerChecks<'_>,
    ) -> Result<Value, MutationError> {
        if let Some(why) = self.expression.compile_error() {
            return Err(MutationError::Failed(why.to_owned(), ErrorType::Compile));
        }
        let inputs = Inputs::new(request, namespace, params);
        let resource = request_resource(request.attributes);
        let run = PolicyRun::new(variables, &inputs.input(), resource, checks);
        let mut budget = Budget(MAX_POLICY_COST);
        let outcome = self
            .expression
            .evaluate(&run, &mut budget)
            .map_err(|exhausted| MutationError::Failed(exhausted.to_string(), ErrorType::OutOfBudget))?;
        let patch = outcome.and_then(|outcome| match self.kind {
            PatchKind::ApplyConfiguration => outcome.apply_configuration(),
            PatchKind::JsonPatch => outcome.json_patch(),
        });
        patch.map_err(|why| MutationError::Failed(why, ErrorType::Invalid))
    }

    /// Applies a patch to an object of the kind of the matched resource.
    pub(super) fn apply(
        &self,
        interfaces: &dyn ObjectInterfaces,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: &Value,
        patch: Value,
    ) -> Result<Value, MutationError> {
        match self.kind {
            PatchKind::ApplyConfiguration => {
                apply_configuration(interfaces, attributes, matched, object, patch)
            }
            PatchKind::JsonPatch => apply_json_patch(interfaces, attributes, matched, object, &patch),
        }
    }
}

impl PatchKind {
    /// Returns the type of the expression.
    fn wanted(self) -> Type {
        match self {
            Self::ApplyConfiguration => Type::object("Object", []),
            Self::JsonPatch => Type::list(Type::object("JSONPatch", [])),
        }
    }
}

fn apply_configuration(
    interfaces: &dyn ObjectInterfaces,
    attributes: &Attributes<'_>,
    matched: &MatchedResource,
    object: &Value,
    mut configuration: Value,
) -> Result<Value, MutationError> {
    let failed =
        |why: String| MutationError::Failed(format!("error applying patch: {why}"), ErrorType::Invalid);
    if let (Some(fields), Some(object)) = (configuration.as_object_mut(), object.as_object()) {
        for field in ["apiVersion", "kind"] {
            if let Some(value) = object.get(field) {
                fields.insert(field.to_owned(), value.clone());
            }
        }
    }
    let merged = interfaces.merge(attributes, matched, object, &configuration).map_err(failed)?;
    let decoded = interfaces.decode(attributes, matched, merged);
    decoded.map_err(|status| {
        let why = status.message.strip_prefix("Internal error occurred: ").unwrap_or(&status.message);
        MutationError::Failed(why.to_owned(), ErrorType::Invalid)
    })
}

fn apply_json_patch(
    interfaces: &dyn ObjectInterfaces,
    attributes: &Attributes<'_>,
    matched: &MatchedResource,
    object: &Value,
    patch: &Value,
) -> Result<Value, MutationError> {
    let mut patched = object.clone();
    match json_patch::apply(&mut patched, patch) {
        Ok(()) => {}
        // As upstream, a failed test is no error and leaves the object as it is.
        Err(PatchError::TestFailed(_)) => return Ok(object.clone()),
        Err(PatchError::Unfit(why)) => {
            return Err(MutationError::Failed(format!("JSON Patch: {why}"), ErrorType::Invalid));
        }
        Err(error) => return Err(MutationError::Failed(format!("JSON Patch: {error}"), ErrorType::Invalid)),
    }
    let decoded = interfaces.decode_strictly(attributes, matched, patched);
    decoded.map_err(MutationError::Status)
}
