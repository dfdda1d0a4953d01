//! A configuration in a file that may change while the server runs (upstream: `reloadableAuthorizerResolver`).

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::{ConfigError, Configuration, Parts};
use crate::{Chain, Link};

/// The configuration of a file, with what its authorizers are made of.
pub struct ConfigFile {
    path: PathBuf,
    parts: Parts,
    /// The hash of what is in force.
    hash: String,
    built_in: Vec<String>,
    /// Tells servers apart in metrics.
    server: String,
}

impl ConfigFile {
    /// Reads the file, and makes its authorizers.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn open(path: PathBuf, parts: Parts, server: &str) -> Result<(Self, Vec<Link>), ConfigError> {
        let content = std::fs::read(&path)?;
        let configuration = Configuration::parse(&content)?;
        let links = configuration.build(&parts)?;
        let built_in = configuration.built_in().into_iter().map(str::to_owned).collect();
        let server = digest(server.as_bytes());
        let file = Self { path, parts, hash: digest(&content), built_in, server };
        file.parts.metrics.config_in_force(&file.server, &file.hash);
        Ok((file, links))
    }

    /// Reads the file again, and puts its authorizers into `chain` if they are others. What was in force stays where the
    /// file cannot be used. True if something changed.
    ///
    /// # Errors
    /// Why the file cannot be used.
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
        // What these decide by is set up once, when the server starts.
        if configuration.built_in() != self.built_in {
            let why = "authorizers other than webhooks can be put in another order, not added or removed";
            return Err(ConfigError::Shape(why.to_owned()));
        }
        chain.replace(configuration.build(&self.parts)?);
        self.hash = hash;
        self.parts.metrics.config_in_force(&self.server, &self.hash);
        Ok(true)
    }
}

/// A hash as metrics show it.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
