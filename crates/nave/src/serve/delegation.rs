//! Delegation of authentication and authorization to the API server that aggregates this one (upstream:
//! `apiserver/pkg/server/options`).
//!
//! Tokens are authenticated there by `TokenReview`, requests are authorized by `SubjectAccessReview`. The CAs of
//! clients and front proxies are in its config map `kube-system/extension-apiserver-authentication`, which is read before
//! the server starts and then watched.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use nave_apiserver::cluster_authentication::ClusterAuthentication;
use nave_authn::{CachedTokens, TokenAuthenticator, WebhookTokens};
use nave_authz::webhook::{Conditions, ReviewVersion, Settings, WebhookAuthorizer};
use nave_authz::{Decision, Metrics, NamedAuthorizer};
use nave_machinery::backoff::Backoff;
use nave_webhook::Webhook;
use tokio::sync::watch;

use crate::flags::{Authentication, DelegatedAuthentication, DelegatedAuthorization, FlagError, Lookup};

const AUTHENTICATION: &str = "authentication-kubeconfig";
const AUTHORIZATION: &str = "authorization-kubeconfig";
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// The time limit of one review (upstream's value).
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of the first read of the config map. The two servers may start at the same time.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses between attempts to watch the config map.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(30));
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Returns the authenticator of tokens that asks the other server.
pub(super) fn tokens(
    flags: &Authentication,
    delegated: &DelegatedAuthentication,
) -> Result<Arc<dyn TokenAuthenticator>, FlagError> {
    let webhook = reviews(AUTHENTICATION, &delegated.kubeconfig, TOKEN_REVIEWS)?;
    let own = flags.has_own_audiences.then(|| flags.audiences.clone());
    let tokens = WebhookTokens::delegated(webhook, own, flags.audiences.clone());
    Ok(Arc::new(CachedTokens::new(Arc::new(tokens), delegated.ttl, delegated.ttl)))
}

/// Returns the authorizers that replace those of `--authorization-mode`.
pub(super) fn authorizers(
    delegated: &DelegatedAuthorization,
    metrics: &Metrics,
) -> Result<Vec<NamedAuthorizer>, FlagError> {
    let webhook = reviews(AUTHORIZATION, &delegated.kubeconfig, ACCESS_REVIEWS)?;
    let settings = Settings {
        name: "delegated".into(),
        version: ReviewVersion::V1,
        authorized_ttl: delegated.authorized_ttl,
        unauthorized_ttl: delegated.unauthorized_ttl,
        on_failure: Decision::NoOpinion,
    };
    let webhook = Arc::new(WebhookAuthorizer::new(webhook, settings, Conditions::default(), metrics.clone()));
    Ok(vec![
        NamedAuthorizer {
            kind: "Paths",
            name: "always-allow-paths".into(),
            authorizer: Arc::new(delegated.allowed_paths.clone()),
            resolver: None,
        },
        NamedAuthorizer {
            kind: "Webhook",
            name: "delegated".into(),
            authorizer: Arc::clone(&webhook) as _,
            resolver: Some(webhook),
        },
    ])
}

fn reviews(flag: &'static str, kubeconfig: &Path, path: &'static str) -> Result<Webhook, FlagError> {
    let webhook = Webhook::for_api_server(kubeconfig, path, REVIEW_TIMEOUT);
    webhook.map_err(|why| FlagError::file(flag, kubeconfig, why))
}

/// The authentication settings in the other server's config map.
pub(super) struct ClusterLookup {
    kubeconfig: PathBuf,
    settings: watch::Sender<ClusterAuthentication>,
}

impl ClusterLookup {
    /// Reads the config map. Returns `None` if the flags do not want it.
    pub(super) async fn open(flags: &Authentication) -> Result<Option<Self>, FlagError> {
        let Some(delegated) = flags.delegated.as_ref().filter(|it| it.lookup != Lookup::Skipped) else {
            return Ok(None);
        };
        let wrong = |why: String| FlagError::file(AUTHENTICATION, &delegated.kubeconfig, why);
        let client = client(&delegated.kubeconfig).await.map_err(wrong)?;
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, read(client)).await;
        let found = found.unwrap_or_else(|_| Err("the server does not answer".to_owned()));
        let settings = match (found, delegated.lookup) {
            (Ok(settings), _) => settings,
            (Err(error), Lookup::Tolerant) => {
                tracing::warn!(error, config_map = NAME, namespace = NAMESPACE, "config map lookup failed");
                ClusterAuthentication::default()
            }
            (Err(error), _) => {
                let why = format!(
                    "cannot read the config map {NAMESPACE}/{NAME}: {error} \
                     (--authentication-tolerate-lookup-failure starts without it)"
                );
                return Err(wrong(why));
            }
        };
        let (kubeconfig, settings) = (delegated.kubeconfig.clone(), watch::Sender::new(settings));
        Ok(Some(Self { kubeconfig, settings }))
    }

    /// Subscribes to the settings.
    pub(super) fn subscribe(&self) -> watch::Receiver<ClusterAuthentication> {
        self.settings.subscribe()
    }

    /// Watches the config map. Settings stay in effect while it does not exist. After an error the kubeconfig is read
    /// again.
    pub(super) async fn follow(&self) -> Infallible {
        let mut pauses = RETRY.pauses();
        loop {
            let error = match client(&self.kubeconfig).await {
                Ok(client) => self.watch(client, || pauses.reset()).await,
                Err(error) => error,
            };
            tracing::warn!(error, config_map = NAME, namespace = NAMESPACE, "config map watch failed");
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Watches the config map until a request fails; returns the error.
    async fn watch(&self, client: kube::Client, mut succeeded: impl FnMut()) -> String {
        let of_name = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = pin!(watcher(Api::<ConfigMap>::namespaced(client, NAMESPACE), of_name));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(config_map) | Event::InitApply(config_map)) => {
                    let settings = settings_in(config_map);
                    self.settings.send_if_modified(|current| {
                        let is_changed = *current != settings;
                        *current = settings;
                        is_changed
                    });
                    succeeded();
                }
                Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
                Err(error) => return error.to_string(),
            }
        }
        "the watch ended".to_owned()
    }
}

/// Follows the settings, if there is a lookup.
pub(super) async fn follow(lookup: Option<&ClusterLookup>) -> Infallible {
    match lookup {
        Some(lookup) => lookup.follow().await,
        None => std::future::pending().await,
    }
}

/// Reads the config map, as soon as the server answers.
async fn read(client: kube::Client) -> Result<ClusterAuthentication, String> {
    let config_maps = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let mut pauses = RETRY.pauses();
    loop {
        match config_maps.get(NAME).await {
            Ok(found) => return Ok(settings_in(found)),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                return Err(status.to_string());
            }
            Err(_) => tokio::time::sleep(pauses.next_pause()).await,
        }
    }
}

fn settings_in(config_map: ConfigMap) -> ClusterAuthentication {
    ClusterAuthentication::from_data(&config_map.data.unwrap_or_default())
}

async fn client(kubeconfig: &Path) -> Result<kube::Client, String> {
    // Fails if another part of the process has already installed a provider; both install the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig).map_err(|why| why.to_string())?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.map_err(|why| why.to_string())?).map_err(|why| why.to_string())
}
