//! Who is believed: the authenticators that the flags ask for.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nave_apiserver::computed;
use nave_apiserver::endpoints::computed::ComputedTable;
use nave_apiserver::storage::Storages;
use nave_authn::jwt::{KeyError, SigningKey, generate_rsa_pem, public_keys_from_pem};
use nave_authn::service_account::discovery::{Discovery, JWKS_PATH};
use nave_authn::service_account::{BoundTokens, Issuer, IssuerConfig, KeyRing, Keys, LegacyTokens};
use nave_authn::{
    Anonymous, AnonymousRule, BearerTokens, CachedTokens, Chain, ClientCa, ClientCertificates, Metrics,
    Objects, StaticTokens, TokenAuthenticator, TokenUnion,
};
use nave_machinery::{GroupVersionResource, Value};

use super::ServeError;
use crate::flags::{Authentication as Flags, Config, FlagError, ServiceAccounts};
use crate::pki::files;

/// How long the user of a token is remembered, as upstream.
const TOKEN_TTL: Duration = Duration::from_secs(10);

/// The authenticators, and what they share with other parts of the server.
pub(super) struct Authentication {
    flags: Flags,
    client_ca: Arc<ClientCa>,
    tokens: Arc<dyn TokenAuthenticator>,
    issuer: Issuer,
    keys: Arc<KeyRing>,
    anonymous: Arc<AnonymousRule>,
    metrics: Arc<Metrics>,
}

impl Authentication {
    /// Reads the files that flags name; tokens are checked against the objects in `storages`.
    pub(super) fn open(
        config: &Config,
        keys: Arc<KeyRing>,
        client_ca: Arc<ClientCa>,
        storages: &Storages,
    ) -> Result<Self, ServeError> {
        let flags = config.authentication.clone();
        let metrics = Arc::new(Metrics::new().map_err(nave_apiserver::server::StartError::Metrics)?);
        let objects: Arc<dyn Objects> = Arc::new(CachedObjects(storages.clone()));
        let tokens = tokens(&flags, &keys, &objects, &metrics)?;
        let rule = if flags.anonymous { Anonymous::Everywhere } else { Anonymous::Refused };
        Ok(Self {
            client_ca,
            tokens,
            issuer: Issuer::new(issuer_config(&flags), Arc::clone(&keys)),
            keys,
            anonymous: Arc::new(AnonymousRule::new(rule)),
            metrics,
            flags,
        })
    }

    /// The authenticators in the order they are asked.
    pub(super) fn chain(&self) -> Chain {
        let certificates =
            ClientCertificates::new(Arc::clone(&self.client_ca)).with_metrics(Arc::clone(&self.metrics));
        let tokens = BearerTokens::new(Arc::clone(&self.tokens), self.flags.audiences.clone());
        Chain::new(vec![Arc::new(certificates), Arc::new(tokens)])
            .with_anonymous_rule(Arc::clone(&self.anonymous))
            .with_metrics(Arc::clone(&self.metrics))
    }

    /// Adds the APIs about tokens.
    pub(super) fn computed(&self, table: ComputedTable) -> ComputedTable {
        computed::with_tokens(table, Arc::clone(&self.tokens), self.issuer.clone())
    }

    /// What others are told, who reach the server at `address`; nothing where the issuer is no URL.
    pub(super) fn discovery(&self, address: &str) -> Option<Discovery> {
        let ServiceAccounts { issuers, jwks_uri, .. } = &self.flags.service_accounts;
        let issuer = issuers.first().filter(|issuer| issuer.starts_with("https://"))?.clone();
        let jwks_uri = jwks_uri.clone().unwrap_or_else(|| format!("https://{address}{JWKS_PATH}"));
        Some(Discovery { issuer, jwks_uri, keys: Arc::clone(&self.keys) })
    }
}

fn tokens(
    flags: &Flags,
    keys: &Arc<KeyRing>,
    objects: &Arc<dyn Objects>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn TokenAuthenticator>, FlagError> {
    let audiences = &flags.audiences;
    let mut kinds: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(file) = &flags.token_file {
        let found =
            StaticTokens::from_file(file).map_err(|why| FlagError::file("token-auth-file", file, why))?;
        kinds.push(Arc::new(found.for_audiences(audiences.clone())));
    }
    let ServiceAccounts { issuers, lookup, .. } = &flags.service_accounts;
    let legacy = LegacyTokens::new(Arc::clone(keys), audiences.clone(), Arc::clone(objects), *lookup);
    kinds.push(Arc::new(legacy.with_metrics(Arc::clone(metrics))));
    let bound = BoundTokens::new(issuers.clone(), Arc::clone(keys), Arc::clone(objects));
    kinds.push(Arc::new(bound.with_metrics(Arc::clone(metrics))));
    let all = CachedTokens::new(Arc::new(TokenUnion::new(kinds)), TOKEN_TTL, Duration::ZERO);
    Ok(Arc::new(all.with_metrics(Arc::clone(metrics))))
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

/// The keys of service accounts' tokens: those given, or one of the server's own, which is made beside everything
/// else that happens at a first start.
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
            let ring = Arc::new(KeyRing::default());
            let made = Arc::clone(&ring);
            tokio::task::spawn_blocking(move || make_key(&file, &made));
            Ok(ring)
        }
        Err(error) => Err(FlagError::file("data-dir", &file, error).into()),
    }
}

/// Makes the key that signs, and keeps it. One that cannot be kept is used all the same: the server serves, and the
/// tokens end with it.
fn make_key(file: &Path, ring: &KeyRing) {
    let made = generate_rsa_pem().map_err(|_| KeyError::Unknown);
    let made = made.and_then(|pem| Ok((SigningKey::from_pem(pem.as_bytes())?, pem)));
    let (signing, pem) = match made {
        Ok(made) => made,
        Err(error) => return tracing::error!(%error, "no key for service account tokens could be made"),
    };
    match files::write_private(file, &pem) {
        Ok(()) => tracing::info!(key = %file.display(), "made a key for service account tokens"),
        Err(error) => tracing::error!(
            %error, key = %file.display(),
            "the key of service account tokens cannot be kept: they hold until the server ends"
        ),
    }
    ring.set(Keys::new(signing, Vec::new()));
}

/// Objects of the core group, as the watch caches have them.
struct CachedObjects(Storages);

impl Objects for CachedObjects {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let storage = self.0.get(&GroupVersionResource::new("", "v1", resource))?;
        storage.codec().parse_cached(&*storage.find(namespace, name)?).ok()
    }
}
