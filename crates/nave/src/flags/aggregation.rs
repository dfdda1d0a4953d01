//! The flags of aggregated servers.

use std::path::PathBuf;

use clap::Args;

use super::FlagError;

const AGGREGATION: &str = "Aggregated servers";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct AggregationFlags {
    /// Client certificate (PEM) for aggregated servers, which must be signed by the CA in their
    /// --requestheader-client-ca-file. Without this flag and --requestheader-client-ca-file, the server creates a
    /// certificate with a CA of its own, and publishes the CA in the config map
    /// kube-system/extension-apiserver-authentication.
    #[arg(long, value_name = "FILE", help_heading = AGGREGATION)]
    proxy_client_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", help_heading = AGGREGATION)]
    proxy_client_key_file: Option<PathBuf>,
}

/// The checked flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aggregation {
    /// The client certificate and its key.
    pub(crate) client_pair: Option<(PathBuf, PathBuf)>,
}

impl AggregationFlags {
    /// Checks the flags.
    ///
    /// # Errors
    /// The certificate lacks its key, or the key lacks its certificate.
    pub(super) fn validate(self) -> Result<Aggregation, FlagError> {
        let client_pair = match (self.proxy_client_cert_file, self.proxy_client_key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(FlagError::new(
                    "proxy-client-key-file",
                    "required with --proxy-client-cert-file",
                ));
            }
            (None, Some(_)) => {
                return Err(FlagError::new(
                    "proxy-client-cert-file",
                    "required with --proxy-client-key-file",
                ));
            }
        };
        Ok(Aggregation { client_pair })
    }
}
