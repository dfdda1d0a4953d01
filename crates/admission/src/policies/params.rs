//! The parameters of a binding (upstream: `CollectParams`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::selector::{LabelSelector, SelectorError};
use nave_machinery::{GroupVersionKind, Object, Status, Value};

/// Reads the objects of any served kind, including custom resources, from the watch caches.
#[async_trait]
pub trait ParamKinds: Send + Sync {
    /// Returns whether the objects of a kind are namespaced; `None` if the kind is not served or not stored.
    fn is_namespaced(&self, kind: &GroupVersionKind) -> Option<bool>;

    /// Returns an object in the version of the kind. The namespace is empty for cluster-scoped kinds.
    ///
    /// # Errors
    /// The object cannot be read or converted.
    async fn get(
        &self,
        kind: &GroupVersionKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status>;

    /// Returns the objects of a namespace that a selector matches, ordered by name; all objects for a cluster-scoped
    /// kind.
    ///
    /// # Errors
    /// An object cannot be read or converted.
    async fn list(
        &self,
        kind: &GroupVersionKind,
        namespace: &str,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Status>;
}

/// A binding's reference to parameters.
pub(super) struct ParamRef {
    name: String,
    namespace: String,
    /// The selector; `None` if there is none.
    selector: Option<Result<LabelSelector, SelectorError>>,
    denies_without: bool,
}

/// The value of the variable `params` in one evaluation of a policy.
#[derive(Clone)]
pub(super) enum Param {
    /// The policy has no kind of parameters; expressions cannot use the variable.
    Undeclared,
    /// The binding does not use parameters, so the variable is null.
    Null,
    /// A parameter.
    Object(Arc<Object>),
}

impl Param {
    /// Returns the value; `None` if the variable is not declared.
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Undeclared => None,
            Self::Null => Some(&Value::Null),
            Self::Object(object) => Some(object.as_value()),
        }
    }
}

impl ParamRef {
    pub(super) fn new(reference: &Value) -> Self {
        let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let selector = reference.get("selector").filter(|selector| selector.is_object());
        Self {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.map(LabelSelector::from_value),
            denies_without: text("parameterNotFoundAction") == "Deny",
        }
    }
}

/// Returns the parameters of a binding for a request in `namespace`: one evaluation of the policy for each.
///
/// # Errors
/// The reference does not fit the kind, or the parameters are missing or cannot be read. The text is upstream's.
pub(super) async fn collect(
    kinds: &dyn ParamKinds,
    kind: Option<&GroupVersionKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Param>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else {
        return Ok(vec![if kind.is_some() { Param::Null } else { Param::Undeclared }]);
    };
    let is_namespaced = kinds.is_namespaced(kind).ok_or_else(|| unknown_kind(kind))?;
    let namespace = match (is_namespaced, &*reference.namespace, namespace) {
        (false, "", _) => "",
        (false, ..) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "", "") => {
            let why =
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "", namespace) | (true, namespace, _) => namespace,
    };
    let found = match &reference.selector {
        _ if !reference.name.is_empty() => {
            kinds.get(kind, namespace, &reference.name).await.map(|found| found.into_iter().collect())
        }
        Some(selector) => {
            let selector = selector.as_ref().map_err(ToString::to_string)?;
            kinds.list(kind, namespace, selector).await
        }
        None => return Err("one of name or selector must be provided".to_owned()),
    };
    let found: Vec<_> = found.map_err(|status| status.message)?;
    if found.is_empty() && reference.denies_without {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(Param::Object).collect())
}

/// Returns upstream's error for a kind that is not served.
pub(super) fn unknown_kind(kind: &GroupVersionKind) -> String {
    let GroupVersionKind { group, version, kind } = kind;
    format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")
}
