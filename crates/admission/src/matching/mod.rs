//! Selection of the webhooks and policies that apply to a request (upstream: `admission/plugin/webhook/predicates` and
//! `admission/plugin/policy/matching`).
//!
//! ```text
//! Attributes ─→ RequestMatcher::candidates(Index) ─→ matches(Criteria, object) ─→ MatchedResource
//!               by resource, group, operation         rules, objectSelector,       the resource and kind that the
//!               and a required label                  namespaceSelector            webhook or policy sees
//! ```

mod criteria;
mod index;
mod rules;

use std::sync::{Arc, OnceLock};

use nave_machinery::{GroupResource, GroupVersionKind, GroupVersionResource, Map, Object, Status};
use nave_resources::{ResourceDef, ResourceVersion};
use tokio::sync::OnceCell;

use crate::attributes::Attributes;
use crate::cluster::Lister;
use crate::objects::ObjectInterfaces;

use self::criteria::Place;
pub use self::criteria::{Criteria, InvalidCriteria};
pub use self::index::Index;
use self::rules::Requested;

/// A resource and its kind, as a webhook or policy sees the request: those of the request, or equivalent ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchedResource {
    /// The resource.
    pub resource: GroupVersionResource,
    /// The kind of its objects, or of the subresource.
    pub kind: GroupVersionKind,
}

impl MatchedResource {
    /// Returns the resource and kind of the request.
    pub fn requested(attributes: &Attributes<'_>) -> Self {
        Self { resource: attributes.resource(), kind: attributes.kind.clone() }
    }
}

/// Matches requests against criteria.
#[derive(Clone)]
pub struct Matcher {
    namespaces: Arc<dyn Lister>,
    interfaces: Arc<dyn ObjectInterfaces>,
}

impl Matcher {
    /// Creates a matcher.
    pub fn new(namespaces: Arc<dyn Lister>, interfaces: Arc<dyn ObjectInterfaces>) -> Self {
        Self { namespaces, interfaces }
    }

    /// Starts matching a request. What many criteria need is computed at most once per request.
    pub fn request<'a>(&'a self, attributes: &'a Attributes<'a>) -> RequestMatcher<'a> {
        RequestMatcher { matcher: self, attributes, namespace: OnceCell::new(), equivalents: OnceLock::new() }
    }
}

/// Matches one request against many criteria.
pub struct RequestMatcher<'a> {
    matcher: &'a Matcher,
    attributes: &'a Attributes<'a>,
    namespace: OnceCell<Option<Arc<Object>>>,
    equivalents: OnceLock<Vec<MatchedResource>>,
}

/// The new object of a request while criteria are matched.
#[derive(Clone, Copy)]
pub enum NewObject<'o> {
    /// Webhooks change it, so that criteria which do not match at first may match later.
    Changing,
    /// The object; `None` on a deletion.
    Final(Option<&'o Object>),
}

