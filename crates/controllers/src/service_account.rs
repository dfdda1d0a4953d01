//! The service account `default` of each namespace (upstream: `serviceaccount`).

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use nave_client::{Action, Deleted, EventHandler, Lister, Object, ObjectName, Workqueue, on_each};

use crate::api;
use crate::frame::{Context, Descriptor, SyncError, work};

/// The account that pods run as which name none.
const DEFAULT: &str = "default";

/// The controller.
pub(crate) const SERVICE_ACCOUNT: Descriptor = Descriptor {
    name: "serviceaccount-controller",
    alias: "serviceaccount",
    service_account: "service-account-controller",
    on_by_default: true,
    start: |context| Box::pin(start(context)),
};

fn start(context: &Context) -> impl Future<Output = ()> + use<> {
    let queue = Workqueue::new();
    let namespaces = context.informers.informer::<Namespace>();
    let accounts = context.informers.informer::<ServiceAccount>();
    let changed = queue.clone();
    let handlers = [
        namespaces.add_event_handler(on_each(move |namespace| changed.add(namespace.key()))),
        accounts.add_event_handler(AccountGone(queue.clone())),
    ];
    let controller = ServiceAccountController {
        client: context.client.clone(),
        namespaces: namespaces.lister(),
        accounts: accounts.lister(),
    };
    let stop = context.stop.clone();
    async move {
        api::synced(&handlers, &stop).await;
        let controller = &controller;
        work(&queue, stop, |key| async move { controller.sync(&key).await }).await;
    }
}

struct ServiceAccountController {
    client: kube::Client,
    namespaces: Lister<Namespace>,
    accounts: Lister<ServiceAccount>,
}

impl ServiceAccountController {
    /// Makes the account of a namespace, if there is none.
    async fn sync(&self, namespace: &ObjectName) -> Result<Action, SyncError> {
        let lives =
            self.namespaces.get_by_key(namespace).is_some_and(|namespace| !namespace.is_being_deleted());
        if !lives || self.accounts.get(namespace.name(), DEFAULT).is_some() {
            return Ok(Action::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let accounts = Api::namespaced(self.client.clone(), namespace.name());
        api::created(accounts.create(&PostParams::default(), &account).await)?;
        Ok(Action::Done)
    }
}

/// Has the namespace of a default account that is gone looked at.
struct AccountGone(Workqueue);

impl EventHandler<ServiceAccount> for AccountGone {
    fn on_add(&self, _: &Object<ServiceAccount>, _: bool) {}

    fn on_update(&self, _: &Object<ServiceAccount>, _: &Object<ServiceAccount>) {}

    fn on_delete(&self, deleted: &Deleted<ServiceAccount>) {
        if deleted.object().name() == DEFAULT {
            self.0.add(ObjectName::new("", deleted.object().namespace()));
        }
    }
}
