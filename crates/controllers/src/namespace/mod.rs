//! Namespaces: deletes the contents of a terminating namespace before the namespace itself (upstream: `namespace`).

mod conditions;
mod content;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use nave_client::{Action, ObjectName};
use parking_lot::Mutex;

use crate::api;
use crate::discovery::Discovered;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The finalizer that blocks the removal of a namespace until its contents are deleted.
const KUBERNETES: &str = "kubernetes";
/// The first and the maximum delay between attempts. The delay doubles after each attempt. (Upstream waits for half
/// the grace period of the pods, even if they terminate at once.)
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(15));

pub(crate) const NAMESPACE: Descriptor = Descriptor {
    name: "namespace-controller",
    alias: "namespace",
    service_account: "namespace-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-namespace-syncs", 10),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("namespace");
    let namespaces = builder.informer::<Namespace>();
    builder.enqueue_mapped(&namespaces, |namespace| namespace.is_being_deleted().then(|| namespace.key()));
    builder.run(NamespaceController { client: context.client.clone(), attempts: Mutex::default() })
}

/// Deletes the contents of terminating namespaces.
struct NamespaceController {
    client: kube::Client,
    /// The number of incomplete attempts by namespace.
    attempts: Mutex<HashMap<ObjectName, u32>>,
}

impl Reconciler for NamespaceController {
    /// Continues the deletion of a namespace.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let key = &key;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let Some(mut namespace) = namespaces.get_opt(key.name()).await? else {
            self.attempts.lock().remove(key);
            return Ok(Action::Done);
        };
        let Some(deleted_at) = namespace.metadata.deletion_timestamp.as_ref().map(|time| time.0) else {
            return Ok(Action::Done);
        };
        if !is_held(&namespace) {
            return Ok(Action::Done);
        }
        let discovered = Discovered::discover(&self.client).await?;
        let progress = content::delete(&self.client, &discovered, key.name(), deleted_at).await;
        let status = namespace.status.get_or_insert_default();
        let terminating = status.phase.replace("Terminating".to_owned()).as_deref() == Some("Terminating");
        if progress.update_conditions(status, Timestamp::now()) || !terminating {
            namespace = namespaces.replace_status(key.name(), &PostParams::default(), &namespace).await?;
        }
        if progress.is_done() {
            self.finalize(&namespaces, namespace).await?;
            self.attempts.lock().remove(key);
            return Ok(Action::Done);
        }
        if progress.estimate_seconds == 0
            && let Some(error) = progress.error()
        {
            return Err(SyncError::Invalid(error));
        }
        Ok(Action::RequeueAfter(self.wait(key)))
    }
}

impl NamespaceController {
    /// Returns the delay before the next attempt.
    fn wait(&self, key: &ObjectName) -> Duration {
        let mut by_namespace = self.attempts.lock();
        let attempts = by_namespace.entry(key.clone()).or_default();
        let wait = WAITS.0.saturating_mul(1 << (*attempts).min(16)).min(WAITS.1);
        *attempts += 1;
        wait
    }

    /// Removes the finalizer of the namespace.
    async fn finalize(&self, namespaces: &Api<Namespace>, mut namespace: Namespace) -> Result<(), SyncError> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != KUBERNETES);
        }
        let finalized =
            namespaces.replace_subresource("finalize", &name, &PostParams::default(), &namespace).await;
        api::ignore_not_found(finalized)
    }
}

fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == KUBERNETES))
}
