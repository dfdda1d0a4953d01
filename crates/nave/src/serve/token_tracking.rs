//! The day on which a token from a secret was used last, noted at the secret (upstream: `LegacyServiceAccountTokenTracking`).

use std::convert::Infallible;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nave_apiserver::context::server_user;
use nave_apiserver::server::ApiServer;
use nave_authn::service_account::{LAST_USED, SecretUse};
use nave_client::redacted;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

/// Notes what is told, one after the other.
pub(super) async fn keep(api: &ApiServer, used: &Mutex<mpsc::Receiver<SecretUse>>) -> Infallible {
    let mut used = used.lock().await;
    let client = kube::Client::new(api.local(server_user()), "default");
    while let Some(SecretUse { namespace, name, date }) = used.recv().await {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let patch = Patch::Merge(json!({"metadata": {"labels": {(LAST_USED): date}}}));
        if let Err(error) = secrets.patch(&name, &PatchParams::default(), &patch).await.map_err(redacted) {
            // It is told of again at the next use.
            tracing::warn!(%error, namespace, name, "the use of a token is not noted");
        }
    }
    std::future::pending().await
}
