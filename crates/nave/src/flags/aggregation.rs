//! The flags of aggregated servers.

use std::path::PathBuf;

use clap::Args;

use super::FlagError;
use super::values::parse_bool;

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
    /// Answer with 502 if an aggregated server redirects a request, instead of passing the redirect to the client.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AGGREGATION)]
    aggregator_reject_forwarding_redirect: bool,
}

/// The checked flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aggregation {
    /// The client certificate and its key.
    pub(crate) client_pair: Option<(PathBuf, PathBuf)>,
    /// True if redirects of aggregated servers reach clients.
    pub(crate) forwards_redirects: bool,
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
        let forwards_redirects = !self.aggregator_reject_forwarding_redirect;
        Ok(Aggregation { client_pair, forwards_redirects })
    }
}
