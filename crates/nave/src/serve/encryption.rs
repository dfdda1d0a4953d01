//! Encryption at rest: loads the configuration, and loads it again when it changes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nave_apiserver::bootstrap;
use nave_apiserver::server::StartError;
use nave_encryption::{Encryption, Metrics};
use nave_webhook::WatchedFiles;
use prometheus::Registry;

use super::api::hostname;
use super::{FILE_CHECK, ServeError};
use crate::flags::{Config, FlagError};

/// The providers, and the file that is watched.
pub(super) struct EncryptionFile {
    pub(super) encryption: Encryption,
    /// The file; `None` if it is not loaded again.
    watched: Option<PathBuf>,
}

impl EncryptionFile {
    /// Loads the file. Without one, encrypted values in the store are errors.
    ///
    /// # Errors
    /// The file cannot be read or is invalid.
    pub(super) async fn open(config: &Config, metrics: &Registry) -> Result<Self, ServeError> {
        let server = bootstrap::server_identity(&hostname(config));
        let metrics = Metrics::new(metrics, &server).map_err(StartError::Metrics)?;
        let encryption = Encryption::none(&config.store.prefix, metrics);
        let given = &config.encryption;
        if let Some(path) = &given.file {
            let wrong =
                |why: &dyn std::fmt::Display| FlagError::file("encryption-provider-config", path, why);
            let content = std::fs::read(path).map_err(|error| wrong(&error))?;
            encryption.load(&content, given.reload).await.map_err(|error| wrong(&error))?;
        }
        Ok(Self { encryption, watched: given.file.clone().filter(|_| given.reload) })
    }

    /// Loads the file when it changes. After a failure, tries again every minute.
    pub(super) async fn reload_on_change(&self) -> Infallible {
        let Some(path) = &self.watched else { return std::future::pending().await };
        let mut given = WatchedFiles::new(vec![path.clone()]);
        // The file may have changed since it was loaded.
        let mut retry_at = Some(Instant::now());
        loop {
            tokio::time::sleep(FILE_CHECK).await;
            if !given.changed() && retry_at.is_none_or(|at| Instant::now() < at) {
                continue;
            }
            let file = path.display();
            let outcome = match std::fs::read(path) {
                Ok(content) => self.encryption.reload(&content).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            retry_at = outcome.is_err().then(|| Instant::now() + RETRY);
            match outcome {
                Ok(true) => tracing::info!(%file, "encryption config reloaded"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%file, error, "encryption config reload failed, keeping the previous one");
                }
            }
        }
    }
}

/// Interval of attempts after a failure, which may be that of a plugin.
const RETRY: Duration = Duration::from_mins(1);
