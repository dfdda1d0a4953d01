//! Builds the authenticators that the flags configure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nave_apiserver::endpoints::virtual_resource::VirtualResources;
use nave_apiserver::storage::Storages;
use nave_apiserver::virtual_resources;
use nave_authn::config::AuthenticationConfiguration;
use nave_authn::jwt::{Algorithm, KeyError, SigningKey, generate_rsa_pem, public_keys_from_pem};
use nave_authn::oidc::{IssuerTokens, Issuers};
use nave_authn::service_account::discovery::{Discovery, JWKS_PATH};
use nave_authn::service_account::{
    BoundTokens, Issuer, IssuerConfig, KeyRing, Keys, LegacyTokens, SecretUse,
};
use nave_authn::{
    Anonymous, AnonymousRule, Authenticator, BearerTokens, BootstrapTokens, CachedTokens, Chain, ClientCa,
    ClientCertificates, FrontProxy, Metrics, Objects, StaticTokens, TokenAuthenticator, TokenUnion,
    WebhookTokens,
};
use nave_machinery::{GroupVersionResource, Value};
use nave_webhook::{FileError, Webhook};
use prometheus::Registry;
use tokio::sync::mpsc;

use super::ServeError;
use super::client_cas::{ClientCas, read_cas};
use super::delegation;
use crate::flags::{Authentication as Flags, Config, FlagError, Oidc, ServiceAccounts, TokenWebhook};
use crate::pki::files::{self, Durability};

/// The timeout of one webhook call.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of secrets that wait for their last use to be recorded. Further uses are dropped and recorded at the
/// next use of the token.
const TOKEN_USES: usize = 64;
/// Time for which the user of a token is cached (upstream's value).
const TOKEN_TTL: Duration = Duration::from_secs(10);

/// The authenticators and the parts they share with the rest of the server.
pub(super) struct Authentication {
    flags: Flags,
    users_ca: Option<Arc<ClientCa>>,
    front_proxy: Option<Arc<FrontProxy>>,
    tokens: Arc<dyn TokenAuthenticator>,
    pub(super) issuer: Issuer,
    /// Receives the secrets whose tokens were used.
    pub(super) used: mpsc::Receiver<SecretUse>,
    keys: Arc<KeyRing>,
    anonymous: Arc<AnonymousRule>,
    metrics: Arc<Metrics>,
    /// The configuration file, for reloads.
    pub(super) file: Option<ConfigFile>,
}

impl Authentication {
    /// Reads the files in the flags. Tokens are checked against the objects in `storages`. `always_allow` is true if an
    /// authorizer allows every request.
    pub(super) fn open(
        config: &Config,
        keys: Arc<KeyRing>,
        cas: &ClientCas,
        storages: &Storages,
        always_allow: bool,
        registry: &Registry,
    ) -> Result<Self, ServeError> {
        let flags = config.authentication.clone();
        let default_rule = anonymous_rule(flags.anonymous, always_allow);
        let metrics = Arc::new(
            Metrics::new(registry, &config.advertise.to_string())
                .map_err(nave_apiserver::server::StartError::Metrics)?,
        );
        let objects: Arc<dyn Objects> = Arc::new(CachedObjects(storages.clone()));
        let issuers = Arc::new(Issuers::default());
        let anonymous = Arc::new(AnonymousRule::new(default_rule.clone()));
        if let Some(oidc) = &flags.oidc {
            issuers.replace(vec![issuer_from_flags(oidc, &flags)?]);
        }
        let file = flags.config_file.clone().map(|path| {
            let (issuers, anonymous) = (Arc::clone(&issuers), Arc::clone(&anonymous));
            let (flags, metrics) = (flags.clone(), Arc::clone(&metrics));
            let file = ConfigFile { path, flags, default_rule, issuers, anonymous, metrics };
            file.load().map(|()| file)
        });
        let (uses, used) = mpsc::channel(TOKEN_USES);
        let tokens = tokens(config, &keys, &objects, issuers, &metrics, uses)?;
        Ok(Self {
            users_ca: cas.users.clone(),
            front_proxy: cas.front_proxy(),
            tokens,
            used,
            issuer: Issuer::new(issuer_config(&flags), Arc::clone(&keys)),
            keys,
            anonymous,
            metrics,
            file: file.transpose()?,
            flags,
        })
    }

