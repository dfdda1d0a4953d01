//! Role-based access control, as an index over roles and bindings (upstream: `plugin/pkg/auth/authorizer/rbac`).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `rule` | [`Rule`]: what one allows and covers |
//! | `objects` | roles and bindings as they are read; [`Change`] |
//! | `index` | roles and bindings arranged by whom they are for |
//! | `covering` | what rules allow that others do not |
//! | `escalation` | nobody gives away what they do not have |
//!
//! A question takes one look-up for the user and one for each group, in the cluster and in the namespace, and then a
//! scan of what is granted there: no lock, and no walk over bindings that are for others.

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
pub use rule::{Rule, Words};

pub(crate) use covering::not_covered;

use crate::chain::aggregate;
use crate::rules::{RuleResolver, UserRules};
use crate::{Attributes, Authorizer, Verdict};
use index::{Asked, Index};

/// The authorizer.
#[derive(Default)]
pub struct Rbac {
    current: ArcSwap<Index>,
    writer: Mutex<()>,
}

impl Rbac {
    /// Takes in changes; what follows is decided with all of them.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let _only = self.writer.lock();
        let changed = self.current.load().with(changes);
        self.current.store(Arc::new(changed));
    }

    /// Takes in all objects of one kind: `objects` are puts, and what is not among them is gone.
    pub fn replace(&self, kind: Kind, objects: Vec<Change>) {
        let _only = self.writer.lock();
        let current = self.current.load();
        let gone = current.missing(kind, &objects);
        let changed = current.with(gone.into_iter().chain(objects));
        self.current.store(Arc::new(changed));
    }

    /// Whether a user who is not in `system:masters` may put these rules into a role of a namespace (empty for a
    /// cluster role), for all that the index says; `aggregates` if the role gathers the rules of others.
    ///
    /// # Errors
    /// Why not, in upstream's words.
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

    /// Whether a user who is not in `system:masters` may give a role with these rules to others in a namespace (empty
    /// for the whole cluster), for all that the index says.
    ///
    /// # Errors
    /// Why not, in upstream's words.
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
        let asked = Asked::new(attributes);
        let grants = || index.grants(attributes.user, attributes.namespace);
        if let Some(grant) = grants().find_map(|grants| grants.allowing(&asked)) {
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
        let mut words = 0;
        for rule in grants().flat_map(index::Grants::rules) {
            words += rule.all_words().map(Words::weight).sum::<usize>();
            if words > MAX_LISTED {
                listed.incomplete = true;
                break;
            }
            listed.rules.push(rule.clone());
        }
        listed
    }
}

/// The most bytes of words in the rules that are listed for a user: they are copied for each review.
const MAX_LISTED: usize = 2 << 20;
