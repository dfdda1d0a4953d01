//! The flag of connections through proxies.

use std::path::PathBuf;

use clap::Args;

use super::{FlagError, NETWORK};

/// The flag, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct EgressFlags {
    /// EgressSelectorConfiguration: the ways to nodes, webhooks and etcd. Only direct connections are supported, and a
    /// configuration with a proxy is an error.
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    egress_selector_config_file: Option<PathBuf>,
}

impl EgressFlags {
    /// Checks the file.
    ///
    /// # Errors
    /// The file cannot be used, or selects a proxy.
    pub(super) fn validate(self) -> Result<(), FlagError> {
        let file = self.egress_selector_config_file.filter(|file| !file.as_os_str().is_empty());
        let Some(file) = file else { return Ok(()) };
        nave_webhook::check_egress_file(&file)
            .map_err(|error| FlagError::file("egress-selector-config-file", &file, error))
    }
}
