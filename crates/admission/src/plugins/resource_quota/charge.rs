//! The usage of an object for quotas (upstream: the evaluators of `pkg/quota/v1/evaluator`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuotaSpec, ResourceRequirements,
    ScopedResourceSelectorRequirement, Service,
};
use nave_machinery::quantity::Quantity;
use nave_machinery::{GroupResource, Object, Status, Value, time};
use nave_resources::quota::{self, Usage, scopes};
use serde::de::DeserializeOwned;

use super::config::Limited;
use crate::{Attributes, Operation};

/// Resources that quotas ignore (upstream: `DefaultIgnoredResources`).
const IGNORED: [(&str, &str); 4] =
    [("", "bindings"), ("", "componentstatuses"), ("", "events"), ("events.k8s.io", "events")];
/// API groups with resources that are not stored.
const IGNORED_GROUPS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];
/// Amounts that each container must specify if a quota limits them.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// The evaluator for the objects of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evaluator {
    Pods,
    Services,
    Claims,
    ResourceClaims,
    /// Counts objects only.
    Objects,
}

impl Evaluator {
    fn for_request(attributes: &Attributes<'_>) -> Self {
        match (attributes.def.group.as_str(), attributes.def.resource.as_str()) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::ResourceClaims,
            _ => Self::Objects,
        }
    }
}

/// Returns whether a request can change the usage of its object. [`is_charged`] excludes most updates of pods.
pub(super) fn handles(attributes: &Attributes<'_>) -> bool {
    let def = attributes.def;
    if IGNORED_GROUPS.contains(&def.group.as_str()) || IGNORED.contains(&(&def.group, &def.resource)) {
        return false;
    }
    match (Evaluator::for_request(attributes), attributes.subresource, attributes.operation) {
        (Evaluator::Pods, "resize", operation) => operation == Operation::Update,
        (_, "", Operation::Create) => true,
        (evaluator, "", Operation::Update) => !matches!(evaluator, Evaluator::Objects),
        _ => false,
    }
}

