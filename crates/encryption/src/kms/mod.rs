//! Envelope encryption with a key management plugin (KMS v2, KEP-3299).
//!
//! The server creates a random seed, and the plugin encrypts it with its key. Each value is encrypted by AES-GCM with a
//! key that is derived from the seed, and is stored with the encrypted seed and the ID of the plugin's key. The plugin is
//! polled; when it reports another key, a new seed is created. While the plugin fails, values are readable if their seed
//! is in memory, and writes go on for three minutes.

mod client;
mod messages;
mod seed;
#[cfg(feature = "testing")]
pub mod testing;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::config::KmsConfig;
use crate::metrics::{Direction, Metrics, hash};
use crate::providers::Decrypted;
use crate::{ConfigError, TransformError};
use client::Client;
use messages::{DecryptRequest, EncryptRequest, EncryptedObject, StatusResponse};
use seed::{Seed, SourceKind};

/// Intervals of calls to plugins. The defaults are upstream's.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Interval of polls while the plugin is healthy.
    pub healthy_poll: Duration,
    /// Interval of polls while the plugin fails.
    pub failing_poll: Duration,
    /// Time for which a seed is used for writes after the last successful poll.
    pub write_limit: Duration,
    /// Time for which a successful check is repeated from memory.
    pub success_ttl: Duration,
    /// Time for which a failed check is repeated from memory.
    pub failure_ttl: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            healthy_poll: Duration::from_mins(1),
            failing_poll: Duration::from_secs(10),
            write_limit: Duration::from_mins(3),
            success_ttl: Duration::from_secs(20),
            failure_ttl: Duration::from_secs(3),
        }
    }
}

/// A plugin, and the seeds that it has encrypted.
pub(crate) struct Kms {
    name: String,
    prefix: String,
    client: Client,
    metrics: Metrics,
    timings: Timings,
    /// The seed for writes; `None` until the plugin has answered.
    current: RwLock<Option<CurrentSeed>>,
    /// Decrypted seeds, by the hash of their encrypted form.
    seeds: Mutex<LruCache<[u8; 32], Arc<Seed>>>,
    /// The last check. Checks run one after the other.
    last_check: tokio::sync::Mutex<LastCheck>,
    poll: OnceLock<Poll>,
}

/// The seed for writes.
#[derive(Clone)]
struct CurrentSeed {
    seed: Arc<Seed>,
    /// The encrypted seed, without data.
    envelope: Arc<EncryptedObject>,
    /// The seed must not be used for writes after this time.
    expires: Instant,
}

#[derive(Default)]
struct LastCheck {
    outcome: Option<(Instant, Result<(), String>)>,
    /// The version that the plugin has reported first.
    version: Option<String>,
}

