//! The providers of all resources, from a configuration that can be replaced.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use nave_machinery::GroupResource;
use nave_store::Store;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ciphers::Cipher;
use crate::config::{KeyConfig, ProviderConfig, parse_resource};
use crate::kms::{Kms, Timings};
use crate::metrics::{Metrics, hash};
use crate::providers::{Keys, NamedKey, Provider, Providers};
use crate::{ConfigError, EncryptedStore, EncryptionConfiguration};

/// Encryption at rest of a server. Clones share it.
#[derive(Clone)]
pub struct Encryption(Arc<Shared>);

struct Shared {
    current: ArcSwap<Current>,
    /// Replaces `/registry` in authenticated keys.
    prefix: String,
    metrics: Metrics,
    timings: Timings,
}

/// The providers of one configuration.
#[derive(Default)]
struct Current {
    by_resource: HashMap<GroupResource, Arc<Providers>>,
    plugins: Vec<Arc<Kms>>,
    /// The hash of the file; empty without one.
    hash: String,
    /// The file may be loaded again, so that plugins may be used later.
    reload: bool,
}

/// The reasons why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A plugin of the new configuration cannot be used.
    #[error("health check for new transformers failed: {0}")]
    Unhealthy(String),
}

impl Encryption {
    /// Creates encryption without providers: values are plain, and reads of encrypted values fail. `prefix` is that of
    /// keys in etcd (`--etcd-prefix`), which are authenticated.
    pub fn none(prefix: &str, metrics: Metrics) -> Self {
        Self::new(prefix, metrics, Timings::default())
    }

