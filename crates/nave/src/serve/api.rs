//! The API server with its store, as the process starts and stops them.

use std::{net::SocketAddr, sync::Arc};

use nave_apiserver::server::{self, ApiServer};
use nave_apiserver::storage::Storages;
use nave_authz::{Chain, PublicPaths, SystemMasters};
use nave_resources::Registry;
use nave_store::{Embedded, Store, embedded};

use super::ServeError;
use crate::flags::Config;

/// Opens the store in the data folder, which no other process may have open.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, ServeError> {
    let folder = config.data_dir.join("store");
    let opened =
        tokio::task::spawn_blocking(move || Embedded::open(&folder, &embedded::Options::default())).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(ServeError::Store(error)),
        Err(fault) => Err(ServeError::System(std::io::Error::other(fault))),
    }
}

/// Starts the API over the store. Nobody is served yet.
pub(super) async fn start(
    config: &Config,
    store: Arc<dyn Store>,
    authentication: nave_authn::Chain,
    reachable: SocketAddr,
) -> Result<ApiServer, ServeError> {
    let registry = Registry::builtin(nave_schema::builtin());
    let storages = Storages::open(registry, store, &config.watch_caches);
    let server = server::Config {
        storages,
        authentication,
        authorization: Chain::new(vec![Arc::new(SystemMasters), Arc::new(PublicPaths)]),
        plugins: Vec::new(),
        computed: nave_apiserver::computed::table(),
        service_range: config.service_range,
        node_ports: config.node_ports.clone(),
        request_timeout: config.request_timeout,
        min_watch_time: config.min_request_timeout,
        address: reachable.to_string(),
        secure_port: reachable.port(),
    };
    Ok(ApiServer::start(server).await?)
}
