//! Role-based access control, indexed by subject (upstream: `plugin/pkg/auth/authorizer/rbac`).
//!
//! | file | contents |
//! | --- | --- |
//! | `rule` | [`Rule`]: the requests that a rule allows |
//! | `objects` | deserialized roles and bindings; [`Change`] |
//! | `index` | roles and bindings by subject |
//! | `covering` | the parts of rules that other rules do not cover |
//! | `escalation` | privilege escalation checks |
//!
//! A check looks up the grants of the user and each group, in the cluster and in the namespace, and scans them. It
//! takes no lock and does not visit bindings of other subjects.

mod covering;
mod escalation;
mod index;
mod objects;
mod rule;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;

pub use objects::{Change, GROUP, Kind};
pub use rule::{Entries, Rule};

pub(crate) use covering::not_covered;

use crate::chain::aggregate;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Verdict};
use index::{HashedRequest, Index};

/// The RBAC authorizer.
#[derive(Default)]
pub struct Rbac {
    current: ArcSwap<Index>,
    writer: Mutex<()>,
}

impl Rbac {
    /// Applies changes; later decisions see all of them.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let _only = self.writer.lock();
        let changed = self.current.load().with(changes);
        self.current.store(Arc::new(changed));
    }

    /// Replaces all objects of one kind with `objects`, which must not contain deletions.
    pub fn replace(&self, kind: Kind, objects: Vec<Change>) {
        let _only = self.writer.lock();
        let current = self.current.load();
        let gone = current.missing(kind, &objects);
        let changed = current.with(gone.into_iter().chain(objects));
        self.current.store(Arc::new(changed));
    }

    /// Checks that a user holds the rules of a role in a namespace (empty for a cluster role). `aggregates` is true if
    /// the role has an aggregation rule. The caller must exempt members of `system:masters`.
    ///
    /// # Errors
    /// The reason, with upstream's message.
    pub fn confirm_role(
        &self,
        user: &UserInfo,
        namespace: &str,
        rules: &[Rule],
        aggregates: bool,
    ) -> Result<(), String> {
        self.confirm(user, namespace, rules)?;
        if aggregates && self.confirm(user, namespace, &escalation::full_authority()).is_err() {
            return Err("must have cluster-admin privileges to use the aggregationRule".to_owned());
        }
        Ok(())
    }

    /// Checks that a user holds the rules of a role that a binding grants in a namespace (empty for the whole cluster).
    /// The caller must exempt members of `system:masters`.
    ///
    /// # Errors
    /// The reason, with upstream's message.
    pub fn confirm_binding(&self, user: &UserInfo, namespace: &str, rules: &[Rule]) -> Result<(), String> {
        self.confirm(user, namespace, rules)
    }

    fn confirm(&self, user: &UserInfo, namespace: &str, granted: &[Rule]) -> Result<(), String> {
        let index = self.current.load();
        let held: Vec<&Rule> = index.grants(user, namespace).flat_map(index::Grants::rules).collect();
        let errors = aggregate(index.grants(user, namespace).flat_map(index::Grants::errors));
        escalation::confirm_no_escalation(user, &held, errors.as_deref(), granted)
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let index = self.current.load();
        let request = HashedRequest::new(attributes);
        let grants = || index.grants(attributes.user, attributes.namespace);
        if let Some(grant) = grants().find_map(|grants| grants.allowing(&request)) {
            return Verdict::allow(format!("RBAC: allowed by {}", grant.describe()));
        }
        match aggregate(grants().flat_map(index::Grants::errors)) {
            Some(errors) => Verdict::no_opinion(format!("RBAC: {errors}")),
            None => Verdict::no_opinion(""),
        }
    }
}

impl RuleResolver for Rbac {
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let index = self.current.load();
        let grants = || index.grants(user, namespace);
        let mut listed =
            UserRules { error: aggregate(grants().flat_map(index::Grants::errors)), ..UserRules::default() };
        let mut entries = 0;
        for rule in grants().flat_map(index::Grants::rules) {
            entries += rule.all_entries().map(Entries::weight).sum::<usize>();
            if entries > MAX_LISTED {
                listed.incomplete = true;
                break;
            }
            listed.rules.push(rule.clone());
        }
        listed
    }
}

/// The maximum size of the rules listed for a user, in bytes. It is limited because each review copies the rules.
const MAX_LISTED: usize = 2 << 20;
