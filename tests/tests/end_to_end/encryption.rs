//! Encryption at rest: bytes on disk, rotation while running, kills, wrong keys, key management plugins.

use std::fs;
use std::path::Path;

use http::Method;
use nave_encryption::testing::Plugin;
use nave_loadtest::http::{Call, Pool};
use nave_tests::{Server, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TEXT: &str = "text-that-nobody-reads-on-disk";
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";

fn providers(folder: &Path, providers: &[String]) {
    let list: Vec<String> = providers.iter().map(|provider| format!("  - {provider}\n")).collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{}",
        list.concat()
    );
    // A rename, so that no half of the file is read.
    fs::write(folder.join("new.yaml"), text).unwrap();
    fs::rename(folder.join("new.yaml"), folder.join("encryption.yaml")).unwrap();
}

fn keys(provider: &str, name: &str, key: &str) -> String {
    format!("{provider}: {{keys: [{{name: {name}, secret: {key}}}]}}")
}

async fn start(folder: TempDir) -> Server {
    let file = format!("--encryption-provider-config={}", folder.path().join("encryption.yaml").display());
    let flags = [
        "--controllers=none",
        "--disable-admission-plugins=ServiceAccount",
        "--encryption-provider-config-automatic-reload",
        "--storage-initialization-timeout=1s",
        &file,
    ];
    Server::start_in(folder, &flags).await
}

fn secret(name: &str) -> String {
    let text = format!("{TEXT}-{name}");
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"text": text}})
        .to_string()
}

async fn get(pool: &Pool, path: &str) -> (u16, Value) {
    let response = pool.lane(0).send(&Call::get(path)).await.unwrap();
    let status = response.status().as_u16();
    let body = response.read_all().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
}

/// Returns whether a file of the store contains a text.
fn is_on_disk(server: &Server, text: &str) -> bool {
    let files = fs::read_dir(server.folder().join("data/store")).unwrap();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test]
async fn secrets_are_encrypted_on_disk_and_keys_rotate() {
    let folder = tempfile::tempdir().unwrap();
    providers(folder.path(), &[keys("aesgcm", "a", KEY)]);
    let mut server = start(folder).await;
    let pool = server.target().pool(1).await.unwrap();
    let created = pool.call(&Call::post(SECRETS, secret("one"))).await.unwrap();
    let created: Value = serde_json::from_slice(&created).unwrap();
    assert!(is_on_disk(&server, "k8s:enc:aesgcm:v1:a:") && !is_on_disk(&server, TEXT));

    // A write without a change is not stored, until the value is stale.
    let path = format!("{SECRETS}/one");
    let same = created.to_string();
    let written = async || -> Value {
        let mut object: Value = serde_json::from_str(&same).unwrap();
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let call = Call::new(Method::PUT, &path, Some("application/json"), object.to_string().into());
        serde_json::from_slice(&pool.call(&call).await.unwrap()).unwrap()
    };
    let version = &created["metadata"]["resourceVersion"];
    assert_eq!(written().await["metadata"]["resourceVersion"], *version);
    providers(server.folder(), &[keys("secretbox", "b", OTHER_KEY), keys("aesgcm", "a", KEY)]);
    eventually("the new key is used", async || written().await["metadata"]["resourceVersion"] != *version)
        .await;
    assert!(is_on_disk(&server, "k8s:enc:secretbox:v1:b:") && !is_on_disk(&server, TEXT));
    let (status, one) = get(&pool, &path).await;
    assert_eq!((status, &one["data"]), (200, &created["data"]));

    // kill -9 while secrets are written.
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let pool = server.target().pool(1).await.unwrap();
        writers.spawn(async move {
            let mut names = Vec::new();
            for number in 0..1_000_000 {
                let name = format!("many-{writer}-{number}");
                let Ok(_) = pool.call(&Call::post(SECRETS, secret(&name))).await else { break };
                names.push(name);
            }
            names
        });
    }
    eventually("secrets are written", async || get(&pool, &format!("{SECRETS}/many-0-50")).await.0 == 200)
        .await;
    server.kill9();
    let names = writers.join_all().await.concat();
    server.restart().await;
    let pool = server.target().pool(1).await.unwrap();
    for name in &names {
        assert_eq!(get(&pool, &format!("{SECRETS}/{name}")).await.0, 200, "{name}");
    }
    assert!(!is_on_disk(&server, TEXT));
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
    assert!(metrics.contains("apiserver_storage_transformation_operations_total{resource=\"secrets\""));
}

