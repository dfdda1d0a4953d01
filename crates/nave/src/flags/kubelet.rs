//! The flags of connections to kubelets, pods and services.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nave_apiserver::connect::backends::{ADDRESS_TYPES, KUBELET_PORT};

use super::values::{parse_bool, whole};
use super::{FlagError, parse_duration};

const KUBELET: &str = "Connections to kubelets";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct KubeletFlags {
    /// Client certificate (PEM) for kubelets. By default the server creates one with its own CA.
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_client_certificate: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_client_key: Option<PathBuf>,
    /// CA certificates (PEM) with which the certificates of kubelets are verified. By default the CA that signs
    /// kubernetes.io/kubelet-serving.
    #[arg(long, value_name = "FILE", help_heading = KUBELET)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Do not verify the certificates of kubelets. Whoever can intercept a connection to a kubelet can then read and
    /// change logs, commands and their output. nave's own flag.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = KUBELET)]
    kubelet_insecure_skip_verify: bool,
    /// Types of node addresses to connect to, the preferred first.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = ADDRESS_TYPES.join(","), help_heading = KUBELET)]
    kubelet_preferred_address_types: Vec<String>,
    /// Port of kubelets that do not report their port.
    #[arg(long, value_name = "PORT", default_value_t = KUBELET_PORT, value_parser = whole(0..=u16::MAX), help_heading = KUBELET)]
    kubelet_port: u16,
    /// Maximum time of each step of connecting to a kubelet, a pod or an endpoint: lookup, dial, TLS handshake.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration, help_heading = KUBELET)]
    kubelet_timeout: Duration,
    /// Also connect to nodes, pods and endpoints with loopback, link-local or cloud metadata addresses. Users who can
    /// write nodes, pods or endpoints then reach the services of this machine. nave's own flag.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = KUBELET)]
    allow_local_backends: bool,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub(crate) struct Kubelet {
    /// The client certificate and its key; `None` if the server creates them.
    pub(crate) client_pair: Option<(PathBuf, PathBuf)>,
    /// The CAs of kubelets; `None` for the CA that signs their certificates.
    pub(crate) ca_file: Option<PathBuf>,
    /// False if the certificates of kubelets are not verified.
    pub(crate) verify: bool,
    /// Types of node addresses, the preferred first.
    pub(crate) address_types: Vec<String>,
    /// The port of kubelets that do not report one.
    pub(crate) port: u16,
    /// Maximum time of each step of connecting.
    pub(crate) timeout: Duration,
    /// True if loopback, link-local and metadata addresses are dialled.
    pub(crate) allow_local: bool,
}

impl KubeletFlags {
    /// Checks the flags.
    ///
    /// # Errors
    /// A certificate lacks its key, a key lacks its certificate, or a CA is given although nothing is verified.
    pub(super) fn validate(self) -> Result<Kubelet, FlagError> {
        let client_pair = match (self.kubelet_client_certificate, self.kubelet_client_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                let why = "required with --kubelet-client-certificate";
                return Err(FlagError::new("kubelet-client-key", why));
            }
            (None, Some(_)) => {
                let why = "required with --kubelet-client-key";
                return Err(FlagError::new("kubelet-client-certificate", why));
            }
        };
        if self.kubelet_insecure_skip_verify && self.kubelet_certificate_authority.is_some() {
            let why = "contradicts --kubelet-certificate-authority";
            return Err(FlagError::new("kubelet-insecure-skip-verify", why));
        }
        if self.kubelet_timeout.is_zero() {
            return Err(FlagError::new("kubelet-timeout", "must be more than 0"));
        }
        let given = self.kubelet_certificate_authority;
        if given.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            let why = "is empty; to skip verification, use --kubelet-insecure-skip-verify";
            return Err(FlagError::new("kubelet-certificate-authority", why));
        }
        Ok(Kubelet {
            client_pair,
            ca_file: given,
            verify: !self.kubelet_insecure_skip_verify,
            address_types: self.kubelet_preferred_address_types,
            port: self.kubelet_port,
            timeout: self.kubelet_timeout,
            allow_local: self.allow_local_backends,
        })
    }
}
