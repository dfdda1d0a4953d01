//! The compiled policies and bindings, which follow the watch caches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nave_machinery::{GroupVersion, GroupVersionKind, Object, Value};

use super::params::ParamRef;
use crate::attributes::Attributes;
use crate::chain::Plugin;
use crate::expressions::Workload;
use crate::matching::{Criteria, Index, NewObject, RequestMatcher};
use crate::observe::Compiled;

/// A policy: what both kinds share, and the compiled expressions.
pub(super) struct Policy<E> {
    pub(super) name: String,
    pub(super) criteria: Criteria,
    pub(super) fails_open: bool,
    pub(super) param_kind: Option<GroupVersionKind>,
    pub(super) evaluator: E,
    pub(super) workload: Workload,
}

/// A binding of a policy.
pub(super) struct Binding {
    pub(super) name: String,
    policy: String,
    /// `None` if the binding matches all requests that its policy matches.
    pub(super) criteria: Option<Criteria>,
    pub(super) params: Option<ParamRef>,
    /// The validation actions of a validating policy.
    pub(super) actions: Vec<Action>,
}

/// An action of a binding when a validation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Deny,
    Warn,
    Audit,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }
}

/// The policies of one kind and their bindings.
pub(super) struct Store<E: 'static> {
    policies: Arc<Compiled<Policy<E>, Policies<E>>>,
    bindings: Arc<Compiled<Binding, Bindings>>,
}

/// The policies by name, and the index of their criteria.
struct Policies<E> {
    list: Vec<Arc<Policy<E>>>,
    index: Index,
}

/// The bindings by the name of their policy.
type Bindings = HashMap<String, Arc<[Arc<Binding>]>>;

/// A policy and its bindings.
pub(super) type Bound<E> = (Arc<Policy<E>>, Arc<[Arc<Binding>]>);

impl<E: Send + Sync + 'static> Store<E> {
    /// Creates an empty store. `compile` compiles a policy.
    pub(super) fn new(compile: impl Fn(&Object) -> Policy<E> + Send + Sync + 'static) -> Self {
        Self {
            policies: Arc::new(Compiled::new(compile, index_policies)),
            bindings: Arc::new(Compiled::new(Binding::new, group_bindings)),
        }
    }

    /// Makes the store follow the objects of these resources.
    pub(super) fn observed_by(&self, plugin: Plugin, policies: &str, bindings: &str) -> Plugin {
        plugin.observing(GROUP, policies, Arc::clone(&self.policies) as _).observing(
            GROUP,
            bindings,
            Arc::clone(&self.bindings) as _,
        )
    }

    /// Returns whether a policy may match the request.
    pub(super) fn has_candidates(&self, attributes: &Attributes<'_>) -> bool {
        self.policies.load().index.has_candidates(attributes)
    }

    /// Returns the policies that may match the request and have bindings, by name. `object` is the new object.
    pub(super) fn candidates(&self, matcher: &RequestMatcher<'_>, object: Option<&Object>) -> Vec<Bound<E>> {
        let (policies, bindings) = (self.policies.load(), self.bindings.load());
        let numbers = matcher.candidates(&policies.index, NewObject::Final(object)).into_iter();
        let policies = numbers.filter_map(|number| policies.list.get(number));
        let bound =
            |policy: &Arc<Policy<E>>| Some((Arc::clone(policy), Arc::clone(bindings.get(&policy.name)?)));
        policies.filter_map(bound).collect()
    }
}

impl<E> Policy<E> {
    /// Compiles the parts that both kinds share.
    pub(super) fn new(policy: &Object, evaluator: E) -> Self {
        let spec = policy.get("spec").unwrap_or(&Value::Null);
        Self {
            name: policy.name().to_owned(),
            criteria: Criteria::of_match_resources(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            fails_open: spec.get("failurePolicy").and_then(Value::as_str) == Some("Ignore"),
            param_kind: param_kind(spec),
            evaluator,
            workload: Workload::default(),
        }
    }
}

/// Returns the kind of the parameters of a policy.
fn param_kind(spec: &Value) -> Option<GroupVersionKind> {
    let kind = spec.get("paramKind")?;
    let text = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default();
    // Validation prevents other versions.
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_default();
    kind.is_object().then(|| GroupVersionKind::new(&*version.group, &*version.version, text("kind")))
}

impl Binding {
    fn new(binding: &Object) -> Self {
        let spec = binding.get("spec").unwrap_or(&Value::Null);
        let set = |name: &str| spec.get(name).filter(|value| value.is_object());
        let actions = spec.get("validationActions").and_then(Value::as_array).into_iter().flatten();
        let known = [Action::Deny, Action::Warn, Action::Audit];
        let action = |action: &Value| known.into_iter().find(|known| action.as_str() == Some(known.as_str()));
        Self {
            name: binding.name().to_owned(),
            policy: spec.get("policyName").and_then(Value::as_str).unwrap_or_default().to_owned(),
            criteria: set("matchResources").map(Criteria::of_match_resources),
            params: set("paramRef").map(ParamRef::new),
            actions: actions.filter_map(action).collect(),
        }
    }
}

fn index_policies<E>(by_name: &BTreeMap<String, Arc<Policy<E>>>) -> Policies<E> {
    let list: Vec<_> = by_name.values().cloned().collect();
    let index = Index::new(list.iter().map(|policy| &policy.criteria));
    Policies { list, index }
}

fn group_bindings(by_name: &BTreeMap<String, Arc<Binding>>) -> Bindings {
    let mut grouped: HashMap<String, Vec<Arc<Binding>>> = HashMap::new();
    for binding in by_name.values() {
        grouped.entry(binding.policy.clone()).or_default().push(Arc::clone(binding));
    }
    grouped.into_iter().map(|(policy, bindings)| (policy, bindings.into())).collect()
}

/// The API group of policies.
pub(super) const GROUP: &str = "admissionregistration.k8s.io";
