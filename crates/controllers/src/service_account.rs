//! Creates the service account `default` in each namespace (upstream: `serviceaccount`).

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use nave_client::{Action, Lister, ObjectName};

use crate::api;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The account of pods that do not specify an account.
const DEFAULT: &str = "default";

pub(crate) const SERVICE_ACCOUNT: Descriptor = Descriptor {
    name: "serviceaccount-controller",
    alias: "serviceaccount",
    service_account: "service-account-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, namespaces) = context.controller_for::<Namespace>("serviceaccount");
    let accounts = builder.informer::<ServiceAccount>();
    builder.enqueue_mapped_on_delete(&accounts, |account| {
        (account.name() == DEFAULT).then(|| ObjectName::new("", account.namespace()))
    });
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
    /// Creates the account in a namespace if it does not exist.
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
        api::ignore_already_exists(accounts.create(&PostParams::default(), &account).await)?;
        Ok(Action::Done)
    }
}