#[tokio::test]
async fn a_missing_key_fails_reads_of_its_objects_only() {
    let folder = tempfile::tempdir().unwrap();
    providers(folder.path(), &[keys("aesgcm", "a", KEY)]);
    let mut server = start(folder).await;
    let pool = server.target().pool(1).await.unwrap();
    pool.call(&Call::post(SECRETS, secret("old"))).await.unwrap();
    server.terminate().await;
    providers(server.folder(), &[keys("aescbc", "b", OTHER_KEY)]);
    server.restart_until("/livez").await;

    let pool = server.target().pool(1).await.unwrap();
    let (status, failure) = get(&pool, &format!("{SECRETS}/old")).await;
    assert_eq!(
        (status, failure["message"].as_str()),
        (500, Some("Internal error occurred: no matching prefix found"))
    );
    let (status, failure) = get(&pool, SECRETS).await;
    let message = "Internal error occurred: unable to transform key \"/registry/secrets/default/old\": no matching prefix found";
    assert_eq!((status, failure["message"].as_str()), (500, Some(message)));
    assert!(pool.call(&Call::delete(format!("{SECRETS}/old"))).await.is_err());
    pool.call(&Call::post(SECRETS, secret("new"))).await.unwrap();
    assert_eq!(get(&pool, &format!("{SECRETS}/new")).await.0, 200);
    assert_eq!(get(&pool, "/api/v1/configmaps").await.0, 200);
    assert_eq!((get(&pool, "/readyz").await.0, get(&pool, "/livez").await.0), (500, 200));

    providers(server.folder(), &[keys("aescbc", "b", OTHER_KEY), keys("aesgcm", "a", KEY)]);
    eventually("the old key is used", async || get(&pool, SECRETS).await.0 == 200).await;
    let (_, list) = get(&pool, SECRETS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    eventually("ready", async || get(&pool, "/readyz").await.0 == 200).await;
}

#[tokio::test]
async fn a_plugin_may_be_down_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kms.sock");
    let plugin = Plugin::start(&socket, "1");
    let config =
        format!("kms: {{apiVersion: v2, name: vault, endpoint: '{}', timeout: 1s}}", plugin.endpoint());
    providers(folder.path(), &[config]);
    let mut server = start(folder).await;
    let pool = server.target().pool(1).await.unwrap();
    pool.call(&Call::post(SECRETS, secret("one"))).await.unwrap();
    assert!(is_on_disk(&server, "k8s:enc:kms:v2:vault:") && !is_on_disk(&server, TEXT));
    assert_eq!(get(&pool, "/healthz/kms-providers").await.0, 200);
    assert_eq!(get(&pool, "/livez/kms-providers").await.0, 404);
    drop(plugin);
    // Without the plugin, the seed in memory is used.
    assert_eq!(get(&pool, &format!("{SECRETS}/one")).await.0, 200);
    server.kill9();

    // A server that starts without the plugin serves other resources.
    server.restart_until("/livez").await;
    let pool = server.target().pool(1).await.unwrap();
    assert_eq!(get(&pool, "/readyz/kms-providers").await.0, 500);
    assert_eq!(get(&pool, &format!("{SECRETS}/one")).await.0, 500);
    assert_eq!(get(&pool, "/api/v1/configmaps").await.0, 200);
    let plugin = Plugin::start(&socket, "1");
    eventually("the plugin is used", async || get(&pool, SECRETS).await.0 == 200).await;
    assert!(plugin.decryptions() > 0);
    eventually("ready", async || get(&pool, "/readyz").await.0 == 200).await;
}
