//! The client certificate for aggregated servers.

use nave_apiserver::aggregator::identity::ProxyIdentity;
use tokio::sync::watch;

use super::ServeError;
use super::certificates::{Certificates, client_identity, read_pair};
use crate::flags::Config;
use crate::pki::Pair;

/// The flags of the client certificate and its key.
pub(super) const FLAGS: (&str, &str) = ("proxy-client-cert-file", "proxy-client-key-file");

/// The client certificate, which changes when it is renewed.
pub(super) struct ProxyClient {
    pair: Option<Pair>,
    identity: watch::Sender<ProxyIdentity>,
}

impl ProxyClient {
    /// Reads the certificate in the flags, or takes the server's own.
    pub(super) fn open(config: &Config, certificates: &Certificates) -> Result<Self, ServeError> {
        let mut client = Self { pair: None, identity: watch::Sender::default() };
        client.reload(config, certificates)?;
        if client.pair.is_none() && config.authentication.proxy.is_some() {
            tracing::warn!(
                "aggregated servers get no client certificate: --requestheader-client-ca-file is set without --proxy-client-cert-file"
            );
        }
        Ok(client)
    }

    /// Reads the certificate again.
    pub(super) fn reload(&mut self, config: &Config, certificates: &Certificates) -> Result<(), ServeError> {
        let pair = match &config.aggregation.client_pair {
            Some(files) => Some(read_pair(files, FLAGS)?),
            None => certificates.front_proxy().map(|proxy| proxy.client.clone()),
        };
        if pair == self.pair {
            return Ok(());
        }
        let flags = config.aggregation.client_pair.as_ref().map(|_| FLAGS);
        let identity = pair.as_ref().map(|pair| client_identity(pair, flags)).transpose()?;
        let identity =
            identity.map_or_else(ProxyIdentity::default, |(chain, key)| ProxyIdentity::new(chain, key));
        self.identity.send_replace(identity);
        self.pair = pair;
        Ok(())
    }

    /// Subscribes to the certificate.
    pub(super) fn subscribe(&self) -> watch::Receiver<ProxyIdentity> {
        self.identity.subscribe()
    }
}