    /// Returns the chain of authenticators, in order.
    pub(super) fn chain(&self) -> Chain {
        let mut all: Vec<Arc<dyn Authenticator>> = Vec::new();
        if let Some(front_proxy) = &self.front_proxy {
            all.push(Arc::clone(front_proxy) as _);
        }
        if let Some(ca) = &self.users_ca {
            let certificates = ClientCertificates::new(Arc::clone(ca));
            all.push(Arc::new(certificates.with_metrics(Arc::clone(&self.metrics))));
        }
        all.push(Arc::new(BearerTokens::new(Arc::clone(&self.tokens), self.flags.audiences.clone())));
        Chain::new(all)
            .with_anonymous_rule(Arc::clone(&self.anonymous))
            .with_metrics(Arc::clone(&self.metrics))
    }

    /// Adds the virtual resources of tokens.
    pub(super) fn virtual_resources(&self, table: VirtualResources) -> VirtualResources {
        virtual_resources::with_tokens(table, Arc::clone(&self.tokens), self.issuer.clone())
    }

    /// Returns the OpenID Connect discovery documents of a server at `address`; `None` if the issuer is not a URL.
    pub(super) fn discovery(&self, address: &str) -> Option<Discovery> {
        let ServiceAccounts { issuers, jwks_uri, .. } = &self.flags.service_accounts;
        let issuer = issuers.first().filter(|issuer| issuer.starts_with("https://"))?.clone();
        let jwks_uri = jwks_uri.clone().unwrap_or_else(|| format!("https://{address}{JWKS_PATH}"));
        Some(Discovery { issuer, jwks_uri, keys: Arc::clone(&self.keys) })
    }
}

/// The file of `--authentication-config`, and the parts it configures.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    flags: Flags,
    /// The rule for anonymous requests that applies if the file contains no rule.
    default_rule: Anonymous,
    issuers: Arc<Issuers>,
    anonymous: Arc<AnonymousRule>,
    metrics: Arc<Metrics>,
}

impl ConfigFile {
    /// Reads and applies the file. An invalid file has no effect.
    fn load(&self) -> Result<(), FlagError> {
        let wrong = |why: String| FlagError::file("authentication-config", &self.path, why);
        let text = std::fs::read_to_string(&self.path).map_err(|why| wrong(why.to_string()))?;
        let config = AuthenticationConfiguration::parse(&text, &self.flags.service_accounts.issuers);
        let config = config.map_err(|why| wrong(why.to_string()))?;
        let anonymous = config.anonymous();
        if anonymous.is_some() && self.flags.anonymous.is_some() {
            return Err(wrong("sets anonymous, which conflicts with --anonymous-auth".to_owned()));
        }
        let issuers = config.jwt.iter().map(|jwt| {
            IssuerTokens::new(jwt, &Algorithm::ALL, &self.flags.audiences)
                .map_err(|why| wrong(why.to_string()))
        });
        self.issuers.replace(issuers.collect::<Result<_, _>>()?);
        self.anonymous.set(anonymous.unwrap_or_else(|| self.default_rule.clone()));
        self.metrics.config_is(text.as_bytes());
        Ok(())
    }

    /// Reloads the file after a change.
    pub(super) fn reload(&self) {
        let loaded = self.load();
        self.metrics.config_reloaded(loaded.is_ok());
        match loaded {
            Ok(()) => tracing::info!(file = %self.path.display(), "authentication config reloaded"),
            Err(error) => {
                tracing::error!(%error, "authentication config reload failed, keeping the previous one");
            }
        }
    }
}

