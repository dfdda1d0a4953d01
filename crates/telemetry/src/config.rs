//! `TracingConfiguration` (`apiserver.config.k8s.io`).

use std::path::Path;

use nave_machinery::{FieldError, FieldPath};
use serde::Deserialize;

/// The settings of tracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address of the collector, `host:port`.
    pub endpoint: String,
    /// The number of sampled requests per million, of those without a sampled trace from the client.
    pub sampling_rate_per_million: u32,
}

/// A file as it is written.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[serde(expecting = "a TracingConfiguration")]
struct ConfigFile {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i64>,
}

/// The reasons why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The file is neither YAML nor JSON.
    #[error(transparent)]
    Yaml(#[from] nave_codec::yaml::YamlError),
    /// A field is unknown or has the wrong type.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// The file is not a `TracingConfiguration`.
    #[error("{kind:?} of {api_version:?} is not a TracingConfiguration")]
    Kind {
        /// The file's `apiVersion`.
        api_version: String,
        /// The file's `kind`.
        kind: String,
    },
    /// A field has an invalid value.
    #[error("{0}")]
    Invalid(FieldError),
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&std::fs::read(path)?)
    }

    /// Parses a YAML or JSON document.
    ///
    /// # Errors
    /// [`ConfigError`], except `Read`.
    pub fn parse(document: &[u8]) -> Result<Self, ConfigError> {
        let file: ConfigFile = serde_json::from_value(nave_codec::yaml::decode(document)?.value)?;
        let ConfigFile { api_version, kind, endpoint, sampling_rate_per_million } = file;
        let version = api_version.strip_prefix("apiserver.config.k8s.io/");
        if kind != "TracingConfiguration" || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) {
            return Err(ConfigError::Kind { api_version, kind });
        }
        let rate = sampling_rate_per_million.unwrap_or(0);
        let invalid = |why: &str| {
            let at = FieldPath::new("samplingRatePerMillion");
            ConfigError::Invalid(FieldError::invalid(&at, rate, why))
        };
        if rate < 0 {
            return Err(invalid("sampling rate must be positive"));
        }
        let sampling_rate_per_million = u32::try_from(rate).ok().filter(|rate| *rate <= MILLION);
        let sampling_rate_per_million = sampling_rate_per_million
            .ok_or_else(|| invalid("sampling rate per million must be less than or equal to one million"))?;
        let endpoint = address(endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT))?;
        Ok(Self { endpoint, sampling_rate_per_million })
    }
}

/// Returns the `host:port` of an endpoint: `host:port`, `dns:///host:port` or `dns://authority/host:port`.
fn address(endpoint: &str) -> Result<String, ConfigError> {
    let invalid =
        |why: String| ConfigError::Invalid(FieldError::invalid(&FieldPath::new("endpoint"), endpoint, why));
    let address = match endpoint.split_once("://") {
        None => endpoint,
        Some(("dns", rest)) => rest.split_once('/').map_or(rest, |(_, address)| address),
        Some((scheme, _)) => {
            let why = format!(
                "unsupported scheme: {scheme}.  Options are none and dns.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
            );
            return Err(invalid(why));
        }
    };
    if address.parse::<http::uri::Authority>().is_err() {
        return Err(invalid("must be a host with a port".to_owned()));
    }
    Ok(address.to_owned())
}

/// The default of the OpenTelemetry protocol.
const DEFAULT_ENDPOINT: &str = "localhost:4317";
pub(crate) const MILLION: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<(String, u32), String> {
        let document =
            format!("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n{rest}");
        let config = Config::parse(document.as_bytes()).map_err(|error| error.to_string())?;
        Ok((config.endpoint, config.sampling_rate_per_million))
    }

    #[test]
    fn reads_endpoint_and_rate() {
        for (rest, endpoint, rate) in [
            ("", DEFAULT_ENDPOINT, 0),
            ("endpoint: a:1\nsamplingRatePerMillion: 1000000", "a:1", 1_000_000),
            ("endpoint: dns:///a:1", "a:1", 0),
            ("endpoint: 'dns://[::1]:53/a:1'", "a:1", 0),
        ] {
            assert_eq!(parse(rest).unwrap(), (endpoint.to_owned(), rate), "{rest}");
        }
        for (rest, why) in [
            ("samplingRatePerMillion: -1", "sampling rate must be positive"),
            ("samplingRatePerMillion: 1000001", "less than or equal to one million"),
            ("endpoint: http://a", "unsupported scheme: http"),
            ("endpoint: 'a b'", "endpoint: Invalid value: \"a b\""),
            ("rate: 1", "unknown field"),
        ] {
            let error = parse(rest).unwrap_err();
            assert!(error.contains(why), "{rest}: {error}");
        }
        assert!(Config::parse(b"kind: TracingConfiguration\napiVersion: v1").is_err());
    }
}
