//! Encrypted stores: the contract of stores, recorded values of kube-apiserver, rotation, values that cannot be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod facts;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use nave_encryption::{Encryption, Metrics};
use nave_machinery::GroupResource;
use nave_store::contract::Fixture;
use nave_store::embedded::{Embedded, Options};
use nave_store::{Range, Store, StoreError, Txn, contract_tests};
use prometheus::Registry;
use tempfile::TempDir;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";
const SECRET: &str = "/registry/secrets/default/a";

struct Folder(TempDir);

#[async_trait]
impl Fixture for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        let encryption = loaded(&rule("'*.*'", &aes("aesgcm", "a", KEY))).await;
        encryption.store(&secrets(), plain(&self.0))
    }
}

contract_tests!(Folder(tempfile::tempdir().unwrap()));

fn plain(folder: &TempDir) -> Arc<dyn Store> {
    Arc::new(Embedded::open(folder.path(), &Options { history: None, ..Options::default() }).unwrap())
}

fn secrets() -> GroupResource {
    resource("", "secrets")
}

fn resource(group: &str, name: &str) -> GroupResource {
    GroupResource { group: group.to_owned(), resource: name.to_owned() }
}

fn encryption(registry: &Registry) -> Encryption {
    Encryption::none("/registry", Metrics::new(registry, "server").unwrap())
}

async fn loaded(rules: &str) -> Encryption {
    let encryption = encryption(&Registry::new());
    encryption.load(file(rules).as_bytes(), true).await.unwrap();
    encryption
}

fn file(rules: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{rules}")
}

fn rule(resources: &str, providers: &str) -> String {
    format!("- resources: [{resources}]\n  providers: [{providers}]\n")
}

fn aes(provider: &str, name: &str, key: &str) -> String {
    format!("{{{provider}: {{keys: [{{name: {name}, secret: {key}}}]}}}}")
}

const IDENTITY: &str = "{identity: {}}";

#[tokio::test]
async fn reads_recorded_values_of_kube_apiserver() {
    let (gcm, cbc, secretbox) =
        (aes("aesgcm", "key1", KEY), aes("aescbc", "key1", KEY), aes("secretbox", "key1", KEY));
    let encryption = loaded(&rule("'*.*'", &[gcm, cbc, secretbox].join(", "))).await;
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    let store = encryption.store(&secrets(), Arc::clone(&inner));
    for (order, (key, text, stored)) in facts::RECORDED.iter().enumerate() {
        inner.txn(Txn::put(*key, STANDARD.decode(stored).unwrap())).await.unwrap();
        let value = store.get(key, None).await.unwrap().unwrap().value;
        assert!(value.starts_with(b"k8s\0") && String::from_utf8_lossy(&value).contains(text), "{key}");
        assert_eq!(store.is_stale(key).await.unwrap(), order > 0, "{key}");
    }
}

#[tokio::test]
async fn rotation_reads_old_values_and_reports_them_as_stale() {
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    let registry = Registry::new();
    let encryption = encryption(&registry);
    let store = encryption.store(&secrets(), Arc::clone(&inner));
    let mut watch = store.watch("/registry/secrets/", 0).await.unwrap();
    store.txn(Txn::put(SECRET, "value")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].kv.value, "value");
    let two_keys =
        format!("{{aescbc: {{keys: [{{name: c, secret: {OTHER_KEY}}}, {{name: b, secret: {KEY}}}]}}}}");
    let steps = [
        (vec![aes("aesgcm", "a", KEY), IDENTITY.to_owned()], "k8s:enc:aesgcm:v1:a:"),
        (vec![aes("aescbc", "b", KEY), aes("aesgcm", "a", KEY)], "k8s:enc:aescbc:v1:b:"),
        (vec![two_keys.clone()], "k8s:enc:aescbc:v1:c:"),
        (vec![aes("secretbox", "d", KEY), two_keys], "k8s:enc:secretbox:v1:d:"),
        (vec![IDENTITY.to_owned(), aes("secretbox", "d", KEY)], "value"),
    ];
    for (providers, prefix) in &steps {
        let content = file(&rule("secrets", &providers.join(", ")));
        assert!(encryption.reload(content.as_bytes()).await.unwrap());
        assert!(!encryption.reload(content.as_bytes()).await.unwrap());
        assert!(store.is_stale(SECRET).await.unwrap(), "{prefix}");
        assert_eq!(store.get(SECRET, None).await.unwrap().unwrap().value, "value", "{prefix}");
        store.txn(Txn::put(SECRET, "value")).await.unwrap();
        assert!(!store.is_stale(SECRET).await.unwrap(), "{prefix}");
        assert_eq!(watch.next().await.unwrap().unwrap().events[0].kv.value, "value");
        let stored = inner.get(SECRET, None).await.unwrap().unwrap().value;
        assert!(stored.starts_with(prefix.as_bytes()), "{prefix}");
        assert_eq!(store.range(Range::all("/registry/")).await.unwrap().items[0].value, "value");
    }
    let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "apiserver_storage_transformation_operations_total{resource=\"secrets\",status=\"OK\",transformation_type=\"to_storage\",transformer_prefix=\"k8s:enc:aescbc:v1:\"} 2",
        "apiserver_storage_transformation_operations_total{resource=\"secrets\",status=\"OK\",transformation_type=\"to_storage\",transformer_prefix=\"b:\"} 1",
        "transformer_prefix=\"identity\"",
        "apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash=\"sha256:",
        "apiserver_encryption_config_controller_last_config_info{",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(metrics.matches("last_config_info{").count(), 1);
}

