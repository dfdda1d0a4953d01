//! The flags for encryption at rest.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_bool;
use super::{ETCD, FlagError};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = ETCD)]
pub(super) struct EncryptionFlags {
    /// EncryptionConfiguration: the resources that are encrypted in the store, and the providers identity, aescbc, aesgcm,
    /// secretbox and kms (v2).
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    /// Reload --encryption-provider-config when it changes.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    encryption_provider_config_automatic_reload: bool,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub(crate) struct EncryptionConfig {
    /// The file; `None` if nothing is encrypted.
    pub(crate) file: Option<PathBuf>,
    /// The file is loaded again when it changes.
    pub(crate) reload: bool,
}

impl EncryptionFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// A reload is requested without a file.
    pub(super) fn validate(self) -> Result<EncryptionConfig, FlagError> {
        let (file, reload) =
            (self.encryption_provider_config, self.encryption_provider_config_automatic_reload);
        if reload && file.is_none() {
            let why = "--encryption-provider-config is required";
            return Err(FlagError::new("encryption-provider-config-automatic-reload", why));
        }
        Ok(EncryptionConfig { file, reload })
    }
}