/// Returns the rule for anonymous requests that `--anonymous-auth` implies (upstream: `ApplyAuthorization`). If an
/// authorizer allows every request, anonymous requests are rejected even if the flag permits them.
fn anonymous_rule(anonymous_auth: Option<bool>, always_allow: bool) -> Anonymous {
    match (anonymous_auth.unwrap_or(true), always_allow) {
        (false, _) => Anonymous::Refused,
        (true, true) => {
            tracing::warn!(
                "anonymous authentication is not allowed with the AlwaysAllow authorizer and is disabled; use a \
                 different authorizer to enable it"
            );
            Anonymous::Refused
        }
        (true, false) => Anonymous::Everywhere,
    }
}

fn issuer_from_flags(oidc: &Oidc, flags: &Flags) -> Result<IssuerTokens, FlagError> {
    let mut found = oidc.flags.clone();
    if let Some(file) = &oidc.ca_file {
        read_cas("oidc-ca-file", file)?;
        let pem = std::fs::read_to_string(file);
        found.ca = pem.map_err(|why| FlagError::file("oidc-ca-file", file, why))?;
    }
    let wrong = |why: String| FlagError::new("oidc-issuer-url", why);
    let config = found.into_config(&flags.service_accounts.issuers).map_err(|why| wrong(why.to_string()))?;
    let jwt = config.jwt.first().ok_or_else(|| wrong("no issuer".to_owned()))?;
    IssuerTokens::new(jwt, &oidc.algorithms, &flags.audiences).map_err(|why| wrong(why.to_string()))
}

/// Returns all token authenticators, in upstream's order.
fn tokens(
    config: &Config,
    keys: &Arc<KeyRing>,
    objects: &Arc<dyn Objects>,
    issuers: Arc<Issuers>,
    metrics: &Arc<Metrics>,
    uses: mpsc::Sender<SecretUse>,
) -> Result<Arc<dyn TokenAuthenticator>, FlagError> {
    let flags = &config.authentication;
    let audiences = &flags.audiences;
    let mut kinds: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(file) = &flags.token_file {
        let found =
            StaticTokens::from_file(file).map_err(|why| FlagError::file("token-auth-file", file, why))?;
        kinds.push(Arc::new(found.for_audiences(audiences.clone())));
    }
    // The service accounts of the server that authenticates tokens have the same names and, often, the same issuer.
    if flags.delegated.is_none() {
        let ServiceAccounts { issuers: own, lookup, .. } = &flags.service_accounts;
        let legacy = LegacyTokens::new(Arc::clone(keys), audiences.clone(), Arc::clone(objects), *lookup);
        kinds.push(Arc::new(legacy.with_metrics(Arc::clone(metrics)).with_use_reports(uses)));
        let bound = BoundTokens::new(own.clone(), Arc::clone(keys), Arc::clone(objects));
        kinds.push(Arc::new(bound.with_metrics(Arc::clone(metrics))));
    }
    if flags.bootstrap_tokens {
        kinds.push(Arc::new(BootstrapTokens::new(Arc::clone(objects), audiences.clone())));
    }
    kinds.push(issuers);
    if let Some(TokenWebhook { file, ttl, version }) = &flags.webhook {
        let webhook = Webhook::with_egress(file, WEBHOOK_TIMEOUT, config.egress.control_plane.clone());
        let webhook = webhook.map_err(|why| match why {
            // The flag's error already contains the path of the file itself.
            FileError::Read { path, error } if path == *file => webhook_error(file, &error),
            why => webhook_error(file, &why),
        })?;
        let webhook = Arc::new(WebhookTokens::new(webhook, *version, audiences.clone()));
        kinds.push(Arc::new(CachedTokens::new(webhook, *ttl, *ttl)));
    }
    let mut ttl = TOKEN_TTL;
    if let Some(delegated) = &flags.delegated {
        kinds.push(delegation::tokens(flags, delegated)?);
        // A flag sets the time for which these users are cached.
        ttl = Duration::ZERO;
    }
    let all = CachedTokens::new(Arc::new(TokenUnion::new(kinds)), ttl, Duration::ZERO);
    Ok(Arc::new(all.with_metrics(Arc::clone(metrics))))
}

