//! Each resource has exactly one form of path, and authorization applies to the object that is served.

use nave_machinery::GroupVersionResource;
use nave_resources::ResourceDef;
use serde_json::{Value, json};

use crate::common::{Call, Cluster, TestResponse, check, cluster_role_in, collection, namespace, row};

/// Starts a cluster: `owner` has all rights in `own`, `viewer` may read in `own`; neither has other rights.
async fn cluster() -> Cluster {
    let objects = [
        namespace("own"),
        namespace("other"),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "other", "name": "s"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "own", "name": "c"}}),
        cluster_role_in("own", "cluster-admin", "owner"),
        cluster_role_in("own", "view", "viewer"),
    ];
    Cluster::start(&objects).await
}

#[tokio::test]
async fn cluster_scoped_resources_have_no_namespaced_path() {
    let cluster = cluster().await;
    let none = Value::Null;
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    check(
        &cluster,
        &[
            row("owner", "GET /api/v1/namespaces/own", none.clone(), 200),
            row("owner", "GET /api/v1/namespaces/other", none.clone(), 403),
            row("owner", "GET /api/v1/namespaces/own/namespaces/other", none.clone(), 404),
            row("owner", "GET /api/v1/namespaces/own/namespaces/other/status", none.clone(), 404),
            row("owner", "GET /api/v1/namespaces/own/namespaces", none.clone(), 404),
            row("owner", "GET /api/v1/watch/namespaces/own/namespaces/other", none.clone(), 404),
            row("owner", "GET /api/v1/watch/namespaces/own/namespaces", none.clone(), 404),
            row("viewer", "GET /api/v1/namespaces/own/namespaces?watch=1", none.clone(), 404),
            row("owner", "PATCH /api/v1/namespaces/own/namespaces/other", labels.clone(), 404),
            row("owner", "PATCH /api/v1/namespaces/own/namespaces/other/status", labels, 404),
            row("owner", "DELETE /api/v1/namespaces/own/namespaces/other", none.clone(), 404),
            row("owner", "POST /api/v1/namespaces/own/namespaces", namespace("third"), 404),
            row("owner", "PUT /api/v1/namespaces/own/namespaces/other/finalize", namespace("other"), 404),
            row("admin", "GET /api/v1/namespaces/own/nodes", none.clone(), 404),
            row("admin", "GET /api/v1/namespaces/third", none, 404),
        ],
    )
    .await;
}

