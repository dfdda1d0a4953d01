//! Starts and stops the API server and its store.

use std::{io, net::SocketAddr, sync::Arc};

use nave_apiserver::server::{self, ApiServer};
use nave_apiserver::storage::{Following, Storages};
use nave_apiserver::{virtual_resources, webhooks};
use nave_authn::service_account::{Issuer, KeyRing, SecretUse};
use nave_resources::Registry;
use nave_store::{Embedded, Store, StoreError, embedded};
use nave_webhook::Routing;
use tokio::sync::mpsc;

use super::ServeError;
use super::authentication::{Authentication, ConfigFile};
use super::authorization::Authorization;
use super::client_cas::ClientCas;
use crate::flags::Config;

/// Opens the store in the data folder. Only one process can open it.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServeError> {
    let folder = config.data_dir.join("store");
    let damaged = |why: String| ServeError::Damaged { folder: folder.clone(), why };
    let opening = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || Embedded::open(&folder, &embedded::Options::default()))
    };
    match opening.await {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(StoreError::Corrupt(why))) => Err(damaged(why.to_string())),
        // The engine does not recognize the file.
        Ok(Err(StoreError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
            Err(damaged(error.to_string()))
        }
        Ok(Err(error)) => Err(ServeError::Store(error)),
        // The engine panics on some damaged files.
        Err(_) => Err(damaged("its pages cannot be read".to_owned())),
    }
}

/// The API server, its authorizers, and the tasks that keep them up to date.
pub(super) struct Api {
    pub(super) server: ApiServer,
    /// The authentication configuration file, for reloads.
    pub(super) authentication: Option<ConfigFile>,
    pub(super) authorization: Authorization,
    /// Issues service account tokens.
    pub(super) issuer: Issuer,
    /// Receives the secrets whose tokens were used.
    pub(super) used: mpsc::Receiver<SecretUse>,
    _following: Vec<Following>,
}

/// Starts the API on the store. It does not accept requests yet.
pub(super) async fn start(
    config: &Config,
    store: Arc<dyn Store>,
    keys: Arc<KeyRing>,
    cas: &ClientCas,
    reachable: SocketAddr,
) -> Result<Api, ServeError> {
    let registry = Registry::builtin(nave_schema::builtin());
    for resource in config.watch_caches.unknown(&registry) {
        tracing::warn!(resource, "unknown resource in --watch-cache-sizes ignored");
    }
    let storages = Storages::open(registry, store, &config.watch_caches);
    let metrics = prometheus::Registry::new();
    let authorization = Authorization::open(&config.authorization, &reachable.to_string(), &metrics)?;
    let always_allow = authorization.always_allow();
    let authentication = Authentication::open(config, keys, cas, &storages, always_allow, &metrics)?;
    let routing = if config.endpoint_routing { Routing::Endpoints } else { Routing::ClusterIp };
    let webhooks = webhooks::client_manager(&storages, routing, reachable);
    let with_tokens = authentication.virtual_resources(virtual_resources::table());
    let server = server::Config {
        storages: storages.clone(),
        authentication: authentication.chain(),
        authorization: authorization.chain.clone(),
        admission: authorization.admission(&config.admission),
        virtual_resources: virtual_resources::with_access_reviews(with_tokens, &authorization.chain),
        service_ranges: config.service_ranges,
        node_ports: config.node_ports.clone(),
        inflight: config.inflight,
        request_timeout: config.request_timeout,
        min_watch_time: config.min_request_timeout,
        browsers: config.browsers.clone(),
        address: reachable.to_string(),
        advertise: reachable,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        token_discovery: authentication.discovery(&reachable.to_string()),
        metrics,
        webhooks,
        cluster_authentication: cas.subscribe(),
    };
    let server = ApiServer::start(server).await?;
    // The default roles and bindings exist from this point on.
    let following = authorization.follow(&storages).await;
    let Authentication { file, issuer, used, .. } = authentication;
    Ok(Api { server, authentication: file, authorization, issuer, used, _following: following })
}
