//! The endpoint at which the embedded store speaks etcd's API.

use std::convert::Infallible;
use std::sync::Arc;

use nave_store::Embedded;
use nave_store::etcd_server::{EtcdServer, Listener, Options};

use super::ServeError;
use crate::flags::Config;

/// The endpoint, if it is on.
pub(super) struct EtcdApi(Option<(EtcdServer, Listener)>);

impl EtcdApi {
    /// Listens at the address of the flags.
    pub(super) async fn bind(config: &Config, store: Option<&Arc<Embedded>>) -> Result<Self, ServeError> {
        let (Some(endpoint), Some(store)) = (&config.etcd_endpoint, store) else { return Ok(Self(None)) };
        let bound = Listener::bind(endpoint.address, Some(endpoint.tls()?)).await;
        let listener =
            bound.map_err(|error| ServeError::ListenForEtcd { address: endpoint.address, error })?;
        let address = listener.local_address()?;
        let options = Options {
            client_urls: vec![format!("https://{address}")],
            ..Options::new(config.data_dir.clone())
        };
        tracing::info!(%address, "serving etcd's API");
        Ok(Self(Some((EtcdServer::new(Arc::clone(store), options), listener))))
    }

    /// Serves until the future is dropped.
    pub(super) async fn serve(self) -> Infallible {
        match self.0 {
            Some((server, listener)) => server.serve(listener).await,
            None => std::future::pending().await,
        }
    }
}
