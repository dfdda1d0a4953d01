//! The authentication flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use http::HeaderName;
use nave_authn::config::OidcFlags;
use nave_authn::jwt::Algorithm;
use nave_authn::{ProxyHeaders, ReviewVersion};

use super::FlagError;
use super::values::{parse_bool, parse_duration};

const HEADING: &str = "Authentication";
const EXTENSION: &str = "Extension server";
/// The default time to cache the answers of another API server (upstream's value).
const DELEGATED_TTL: &str = "10s";
/// The default issuer of tokens: the URL at which workloads reach the server.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";
const MIN_MAX_EXPIRATION: Duration = Duration::from_hours(1);
const MAX_MAX_EXPIRATION: Duration = Duration::from_secs(1 << 32);

/// The authentication flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
#[expect(clippy::struct_excessive_bools, reason = "a field for each flag")]
pub(crate) struct AuthenticationFlags {
    /// Accept requests without a credential as the user system:anonymous. This user can read only health checks and the
    /// version. Defaults to true; always false with the AlwaysAllow authorizer. --authentication-config can set it too.
    #[arg(long, value_name = "BOOL", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// AuthenticationConfiguration: issuers of JSON Web Tokens and rules for anonymous requests. Reloaded when the file
    /// changes.
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// Additional CAs of client certificates (PEM). Certificates of the server's own CA are always accepted. Reloaded
    /// when the file changes.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Static bearer tokens, one per line: token,user,uid,"group1,group2".
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Accept the tokens in secrets of type bootstrap.kubernetes.io/token in kube-system.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    enable_bootstrap_token_auth: bool,
    /// Audiences of this API server in tokens. By default the issuers of service account tokens.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Issuers of service account tokens. New tokens contain the first issuer; tokens of all issuers are accepted.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_ISSUER)]
    service_account_issuer: Vec<String>,
    /// Keys that verify service account tokens (PEM, private or public, RSA or ECDSA). By default the signing key.
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Private key that signs service account tokens (PEM). By default the server creates pki/sa.key when it needs one.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Reject service account tokens from secrets whose secret or service account no longer exists.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    service_account_lookup: bool,
    /// Maximum validity of service account tokens, between 1h and 2^32 seconds.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    service_account_max_token_expiration: Duration,
    /// Extend projected tokens to a year for workloads that may not reload them in time.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    service_account_extend_token_expiration: bool,
    /// URL of the public keys of service account tokens, for the discovery document. By default this server's.
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,

    /// CAs of the client certificates of front proxies (PEM). Their user headers are accepted. Reloaded when the file
    /// changes.
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names accepted in certificates of front proxies. Any name by default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name. The first header present is used.
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    requestheader_username_headers: Vec<HeaderName>,
    /// Headers with the user's uid.
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    requestheader_uid_headers: Vec<HeaderName>,
    /// Headers with the user's groups.
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    requestheader_group_headers: Vec<HeaderName>,
    /// Prefixes of the headers with the user's extra fields.
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,

    /// File in kubeconfig format with the webhook that authenticates tokens.
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Time to cache the webhook's answers. With --authentication-kubeconfig, the other server's; the default is then
    /// 10s.
    #[arg(long, value_name = "DURATION", default_value = "2m0s", value_parser = parse_duration,
          default_value_if("authentication_kubeconfig", ArgPredicate::IsPresent, DELEGATED_TTL))]
    authentication_token_webhook_cache_ttl: Duration,
    /// Version of the TokenReview objects sent to the webhook.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "v1beta1")]
    authentication_token_webhook_version: WebhookVersion,

    /// kubeconfig of the API server that aggregates this one. Tokens are authenticated there (TokenReview) and not as
    /// this server's service accounts. The CAs of clients and front proxies without a flag here are read from its config
    /// map kube-system/extension-apiserver-authentication, and followed.
    #[arg(long, value_name = "FILE", help_heading = EXTENSION, conflicts_with = "authentication_token_webhook_config_file")]
    authentication_kubeconfig: Option<PathBuf>,
    /// Do not read the config map.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = EXTENSION)]
    authentication_skip_lookup: bool,
    /// Start although the config map cannot be read. It is read when that becomes possible; until then the other
    /// server's client certificates and proxied requests are refused.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = EXTENSION)]
    authentication_tolerate_lookup_failure: bool,

    /// URL (https) of the OpenID Connect issuer whose tokens are accepted. --authentication-config allows several.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Client ID that must be an audience of the tokens.
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Claim with the user's name.
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// Prefix of user names. By default the issuer URL, unless the claim is email. '-' means no prefix.
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// Claim with the user's groups.
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// Prefix of group names.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    oidc_groups_prefix: String,
    /// CAs of the issuer's certificate (PEM). By default the system's.
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim that tokens must have, with its value.
    #[arg(long, value_name = "CLAIM=VALUE", value_delimiter = ',')]
    oidc_required_claim: Vec<String>,
    /// Accepted signature algorithms of tokens.
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WebhookVersion {
    V1,
    V1beta1,
}

