//! `ComponentStatus`: the health of the scheduler, the controller manager and the stores (upstream:
//! `registry/core/componentstatus`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use http::Uri;
use nave_machinery::Value;
use nave_store::Store;
use nave_webhook::{Client, ClientError, Roots, Tls};
use serde_json::json;
use tokio::time::timeout;

use crate::catalog::Catalog;
use crate::endpoints::computed_resource::ComputedResource;

/// Timeout of a check.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum length of the message from a component, in characters.
const MAX_MESSAGE: usize = 10 * 1024;
/// The default ports of the components, which upstream assumes too.
const CONTROLLER_MANAGER: u16 = 10_257;
const SCHEDULER: u16 = 10_259;

/// Serves the statuses of components.
pub(super) struct ComponentStatuses {
    client: Client,
    /// The address of the controller manager's check; `None` if the controllers run in this process.
    controller_manager: Option<Uri>,
    scheduler: Uri,
}

/// A component and the way to check it.
enum Component<'a> {
    /// A part of this process.
    Own,
    /// An HTTPS server on this machine.
    Server(&'a Uri),
    Store(&'a Arc<dyn Store>),
}

/// The result of a check: a message, or a failure.
enum Health {
    Passed(String),
    /// The component answered that it is not healthy, or it did not answer.
    Failed(String),
    /// The store reported an error.
    Error(String),
}

impl ComponentStatuses {
    /// Creates the checks. With `runs_controllers` the controllers are a part of this process.
    pub(super) fn new(runs_controllers: bool) -> Result<Self, ClientError> {
        // As upstream: the components have self-signed certificates.
        let tls = Tls { roots: Roots::Unchecked, ..Tls::default() };
        Ok(Self {
            client: Client::new(tls, TIMEOUT)?,
            controller_manager: if runs_controllers { None } else { Some(healthz(CONTROLLER_MANAGER)?) },
            scheduler: healthz(SCHEDULER)?,
        })
    }

    async fn status(&self, name: &str, component: &Component<'_>) -> Value {
        let health = match component {
            Component::Own => Health::Passed("ok".to_owned()),
            Component::Server(uri) => self.ask(uri).await,
            Component::Store(store) => ask_store(store).await,
        };
        let mut condition = json!({"type": "Healthy"});
        let (status, field, text) = match health {
            Health::Passed(message) => ("True", "message", message),
            Health::Failed(message) => ("False", "message", message),
            Health::Error(error) => ("False", "error", error),
        };
        condition["status"] = status.into();
        if !text.is_empty() {
            condition[field] = text.into();
        }
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
    }

    async fn ask(&self, uri: &Uri) -> Health {
        match self.client.get(uri).await {
            Ok(response) if response.status.is_success() || response.status.is_redirection() => {
                Health::Passed(String::from_utf8_lossy(&response.body).chars().take(MAX_MESSAGE).collect())
            }
            Ok(response) => {
                Health::Failed(format!("HTTP probe failed with statuscode: {}", response.status.as_u16()))
            }
            Err(error) => Health::Failed(format!("Get {:?}: {error}", uri.to_string())),
        }
    }
}

#[async_trait]
impl ComputedResource for ComponentStatuses {
    async fn objects(&self, catalog: &Catalog, name: Option<&str>) -> Vec<Value> {
        let controllers = self.controller_manager.as_ref().map_or(Component::Own, Component::Server);
        let mut components = vec![("controller-manager".to_owned(), controllers)];
        let stores = catalog.storages().stores().all().enumerate();
        components.extend(stores.map(|(index, store)| (format!("etcd-{index}"), Component::Store(store))));
        components.push(("scheduler".to_owned(), Component::Server(&self.scheduler)));
        components.retain(|(own, _)| name.is_none_or(|name| name == own));
        join_all(components.iter().map(|(name, component)| self.status(name, component))).await
    }
}

async fn ask_store(store: &Arc<dyn Store>) -> Health {
    match timeout(TIMEOUT, store.status()).await {
        Ok(Ok(_)) => Health::Passed("ok".to_owned()),
        Ok(Err(error)) => Health::Error(error.to_string()),
        Err(_) => Health::Error("context deadline exceeded".to_owned()),
    }
}

fn healthz(port: u16) -> Result<Uri, ClientError> {
    let address = format!("127.0.0.1:{port}");
    let uri = Uri::builder().scheme("https").authority(address).path_and_query("/healthz").build();
    uri.map_err(ClientError::Request)
}