    /// Creates encryption with other intervals for plugins.
    pub fn new(prefix: &str, metrics: Metrics, timings: Timings) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Self(Arc::new(Shared { current: ArcSwap::default(), prefix, metrics, timings }))
    }

    /// Uses the providers of a file. Calls each plugin once; plugins that do not answer are called again in the
    /// background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The file is invalid.
    pub async fn load(&self, file: &[u8], reload: bool) -> Result<(), ConfigError> {
        let new = self.build(file, reload).await?;
        self.adopt(new);
        Ok(())
    }

    /// Uses the providers of a file that has changed, if their plugins can be used. Returns false if the content is the
    /// same.
    ///
    /// # Errors
    /// The file is invalid or a plugin does not answer. The previous providers stay in use.
    pub async fn reload(&self, file: &[u8]) -> Result<bool, LoadError> {
        if self.0.current.load().hash == hash(file) {
            return Ok(false);
        }
        let outcome = async {
            let new = self.build(file, true).await?;
            new.wait_healthy().await.map_err(LoadError::Unhealthy)?;
            self.adopt(new);
            Ok(true)
        };
        let outcome = outcome.await;
        self.0.metrics.reloaded(outcome.is_ok());
        outcome
    }

    /// Returns a store of a resource, encrypted in `inner`.
    pub fn store(&self, resource: &GroupResource, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(EncryptedStore::new(self.clone(), resource, inner))
    }

    /// Returns whether plugins are or may be used, so that the server has a health check for them.
    pub fn needs_check(&self) -> bool {
        let current = self.0.current.load();
        current.reload || !current.plugins.is_empty()
    }

    /// Checks all plugins.
    ///
    /// # Errors
    /// The reasons why plugins cannot be used.
    pub async fn check_health(&self) -> Result<(), String> {
        self.0.current.load_full().check_health().await
    }

    /// Returns the providers of a resource; `None` if its values are plain.
    pub(crate) fn providers(&self, resource: &GroupResource) -> Option<Arc<Providers>> {
        let current = self.0.current.load();
        if current.by_resource.is_empty() {
            return None;
        }
        // Events are stored in the core group.
        let group = if resource.group == "events.k8s.io" { "" } else { &resource.group };
        let names = [(group, resource.resource.as_str()), (group, "*"), ("*", "*")];
        names.iter().find_map(|(group, name)| {
            let resource = GroupResource { group: (*group).to_owned(), resource: (*name).to_owned() };
            current.by_resource.get(&resource).cloned()
        })
    }

    /// Returns the key in etcd of a key of the store.
    pub(crate) fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        match key.strip_prefix(DEFAULT_PREFIX) {
            Some(rest) if self.0.prefix != DEFAULT_PREFIX => format!("{}{rest}", self.0.prefix).into(),
            _ => key.into(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn adopt(&self, new: Current) {
        self.0.metrics.uses_config(&new.hash);
        // Requests in flight keep the previous providers, whose plugins are closed with the last of them.
        self.0.current.store(Arc::new(new));
    }

    async fn build(&self, file: &[u8], reload: bool) -> Result<Current, ConfigError> {
        let config = EncryptionConfiguration::parse(file, reload)?;
        let mut current = Current { hash: hash(file), reload, ..Current::default() };
        let mut by_resource: HashMap<GroupResource, Providers> = HashMap::new();
        for rule in &config.resources {
            let providers: Result<Vec<_>, _> = rule.providers.iter().map(|it| self.provider(it)).collect();
            let providers = providers?;
            for name in &rule.resources {
                let resource = parse_resource(name);
                for wildcard in [resource.group.as_str(), "*"] {
                    let by = GroupResource { group: wildcard.to_owned(), resource: "*".to_owned() };
                    if by_resource.contains_key(&by) {
                        let (masked, by) = (rule_name(&resource), rule_name(&by));
                        return Err(ConfigError::Masked { masked, by });
                    }
                }
                by_resource.entry(resource).or_default().extend(&providers);
            }
            current.plugins.extend(providers.iter().filter_map(|provider| match provider {
                Provider::Kms(kms) => Some(Arc::clone(kms)),
                _ => None,
            }));
        }
        current.by_resource =
            by_resource.into_iter().map(|(resource, providers)| (resource, Arc::new(providers))).collect();
        join_all(current.plugins.iter().map(Kms::start)).await;
        Ok(current)
    }

    fn provider(&self, config: &ProviderConfig) -> Result<Provider, ConfigError> {
        if let Some(kms) = &config.kms {
            let opened = Kms::new(kms, self.0.metrics.clone(), self.0.timings);
            return opened.map(|kms| Provider::Kms(Arc::new(kms)));
        }
        let Some((algorithm, keys)) = config.keys() else { return Ok(Provider::Identity) };
        let key = |key: &KeyConfig| {
            let cipher = key.bytes().and_then(|bytes| Cipher::new(algorithm, &bytes));
            let invalid = || ConfigError::Shape(format!("key {:?} is invalid", key.name));
            Ok(NamedKey { prefix: format!("{}:", key.name), cipher: cipher.ok_or_else(invalid)? })
        };
        let keys: Result<Vec<_>, ConfigError> = keys.iter().map(key).collect();
        Ok(Provider::Keys(Arc::new(Keys { algorithm, keys: keys? })))
    }
}

impl Current {
    async fn check_health(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        for (index, plugin) in self.plugins.iter().enumerate() {
            if let Err(error) = plugin.check().await {
                errors.push(format!("kms-provider-{index}: {error}"));
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [error] => Err(error.clone()),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// Waits until all plugins can be used.
    async fn wait_healthy(&self) -> Result<(), String> {
        let timeouts: Duration = self.plugins.iter().map(|plugin| plugin.timeout()).sum();
        let deadline = Instant::now() + (timeouts * 2).max(MIN_HEALTH_WAIT);
        loop {
            let late = || Err("no answer in time".to_owned());
            let outcome = timeout_at(deadline, self.check_health()).await.unwrap_or_else(|_| late());
            if outcome.is_ok() || Instant::now() >= deadline {
                return outcome;
            }
            sleep(HEALTH_PAUSE).await;
        }
    }
}

/// Returns a resource as in the file.
fn rule_name(resource: &GroupResource) -> String {
    if resource.group.is_empty() && resource.resource == "*" { "*.".to_owned() } else { resource.to_string() }
}

/// Prefix of the keys of all stores.
const DEFAULT_PREFIX: &str = "/registry";
const MIN_HEALTH_WAIT: Duration = Duration::from_secs(10);
const HEALTH_PAUSE: Duration = Duration::from_millis(100);