/// The checked configuration of authentication.
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    /// True if anonymous requests are accepted; `None` if the flag is not set.
    pub(crate) anonymous: Option<bool>,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) client_ca_file: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) bootstrap_tokens: bool,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) webhook: Option<TokenWebhook>,
    /// The API server that authenticates tokens.
    pub(crate) delegated: Option<DelegatedAuthentication>,
    pub(crate) oidc: Option<Oidc>,
    /// The audiences of this API server; at least one.
    pub(crate) audiences: Vec<String>,
    /// True if a flag names the audiences.
    pub(crate) has_own_audiences: bool,
    pub(crate) service_accounts: ServiceAccounts,
}

/// The configuration of service account tokens.
#[derive(Clone, Debug)]
pub(crate) struct ServiceAccounts {
    /// The issuer of new tokens, followed by other accepted issuers.
    pub(crate) issuers: Vec<String>,
    pub(crate) key_files: Vec<PathBuf>,
    pub(crate) signing_key_file: Option<PathBuf>,
    pub(crate) lookup: bool,
    pub(crate) max_expiration: Option<Duration>,
    pub(crate) extend_expiration: bool,
    pub(crate) jwks_uri: Option<String>,
}

/// The configuration of front proxies.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) ca_file: PathBuf,
    pub(crate) allowed_names: Vec<String>,
    pub(crate) headers: ProxyHeaders,
}

/// The configuration of the token webhook.
#[derive(Clone, Debug)]
pub(crate) struct TokenWebhook {
    pub(crate) file: PathBuf,
    pub(crate) ttl: Duration,
    pub(crate) version: ReviewVersion,
}

/// The API server that authenticates this one's clients.
#[derive(Clone, Debug)]
pub(crate) struct DelegatedAuthentication {
    pub(crate) kubeconfig: PathBuf,
    /// The time to cache its answers.
    pub(crate) ttl: Duration,
    pub(crate) lookup: Lookup,
}

/// The use of the other server's config map `extension-apiserver-authentication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It is not read.
    Skipped,
    /// The server starts without it if it cannot be read.
    Tolerant,
    /// The server does not start without it.
    Required,
}

/// The OpenID Connect issuer of the flags.
#[derive(Clone, Debug)]
pub(crate) struct Oidc {
    /// The flags, without the content of `ca_file`.
    pub(crate) flags: OidcFlags,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) algorithms: Vec<Algorithm>,
}

impl AuthenticationFlags {
    /// Checks that the flags of service account tokens that kube-apiserver requires are set.
    ///
    /// # Errors
    /// A flag is missing.
    pub(super) fn require_service_account_flags(&self) -> Result<(), FlagError> {
        for (flag, is_set) in [
            ("service-account-issuer", !self.service_account_issuer.is_empty()),
            ("service-account-signing-key-file", self.service_account_signing_key_file.is_some()),
        ] {
            if !is_set {
                return Err(FlagError::new(flag, "required"));
            }
        }
        Ok(())
    }