#[tokio::test]
async fn values_that_cannot_be_decrypted_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    let registry = Registry::new();
    let encryption = encryption(&registry);
    let store = encryption.store(&secrets(), Arc::clone(&inner));
    let written =
        loaded(&rule("secrets", &aes("aesgcm", "a", KEY))).await.store(&secrets(), Arc::clone(&inner));
    written.txn(Txn::put(SECRET, "value")).await.unwrap();
    let gcm = |name: &str, key: &str| rule("secrets", &format!("{}, {IDENTITY}", aes("aesgcm", name, key)));
    for (rules, wanted) in [
        (String::new(), "identity transformer tried to read encrypted data"),
        (gcm("a", OTHER_KEY), "cipher: message authentication failed"),
        (gcm("b", KEY), "no matching key was found for the provided AES transformer"),
        (rule("secrets", &aes("aescbc", "a", KEY)), "no matching prefix found"),
        (rule("configmaps", &aes("aescbc", "a", KEY)), "identity transformer tried to read encrypted data"),
    ] {
        if !rules.is_empty() {
            encryption.load(file(&rules).as_bytes(), true).await.unwrap();
        }
        let StoreError::Transform(why) = store.get(SECRET, None).await.unwrap_err() else {
            panic!("{wanted}")
        };
        assert_eq!(&*why, wanted);
        let StoreError::Transform(why) = store.range(Range::all("/registry/")).await.unwrap_err() else {
            panic!("{wanted}")
        };
        assert_eq!(*why, *format!("unable to transform key {SECRET:?}: {wanted}"));
        let mut watch = store.watch("/registry/", 1).await.unwrap();
        assert!(matches!(watch.next().await.unwrap(), Err(StoreError::Transform(_))), "{wanted}");
        assert!(watch.next().await.is_none(), "{wanted}");
        // Other objects are not affected.
        assert!(store.get("/registry/secrets/default/b", None).await.unwrap().is_none());
        assert_eq!(store.revision(SECRET).await.unwrap(), Some(2), "{wanted}");
    }
}

#[tokio::test]
async fn values_cannot_be_moved_to_another_object() {
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    let store =
        loaded(&rule("secrets", &aes("aesgcm", "a", KEY))).await.store(&secrets(), Arc::clone(&inner));
    store.txn(Txn::put(SECRET, "value")).await.unwrap();
    let stored = inner.get(SECRET, None).await.unwrap().unwrap().value;
    inner.txn(Txn::put("/registry/secrets/default/b", stored)).await.unwrap();
    let error = store.get("/registry/secrets/default/b", None).await.unwrap_err().to_string();
    assert_eq!(error, "cipher: message authentication failed");
}

#[tokio::test]
async fn etcd_prefix_is_part_of_authenticated_keys() {
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    let content = file(&rule("secrets", &aes("aesgcm", "a", KEY)));
    let mut stores = Vec::new();
    for prefix in ["/registry", "other/", "/other"] {
        let encryption = Encryption::none(prefix, Metrics::new(&Registry::new(), "server").unwrap());
        encryption.load(content.as_bytes(), false).await.unwrap();
        stores.push(encryption.store(&secrets(), Arc::clone(&inner)));
    }
    stores[1].txn(Txn::put(SECRET, "value")).await.unwrap();
    assert!(stores[0].get(SECRET, None).await.is_err());
    assert_eq!(stores[2].get(SECRET, None).await.unwrap().unwrap().value, "value");
}

#[tokio::test]
async fn the_most_specific_rule_applies() {
    let rules = [
        rule("events", IDENTITY),
        rule("secrets, pandas.bears.example", &aes("aescbc", "named", KEY)),
        rule("'*.apps'", &aes("aescbc", "group", KEY)),
        rule("'*.*'", &aes("aescbc", "all", KEY)),
    ];
    let encryption = loaded(&rules.concat()).await;
    let folder = tempfile::tempdir().unwrap();
    let inner = plain(&folder);
    for (group, name, prefix) in [
        ("", "events", "value"),
        ("events.k8s.io", "events", "value"),
        ("", "secrets", "k8s:enc:aescbc:v1:named:"),
        ("bears.example", "pandas", "k8s:enc:aescbc:v1:named:"),
        ("apps", "deployments", "k8s:enc:aescbc:v1:group:"),
        ("", "configmaps", "k8s:enc:aescbc:v1:all:"),
        ("later.example", "things", "k8s:enc:aescbc:v1:all:"),
    ] {
        let store = encryption.store(&resource(group, name), Arc::clone(&inner));
        store.txn(Txn::put(SECRET, "value")).await.unwrap();
        let stored = inner.get(SECRET, None).await.unwrap().unwrap().value;
        assert!(stored.starts_with(prefix.as_bytes()), "{group}/{name}");
    }
    let masked = |first: &str, second: &str| file(&[rule(first, IDENTITY), rule(second, IDENTITY)].concat());
    for (first, second, by) in [
        ("'*.'", "secrets", "resource \"secrets\" is masked by earlier rule \"*.\""),
        ("'*.*'", "deployments.apps", "resource \"deployments.apps\" is masked by earlier rule \"*.*\""),
        ("'*.apps'", "'*.apps'", "resource \"*.apps\" is masked by earlier rule \"*.apps\""),
    ] {
        let error = encryption.load(masked(first, second).as_bytes(), false).await.unwrap_err();
        assert_eq!(error.to_string(), by);
    }
}

#[tokio::test]
async fn an_invalid_file_keeps_the_providers() {
    let encryption = loaded(&rule("secrets", &aes("aesgcm", "a", KEY))).await;
    let folder = tempfile::tempdir().unwrap();
    let store = encryption.store(&secrets(), plain(&folder));
    store.txn(Txn::put(SECRET, "value")).await.unwrap();
    assert!(encryption.reload(b"{").await.is_err());
    assert_eq!(store.get(SECRET, None).await.unwrap().unwrap().value, "value");
}