/// No form of path reaches another namespace or the cluster scope: authorization rejects each request, or the path or
/// method is not served. A request that passed would get a response about the object or the body: 200, 201, 400, 409,
/// 415, 422, or a 404 that names the object.
#[tokio::test]
async fn no_path_reaches_outside_the_own_namespace() {
    let cluster = cluster().await;
    let defs: Vec<_> = cluster.storages.registry().all().cloned().collect();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for who in ["owner", "viewer"] {
        let client = cluster.named(who);
        for def in &defs {
            for path in paths_out_of_own(def) {
                // A viewer has only read access.
                for (method, query) in METHODS.into_iter().filter(|(it, _)| who == "owner" || *it == "GET") {
                    let line = format!("{method} {path}{query}");
                    let answer = client.send(Call::line(&line).json(&json!({}))).await;
                    tried += 1;
                    if !is_refused(&answer) && !is_for_everybody(def, method) {
                        wrong.push(format!("{who}: {line}: {}: {}", answer.code, answer.text()));
                    }
                }
            }
        }
    }
    assert!(tried > 20_000, "only {tried} requests");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

/// The same for an administrator: a resource has no path of the other scope, whatever the user's rights.
#[tokio::test]
async fn each_resource_has_the_paths_of_its_scope_only() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let mut wrong = Vec::new();
    for def in cluster.storages.registry().all() {
        for version in &def.versions {
            let all = collection(&GroupVersionResource::new(&def.group, &version.name, &def.resource), "");
            let api = all.strip_suffix(&def.resource).unwrap();
            let resource = &def.resource;
            // A namespaced resource without a namespace (except lists), and a cluster-scoped resource with a namespace.
            let (object, collections) = if def.namespaced {
                let watch = format!("{api}watch/{resource}/target");
                (format!("{all}/target"), vec![watch])
            } else {
                let (list, watch) = (
                    format!("{api}namespaces/own/{resource}"),
                    format!("{api}watch/namespaces/own/{resource}"),
                );
                (format!("{list}/target"), vec![format!("{watch}/target"), list, watch])
            };
            let subresources = version.subresources.iter().map(|sub| format!("{object}/{}", sub.name));
            let paths = [object.clone()].into_iter().chain(collections).chain(subresources);
            for path in paths {
                for (method, query) in METHODS {
                    let answer =
                        admin.send(Call::line(&format!("{method} {path}{query}")).json(&json!({}))).await;
                    if !is_unknown_path(&answer) {
                        wrong.push(format!("{method} {path}{query}: {}: {}", answer.code, answer.text()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

const METHODS: [(&str, &str); 6] =
    [("GET", ""), ("GET", "?watch=1"), ("POST", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", "")];

/// Returns all forms of path to a resource's objects and subresources, except for those in `own`.
fn paths_out_of_own(def: &ResourceDef) -> Vec<String> {
    let mut paths = Vec::new();
    for version in &def.versions {
        let all = collection(&GroupVersionResource::new(&def.group, &version.name, &def.resource), "");
        let (api, resource) = (all.strip_suffix(&def.resource).unwrap(), def.resource.as_str());
        let subresources = version.subresources.iter().map(|sub| format!("/target/{}", sub.name));
        let objects = [String::new(), "/target".to_owned()].into_iter().chain(subresources);
        for object in objects {
            let mut places = vec![
                String::new(),
                "namespaces/other/".to_owned(),
                "namespaces//".to_owned(),
                "namespaces/own%2f..%2fother/".to_owned(),
                "namespaces/other%2f/".to_owned(),
                "namespaces/%6fther/".to_owned(),
                "namespaces/OWN/".to_owned(),
                "Namespaces/own/".to_owned(),
                "namespaces%2fown/".to_owned(),
                "namespaces/own/namespaces/other/".to_owned(),
                "namespaces/own/../other/".to_owned(),
                "namespaces/own/./".to_owned(),
                "namespaces/own//".to_owned(),
                "/".to_owned(),
                "/namespaces/own/".to_owned(),
                "namespaces/namespaces/".to_owned(),
                "namespaces/*/".to_owned(),
                "namespaces/../".to_owned(),
                "namespaces/%00/".to_owned(),
            ];
            if !def.namespaced {
                places.push("namespaces/own/".to_owned());
            }
            for place in places {
                paths.push(format!("{api}{place}{resource}{object}"));
                paths.push(format!("{api}watch/{place}{resource}{object}"));
            }
            paths.push(format!("/{all}{object}"));
            paths.push(format!("{all}{object}/"));
            paths.push(format!("{api}namespaces/own/{resource}{object}%2f..%2f..%2fother%2f{resource}"));
            paths.push(format!("{api}namespaces/own/{}{object}", resource.to_uppercase()));
            // The rest of a path after `proxy` belongs to the pod, service or node.
            if !object.is_empty() && !object.ends_with("/proxy") {
                paths.push(format!("{api}namespaces/own/{resource}{object}/../../other"));
                paths.push(format!("{api}namespaces/own/{resource}{object}/status/more"));
            }
        }
    }
    paths
}

/// Returns whether authorization rejected the request, or its path is not served.
fn is_refused(answer: &TestResponse) -> bool {
    matches!(answer.code, 403 | 405) || is_unknown_path(answer)
}

fn is_unknown_path(answer: &TestResponse) -> bool {
    let texts = ["could not find the requested resource", "404 page not found"];
    // The response to HEAD has no body.
    answer.code == 404 && (answer.body.is_empty() || texts.iter().any(|text| answer.text().contains(text)))
}

/// Returns whether every user may create this review, because it is about the user itself.
fn is_for_everybody(def: &ResourceDef, method: &str) -> bool {
    method == "POST" && def.resource.starts_with("selfsubject")
}
