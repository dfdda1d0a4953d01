//! Deletions of collections delete only the selected objects.

use serde_json::json;

use crate::common::{Cluster, namespace};

const CONFIG_MAPS: &str = "/api/v1/namespaces/team/configmaps";

async fn cluster(maps: usize) -> Cluster {
    let map = |index: usize| {
        let labels = json!({"odd": (index % 2).to_string()});
        let metadata = json!({"namespace": "team", "name": format!("m{index}"), "labels": labels});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    };
    let objects: Vec<_> = [namespace("team")].into_iter().chain((0..maps).map(map)).collect();
    Cluster::start(&objects).await
}

#[tokio::test]
async fn limit_and_continue_token_apply_to_deletions_as_to_lists() {
    let cluster = cluster(6).await;
    let client = cluster.admin();
    for refused in ["continue=zzz", "limit=x", "limit=1&continue=e30", "limit=1&labelSelector=%28"] {
        let answer = client.call(&format!("DELETE {CONFIG_MAPS}?{refused}")).await;
        assert_eq!(answer.code, 400, "{refused}: {}", answer.text());
    }
    let listed = async || client.call(&format!("GET {CONFIG_MAPS}")).await.names();
    assert_eq!(listed().await.len(), 6);

    let odd = format!("{CONFIG_MAPS}?limit=1&labelSelector=odd%3D1");
    let tried = client.call(&format!("DELETE {odd}&dryRun=All")).await;
    assert_eq!(tried.names(), ["team/m1"]);
    // The limit applies to every requested resourceVersion.
    for version in ["&resourceVersion=0", "&resourceVersion=1"] {
        let tried = client.call(&format!("DELETE {odd}{version}&dryRun=All")).await;
        assert_eq!(tried.names(), ["team/m1"], "{version}");
    }
    let first = client.call(&format!("DELETE {odd}")).await;
    assert_eq!(first.names(), ["team/m1"]);
    assert_eq!(listed().await, ["team/m0", "team/m2", "team/m3", "team/m4", "team/m5"]);

    let token = first.value_at("/metadata/continue");
    let next = client.call(&format!("DELETE {odd}&continue={}", token.as_str().unwrap())).await;
    assert_eq!(next.names(), ["team/m3"]);
    assert_eq!(listed().await, ["team/m0", "team/m2", "team/m4", "team/m5"]);

    let all = client.call(&format!("DELETE {CONFIG_MAPS}")).await;
    assert_eq!((all.names().len(), all.value_at("/metadata/continue")), (4, json!(null)));
    assert_eq!(listed().await, [""; 0]);
}
