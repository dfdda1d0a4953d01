//! Reloads a configuration file when it changes (upstream: `reloadableAuthorizerResolver`).

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{ConfigError, Configuration, Parts};
use crate::{Chain, NamedAuthorizer};

/// A configuration file, and the dependencies of its authorizers.
pub struct ConfigFile {
    path: PathBuf,
    parts: Parts,
    /// The hash of the configuration in effect.
    hash: String,
    built_in: Vec<String>,
    /// The server's identity in metrics.
    server: String,
}

impl ConfigFile {
    /// Reads the file and creates its authorizers.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn open(
        path: PathBuf,
        parts: Parts,
        server: &str,
    ) -> Result<(Self, Vec<NamedAuthorizer>), ConfigError> {
        let content = std::fs::read(&path)?;
        let configuration = Configuration::parse(&content)?;
        let authorizers = configuration.build(&parts)?;
        let built_in = configuration.built_in().into_iter().map(str::to_owned).collect();
        let server = digest(server.as_bytes());
        let file = Self { path, parts, hash: digest(&content), built_in, server };
        file.parts.metrics.config_in_force(&file.server, &file.hash);
        Ok((file, authorizers))
    }

    /// Reads the file again. If it has changed, replaces the authorizers of `chain`; if it cannot be used, leaves the
    /// chain unchanged. Returns whether the chain has changed.
    ///
    /// # Errors
    /// The reason why the file cannot be used.
    pub fn reload(&mut self, chain: &Chain) -> Result<bool, ConfigError> {
        let outcome = self.try_reload(chain);
        if !matches!(outcome, Ok(false)) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.parts.metrics.config_reloaded(&self.server, outcome.is_ok(), now.as_secs_f64());
        }
        outcome
    }

    fn try_reload(&mut self, chain: &Chain) -> Result<bool, ConfigError> {
        let content = std::fs::read(&self.path)?;
        let hash = digest(&content);
        if hash == self.hash {
            return Ok(false);
        }
        let configuration = Configuration::parse(&content)?;
        // The data of built-in authorizers is loaded only when the server starts.
        if configuration.built_in() != self.built_in {
            let why = "authorizers other than webhooks can be reordered, but not added or removed";
            return Err(ConfigError::Shape(why.to_owned()));
        }
        chain.replace(configuration.build(&self.parts)?);
        self.hash = hash;
        self.parts.metrics.config_in_force(&self.server, &self.hash);
        Ok(true)
    }
}

/// Returns a hash in the format of the metrics.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
