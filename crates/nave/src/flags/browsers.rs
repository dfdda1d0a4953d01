//! The flags for browsers: CORS, HSTS and the console.

use clap::Args;
use nave_apiserver::browsers::Browsers;

use super::values::parse_bool;
use super::{FlagError, GENERAL};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct BrowserFlags {
    /// Origins whose pages may read responses (CORS), as regular expressions that are anchored to the host: by ^ or //
    /// before it and by $ or : after it, such as //example\.com(:|$). By default no origin may.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = GENERAL)]
    cors_allowed_origins: Vec<String>,
    /// Directives for browsers to use HTTPS only (HSTS): max-age=SECONDS, includeSubDomains, preload.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = GENERAL)]
    strict_transport_security_directives: Vec<String>,
    /// Serve a page that shows the server at work at /console/. Its data is for users who may get the path
    /// /console/stream.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = GENERAL)]
    pub(super) console: bool,
}

impl BrowserFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// The first flag with an invalid expression or directive.
    pub(super) fn validate(&self) -> Result<Browsers, FlagError> {
        Browsers::new(&self.cors_allowed_origins, &[])
            .map_err(|error| FlagError::new("cors-allowed-origins", error.to_string()))?;
        Browsers::new(&self.cors_allowed_origins, &self.strict_transport_security_directives)
            .map_err(|error| FlagError::new("strict-transport-security-directives", error.to_string()))
    }
}