/// The background task, ended when dropped.
struct Poll(AbortHandle);

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kms {
    /// Creates a provider that calls the plugin of `config`.
    ///
    /// # Errors
    /// The plugin has KMS v1.
    pub(crate) fn new(config: &KmsConfig, metrics: Metrics, timings: Timings) -> Result<Self, ConfigError> {
        if config.api_version != "v2" {
            return Err(ConfigError::KmsV1(config.name.clone()));
        }
        Ok(Self {
            name: config.name.clone(),
            prefix: format!("k8s:enc:kms:v2:{}:", config.name),
            client: Client::new(&config.name, &config.endpoint, config.timeout(), metrics.clone()),
            metrics,
            timings,
            current: RwLock::default(),
            seeds: Mutex::new(LruCache::new(MAX_SEEDS)),
            last_check: tokio::sync::Mutex::default(),
            poll: OnceLock::new(),
        })
    }

    /// Checks the plugin once, and then periodically until `self` is dropped. Does nothing if it is started already.
    pub(crate) async fn start(self: &Arc<Self>) {
        if self.poll.get().is_some() {
            return;
        }
        if let Err(error) = self.check().await {
            tracing::warn!(provider = self.name, error, "key management plugin failed; it is called again");
        }
        let plugin = Arc::downgrade(self);
        let task = tokio::spawn(poll(plugin, self.timings));
        self.poll.get_or_init(|| Poll(task.abort_handle()));
    }

    /// Returns the prefix of values.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the timeout of a call.
    pub(crate) fn timeout(&self) -> Duration {
        self.client.timeout()
    }

    /// Asks the plugin for its status and creates a new seed if its key has changed. A recent outcome is repeated.
    ///
    /// # Errors
    /// The plugin does not answer, reports an error, or does not encrypt with the key that it reports.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let mut last = self.last_check.lock().await;
        if let Some((at, outcome)) = &last.outcome {
            let ttl = if outcome.is_ok() { self.timings.success_ttl } else { self.timings.failure_ttl };
            if at.elapsed() < ttl {
                return outcome.clone();
            }
        }
        let outcome = match self.client.status().await {
            Ok(status) => self
                .follow(&status, &mut last.version)
                .await
                .map_err(|errors| format!("kmsv2 Provider {} is not healthy, error: {errors}", self.name)),
            Err(error) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )),
        };
        last.outcome = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Encrypts a value with the current seed and appends it to `stored`.
    pub(crate) fn encrypt(
        &self,
        aad: &str,
        value: &[u8],
        stored: &mut Vec<u8>,
    ) -> Result<(), TransformError> {
        let current = self.current()?;
        let key_id = &current.envelope.key_id;
        if Instant::now() > current.expires {
            let why = format!("encryptedDEKSource with keyID hash {:?} expired", hash(key_id.as_bytes()));
            return Err(TransformError::kms(why));
        }
        let mut object = EncryptedObject::clone(&current.envelope);
        current.seed.seal(aad, value, &mut object.encrypted_data)?;
        self.metrics.used_key(Direction::ToStorage, &self.name, key_id);
        object.encode(stored).map_err(|error| TransformError::kms(error.to_string()))
    }

    /// Decrypts a value. Calls the plugin if the seed is not in memory.
    pub(crate) async fn decrypt(&self, aad: &str, stored: &[u8]) -> Result<Decrypted, TransformError> {
        let object =
            EncryptedObject::decode(stored).map_err(|error| TransformError::kms(error.to_string()))?;
        object.validate().map_err(TransformError::kms)?;
        let current = self.current()?;
        let id = object.seed_id();
        let cached = self.seeds.lock().get(&id).cloned();
        let seed = match cached {
            Some(seed) => seed,
            None => self.fetch_seed(&object, id).await?,
        };
        self.metrics.used_key(Direction::FromStorage, &self.name, &object.key_id);
        let value = seed.open(aad, &object.encrypted_data)?;
        let is_stale = object.key_id != current.envelope.key_id
            || object.encrypted_dek_source_type != current.envelope.encrypted_dek_source_type;
        Ok(Decrypted { value: value.into(), is_stale })
    }

    async fn fetch_seed(&self, object: &EncryptedObject, id: [u8; 32]) -> Result<Arc<Seed>, TransformError> {
        self.metrics.missed_cache();
        let request = DecryptRequest {
            ciphertext: object.encrypted_dek_source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let decrypted = self.client.decrypt(&request).await.map_err(|error| TransformError::Kms {
            code: error.code,
            text: format!("failed to decrypt DEK, error: {error}"),
        })?;
        let kind = SourceKind::try_from(object.encrypted_dek_source_type);
        let seed = kind.ok().and_then(|kind| Seed::new(kind, &decrypted.plaintext));
        let seed = seed.ok_or_else(|| {
            let length = decrypted.plaintext.len();
            TransformError::kms(format!("invalid seed length {length} used for key generation"))
        })?;
        let seed = Arc::new(seed);
        self.remember(id, &seed);
        Ok(seed)
    }

    fn remember(&self, id: [u8; 32], seed: &Arc<Seed>) {
        let mut seeds = self.seeds.lock();
        seeds.put(id, Arc::clone(seed));
        self.metrics.cached_seeds(&self.name, seeds.len());
    }

    fn current(&self) -> Result<CurrentSeed, TransformError> {
        let current = self.current.read().clone();
        current.ok_or_else(|| TransformError::kms("got unexpected nil transformer"))
    }

    /// Checks the plugin's status and follows its key.
    async fn follow(&self, status: &StatusResponse, version: &mut Option<String>) -> Result<(), String> {
        let mut errors = Vec::new();
        if status.healthz != "ok" {
            errors.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if VERSIONS.contains(&status.version.as_str()) {
            let first = version.get_or_insert_with(|| status.version.clone());
            if *first != status.version {
                errors.push(format!(
                    "KMSv2 API version should not change after the initial status response version {first}, got {}",
                    status.version
                ));
            }
        } else {
            errors.push(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        if let Err(invalid) = messages::validate_key_id(&status.key_id) {
            self.metrics.invalid_key_id(&self.name, invalid.code);
            let key = hash(status.key_id.as_bytes());
            errors.push(format!("got invalid KMSv2 KeyID hash {key:?}: {invalid}"));
        } else {
            self.metrics.reported_key(&self.name, &status.key_id);
            errors.extend(self.rotate(&status.key_id).await.err());
        }
        match errors.as_slice() {
            [] => Ok(()),
            [error] => Err(error.clone()),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// Extends the use of the seed if the plugin still has its key; creates a new seed otherwise. After a failure the
    /// previous seed stays in use until it expires.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        // Taken before the call, because it is an upper bound.
        let expires = Instant::now() + self.timings.write_limit;
        if let Some(current) = self.current.write().as_mut()
            && current.envelope.key_id == key_id
        {
            current.expires = expires;
            return Ok(());
        }
        let created = self.create_seed(expires).await;
        let (why, encrypted_with) = match created {
            Ok(created) if created.envelope.key_id == key_id => {
                self.remember(created.envelope.seed_id(), &created.seed);
                *self.current.write() = Some(created);
                tracing::info!(provider = self.name, key = hash(key_id.as_bytes()), "encryption key rotated");
                return Ok(());
            }
            Ok(created) => ("<nil>".to_owned(), hash(created.envelope.key_id.as_bytes())),
            Err(error) => (error, String::new()),
        };
        Err(format!(
            "failed to rotate DEK, errGen={why}, statusKeyIDHash={:?}, encryptKeyIDHash={encrypted_with:?}",
            hash(key_id.as_bytes())
        ))
    }

    async fn create_seed(&self, expires: Instant) -> Result<CurrentSeed, String> {
        let (seed, plaintext) = Seed::generate().map_err(|error| error.to_string())?;
        let request = EncryptRequest { plaintext, uid: uuid::Uuid::new_v4().to_string() };
        let encrypted = self.client.encrypt(&request).await;
        let encrypted = encrypted.map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let envelope = EncryptedObject {
            key_id: encrypted.key_id,
            encrypted_dek_source: encrypted.ciphertext,
            annotations: encrypted.annotations,
            encrypted_dek_source_type: SourceKind::HkdfSha256XnonceAesGcmSeed.into(),
            encrypted_data: Vec::new(),
        };
        envelope.validate_envelope()?;
        Ok(CurrentSeed { seed: Arc::new(seed), envelope: Arc::new(envelope), expires })
    }
}

/// Checks the plugin periodically, faster while it fails.
async fn poll(plugin: Weak<Kms>, timings: Timings) {
    let mut pause = Duration::ZERO;
    loop {
        let Some(kms) = plugin.upgrade() else { return };
        let outcome = if pause.is_zero() {
            // The first check has just been made.
            kms.last_check.lock().await.outcome.clone().map_or(Ok(()), |(_, outcome)| outcome)
        } else {
            kms.check().await
        };
        if let Err(error) = &outcome {
            tracing::debug!(provider = kms.name, error, "key management plugin failed");
        }
        drop(kms);
        pause = if outcome.is_ok() { timings.healthy_poll } else { timings.failing_poll };
        sleep(pause).await;
    }
}

/// The names of the API version in the status.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];
/// Maximum number of decrypted seeds in memory. There is one for each start of a server and each key of the plugin.
const MAX_SEEDS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
