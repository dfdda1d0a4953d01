//! CustomResourceDefinitions in one server: many, hostile ones, documents, and concurrent changes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers may fail the test")]

#[path = "../common/mod.rs"]
mod common;
mod concurrent;
mod defaults;
mod documents;
mod family;
mod forms;
mod hostile;
mod operators;

use nave_machinery::{Value, conditions};
use tokio::task::AbortHandle;

use common::{Call, Client, Cluster, TestResponse};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A server with its background tasks, which end when it is dropped.
struct Server {
    _cluster: Cluster,
    client: Client,
    background: AbortHandle,
}

impl Server {
    /// Starts a server with its background tasks.
    async fn start() -> Self {
        let cluster = Cluster::start(&[]).await;
        let server = cluster.server.clone();
        let background =
            tokio::spawn(async move { server.run_background_tasks(|| false).await }).abort_handle();
        let client = cluster.admin();
        Self { _cluster: cluster, client, background }
    }

    async fn post(&self, path: &str, object: &Value) -> TestResponse {
        self.client.send(Call::new("POST", path).json(object)).await
    }

    async fn get(&self, path: &str) -> TestResponse {
        self.client.call(&format!("GET {path}")).await
    }

    /// Creates a definition and waits until it is established.
    async fn define(&self, definition: &Value) {
        let created = self.post(DEFINITIONS, definition).await;
        assert_eq!(created.code, 201, "{}", created.text());
        self.established(definition["metadata"]["name"].as_str().unwrap()).await;
    }

    /// Waits until a definition is established.
    async fn established(&self, name: &str) {
        while !conditions::is_true(&self.get(&format!("{DEFINITIONS}/{name}")).await.json(), "Established") {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until an object no longer exists.
    async fn gone(&self, path: &str) {
        while self.get(path).await.code != 404 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.background.abort();
    }
}
