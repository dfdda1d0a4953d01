//! Roles and bindings, arranged by whom they are for.
//!
//! ```text
//! scope (namespace, or the cluster) ─► user or group ─► Grants: one a binding, with its role's rules at hand;
//!                                                       where there are many, by the resources that roles name
//! ```
//!
//! All maps are persistent (`imbl`): a changed index shares all that did not change with the one before.

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

/// Roles and bindings at one time.
#[derive(Clone, Default)]
pub(super) struct Index {
    roles: HashMap<Key, Rules>,
    bindings: HashMap<Key, Arc<Binding>>,
    /// The bindings that refer to a role, whether it exists or not.
    referrers: HashMap<Key, OrdSet<Key>>,
    scopes: HashMap<Arc<str>, Scope>,
}

/// What is granted in one namespace, or in the whole cluster.
#[derive(Clone, Default)]
struct Scope {
    users: HashMap<Arc<str>, Arc<Grants>>,
    groups: HashMap<Arc<str>, Arc<Grants>>,
}

/// What one user or group is granted in one scope, ordered by role and binding.
#[derive(Default)]
pub(super) struct Grants {
    list: Vec<Grant>,
    /// How many grants are of roles that do not exist.
    unresolved: usize,
    /// Where to look for the rules on a resource, made when it is first asked for.
    places: OnceLock<Places>,
}

/// For the hash of each word that rules name resources by: the first grant of each role with such a rule.
type Places = std::collections::HashMap<u64, Vec<u32>>;

/// A role granted by a binding.
#[derive(Clone)]
pub(super) struct Grant {
    /// The role, if it can be one, and the binding.
    key: (Option<Key>, Key),
    binding: Arc<Binding>,
    /// Which of the binding's subjects is meant.
    subject: usize,
    /// The role's rules; `None` if there is no such role.
    rules: Option<Rules>,
}

/// Whose grants have to be put together anew.
type Affected = BTreeSet<(Arc<str>, Who)>;

impl Index {
    /// The index after some changes.
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

    /// That all objects of a kind are gone that are not among `present`.
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

    /// All that is granted to a user where something in `namespace` is asked for: first in the whole cluster, then
    /// in the namespace.
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

    /// Gives the changed roles' rules to all who are granted them, each once.
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
    object
        .inspect_err(|error| tracing::error!(?key, %error, "a role or binding grants nothing: not readable"))
        .ok()
}

/// For whom a binding is, each once, and by which of its subjects.
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
    /// A clone is made to be changed: its grants will stand in other places.
    fn clone(&self) -> Self {
        Self { list: self.list.clone(), unresolved: self.unresolved, places: OnceLock::new() }
    }
}

impl Grants {
    /// The grant that allows the request.
    pub(super) fn allowing(&self, asked: &Asked<'_>) -> Option<&Grant> {
        let allows = |grant: &&Grant| {
            grant.rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(asked.attributes))
        };
        if self.list.len() <= FEW {
            return self.of_each_role().map(|(_, grant)| grant).find(allows);
        }
        let places = self.places.get_or_init(|| self.by_resource());
        let named = asked.words.iter().filter_map(|word| places.get(word)).flatten();
        named.filter_map(|at| self.list.get(*at as usize)).find(allows)
    }

    /// What is to be said about roles that do not exist.
    pub(super) fn errors(&self) -> impl Iterator<Item = String> {
        // Most have none, so do not look for them.
        let grants = if self.unresolved == 0 { &[][..] } else { &self.list };
        grants.iter().filter(|grant| grant.rules.is_none()).map(|grant| grant.binding.role_ref.not_found())
    }

    /// The rules of all grants, those of a role once.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.of_each_role().flat_map(|(_, grant)| grant.rules.iter().flat_map(|rules| rules.iter()))
    }

    /// The first grant of each role, with its place; bindings of one role stand together.
    fn of_each_role(&self) -> impl Iterator<Item = (usize, &Grant)> {
        let all = self.list.iter().enumerate();
        all.filter(|(at, grant)| *at == 0 || self.list[at - 1].key.0 != grant.key.0)
    }

    fn by_resource(&self) -> Places {
        let mut places = Places::new();
        for (at, grant) in self.of_each_role() {
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
    /// As reasons show it: `RoleBinding "x/y" of Role "z" to User "u"`.
    pub(super) fn describe(&self) -> String {
        let unknown = Subject::default();
        let subject = self.binding.subjects.iter().flatten().nth(self.subject).unwrap_or(&unknown);
        self.binding.describe(subject)
    }
}

/// A request, with the hashes of the words by which rules that allow it name its resource.
pub(super) struct Asked<'a> {
    attributes: &'a Attributes<'a>,
    words: [u64; 3],
}

impl<'a> Asked<'a> {
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

/// Up to this many grants are looked at one by one.
const FEW: usize = 16;

/// Stands for rules on paths.
const PATHS: u64 = 1;

/// Stands for no word.
const NONE: u64 = 0;

/// FNV-1a of a word in parts. Words of the same hash only cost a look at rules that do not fit.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
