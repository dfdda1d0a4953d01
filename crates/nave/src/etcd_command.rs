//! `nave etcd`: etcd's API over an embedded store, with etcd's flags.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::select_all;
use nave_store::embedded;
use nave_store::etcd_server::{EtcdServer, Listener, Options};

use crate::flags::EtcdConfig;
use crate::serve::{ServeError, open_embedded};
use crate::signals::Signals;

/// The reasons why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] ServeError),
    /// A client URL cannot be listened on.
    #[error("cannot listen on {address} (--listen-client-urls): {error}")]
    Listen { address: SocketAddr, error: io::Error },
    /// The operating system denied a resource.
    #[error("operating system error: {0}")]
    System(#[from] io::Error),
}

/// Serves until a signal arrives.
pub(crate) async fn run(config: EtcdConfig) -> Result<(), EtcdError> {
    let mut signals = Signals::new()?;
    crate::descriptors::raise_limit();
    if !config.without_effect.is_empty() {
        tracing::warn!(flags = config.without_effect.join(" "), "flags without effect");
    }
    // As in etcd, clients compact the history.
    let options = embedded::Options { history: None, ..embedded::Options::default() };
    let store = open_embedded(&config.data_dir, options).await?;
    let server = EtcdServer::new(
        Arc::clone(&store),
        Options {
            name: config.name,
            client_urls: config.advertised,
            max_request_bytes: config.max_request_bytes,
            ..Options::new(config.data_dir.clone())
        },
    );
    let mut serving: Vec<Pin<Box<dyn Future<Output = Infallible>>>> = Vec::new();
    for (address, tls) in config.listen {
        let bound = Listener::bind(address, tls).await;
        let listener = bound.map_err(|error| EtcdError::Listen { address, error })?;
        serving.push(Box::pin(server.clone().serve(listener)));
    }
    tracing::info!(folder = %config.data_dir.display(), "serving etcd's API");
    tokio::select! {
        () = signals.next() => Ok(()),
        (never, _, _) = select_all(serving) => match never {},
    }
}
