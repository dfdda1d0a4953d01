//! Roles and bindings, indexed by subject.
//!
//! ```text
//! scope (namespace, or the cluster) ─► user or group ─► Grants: one per binding, with its role's rules;
//!                                                       if there are many, indexed by resource
//! ```
//!
//! All maps are persistent (`imbl`): an updated index shares its unchanged parts with the previous one.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use imbl::{HashMap, OrdSet};
use nave_machinery::user::UserInfo;
use serde::de::DeserializeOwned;

use super::objects::{Binding, Change, Key, Kind, Role, Subject, Who};
use super::rule::{ALL, Rule};
use crate::Attributes;

/// The rules of a role.
pub(super) type Rules = Arc<[Rule]>;

/// A snapshot of all roles and bindings.
#[derive(Clone, Default)]
pub(super) struct Index {
    roles: HashMap<Key, Rules>,
    bindings: HashMap<Key, Arc<Binding>>,
    /// The bindings that refer to each role, including roles that do not exist.
    referrers: HashMap<Key, OrdSet<Key>>,
    scopes: HashMap<Arc<str>, Scope>,
}

/// The grants of one namespace, or of the cluster.
#[derive(Clone, Default)]
struct Scope {
    users: HashMap<Arc<str>, Arc<Grants>>,
    groups: HashMap<Arc<str>, Arc<Grants>>,
}

/// The grants of one user or group in one scope, ordered by role and binding.
#[derive(Default)]
pub(super) struct Grants {
    list: Vec<Grant>,
    /// The number of grants of roles that do not exist.
    unresolved: usize,
    /// The lookup table of grants by the resources of their rules. Built on first use.
    places: OnceLock<Places>,
}

/// For the hash of each resource in rules, the indexes of grants: the first grant of each role with such a rule.
type Places = std::collections::HashMap<u64, Vec<u32>>;

/// A role granted by a binding.
#[derive(Clone)]
pub(super) struct Grant {
    /// The role, if the reference is valid, and the binding.
    key: (Option<Key>, Key),
    binding: Arc<Binding>,
    /// The index of the subject in the binding.
    subject: usize,
    /// The role's rules; `None` if the role does not exist.
    rules: Option<Rules>,
}

/// The subjects whose grants must be rebuilt.
type Affected = BTreeSet<(Arc<str>, Who)>;

