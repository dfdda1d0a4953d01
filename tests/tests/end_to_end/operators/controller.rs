//! A controller written with kube-rs: a derived definition, finalizers, status, server-side apply and watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{CustomResource, CustomResourceExt, Resource, ResourceExt};
use nave_tests::{DEADLINE, Server, eventually};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinHandle;

const FINALIZER: &str = "example.com/archive";

/// A backup of a source, in a number of copies.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "example.com",
    version = "v1",
    kind = "Backup",
    namespaced,
    status = "BackupStatus",
    shortname = "bk",
    scale(spec_replicas_path = ".spec.copies", status_replicas_path = ".status.copies"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    selectable = ".spec.source",
    validation = "self.spec.copies <= 5"
)]
struct BackupSpec {
    source: String,
    #[serde(default = "one_copy")]
    copies: i32,
    retention: Option<Retention>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Retention {
    days: u32,
    keep_last: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BackupStatus {
    phase: Option<String>,
    copies: Option<i32>,
    observed_generation: Option<i64>,
}

fn one_copy() -> i32 {
    1
}

type ReconcileError = finalizer::Error<kube::Error>;

/// Applies a config map for the backup and its status; archives the backup when it is deleted.
async fn reconcile(backup: Arc<Backup>, client: Arc<kube::Client>) -> Result<Action, ReconcileError> {
    let namespace = backup.namespace().unwrap_or_default();
    let backups: Api<Backup> = Api::namespaced((*client).clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    finalizer(&backups, FINALIZER, backup, async |event| match event {
        Event::Apply(backup) => apply(&backups, &maps, &backup).await,
        Event::Cleanup(backup) => archive(&maps, &backup).await,
    })
    .await
}

async fn apply(backups: &Api<Backup>, maps: &Api<ConfigMap>, backup: &Backup) -> Result<Action, kube::Error> {
    let manager = PatchParams::apply("backup-controller").force();
    let name = backup.name_any();
    let data = BTreeMap::from([
        ("source".to_owned(), backup.spec.source.clone()),
        ("copies".to_owned(), backup.spec.copies.to_string()),
    ]);
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        owner_references: Some(vec![backup.controller_owner_ref(&()).unwrap()]),
        ..ObjectMeta::default()
    };
    let map = ConfigMap { data: Some(data), metadata, ..ConfigMap::default() };
    maps.patch(&name, &manager, &Patch::Apply(&map)).await?;
    let status = json!({
        "apiVersion": "example.com/v1",
        "kind": "Backup",
        "status": {
            "phase": "Ready",
            "copies": backup.spec.copies,
            "observedGeneration": backup.metadata.generation,
        },
    });
    backups.patch_status(&name, &manager, &Patch::Apply(&status)).await?;
    Ok(Action::await_change())
}

async fn archive(maps: &Api<ConfigMap>, backup: &Backup) -> Result<Action, kube::Error> {
    let archived = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("{}-archived", backup.name_any())},
        "data": {"source": backup.spec.source},
    });
    let manager = PatchParams::apply("backup-controller").force();
    maps.patch(&format!("{}-archived", backup.name_any()), &manager, &Patch::Apply(&archived)).await?;
    Ok(Action::await_change())
}

/// Runs the controller until the task is aborted.
fn start(client: kube::Client) -> JoinHandle<()> {
    let backups: Api<Backup> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let retry = |_: Arc<Backup>, _: &ReconcileError, _: Arc<kube::Client>| {
        Action::requeue(Duration::from_millis(200))
    };
    tokio::spawn(
        Controller::new(backups, watcher::Config::default())
            .owns(maps, watcher::Config::default())
            .run(reconcile, retry, Arc::new(client))
            .for_each(async |_| ()),
    )
}

async fn define(client: &kube::Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &Backup::crd()).await.unwrap();
    let established = await_condition(definitions, "backups.example.com", conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.unwrap().unwrap();
}

async fn until(what: &str, backups: &Api<Backup>, name: &str, holds: impl Fn(&Backup) -> bool) {
    eventually(what, async || backups.get(name).await.is_ok_and(|backup| holds(&backup))).await;
}

fn is_ready(backup: &Backup) -> bool {
    let status = backup.status.clone().unwrap_or_default();
    status.phase.as_deref() == Some("Ready")
        && status.observed_generation == backup.metadata.generation
        && status.copies == Some(backup.spec.copies)
}

#[tokio::test]
async fn controller_reconciles_over_a_crash_of_the_server() {
    let mut server = Server::start().await;
    let client = server.client().await;
    define(&client).await;
    let running = start(client.clone());
    let backups: Api<Backup> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());

    let backup = Backup::new("nightly", BackupSpec { source: "db".into(), copies: 2, retention: None });
    backups.create(&PostParams::default(), &backup).await.unwrap();
    until("the backup is ready", &backups, "nightly", is_ready).await;
    let made = maps.get("nightly").await.unwrap();
    assert_eq!(made.data.unwrap()["copies"], "2");
    assert_eq!(made.metadata.owner_references.unwrap()[0].kind, "Backup");

    server.kubectl(&["scale", "bk/nightly", "--replicas=3"]).await;
    until("three copies are made", &backups, "nightly", |backup| backup.spec.copies == 3 && is_ready(backup))
        .await;
    let refused = server.kubectl_fails(&["scale", "bk/nightly", "--replicas=9"]).await;
    assert!(refused.contains("failed rule: self.spec.copies <= 5"), "{refused}");

    maps.delete("nightly", &DeleteParams::default()).await.unwrap();
    eventually("the config map is back", async || maps.get("nightly").await.is_ok()).await;

    // The port changes with the restart, so that the controller starts again, as it would after a crash of its own.
    running.abort();
    server.kill9();
    server.restart().await;
    let client = server.client().await;
    let running = start(client.clone());
    let backups: Api<Backup> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let source = Patch::Merge(json!({"spec": {"source": "files"}}));
    backups.patch("nightly", &PatchParams::default(), &source).await.unwrap();
    until("the new source is seen", &backups, "nightly", is_ready).await;
    let selected = server.kubectl(&["get", "bk", "--field-selector=spec.source=files", "-o", "name"]).await;
    assert_eq!(selected.trim(), "backup.example.com/nightly");

    backups.delete("nightly", &DeleteParams::default()).await.unwrap();
    eventually("the backup is gone", async || {
        backups.get_opt("nightly").await.is_ok_and(|backup| backup.is_none())
    })
    .await;
    assert_eq!(maps.get("nightly-archived").await.unwrap().data.unwrap()["source"], "files");
    eventually("its config map is collected", async || {
        maps.get_opt("nightly").await.is_ok_and(|map| map.is_none())
    })
    .await;
    running.abort();
}
