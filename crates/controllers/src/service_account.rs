//! The service account `default` of each namespace (upstream: `serviceaccount`).

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use nave_client::{Action, Lister, ObjectName, on_delete};

use crate::api;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The account that pods run as which name none.
const DEFAULT: &str = "default";

/// The controller.
pub(crate) const SERVICE_ACCOUNT: Descriptor = Descriptor {
    name: "serviceaccount-controller",
    alias: "serviceaccount",
    service_account: "service-account-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("serviceaccount");
    let (namespaces, accounts) = (builder.informer::<Namespace>(), builder.informer::<ServiceAccount>());
    builder.work_on(&namespaces);
    let queue = builder.queue();
    builder.watch(
        &accounts,
        on_delete(move |account| {
            if account.name() == DEFAULT {
                queue.add(ObjectName::new("", account.namespace()));
            }
        }),
    );
    builder.run(ServiceAccountController {
        client: context.client.clone(),
        namespaces: namespaces.lister(),
        accounts: accounts.lister(),
    })
}

struct ServiceAccountController {
    client: kube::Client,
    namespaces: Lister<Namespace>,
    accounts: Lister<ServiceAccount>,
}

impl Reconciler for ServiceAccountController {
    /// Makes the account of a namespace, if there is none.
    async fn sync(&self, namespace: ObjectName) -> Result<Action, SyncError> {
        let lives =
            self.namespaces.get_by_key(&namespace).is_some_and(|namespace| !namespace.is_being_deleted());
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