impl Index {
    /// Returns an index with these changes applied.
    pub(super) fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut index = self.clone();
        let mut roles = BTreeSet::new();
        for Change { kind, namespace, name, json } in changes {
            let key = Key::new(&namespace, &name);
            match kind {
                Kind::Role | Kind::ClusterRole => {
                    match json.and_then(|json| read::<Role>(&key, &json)) {
                        Some(role) => index.roles.insert(key.clone(), role.rules.unwrap_or_default().into()),
                        None => index.roles.remove(&key),
                    };
                    roles.insert(key);
                }
                Kind::RoleBinding | Kind::ClusterRoleBinding => {
                    index.unbind(&key);
                    if let Some(binding) = json.and_then(|json| read(&key, &json)) {
                        index.bind(key, Arc::new(binding));
                    }
                }
            }
        }
        index.renew(&roles);
        index
    }

    /// Returns deletions for all objects of a kind that are not in `present`.
    pub(super) fn missing(&self, kind: Kind, present: &[Change]) -> Vec<Change> {
        let cluster = matches!(kind, Kind::ClusterRole | Kind::ClusterRoleBinding);
        let present: BTreeSet<Key> = present.iter().map(|it| Key::new(&it.namespace, &it.name)).collect();
        let roles = matches!(kind, Kind::Role | Kind::ClusterRole);
        let known: Vec<&Key> =
            if roles { self.roles.keys().collect() } else { self.bindings.keys().collect() };
        let gone =
            known.into_iter().filter(|key| key.namespace.is_empty() == cluster && !present.contains(key));
        let change = |key: &Key| Change {
            kind,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            json: None,
        };
        gone.map(change).collect()
    }

    /// Returns all grants of a user that apply in `namespace`: cluster-wide grants first, then those of the namespace.
    pub(super) fn grants<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grants> {
        let local = (!namespace.is_empty()).then_some(namespace);
        let scopes = [Some(""), local].into_iter().flatten().filter_map(|scope| self.scopes.get(scope));
        scopes.flat_map(|scope| {
            let groups = user.groups.iter().filter_map(|group| scope.groups.get(group.as_str()));
            scope.users.get(user.name.as_str()).into_iter().chain(groups).map(|grants| &**grants)
        })
    }

    fn bind(&mut self, key: Key, binding: Arc<Binding>) {
        let role = binding.role();
        let rules = role.as_ref().and_then(|role| self.roles.get(role)).cloned();
        if let Some(role) = &role {
            self.referrers.entry(role.clone()).or_default().insert(key.clone());
        }
        for (who, subject) in whom(&binding) {
            let (binding, rules) = (Arc::clone(&binding), rules.clone());
            let grant = Grant { key: (role.clone(), key.clone()), binding, subject, rules };
            self.change(&key.namespace, &who, |grants| grants.insert(grant));
        }
        self.bindings.insert(key, binding);
    }

    fn unbind(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        let role = binding.role();
        if let Some(role) = &role
            && let Some(referrers) = self.referrers.get_mut(role)
        {
            referrers.remove(key);
            if referrers.is_empty() {
                self.referrers.remove(role);
            }
        }
        let grant = (role, key.clone());
        for (who, _) in whom(&binding) {
            self.change(&key.namespace, &who, |grants| grants.remove(&grant));
        }
    }

    /// Updates the grants of the changed roles, each grant once.
    fn renew(&mut self, roles: &BTreeSet<Key>) {
        let mut affected = Affected::new();
        for role in roles {
            for key in self.referrers.get(role).into_iter().flatten() {
                let Some(binding) = self.bindings.get(key) else { continue };
                affected.extend(whom(binding).map(|(who, _)| (Arc::clone(&key.namespace), who)));
            }
        }
        let rules = self.roles.clone();
        for (namespace, who) in affected {
            self.change(&namespace, &who, |grants| grants.renew(roles, &rules));
        }
    }

    fn change(&mut self, namespace: &Arc<str>, who: &Who, change: impl FnOnce(&mut Grants)) {
        let scope = self.scopes.entry(Arc::clone(namespace)).or_default();
        let (grants, name) = match who {
            Who::User(name) => (&mut scope.users, name),
            Who::Group(name) => (&mut scope.groups, name),
        };
        let changed = Arc::make_mut(grants.entry(Arc::clone(name)).or_default());
        change(changed);
        if changed.list.is_empty() {
            grants.remove(name);
        }
        if scope.users.is_empty() && scope.groups.is_empty() {
            self.scopes.remove(namespace);
        }
    }
}

fn read<T: DeserializeOwned>(key: &Key, json: &[u8]) -> Option<T> {
    let object = serde_json::from_slice(json);
    object.inspect_err(|error| tracing::error!(?key, %error, "invalid role or binding ignored")).ok()
}

/// Returns the subjects of a binding, each once, with the index of its first entry.
fn whom(binding: &Binding) -> impl Iterator<Item = (Who, usize)> {
    let namespace = &binding.metadata.namespace;
    let mut seen = BTreeSet::new();
    let subjects = binding.subjects.iter().flatten().enumerate();
    subjects.filter_map(move |(at, subject)| {
        let who = subject.who(namespace)?;
        seen.insert(who.clone()).then_some((who, at))
    })
}

impl Clone for Grants {
    /// Does not copy the lookup table, because clones are made to be modified.
    fn clone(&self) -> Self {
        Self { list: self.list.clone(), unresolved: self.unresolved, places: OnceLock::new() }
    }
}

