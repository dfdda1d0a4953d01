//! Records the date on which a legacy token was last used in its secret (upstream:
//! `LegacyServiceAccountTokenTracking`).

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

/// Records token uses, one at a time.
pub(super) async fn record_uses(api: &ApiServer, used: &Mutex<mpsc::Receiver<SecretUse>>) -> Infallible {
    let mut used = used.lock().await;
    let client = kube::Client::new(api.local(server_user()), "default");
    while let Some(SecretUse { namespace, name, date }) = used.recv().await {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let patch = Patch::Merge(json!({"metadata": {"labels": {(LAST_USED): date}}}));
        if let Err(error) = secrets.patch(&name, &PatchParams::default(), &patch).await.map_err(redacted) {
            // The next use of the token retries this.
            tracing::warn!(%error, namespace, name, "recording the last use of a token failed");
        }
    }
    std::future::pending().await
}
