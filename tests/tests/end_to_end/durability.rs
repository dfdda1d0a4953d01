//! Acknowledged writes survive a server that ends in any way.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nave_loadtest::LoadError;
use nave_loadtest::http::{Call, Pool, scan_field};
use nave_tests::{DEADLINE, Server, eventually, server_binary};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The resource version of each acknowledged object, by name; `None` for deleted objects.
type Acknowledged = BTreeMap<String, Option<u64>>;

#[tokio::test]
async fn kill_9_under_load_loses_nothing_and_revisions_continue() {
    let mut server = Server::start().await;
    let mut acknowledged = Acknowledged::new();
    for round in 0..3 {
        let written = write_until_killed(&mut server, round).await;
        assert!(written.len() >= 500, "the load was too small: {}", written.len());
        acknowledged.extend(written);
        server.restart().await;

        let pool = server.target().pool(1).await.unwrap();
        let found = list(&pool).await;
        for (name, revision) in &acknowledged {
            match revision {
                Some(revision) => assert_eq!(found.get(name), Some(revision), "{name}, round {round}"),
                None => assert!(!found.contains_key(name), "{name} was deleted, round {round}"),
            }
        }
        let last = found.values().chain(acknowledged.values().flatten()).max().copied().unwrap_or_default();
        let next = write(&pool, &format!("after-{round}")).await.unwrap();
        assert!(next > last, "revision {next} after {last}");
        acknowledged.insert(format!("after-{round}"), Some(next));
    }
}

/// Runs 32 writers until the server is killed. Each writer deletes every third object.
async fn write_until_killed(server: &mut Server, round: usize) -> Acknowledged {
    let pool = server.target().pool(4).await.unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..32 {
        let (pool, count) = (pool.clone(), Arc::clone(&count));
        writers.spawn(async move {
            let mut acknowledged = Acknowledged::new();
            for number in 0..100_000 {
                let name = format!("round-{round}-{writer}-{number}");
                let Ok(revision) = write(&pool, &name).await else { break };
                acknowledged.insert(name.clone(), Some(revision));
                if number % 3 == 2 {
                    // The delete is sent but not acknowledged, so the object may or may not exist afterwards.
                    acknowledged.remove(&name);
                    let Ok(_) = pool.call(&Call::delete(format!("{MAPS}/{name}"))).await else { break };
                    acknowledged.insert(name, None);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            acknowledged
        });
    }
    eventually("500 acknowledged writes", async || count.load(Ordering::Relaxed) >= 800).await;
    server.kill9();
    writers.join_all().await.into_iter().flatten().collect()
}

async fn write(pool: &Pool, name: &str) -> Result<u64, LoadError> {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"a":"b"}}}}"#
    );
    let answer = pool.call(&Call::post(MAPS, body)).await?;
    let revision = scan_field(&answer, "resourceVersion").and_then(|text| text.parse().ok());
    revision.ok_or_else(|| LoadError::Unexpected("no resourceVersion".into()))
}

async fn list(pool: &Pool) -> BTreeMap<String, u64> {
    let list: Value = serde_json::from_slice(&pool.call(&Call::get(MAPS)).await.unwrap()).unwrap();
    let items = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]);
    let revision = |metadata: &Value| metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
    items.map(|metadata| (metadata["name"].as_str().unwrap().to_owned(), revision(metadata))).collect()
}

#[tokio::test]
async fn sigterm_ends_watches_and_keeps_data() {
    let mut server = Server::start().await;
    server.kubectl(&["create", "configmap", "kept"]).await;
    let mut connection = server.target().connect_http2().await.unwrap();
    let watch = connection.send(&Call::get(format!("{MAPS}?watch=true"))).await.unwrap();
    let reader = tokio::spawn(watch.read_all());
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    let seen = tokio::time::timeout(DEADLINE, reader).await.unwrap().unwrap().unwrap();
    assert!(
        String::from_utf8_lossy(&seen).contains(r#""name":"kept""#),
        "the watch ended in order, after its events"
    );
    server.restart().await;
    assert_eq!(server.kubectl(&["get", "configmap", "kept", "-o", "name"]).await, "configmap/kept\n");
}

#[tokio::test]
async fn rejects_second_server_on_same_folder() {
    let server = Server::start().await;
    let data = server.folder().join("data");
    let mut second = Command::new(server_binary());
    second.args(["serve", "--secure-port", "0", "--data-dir"]).arg(&data).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, second.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&*data.to_string_lossy()), "names the folder: {said}");
    assert!(said.contains("use") || said.contains("lock"), "has the reason: {said}");
    assert_eq!(server.kubectl(&["get", "--raw", "/readyz"]).await, "ok", "the first one goes on");
}

#[tokio::test]
async fn error_names_the_invalid_flag() {
    let mut wrong = Command::new(server_binary());
    wrong.args(["serve", "--secure-port", "70000"]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(30), wrong.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--secure-port") && said.contains("70000"), "{said}");
}

#[tokio::test]
async fn serves_with_closed_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(server_binary());
    command.args(["serve", "--secure-port", "0", "--data-dir"]).arg(&data).kill_on_drop(true);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let warned = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("writing to standard output failed") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(DEADLINE, warned).await.unwrap(), "the server logs it and continues");
    let config = Kubeconfig::read_from(data.join("admin.kubeconfig")).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    client.apiserver_version().await.unwrap();
}