impl Grants {
    /// Returns a grant that allows the request.
    pub(super) fn allowing(&self, request: &HashedRequest<'_>) -> Option<&Grant> {
        let allows = |grant: &&Grant| {
            grant.rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(request.attributes))
        };
        if self.list.len() <= FEW {
            return self.first_of_each_role().map(|(_, grant)| grant).find(allows);
        }
        let places = self.places.get_or_init(|| self.by_resource());
        let named = request.words.iter().filter_map(|word| places.get(word)).flatten();
        named.filter_map(|at| self.list.get(*at as usize)).find(allows)
    }

    /// Returns the errors about roles that do not exist.
    pub(super) fn errors(&self) -> impl Iterator<Item = String> {
        // Skips the search if no grants are unresolved, which is the usual case.
        let grants = if self.unresolved == 0 { &[][..] } else { &self.list };
        grants.iter().filter(|grant| grant.rules.is_none()).map(|grant| grant.binding.role_ref.not_found())
    }

    /// Returns the rules of all grants, with each role's rules once.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.first_of_each_role().flat_map(|(_, grant)| grant.rules.iter().flat_map(|rules| rules.iter()))
    }

    /// Returns the first grant of each role with its index, as grants are ordered by role.
    fn first_of_each_role(&self) -> impl Iterator<Item = (usize, &Grant)> {
        let all = self.list.iter().enumerate();
        all.filter(|(at, grant)| *at == 0 || self.list[at - 1].key.0 != grant.key.0)
    }

    fn by_resource(&self) -> Places {
        let mut places = Places::new();
        for (at, grant) in self.first_of_each_role() {
            for rule in grant.rules.iter().flat_map(|rules| rules.iter()) {
                let paths = (!rule.non_resource_urls.is_empty()).then_some(PATHS);
                for word in rule.resources.iter().map(|word| hash(&[word])).chain(paths) {
                    let found = places.entry(word).or_default();
                    if found.last() != Some(&(at as u32)) {
                        found.push(at as u32);
                    }
                }
            }
        }
        places
    }

    fn insert(&mut self, grant: Grant) {
        let at = self.list.partition_point(|other| other.key < grant.key);
        self.unresolved += usize::from(grant.rules.is_none());
        self.list.insert(at, grant);
        self.places.take();
    }

    fn remove(&mut self, key: &(Option<Key>, Key)) {
        if let Ok(at) = self.list.binary_search_by(|grant| grant.key.cmp(key)) {
            self.unresolved -= usize::from(self.list.remove(at).rules.is_none());
            self.places.take();
        }
    }

    fn renew(&mut self, changed: &BTreeSet<Key>, roles: &HashMap<Key, Rules>) {
        for grant in &mut self.list {
            if let Some(role) = grant.key.0.as_ref().filter(|role| changed.contains(*role)) {
                grant.rules = roles.get(role).cloned();
            }
        }
        self.unresolved = self.list.iter().filter(|grant| grant.rules.is_none()).count();
        self.places.take();
    }
}

impl Grant {
    /// Formats the grant for a reason: `RoleBinding "name/namespace" of Role "r" to User "u"`.
    pub(super) fn describe(&self) -> String {
        let unknown = Subject::default();
        let subject = self.binding.subjects.iter().flatten().nth(self.subject).unwrap_or(&unknown);
        self.binding.describe(subject)
    }
}

/// A request, with the hashes of the resource names in rules that can match it.
pub(super) struct HashedRequest<'a> {
    attributes: &'a Attributes<'a>,
    words: [u64; 3],
}

impl<'a> HashedRequest<'a> {
    pub(super) fn new(attributes: &'a Attributes<'a>) -> Self {
        let Attributes { resource, subresource, .. } = *attributes;
        let words = match (attributes.is_resource_request(), subresource.is_empty()) {
            (false, _) => [PATHS, NONE, NONE],
            (true, true) => [hash(&[resource]), hash(&[ALL]), NONE],
            (true, false) => [hash(&[resource, "/", subresource]), hash(&[ALL]), hash(&["*/", subresource])],
        };
        Self { attributes, words }
    }
}

/// The maximum number of grants that are scanned without the lookup table.
const FEW: usize = 16;

/// The key of rules for non-resource paths.
const PATHS: u64 = 1;

/// A key that never matches.
const NONE: u64 = 0;

/// Returns the FNV-1a hash of the concatenated parts. A collision costs only a check of rules that do not match.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
