//! The tracing flag.

use std::path::PathBuf;

use clap::Args;
use nave_telemetry::Config;

use super::{FlagError, GENERAL};

/// The flag, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct TracingFlags {
    /// TracingConfiguration: the collector of traces and the rate of traced requests.
    #[arg(long, value_name = "FILE", help_heading = GENERAL)]
    tracing_config_file: Option<PathBuf>,
}

impl TracingFlags {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn validate(self) -> Result<Option<Config>, FlagError> {
        let read = |file: PathBuf| {
            Config::from_file(&file).map_err(|error| FlagError::file("tracing-config-file", &file, error))
        };
        let file = self.tracing_config_file.filter(|file| !file.as_os_str().is_empty());
        file.map(read).transpose()
    }
}