    /// Checks each flag and the combinations of flags.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(super) fn validate(self) -> Result<Authentication, FlagError> {
        if self.authentication_config.is_some() && self.oidc_issuer_url.is_some() {
            return Err(FlagError::new("authentication-config", "excludes --oidc-issuer-url"));
        }
        let service_accounts = self.service_accounts()?;
        let audiences = if self.api_audiences.is_empty() {
            service_accounts.issuers.clone()
        } else {
            self.api_audiences.clone()
        };
        Ok(Authentication {
            anonymous: self.anonymous_auth,
            has_own_audiences: !self.api_audiences.is_empty(),
            audiences,
            service_accounts,
            proxy: self.proxy(),
            webhook: self.webhook(),
            delegated: self.delegated(),
            oidc: self.oidc()?,
            config_file: self.authentication_config,
            client_ca_file: self.client_ca_file,
            token_file: self.token_auth_file,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
        })
    }

    fn service_accounts(&self) -> Result<ServiceAccounts, FlagError> {
        let issuers = &self.service_account_issuer;
        for (at, issuer) in issuers.iter().enumerate() {
            let url =
                !issuer.contains(':') || issuer.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some());
            if issuer.is_empty() || !url {
                let why = format!("{issuer:?} is neither a URL nor a name without a colon");
                return Err(FlagError::new("service-account-issuer", why));
            }
            if issuers[..at].contains(issuer) {
                return Err(FlagError::new("service-account-issuer", format!("{issuer:?} is listed twice")));
            }
        }
        let max = self.service_account_max_token_expiration;
        if !max.is_zero() && !(MIN_MAX_EXPIRATION..=MAX_MAX_EXPIRATION).contains(&max) {
            let why = "must be between 1h and 2^32 seconds";
            return Err(FlagError::new("service-account-max-token-expiration", why));
        }
        if self.service_account_jwks_uri.as_ref().is_some_and(|uri| !is_https(uri)) {
            return Err(FlagError::new("service-account-jwks-uri", "must be an https URL"));
        }
        if !self.service_account_key_file.is_empty() && self.service_account_signing_key_file.is_none() {
            let why = "required with --service-account-key-file";
            return Err(FlagError::new("service-account-signing-key-file", why));
        }
        Ok(ServiceAccounts {
            issuers: issuers.clone(),
            key_files: self.service_account_key_file.clone(),
            signing_key_file: self.service_account_signing_key_file.clone(),
            lookup: self.service_account_lookup,
            max_expiration: (!max.is_zero()).then_some(max),
            extend_expiration: self.service_account_extend_token_expiration,
            jwks_uri: self.service_account_jwks_uri.clone(),
        })
    }

    fn proxy(&self) -> Option<Proxy> {
        let prefixes = self.requestheader_extra_headers_prefix.iter().map(|prefix| prefix.to_lowercase());
        Some(Proxy {
            ca_file: self.requestheader_client_ca_file.clone()?,
            allowed_names: self.requestheader_allowed_names.clone(),
            headers: ProxyHeaders {
                user: self.requestheader_username_headers.clone(),
                uid: self.requestheader_uid_headers.clone(),
                group: self.requestheader_group_headers.clone(),
                extra_prefix: prefixes.filter(|prefix| !prefix.is_empty()).collect(),
            },
        })
    }

    fn webhook(&self) -> Option<TokenWebhook> {
        Some(TokenWebhook {
            file: self.authentication_token_webhook_config_file.clone()?,
            ttl: self.authentication_token_webhook_cache_ttl,
            version: match self.authentication_token_webhook_version {
                WebhookVersion::V1 => ReviewVersion::V1,
                WebhookVersion::V1beta1 => ReviewVersion::V1Beta1,
            },
        })
    }

    fn delegated(&self) -> Option<DelegatedAuthentication> {
        Some(DelegatedAuthentication {
            kubeconfig: self.authentication_kubeconfig.clone()?,
            ttl: self.authentication_token_webhook_cache_ttl,
            lookup: match (self.authentication_skip_lookup, self.authentication_tolerate_lookup_failure) {
                (true, _) => Lookup::Skipped,
                (false, true) => Lookup::Tolerant,
                (false, false) => Lookup::Required,
            },
        })
    }

    fn oidc(&self) -> Result<Option<Oidc>, FlagError> {
        let (Some(issuer_url), Some(client_id)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let mut required_claims = BTreeMap::new();
        for pair in &self.oidc_required_claim {
            let Some((claim, value)) = pair.split_once('=') else {
                return Err(FlagError::new("oidc-required-claim", format!("{pair:?} is not CLAIM=VALUE")));
            };
            required_claims.insert(claim.trim().to_owned(), value.trim().to_owned());
        }
        let algorithm = |name: &String| {
            let unknown =
                || FlagError::new("oidc-signing-algs", format!("{name:?} is not a supported algorithm"));
            Algorithm::from_name(name).ok_or_else(unknown)
        };
        Ok(Some(Oidc {
            flags: OidcFlags {
                issuer_url: issuer_url.clone(),
                client_id: client_id.clone(),
                username_claim: self.oidc_username_claim.clone(),
                username_prefix: self.oidc_username_prefix.clone(),
                groups_claim: self.oidc_groups_claim.clone(),
                groups_prefix: self.oidc_groups_prefix.clone(),
                ca: String::new(),
                required_claims,
            },
            ca_file: self.oidc_ca_file.clone(),
            algorithms: self.oidc_signing_algs.iter().map(algorithm).collect::<Result<_, _>>()?,
        }))
    }
}

fn is_https(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
}
