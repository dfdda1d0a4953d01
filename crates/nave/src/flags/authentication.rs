//! The flags about who asks.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::FlagError;
use super::values::parse_duration;

const HEADING: &str = "Authentication";
/// The issuer of tokens where none is given: the name under which workloads know the server.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";
const MIN_MAX_EXPIRATION: Duration = Duration::from_hours(1);
const MAX_MAX_EXPIRATION: Duration = Duration::from_secs(1 << 32);

/// The flags about who asks, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct AuthenticationFlags {
    /// Take requests without a credential for system:anonymous, which may ask for health and version only.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    anonymous_auth: bool,
    /// Believe client certificates signed by one of these CAs too (PEM); those of the server's own CA always are.
    /// Read again when it changes.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Static bearer tokens, one a line: token,user,uid,"group1,group2".
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Names of this API that tokens can be meant for; by default the issuers of service account tokens.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Who service account tokens say has made them; the first makes new ones, all are believed.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_ISSUER)]
    service_account_issuer: Vec<String>,
    /// Keys that verify service account tokens (PEM; private or public, RSA or ECDSA); by default the one that signs.
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Private key that signs service account tokens (PEM); by default the server makes one in pki/sa.key.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Whether a service account token from a secret holds only as long as the secret and the account are there.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    service_account_lookup: bool,
    /// The longest time a service account token holds, between 1h and 2^32 seconds.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    service_account_max_token_expiration: Duration,
    /// Let tokens of workloads that may not renew them in time hold for a year.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    service_account_extend_token_expiration: bool,
    /// Where others find the keys of service account tokens, if it is not this server.
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,
}

/// Who is believed.
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    pub(crate) anonymous: bool,
    pub(crate) client_ca_file: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
    /// The names of this API that tokens can be meant for; at least one.
    pub(crate) audiences: Vec<String>,
    pub(crate) service_accounts: ServiceAccounts,
}

/// How service account tokens are made and verified.
#[derive(Clone, Debug)]
pub(crate) struct ServiceAccounts {
    /// The issuer of new tokens, then the others that are believed.
    pub(crate) issuers: Vec<String>,
    pub(crate) key_files: Vec<PathBuf>,
    pub(crate) signing_key_file: Option<PathBuf>,
    pub(crate) lookup: bool,
    pub(crate) max_expiration: Option<Duration>,
    pub(crate) extend_expiration: bool,
    pub(crate) jwks_uri: Option<String>,
}

impl AuthenticationFlags {
    /// Checks each flag and that they fit together.
    ///
    /// # Errors
    /// The first flag that is wrong, and why.
    pub(super) fn validate(self) -> Result<Authentication, FlagError> {
        let issuers = self.service_account_issuer;
        for (at, issuer) in issuers.iter().enumerate() {
            let url =
                !issuer.contains(':') || issuer.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some());
            if issuer.is_empty() || !url {
                let why = format!("{issuer:?} is neither a URL nor a name without a colon");
                return Err(FlagError::new("service-account-issuer", why));
            }
            if issuers[..at].contains(issuer) {
                return Err(FlagError::new("service-account-issuer", format!("{issuer:?} is given twice")));
            }
        }
        let max = self.service_account_max_token_expiration;
        if !max.is_zero() && !(MIN_MAX_EXPIRATION..=MAX_MAX_EXPIRATION).contains(&max) {
            let why = "must be between 1h and 2^32 seconds";
            return Err(FlagError::new("service-account-max-token-expiration", why));
        }
        if self.service_account_jwks_uri.as_ref().is_some_and(|uri| !is_https(uri)) {
            return Err(FlagError::new("service-account-jwks-uri", "must be a URL of https"));
        }
        if !self.service_account_key_file.is_empty() && self.service_account_signing_key_file.is_none() {
            let why = "needed with --service-account-key-file";
            return Err(FlagError::new("service-account-signing-key-file", why));
        }
        let audiences = if self.api_audiences.is_empty() { issuers.clone() } else { self.api_audiences };
        Ok(Authentication {
            anonymous: self.anonymous_auth,
            client_ca_file: self.client_ca_file,
            token_file: self.token_auth_file,
            audiences,
            service_accounts: ServiceAccounts {
                issuers,
                key_files: self.service_account_key_file,
                signing_key_file: self.service_account_signing_key_file,
                lookup: self.service_account_lookup,
                max_expiration: (!max.is_zero()).then_some(max),
                extend_expiration: self.service_account_extend_token_expiration,
                jwks_uri: self.service_account_jwks_uri,
            },
        })
    }
}

fn is_https(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
}