impl RequestMatcher<'_> {
    /// Returns the numbers of the criteria of an index that may match the request, in order.
    pub fn candidates(&self, index: &Index, object: NewObject<'_>) -> Vec<usize> {
        index.candidates(self.attributes, |place, key| match (place, object) {
            (Place::Namespace, _) => Some([self.known_namespace()?.label(key), None]),
            (Place::Object, NewObject::Changing) => None,
            (Place::Object, NewObject::Final(object)) => {
                let mut values = self.objects(object).map(|labels| label(labels, key));
                Some([values.next().flatten(), values.next().flatten()])
            }
        })
    }

    /// Returns the namespace whose labels decide about the request, if it is known already.
    fn known_namespace(&self) -> Option<&Object> {
        let name = self.attributes.request_namespace();
        if name.is_empty() || self.attributes.is_resource("", "namespaces") {
            return None;
        }
        if self.namespace.get().is_none()
            && let Ok(Some(namespace)) = self.matcher.namespaces.get("", name)
        {
            // Fails only if another call was faster.
            let _ = self.namespace.set(Some(namespace));
        }
        self.namespace.get()?.as_deref()
    }

    /// Returns the resource and kind by which the criteria match the request; `None` if they do not match. `object` is
    /// the current state of the new object.
    ///
    /// # Errors
    /// 404 if the request's namespace does not exist, or 500 if a selector is invalid or the namespace cannot be read.
    /// Criteria whose rules or object selector do not match cause no errors.
    pub async fn matches(
        &self,
        criteria: &Criteria,
        object: Option<&Object>,
    ) -> Result<Option<MatchedResource>, Status> {
        let Some(matched) = self.matches_rules(criteria) else { return Ok(None) };
        let by_object = criteria.object_selector.as_ref().map(|selector| {
            selector.is_empty()
                || self.objects(object).any(|labels| selector.matches(|key| label(labels, key)))
        });
        if by_object == Ok(false) || !self.matches_namespace(criteria, object).await? {
            return Ok(None);
        }
        by_object.map(|_| Some(matched)).map_err(Status::internal)
    }

    /// Returns the request's namespace; `None` for a cluster-scoped object that is not a namespace.
    ///
    /// # Errors
    /// 404 if it does not exist, or the store fails.
    pub async fn namespace(&self) -> Result<Option<Arc<Object>>, Status> {
        let name = self.attributes.request_namespace();
        if name.is_empty() {
            return Ok(None);
        }
        let read = || async {
            // The watch cache may lag behind the creation of the namespace.
            Ok::<_, Status>(match self.matcher.namespaces.get("", name)? {
                Some(namespace) => Some(namespace),
                None => self.matcher.namespaces.get_live("", name).await?,
            })
        };
        let namespace = self.namespace.get_or_try_init(read).await?.clone();
        let missing = || Status::not_found(&GroupResource::new("", "namespaces"), name);
        namespace.ok_or_else(missing).map(Some)
    }

    fn matches_rules(&self, criteria: &Criteria) -> Option<MatchedResource> {
        let attributes = self.attributes;
        let requested = Requested::new(attributes);
        let equivalents = || criteria.is_equivalent.then(|| self.equivalents()).into_iter().flatten();
        let as_equivalent = |rules: &[rules::Rule]| {
            rules
                .iter()
                .find_map(|rule| equivalents().find(|it| rule.matches(&requested.as_resource(&it.resource))))
        };
        let excluded = &criteria.excluded[..];
        if excluded.iter().any(|rule| rule.matches(&requested)) || as_equivalent(excluded).is_some() {
            return None;
        }
        let matches =
            criteria.matches_everything || criteria.rules.iter().any(|rule| rule.matches(&requested));
        if matches {
            return Some(MatchedResource::requested(attributes));
        }
        as_equivalent(&criteria.rules).cloned()
    }

    /// The other resources through which the request's object is served.
    fn equivalents(&self) -> &[MatchedResource] {
        self.equivalents.get_or_init(|| equivalents(self.attributes, &*self.matcher.interfaces))
    }

    async fn matches_namespace(&self, criteria: &Criteria, object: Option<&Object>) -> Result<bool, Status> {
        let attributes = self.attributes;
        let is_namespace = attributes.is_resource("", "namespaces");
        if attributes.request_namespace().is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = criteria.namespace_selector.as_ref().map_err(Status::internal)?;
        if selector.is_empty() {
            return Ok(true);
        }
        // A write of a namespace is matched by the labels that it sets.
        if is_namespace && attributes.is_object() && attributes.is_write() {
            let labels = object.and_then(Object::labels);
            return Ok(selector.matches(|key| label(labels, key)));
        }
        let namespace = self.namespace().await?;
        Ok(selector.matches(|key| namespace.as_ref()?.label(key)))
    }

    /// The labels of the new and the old object. A `Scale` has no labels.
    fn objects<'o>(&'o self, object: Option<&'o Object>) -> impl Iterator<Item = Option<&'o Map>> {
        let is_scale = self.attributes.is_scale();
        let objects = [object, self.attributes.old].into_iter().flatten();
        objects.map(move |object| object.labels().filter(|_| !is_scale))
    }
}

fn label<'o>(labels: Option<&'o Map>, key: &str) -> Option<&'o str> {
    labels?.get(key)?.as_str()
}

/// Returns the other versions of the request's resource that have the subresource, and those of the resource in another
/// group that shares its storage.
fn equivalents(attributes: &Attributes<'_>, interfaces: &dyn ObjectInterfaces) -> Vec<MatchedResource> {
    let def = attributes.def;
    let in_version = |def: &ResourceDef, version: &ResourceVersion| {
        Some(MatchedResource {
            resource: GroupVersionResource::new(&*def.group, &*version.name, &*def.resource),
            kind: def.kind_of(version, attributes.subresource)?,
        })
    };
    let of = |def: &ResourceDef| {
        let versions = def.versions.iter().filter_map(|version| in_version(def, version));
        versions.collect::<Vec<_>>()
    };
    let mut found = of(def);
    for (resource, group) in nave_resources::cohabiting_resources(&def.group, &def.resource) {
        found.extend(interfaces.definition(group, resource).iter().flat_map(|other| of(other)));
    }
    let requested = attributes.resource();
    found.retain(|it| it.resource != requested);
    found
}

#[cfg(test)]
mod tests;
