//! `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`), the file of `--encryption-provider-config`.

mod validation;

use std::fmt;
use std::time::Duration;

use nave_machinery::{FieldError, duration};
use serde::Deserialize;

use crate::ciphers::Algorithm;

pub(crate) use validation::parse_resource;

/// The content of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(expecting = "an EncryptionConfiguration")]
pub struct EncryptionConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Rules in order; a resource has the providers of all rules that name it.
    #[serde(default)]
    pub(crate) resources: Vec<ResourceRule>,
}

/// Resources and their providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourceRule {
    /// `resource`, `resource.group`, `*.`, `*.group` or `*.*`.
    #[serde(default)]
    pub(crate) resources: Vec<String>,
    /// The first provider writes, all read.
    #[serde(default)]
    pub(crate) providers: Vec<ProviderConfig>,
}

/// One provider: exactly one field is set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderConfig {
    pub(crate) aesgcm: Option<KeysConfig>,
    pub(crate) aescbc: Option<KeysConfig>,
    pub(crate) secretbox: Option<KeysConfig>,
    pub(crate) identity: Option<IdentityConfig>,
    pub(crate) kms: Option<KmsConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityConfig {}

/// The keys of a provider. The first one encrypts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysConfig {
    #[serde(default)]
    pub(crate) keys: Vec<KeyConfig>,
}

/// A key.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfig {
    #[serde(default)]
    pub(crate) name: String,
    /// The key in base64.
    #[serde(default)]
    pub(crate) secret: String,
}

/// A key management plugin.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KmsConfig {
    #[serde(default)]
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    cachesize: Option<i32>,
    /// The plugin's socket: `unix:///path` or, for an abstract socket, `unix:///@name`.
    #[serde(default)]
    pub(crate) endpoint: String,
    /// The timeout of a call.
    #[serde(default)]
    timeout: Option<String>,
}

/// The reasons why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file has no content.
    #[error("the file is empty")]
    Empty,
    /// The file is not YAML.
    #[error(transparent)]
    Yaml(#[from] nave_codec::yaml::YamlError),
    /// The file is not an `EncryptionConfiguration`.
    #[error("{0}")]
    Shape(String),
    /// Fields have invalid values.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// An earlier rule applies to all resources that a rule names.
    #[error("resource {masked:?} is masked by earlier rule {by:?}")]
    Masked {
        /// The resource.
        masked: String,
        /// The earlier rule.
        by: String,
    },
    /// The plugin has an API that is off by default upstream too.
    #[error("kms provider {0:?} uses KMS v1, which is deprecated and not supported; set apiVersion: v2")]
    KmsV1(String),
}

fn list(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

impl EncryptionConfiguration {
    /// Parses and validates a YAML or JSON file. `reload` tells that the file may be loaded again.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(bytes: &[u8], reload: bool) -> Result<Self, ConfigError> {
        if bytes.is_empty() {
            return Err(ConfigError::Empty);
        }
        let decoded = nave_codec::yaml::decode(bytes)?;
        if let Some(duplicate) = decoded.duplicates.into_iter().next() {
            return Err(ConfigError::Shape(duplicate));
        }
        let read: Self = serde_json::from_value(decoded.value).map_err(|error| shape(&error))?;
        if read.kind != KIND || read.api_version != API_VERSION {
            let why = format!("{:?} of {:?} is not an {KIND} of {API_VERSION}", read.kind, read.api_version);
            return Err(ConfigError::Shape(why));
        }
        let errors = read.validate(reload);
        if errors.is_empty() { Ok(read) } else { Err(ConfigError::Invalid(errors)) }
    }
}

/// Returns the error of a file with another shape. The message has no values, because they may be keys.
fn shape(error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    let text = match text.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
        Some((_, expected)) => format!("a field has the wrong type: expected {expected}"),
        None => text,
    };
    ConfigError::Shape(text)
}

impl ProviderConfig {
    /// Returns the algorithm and keys of a provider with keys; `None` for `identity` and `kms`.
    pub(crate) fn keys(&self) -> Option<(Algorithm, &[KeyConfig])> {
        [
            (&self.aesgcm, Algorithm::AesGcm),
            (&self.aescbc, Algorithm::AesCbc),
            (&self.secretbox, Algorithm::Secretbox),
        ]
        .into_iter()
        .find_map(|(config, algorithm)| config.as_ref().map(|config| (algorithm, config.keys.as_slice())))
    }
}

impl KmsConfig {
    /// Returns the timeout of a call.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.as_deref().and_then(duration::parse).unwrap_or(DEFAULT_TIMEOUT)
    }

    fn is_v1(&self) -> bool {
        matches!(self.api_version.as_str(), "" | "v1")
    }
}

impl fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

const KIND: &str = "EncryptionConfiguration";
const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