/// Returns whether a request is charged: an update of a pod is only if it moves the pod between the scopes `Terminating`
/// and `NotTerminating`.
pub(super) fn is_charged(attributes: &Attributes<'_>, object: &Object) -> bool {
    let is_update = attributes.subresource.is_empty() && attributes.operation == Operation::Update;
    if !is_update || Evaluator::for_request(attributes) != Evaluator::Pods {
        return true;
    }
    let deadline = |pod: &Object| pod.value_at(&["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64);
    let is_terminating = |pod: &Object| deadline(pod).is_some_and(|seconds| seconds >= 0);
    attributes.old.is_some_and(|old| is_terminating(old) != is_terminating(object))
}

/// The usage of a request. It borrows nothing, because the worker checks it outside of the request's task.
pub(super) struct Charge {
    resource: GroupResource,
    /// The object's name in refusals.
    name: String,
    kind: Kind,
    /// The old object of an update.
    old: Option<Kind>,
    /// The usage of the object.
    usage: Usage,
    /// The increase in usage compared with the old object.
    pub(super) delta: Usage,
    /// The resource names that need a covering quota.
    pub(super) limited_names: BTreeSet<String>,
    /// The scopes that need a covering quota.
    pub(super) limited_scopes: Vec<ScopedResourceSelectorRequirement>,
    pub(super) dry_run: bool,
}

/// The properties of the object that quota scopes select.
enum Kind {
    Pod(Box<Pod>),
    Claim(Box<PersistentVolumeClaim>),
    Service,
    ResourceClaim,
    Objects(Vec<String>),
}

impl Kind {
    fn is_in_scope(&self, spec: &ResourceQuotaSpec) -> bool {
        match self {
            Self::Pod(pod) => scopes::include_pod(spec, pod),
            Self::Claim(claim) => scopes::include_claim(spec, claim),
            _ => !scopes::is_scoped(spec),
        }
    }
}

impl Charge {
    /// Computes the charge of a request.
    ///
    /// # Errors
    /// The object cannot be parsed, or has negative usage.
    pub(super) fn new(
        attributes: &Attributes<'_>,
        object: &Object,
        limited: Vec<Limited>,
    ) -> Result<Self, Status> {
        let evaluator = Evaluator::for_request(attributes);
        let (kind, usage) = evaluate(evaluator, attributes, object)?;
        if let Some((name, _)) = usage.iter().find(|(_, amount)| amount.is_negative()) {
            return Err(
                attributes.forbidden(object, format_args!("quota usage is negative for resource(s): {name}"))
            );
        }
        let limited_names =
            limited.iter().flat_map(|limited| limited.names(&usage)).map(str::to_owned).collect();
        let limited_scopes = limited.into_iter().flat_map(|limited| limited.match_scopes).collect();
        let (old, before) = match attributes.old.filter(|_| attributes.is_update()) {
            Some(old) => {
                let (kind, usage) = evaluate(evaluator, attributes, old)?;
                (Some(kind), usage)
            }
            None => (None, Usage::new()),
        };
        // Decreases are ignored: the quota controller releases them when it recalculates usage.
        let delta = usage.iter().filter_map(|(name, amount)| {
            let delta = *amount - before.get(name).copied().unwrap_or(Quantity::ZERO);
            (!delta.is_zero() && !delta.is_negative()).then(|| (name.clone(), delta))
        });
        let delta = delta.collect();
        let mut charge = Self {
            resource: attributes.def.group_resource(),
            name: attributes.object_name(Some(object)).to_owned(),
            kind,
            old,
            usage: usage.into_iter().filter(|(_, amount)| !amount.is_zero()).collect(),
            delta,
            limited_names,
            limited_scopes,
            dry_run: attributes.dry_run(),
        };
        charge.limited_scopes =
            charge.limited_scopes.iter().filter(|scope| charge.matches(scope)).cloned().collect();
        Ok(charge)
    }

    /// Returns a 403 for this object.
    pub(super) fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.resource, &self.name, why)
    }

    /// Returns whether objects of this kind are counted under a resource name.
    pub(super) fn counts(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Pod(_) => quota::is_pod_name(name),
            Kind::Claim(_) => quota::is_claim_name(name),
            Kind::Service => quota::is_service_name(name),
            Kind::ResourceClaim => quota::is_resource_claim_name(name),
            Kind::Objects(names) => names.iter().any(|known| known == name),
        }
    }

    /// Returns whether the object is in all of a quota's scopes.
    pub(super) fn is_in_scope(&self, spec: &ResourceQuotaSpec) -> bool {
        self.kind.is_in_scope(spec)
    }

    /// Returns the usage that a quota is charged: the increase, or all if an update moves the object into its scopes.
    pub(super) fn increase(&self, spec: &ResourceQuotaSpec) -> &Usage {
        let is_new = self.old.as_ref().is_some_and(|old| !old.is_in_scope(spec));
        if is_new { &self.usage } else { &self.delta }
    }

    /// Returns whether the object matches a quota's scope.
    pub(super) fn matches(&self, requirement: &ScopedResourceSelectorRequirement) -> bool {
        match &self.kind {
            Kind::Pod(pod) => pod.spec.as_ref().is_some_and(|spec| scopes::selects_pod(requirement, spec)),
            Kind::Claim(claim) => scopes::selects_claim(requirement, claim),
            _ => false,
        }
    }

    /// Returns the resources that a quota limits and the object does not specify.
    pub(super) fn unstated(&self, limited: &[&str]) -> Option<String> {
        let Kind::Pod(pod) = &self.kind else { return None };
        let spec = pod.spec.as_ref()?;
        if spec.resources.as_ref().is_some_and(is_stated) {
            return None;
        }
        let required: Vec<_> = limited.iter().filter(|name| REQUIRED.contains(name)).collect();
        if required.is_empty() {
            return None;
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            for name in required.iter().filter(|name| !states(container, name)) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return None;
        }
        let told = missing.into_iter().map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        });
        Some(format!("must specify {}", told.collect::<Vec<_>>().join("; ")))
    }
}

fn evaluate(
    evaluator: Evaluator,
    attributes: &Attributes<'_>,
    object: &Object,
) -> Result<(Kind, Usage), Status> {
    Ok(match evaluator {
        Evaluator::Pods => {
            let pod: Pod = decode(object)?;
            let usage = quota::pod(&pod, time::now());
            (Kind::Pod(Box::new(pod)), usage)
        }
        Evaluator::Services => (Kind::Service, quota::service(&decode::<Service>(object)?)),
        Evaluator::Claims => {
            let claim: PersistentVolumeClaim = decode(object)?;
            let usage = quota::claim(&claim);
            (Kind::Claim(Box::new(claim)), usage)
        }
        Evaluator::ResourceClaims => (Kind::ResourceClaim, quota::resource_claim(object.as_value())),
        Evaluator::Objects => {
            let names = quota::object_count_names(&attributes.def.group, &attributes.def.resource);
            let names: Vec<_> = names.collect();
            let usage = names.iter().map(|name| (name.clone(), Quantity::from_value(1))).collect();
            (Kind::Objects(names), usage)
        }
    })
}

fn decode<T: DeserializeOwned>(object: &Object) -> Result<T, Status> {
    T::deserialize(object.as_value()).map_err(Status::internal)
}

/// Returns whether a pod has pod-level resources.
fn is_stated(resources: &ResourceRequirements) -> bool {
    let lists = [&resources.requests, &resources.limits];
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    lists.into_iter().flatten().flat_map(BTreeMap::keys).any(|name| supported(name))
}

/// Returns whether a container specifies the amount that a quota limits.
fn states(container: &Container, name: &str) -> bool {
    let Some(resources) = &container.resources else { return false };
    let (list, name) = match name.strip_prefix("limits.") {
        Some(name) => (&resources.limits, name),
        None => (&resources.requests, name.strip_prefix("requests.").unwrap_or(name)),
    };
    list.as_ref().is_some_and(|list| list.contains_key(name))
}