fn webhook_error(file: &Path, why: &dyn std::fmt::Display) -> FlagError {
    FlagError::file("authentication-token-webhook-config-file", file, why)
}

fn issuer_config(flags: &Flags) -> IssuerConfig {
    let ServiceAccounts { issuers, max_expiration, extend_expiration, .. } = &flags.service_accounts;
    IssuerConfig {
        issuer: issuers.first().cloned().unwrap_or_default(),
        audiences: flags.audiences.clone(),
        max_expiration_seconds: max_expiration.map(|max| max.as_secs() as i64),
        extend_expiration: *extend_expiration,
    }
}

/// Returns the keys of service account tokens: the keys in the flags, or the server's own key, which is created when
/// the first token is issued.
pub(super) fn service_account_keys(config: &Config) -> Result<Arc<KeyRing>, ServeError> {
    let ServiceAccounts { key_files, signing_key_file, .. } = &config.authentication.service_accounts;
    if let Some(file) = signing_key_file {
        const FLAG: &str = "service-account-signing-key-file";
        let signing = std::fs::read(file).map_err(|why| FlagError::file(FLAG, file, why))?;
        let signing = SigningKey::from_pem(&signing).map_err(|why| FlagError::file(FLAG, file, why))?;
        let mut verifying = Vec::new();
        for file in key_files {
            const FLAG: &str = "service-account-key-file";
            let pem = std::fs::read(file).map_err(|why| FlagError::file(FLAG, file, why))?;
            verifying.extend(public_keys_from_pem(&pem).map_err(|why| FlagError::file(FLAG, file, why))?);
        }
        return Ok(Arc::new(KeyRing::new(Keys::new(signing, verifying))));
    }
    let file = config.data_dir.join("pki").join("sa.key");
    match std::fs::read(&file) {
        Ok(pem) => {
            let signing =
                SigningKey::from_pem(&pem).map_err(|why| FlagError::file("data-dir", &file, why))?;
            Ok(Arc::new(KeyRing::new(Keys::new(signing, Vec::new()))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Arc::new(KeyRing::created_on_first_use(move || create_key(&file))))
        }
        Err(error) => Err(FlagError::file("data-dir", &file, error).into()),
    }
}

/// Creates the signing key and stores it. If the key cannot be stored, it is still used, and its tokens become invalid
/// when the server stops.
fn create_key(file: &Path) -> Option<Keys> {
    let made = generate_rsa_pem().map_err(|_| KeyError::Unknown);
    let made = made.and_then(|pem| Ok((SigningKey::from_pem(pem.as_bytes())?, pem)));
    let (signing, pem) =
        made.inspect_err(|error| tracing::error!(%error, "creating the service account key failed")).ok()?;
    match files::write_private(file, &pem, Durability::Synced) {
        Ok(()) => tracing::info!(key = %file.display(), "service account key created"),
        Err(error) => tracing::error!(
            %error, key = %file.display(),
            "storing the service account key failed; its tokens become invalid when the server stops"
        ),
    }
    Some(Keys::new(signing, Vec::new()))
}

/// Objects of the core group in the watch caches.
struct CachedObjects(Storages);

impl Objects for CachedObjects {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let storage = self.0.get(&GroupVersionResource::new("", "v1", resource))?;
        storage.codec().parse_cached(&*storage.find(namespace, name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_anonymous_requests_with_always_allow() {
        for (anonymous_auth, always_allow, rule) in [
            (None, false, Anonymous::Everywhere),
            (Some(true), false, Anonymous::Everywhere),
            (Some(false), false, Anonymous::Refused),
            (None, true, Anonymous::Refused),
            (Some(true), true, Anonymous::Refused),
            (Some(false), true, Anonymous::Refused),
        ] {
            assert_eq!(
                anonymous_rule(anonymous_auth, always_allow),
                rule,
                "{anonymous_auth:?} {always_allow}"
            );
        }
    }
}
