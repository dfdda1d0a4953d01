//! TLS to the other API servers of the cluster.

use std::sync::Arc;

use nave_apiserver::peers::SERVER_NAME;
use nave_webhook::{BackendTls, Roots, Tls};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::ServeError;
use super::aggregation::FLAGS;
use super::certificates::{client_identity, read_pair};
use super::client_cas::read_cas;
use crate::flags::{Config, FlagError};
use crate::pki::Pair;

/// TLS with the files of flags, which changes when they do.
pub(super) struct PeerTls {
    read: Files,
    tls: watch::Sender<Arc<BackendTls>>,
}

/// The contents of the files.
#[derive(PartialEq)]
struct Files {
    cas: Vec<CertificateDer<'static>>,
    pair: Pair,
}

impl PeerTls {
    /// Reads the files; `None` without `--peer-ca-file`.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, ServeError> {
        let Some(read) = Files::read(config)? else { return Ok(None) };
        let (tls, _) = watch::channel(Arc::new(read.tls()?));
        Ok(Some(Self { read, tls }))
    }

    /// Reads the files again, for connections that are opened afterwards.
    pub(super) fn reload(&mut self, config: &Config) -> Result<(), ServeError> {
        if let Some(read) = Files::read(config)?.filter(|read| *read != self.read) {
            self.tls.send_replace(Arc::new(read.tls()?));
            self.read = read;
            tracing::info!("certificates for other API servers reloaded");
        }
        Ok(())
    }

    /// Subscribes to the configuration.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<BackendTls>> {
        self.tls.subscribe()
    }
}

impl Files {
    fn read(config: &Config) -> Result<Option<Self>, ServeError> {
        let Some((ca_file, pair)) =
            config.peers.ca_file.as_ref().zip(config.aggregation.client_pair.as_ref())
        else {
            return Ok(None);
        };
        Ok(Some(Self { cas: read_cas("peer-ca-file", ca_file)?, pair: read_pair(pair, FLAGS)? }))
    }

    fn tls(&self) -> Result<BackendTls, ServeError> {
        let tls = Tls {
            roots: Roots::Custom(self.cas.clone()),
            identity: Some(client_identity(&self.pair, Some(FLAGS))?),
            server_name: Some(SERVER_NAME.to_owned()),
        };
        let tls = BackendTls::new(tls);
        Ok(tls.map_err(|error| FlagError::new("peer-ca-file", error.to_string()))?)
    }
}
