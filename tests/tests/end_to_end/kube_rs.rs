//! kube-rs: create, read, update, patch, delete, pages, watches and its reflector.

use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Error, ResourceExt};
use nave_tests::{DEADLINE, Server};
use serde_json::json;

fn map(name: &str) -> ConfigMap {
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let mut map = ConfigMap { data: Some([("a".to_owned(), "1".to_owned())].into()), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map.metadata.labels = Some(labels);
    map
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test]
async fn object_create_read_update_patch_delete() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let post = PostParams::default();
    let mut created = maps.create(&post, &map("one")).await.unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(code(&maps.create(&post, &map("one")).await.unwrap_err()), 409);

    created.data.get_or_insert_default().insert("b".into(), "2".into());
    let replaced = maps.replace("one", &post, &created).await.unwrap();
    assert_ne!(replaced.resource_version(), created.resource_version());
    assert_eq!(
        code(&maps.replace("one", &post, &created).await.unwrap_err()),
        409,
        "its revision is of the past"
    );

    let patch = Patch::Merge(json!({"data": {"a": null, "c": "3"}}));
    let patched = maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    let keys: Vec<_> = patched.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["b", "c"]);

    let stale = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: Some("other".into()), ..Default::default() }),
        ..DeleteParams::default()
    };
    assert_eq!(code(&maps.delete("one", &stale).await.unwrap_err()), 409);
    let background =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    maps.delete("one", &background).await.unwrap();
    assert_eq!(code(&maps.get("one").await.unwrap_err()), 404);
}

#[tokio::test]
async fn pod_round_trips_every_field() {
    let server = Server::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": "made-"},
        "spec": {"containers": [{"name": "a", "image": "registry.example/a:1", "env": [{"name": "X", "value": "1"}],
            "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
            "livenessProbe": {"httpGet": {"port": "http", "path": "/"}}}]}
    }))
    .unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert!(made.name_any().starts_with("made-") && made.name_any().len() == 10, "{}", made.name_any());
    let spec = pods.get(&made.name_any()).await.unwrap().spec.unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults are filled in");
    assert_eq!(spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "500m");
    assert_eq!(spec.containers[0].liveness_probe.as_ref().unwrap().period_seconds, Some(10));
}

#[tokio::test]
async fn pages_have_one_revision_during_writes() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    for number in 0..25 {
        maps.create(&PostParams::default(), &map(&format!("m-{number:02}"))).await.unwrap();
    }
    let page = ListParams::default().limit(10).labels("app=web");
    let first = maps.list(&page).await.unwrap();
    maps.delete("m-15", &DeleteParams::default()).await.unwrap();
    let second =
        maps.list(&page.clone().continue_token(first.metadata.continue_.as_deref().unwrap())).await.unwrap();
    let third =
        maps.list(&page.clone().continue_token(second.metadata.continue_.as_deref().unwrap())).await.unwrap();
    assert_eq!((first.items.len(), second.items.len(), third.items.len()), (10, 10, 5));
    assert_eq!(third.metadata.continue_.unwrap_or_default(), "");
    let names: Vec<_> =
        [first.items, second.items, third.items].concat().iter().map(ResourceExt::name_any).collect();
    assert!(names.is_sorted() && names.contains(&"m-15".to_owned()), "{names:?}");
    assert_eq!(
        maps.list(&ListParams::default()).await.unwrap().iter().filter(|m| m.name_any() == "m-15").count(),
        0
    );
}

#[tokio::test]
async fn watch_starts_at_revision_and_ends_with_bookmark() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let post = PostParams::default();
    maps.create(&post, &map("before")).await.unwrap();
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&post, &map("one")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"a": "2"}}));
    maps.patch("one", &PatchParams::default(), &patch).await.unwrap();
    maps.delete("one", &DeleteParams::default()).await.unwrap();

    let params = WatchParams::default().labels("app=web").timeout(5);
    let mut events = pin!(maps.watch(&params, &from).await.unwrap());
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        seen.push(match event {
            WatchEvent::Added(m) => format!("added {}", m.name_any()),
            WatchEvent::Modified(m) => format!("modified {}", m.name_any()),
            WatchEvent::Deleted(m) => format!("deleted {}", m.name_any()),
            WatchEvent::Bookmark(b) => {
                assert!(b.metadata.resource_version.parse::<u64>().unwrap() > from.parse().unwrap());
                "bookmark".to_owned()
            }
            WatchEvent::Error(status) => panic!("{status}"),
        });
    }
    seen.dedup();
    assert_eq!(seen, ["added one", "modified one", "deleted one", "bookmark"]);
}

#[tokio::test]
async fn kube_rs_watchers_see_all_events() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    maps.create(&PostParams::default(), &map("here-before")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let config = config.labels("app=web");
        let mut seen = pin!(watcher(maps.clone(), config).default_backoff().applied_objects());
        let mut next = async || {
            let event = tokio::time::timeout(DEADLINE, seen.next()).await.unwrap();
            event.unwrap().unwrap().name_any()
        };
        assert_eq!(next().await, "here-before");
        maps.create(&PostParams::default(), &map("later")).await.unwrap();
        assert_eq!(next().await, "later");
        maps.delete("later", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn applies_are_merged_and_conflict() {
    let server = Server::start_without_controllers().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let data = |data: serde_json::Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}),
        )
    };
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let created = maps.patch("x", &one, &data(json!({"a": "1"}))).await.unwrap();
    let again = maps.patch("x", &one, &data(json!({"a": "1"}))).await.unwrap();
    assert_eq!(created, again, "an apply without changes writes nothing");
    let error = maps.patch("x", &two, &data(json!({"a": "2", "b": "2"}))).await.unwrap_err();
    let Error::Api(status) = &error else { panic!("{error}") };
    let causes = &status.details.as_ref().unwrap().causes;
    assert_eq!((status.code, causes.len(), causes[0].field.as_str()), (409, 1, ".data.a"));
    let forced = maps.patch("x", &two.force(), &data(json!({"a": "2", "b": "2"}))).await.unwrap();
    let managers: Vec<_> =
        forced.managed_fields().iter().map(|entry| entry.manager.as_deref().unwrap()).collect();
    assert_eq!(managers, ["two"]);
    let given_up = maps.patch("x", &PatchParams::apply("two"), &data(json!({"b": "2"}))).await.unwrap();
    assert_eq!(given_up.data.unwrap().into_keys().collect::<Vec<_>>(), ["b"]);
}
