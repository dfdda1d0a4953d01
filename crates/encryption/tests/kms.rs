//! Envelope encryption with a key management plugin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use nave_encryption::testing::Plugin;
use nave_encryption::{Encryption, Metrics, Timings};
use nave_machinery::GroupResource;
use nave_store::embedded::{Embedded, Options};
use nave_store::{Store, Txn};
use prometheus::Registry;
use tempfile::TempDir;

const SECRET: &str = "/registry/secrets/default/a";

/// A store with a plugin, and its parts.
struct Fixture {
    folder: TempDir,
    inner: Arc<dyn Store>,
    registry: Registry,
    encryption: Encryption,
    store: Arc<dyn Store>,
}

impl Fixture {
    async fn start(plugin: Option<&str>, timings: Timings) -> (Self, Option<Plugin>) {
        let folder = tempfile::tempdir().unwrap();
        let plugin = plugin.map(|key| Plugin::start(&folder.path().join("kms.sock"), key));
        let inner: Arc<dyn Store> =
            Arc::new(Embedded::open(&folder.path().join("store"), &Options::default()).unwrap());
        let registry = Registry::new();
        let encryption = Encryption::new("/registry", Metrics::new(&registry, "server").unwrap(), timings);
        let mut fixture = Self { store: Arc::clone(&inner), folder, inner, registry, encryption };
        fixture.encryption.load(fixture.file("500ms").as_bytes(), false).await.unwrap();
        fixture.store = fixture.encrypted(&fixture.encryption);
        (fixture, plugin)
    }

    fn encrypted(&self, encryption: &Encryption) -> Arc<dyn Store> {
        let secrets = GroupResource { group: String::new(), resource: "secrets".to_owned() };
        encryption.store(&secrets, Arc::clone(&self.inner))
    }

