//! Typed server-side apply of `nave-client`, against the whole server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]
#![allow(clippy::needless_pass_by_value, reason = "parts of objects are given as literals")]

mod common;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use nave_client::{ApplyError, ApplyOptions, FieldConflict, apply, apply_status};
use nave_machinery::user::UserInfo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::common::Cluster;

fn client(cluster: &Cluster) -> kube::Client {
    let (name, groups) = ("admin".to_owned(), vec!["system:masters".to_owned()]);
    kube::Client::new(cluster.server.local(UserInfo { name, groups, ..UserInfo::default() }), "default")
}

fn typed<K: DeserializeOwned>(name: &str, parts: Value) -> K {
    let mut object = json!({ "metadata": { "name": name } });
    object.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn config_map(data: Value) -> ConfigMap {
    typed("x", json!({ "data": data }))
}

/// Returns the managed fields of an object: manager, subresource and fields.
fn owned(object: &impl kube::Resource) -> Vec<(String, String, Value)> {
    let entries = object.meta().managed_fields.clone().unwrap_or_default();
    let entries = entries.into_iter().map(|entry| {
        let fields = entry.fields_v1.map(|fields| fields.0).unwrap_or_default();
        (entry.manager.unwrap_or_default(), entry.subresource.unwrap_or_default(), fields)
    });
    entries.collect()
}

fn entry(manager: &str, subresource: &str, fields: Value) -> (String, String, Value) {
    (manager.to_owned(), subresource.to_owned(), fields)
}

#[tokio::test]
async fn a_manager_owns_the_fields_of_its_configuration_and_gives_up_others() {
    let cluster = Cluster::start(&[]).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster));
    let options = ApplyOptions::new("one");
    let created = apply(&maps, &config_map(json!({"a": "1", "b": "1"})), &options).await.unwrap();
    assert_eq!(owned(&created), [entry("one", "", json!({"f:data": {"f:a": {}, "f:b": {}}}))]);
    let changed = apply(&maps, &config_map(json!({"b": "2"})), &options).await.unwrap();
    assert_eq!(serde_json::to_value(&changed.data).unwrap(), json!({"b": "2"}));
    assert_eq!(owned(&changed), [entry("one", "", json!({"f:data": {"f:b": {}}}))]);
    assert_eq!(maps.get("x").await.unwrap(), changed);
}

#[tokio::test]
async fn a_conflict_names_the_fields_and_force_takes_them_over() {
    let cluster = Cluster::start(&[]).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster));
    let first =
        apply(&maps, &config_map(json!({"a": "1", "b": "1"})), &ApplyOptions::new("one")).await.unwrap();
    let (change, two) = (config_map(json!({"a": "2"})), ApplyOptions::new("two"));
    let Err(ApplyError::Conflict { fields, .. }) = apply(&maps, &change, &two).await else {
        panic!("no conflict")
    };
    let message = "conflict with \"one\"".to_owned();
    assert_eq!(fields, [FieldConflict { field: ".data.a".to_owned(), message }]);
    let tried = apply(&maps, &change, &two.clone().force().dry_run()).await.unwrap();
    assert_eq!(maps.get("x").await.unwrap(), first);
    let forced = apply(&maps, &change, &two.force()).await.unwrap();
    assert_eq!(forced.data, tried.data);
    assert_eq!(maps.get("x").await.unwrap(), forced);
    let stale: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "x", "resourceVersion": "1"}})).unwrap();
    let Err(ApplyError::Conflict { fields, .. }) = apply(&maps, &stale, &ApplyOptions::new("one")).await
    else {
        panic!("no conflict")
    };
    assert_eq!(fields, []);
}

#[tokio::test]
async fn a_status_is_applied_on_its_own() {
    let cluster = Cluster::start(&[]).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client(&cluster));
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]}}});
    let status: Deployment = typed("d", json!({"status": {"replicas": 1}}));
    let options = ApplyOptions::new("controller");
    let missing = apply_status(&deployments, &status, &options).await;
    assert!(matches!(missing, Err(ApplyError::Api(kube::Error::Api(found))) if found.code == 404));
    apply(&deployments, &typed("d", json!({ "spec": spec })), &ApplyOptions::new("ci")).await.unwrap();
    let applied = apply_status(&deployments, &status, &options).await.unwrap();
    assert_eq!(applied.status.as_ref().unwrap().replicas, Some(1));
    let entries = owned(&applied);
    assert!(
        entries.contains(&entry("controller", "status", json!({"f:status": {"f:replicas": {}}}))),
        "{entries:?}"
    );
}

#[tokio::test]
async fn a_configuration_without_a_name_is_not_sent() {
    let cluster = Cluster::start(&[]).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster));
    let unnamed = apply(&maps, &ConfigMap::default(), &ApplyOptions::new("one")).await;
    assert!(matches!(unnamed, Err(ApplyError::NoName)));
}
