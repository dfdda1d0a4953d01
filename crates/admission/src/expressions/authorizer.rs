//! The authorizer that expressions can ask.

use std::collections::HashMap;

use futures_util::FutureExt;
use nave_authz::{Attributes, Selected};
use nave_cel::{Authorizer, Decision, PathCheck, ResourceCheck};
use nave_machinery::selector::{FieldSelector, LabelSelector};
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;

/// The checks of one request. Each is decided once, for all expressions of the request.
///
/// Expressions are evaluated synchronously, and most authorizers decide without waiting. If one has to wait (a
/// webhook), the check is noted and answered with no opinion, and the evaluation is void: [`Self::settle`] awaits the
/// decision and evaluates again. Each check costs 350,000, so few rounds are possible.
pub struct AuthorizerChecks<'a> {
    chain: &'a nave_authz::Chain,
    user: &'a UserInfo,
    decisions: Mutex<HashMap<Check, Decision>>,
    undecided: Mutex<Vec<Check>>,
}

/// A check and its verb.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Check {
    Path(PathCheck, String),
    Resource(ResourceCheck, String),
}

impl<'a> AuthorizerChecks<'a> {
    /// Creates the checks of a request of `user`.
    pub fn new(chain: &'a nave_authz::Chain, user: &'a UserInfo) -> Self {
        Self { chain, user, decisions: Mutex::default(), undecided: Mutex::default() }
    }

    /// Evaluates until no check is undecided; returns the last result.
    pub async fn settle<T>(&self, mut evaluate: impl FnMut() -> T) -> T {
        loop {
            let undecided = {
                let result = evaluate();
                let undecided = std::mem::take(&mut *self.undecided.lock());
                if undecided.is_empty() {
                    return result;
                }
                undecided
            };
            for check in undecided {
                let decision = decide(self.chain, self.user, &check).await;
                self.decisions.lock().insert(check, decision);
            }
        }
    }

    /// Returns whether the current evaluation is void.
    pub(crate) fn is_void(&self) -> bool {
        !self.undecided.lock().is_empty()
    }

    fn check(&self, check: Check) -> Decision {
        if let Some(decision) = self.decisions.lock().get(&check) {
            return decision.clone();
        }
        let Some(decision) = decide(self.chain, self.user, &check).now_or_never() else {
            self.undecided.lock().push(check);
            return Decision::default();
        };
        self.decisions.lock().insert(check, decision.clone());
        decision
    }
}

impl Authorizer for AuthorizerChecks<'_> {
    fn check_path(&self, check: &PathCheck, verb: &str) -> Decision {
        self.check(Check::Path(check.clone(), verb.to_owned()))
    }

    fn check_resource(&self, check: &ResourceCheck, verb: &str) -> Decision {
        self.check(Check::Resource(check.clone(), verb.to_owned()))
    }
}

async fn decide(chain: &nave_authz::Chain, user: &UserInfo, check: &Check) -> Decision {
    let (Check::Path(PathCheck { subject, .. }, _) | Check::Resource(ResourceCheck { subject, .. }, _)) =
        check;
    let account = subject.service_account.as_ref().map(|(namespace, name)| service_account(namespace, name));
    let user = account.as_ref().unwrap_or(user);
    let verdict = match check {
        Check::Path(check, verb) => {
            chain.decide(&Attributes { verb, path: &check.path, ..Attributes::for_user(user) }).await
        }
        Check::Resource(check, verb) => {
            let (fields, labels) =
                (FieldSelector::parse(&check.field_selector), LabelSelector::parse(&check.label_selector));
            let attributes = Attributes {
                verb,
                group: &check.group,
                version: "*",
                resource: &check.resource,
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
                fields: Selected {
                    requirements: fields.as_ref().map_or(&[], |selector| selector.requirements()),
                    incomplete: fields.is_err(),
                },
                labels: Selected {
                    requirements: labels.as_ref().map_or(&[], |selector| selector.requirements()),
                    incomplete: labels.is_err(),
                },
                ..Attributes::for_user(user)
            };
            chain.decide(&attributes).await
        }
    };
    Decision {
        allowed: verdict.decision == nave_authz::Decision::Allow,
        reason: verdict.reason.into_owned(),
        error: verdict.error,
    }
}

/// Returns the user that a service account authenticates as.
fn service_account(namespace: &str, name: &str) -> UserInfo {
    UserInfo {
        name: nave_authn::service_account::user_name(namespace, name),
        groups: nave_authn::service_account::groups(namespace),
        ..UserInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use nave_authz::{Metrics, NamedAuthorizer, Verdict};

    use super::*;

    /// Allows `get` after it has waited.
    #[derive(Default)]
    struct Slow(AtomicUsize);

    #[async_trait]
    impl nave_authz::Authorizer for Slow {
        async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            match attributes.verb {
                "get" => Verdict::allow(format!("{} may get", attributes.user.name)),
                _ => Verdict::no_opinion(""),
            }
        }
    }

    #[tokio::test]
    async fn awaits_authorizers_that_cannot_decide_at_once() {
        let slow = Arc::new(Slow::default());
        let named = NamedAuthorizer {
            kind: "Webhook",
            name: "slow".into(),
            authorizer: Arc::clone(&slow) as _,
            resolver: None,
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let chain = nave_authz::Chain::new(vec![named], metrics);
        let user = UserInfo { name: "alice".to_owned(), ..UserInfo::default() };
        let checks = AuthorizerChecks::new(&chain, &user);
        let resource = ResourceCheck { resource: "pods".to_owned(), ..ResourceCheck::default() };
        let account = nave_cel::Subject { service_account: Some(("ns".to_owned(), "robot".to_owned())) };
        let account = ResourceCheck { subject: Arc::new(account), ..resource.clone() };
        let mut rounds = 0;
        let decisions = checks
            .settle(|| {
                rounds += 1;
                ["get", "list"]
                    .map(|verb| checks.check_resource(&resource, verb).allowed)
                    .into_iter()
                    .chain([
                        checks.check_resource(&account, "get").reason
                            == "system:serviceaccount:ns:robot may get",
                        checks.check_path(&PathCheck::default(), "get").allowed,
                    ])
                    .collect::<Vec<_>>()
            })
            .await;
        assert_eq!(decisions, [true, false, true, true]);
        assert_eq!(rounds, 2);
        // The authorizer is called twice for each check: once to see that it waits.
        assert_eq!(slow.0.load(Ordering::Relaxed), 8);
        assert!(!checks.is_void());
    }
}