    fn file(&self, timeout: &str) -> String {
        let socket = self.folder.path().join("kms.sock");
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
             providers:\n  - kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: {timeout}}}\n  - identity: {{}}\n",
            socket.display()
        )
    }

    async fn write(&self) -> Result<(), String> {
        self.store.txn(Txn::put(SECRET, "value")).await.map(drop).map_err(|error| error.to_string())
    }

    async fn read(store: &Arc<dyn Store>) -> Result<String, String> {
        let found = store.get(SECRET, None).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(found.unwrap().value.to_vec()).unwrap())
    }

    /// Waits until the health is as wanted.
    async fn eventually_healthy(&self, wanted: bool) {
        while self.encryption.check_health().await.is_ok() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

/// Intervals so short that each check calls the plugin.
fn fast() -> Timings {
    Timings {
        healthy_poll: Duration::from_millis(10),
        failing_poll: Duration::from_millis(10),
        success_ttl: Duration::ZERO,
        failure_ttl: Duration::ZERO,
        ..Timings::default()
    }
}

#[tokio::test]
async fn a_restarted_server_decrypts_with_the_plugin_once() {
    let (fixture, plugin) = Fixture::start(Some("1"), Timings::default()).await;
    let plugin = plugin.unwrap();
    fixture.write().await.unwrap();
    let stored = fixture.inner.get(SECRET, None).await.unwrap().unwrap().value;
    assert!(stored.starts_with(b"k8s:enc:kms:v2:vault:"));
    assert!(!String::from_utf8_lossy(&stored).contains("value"));
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
    assert_eq!(plugin.decryptions(), 0);

    let metrics = Metrics::new(&Registry::new(), "server").unwrap();
    let restarted = Encryption::new("/registry", metrics, Timings::default());
    restarted.load(fixture.file("500ms").as_bytes(), false).await.unwrap();
    let store = fixture.encrypted(&restarted);
    for _ in 0..3 {
        assert_eq!(Fixture::read(&store).await.unwrap(), "value");
    }
    assert_eq!(plugin.decryptions(), 1);
    // The key of the plugin is the same, so the value is not stale.
    assert!(!store.is_stale(SECRET).await.unwrap());
    let metrics = fixture.metrics();
    for line in [
        "apiserver_envelope_encryption_key_id_hash_total{apiserver_id_hash=\"sha256:",
        "apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"vault\"} 1",
        "method_name=\"/v2.KeyManagementService/Encrypt\",provider_name=\"vault\"",
        "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{",
        "transformer_prefix=\"k8s:enc:kms:v2:vault:\"",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_new_key_makes_values_stale() {
    let (fixture, plugin) = Fixture::start(Some("1"), fast()).await;
    let plugin = plugin.unwrap();
    fixture.write().await.unwrap();
    assert!(!fixture.store.is_stale(SECRET).await.unwrap());
    plugin.set_key("2");
    while !fixture.store.is_stale(SECRET).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
    fixture.write().await.unwrap();
    assert!(!fixture.store.is_stale(SECRET).await.unwrap());
    assert!(fixture.encryption.check_health().await.is_ok());

    // A plugin that encrypts with another key than it reports is not used.
    plugin.set_status_key("3");
    fixture.eventually_healthy(false).await;
    let error = fixture.encryption.check_health().await.unwrap_err();
    assert!(
        error.starts_with("kms-provider-0: kmsv2 Provider vault is not healthy, error: failed to rotate DEK"),
        "{error}"
    );
    fixture.write().await.unwrap();
    assert!(!fixture.store.is_stale(SECRET).await.unwrap());
}

#[tokio::test]
async fn writes_stop_some_time_after_the_plugin_fails() {
    let timings = Timings { write_limit: Duration::from_millis(200), ..fast() };
    let (fixture, plugin) = Fixture::start(Some("1"), timings).await;
    fixture.write().await.unwrap();
    plugin.as_ref().unwrap().set_health("sealed");
    // The key is the same, so an unhealthy status does not end its use.
    fixture.eventually_healthy(false).await;
    let error = fixture.encryption.check_health().await.unwrap_err();
    assert_eq!(
        error,
        "kms-provider-0: kmsv2 Provider vault is not healthy, error: got unexpected healthz status: sealed"
    );
    drop(plugin);
    fixture.eventually_healthy(false).await;
    let refused = loop {
        match fixture.write().await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert!(refused.contains("expired"), "{refused}");
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
    let _plugin = Plugin::start(&fixture.folder.path().join("kms.sock"), "1");
    fixture.eventually_healthy(true).await;
    fixture.write().await.unwrap();
}

#[tokio::test]
async fn a_plugin_may_start_after_the_server() {
    let (fixture, _) = Fixture::start(None, fast()).await;
    assert!(fixture.encryption.needs_check());
    let error = fixture.write().await.unwrap_err();
    assert_eq!(error, "got unexpected nil transformer");
    let error = fixture.encryption.check_health().await.unwrap_err();
    assert!(
        error.contains("failed to perform status section of the healthz check for KMS Provider vault"),
        "{error}"
    );
    let _plugin = Plugin::start(&fixture.folder.path().join("kms.sock"), "1");
    fixture.eventually_healthy(true).await;
    fixture.write().await.unwrap();
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
}

#[tokio::test]
async fn a_reload_needs_a_healthy_plugin() {
    let (fixture, plugin) = Fixture::start(Some("1"), fast()).await;
    fixture.write().await.unwrap();
    let same = fixture.file("500ms");
    assert!(!fixture.encryption.reload(same.as_bytes()).await.unwrap());
    assert!(fixture.encryption.reload(fixture.file("600ms").as_bytes()).await.unwrap());
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
    drop(plugin);
    tokio::time::pause();
    let error = fixture.encryption.reload(fixture.file("700ms").as_bytes()).await.unwrap_err().to_string();
    assert!(error.starts_with("health check for new transformers failed: "), "{error}");
    tokio::time::resume();
    // The previous plugin's seed is still in memory.
    assert_eq!(Fixture::read(&fixture.store).await.unwrap(), "value");
}

#[tokio::test]
async fn a_huge_answer_is_a_failure() {
    let (fixture, plugin) = Fixture::start(Some("1"), fast()).await;
    fixture.eventually_healthy(true).await;
    plugin.as_ref().unwrap().set_health(&"x".repeat(5 << 20));
    fixture.eventually_healthy(false).await;
    let error = fixture.encryption.check_health().await.unwrap_err();
    assert!(error.len() < 500, "{}", error.len());
    plugin.as_ref().unwrap().set_health("ok");
    fixture.eventually_healthy(true).await;
}

#[tokio::test]
async fn v1_is_refused() {
    let (fixture, _plugin) = Fixture::start(Some("1"), fast()).await;
    for (version, error) in
        [("apiVersion: v1", "KMS v1"), ("cachesize: 5", "KMS v1"), ("apiVersion: v3", "only v1 and v2")]
    {
        let file = fixture.file("1s").replace("apiVersion: v2", version);
        let found = fixture.encryption.load(file.as_bytes(), false).await.unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
}
