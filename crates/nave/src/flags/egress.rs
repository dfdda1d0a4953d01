//! The flag of connections through proxies.

use std::path::PathBuf;

use clap::Args;
use nave_webhook::EgressSelector;

use super::{FlagError, NETWORK};

/// The flag, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct EgressFlags {
    /// EgressSelectorConfiguration: the ways to nodes, pods and services (cluster), to webhooks with a URL and other API
    /// servers (controlplane), and to etcd. Connections are direct, or tunnels through a proxy with
    /// HTTPConnect or GRPC (konnectivity).
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    egress_selector_config_file: Option<PathBuf>,
}

impl EgressFlags {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn validate(self) -> Result<EgressSelector, FlagError> {
        let file = self.egress_selector_config_file.filter(|file| !file.as_os_str().is_empty());
        let Some(file) = file else { return Ok(EgressSelector::default()) };
        EgressSelector::from_file(&file)
            .map_err(|error| FlagError::file("egress-selector-config-file", &file, error))
    }
}
