//! Connections that switch to another protocol after the response (RFC 9110, section 7.8).

use std::fmt;
use std::pin::Pin;

use http::Request;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

/// A protocol that runs on the connection after the response. The server runs it in a separate task, until it ends or
/// the server cuts its connections.
pub struct Upgrade(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Upgrade {
    /// Returns whether the HTTP/1.1 connection of a request can be upgraded.
    pub(crate) fn is_possible<B>(request: &Request<B>) -> bool {
        request.extensions().get::<OnUpgrade>().is_some()
    }

    /// Creates an upgrade that runs `protocol` on the request's connection once the response is sent.
    pub(crate) fn new<B, F>(
        request: &mut Request<B>,
        protocol: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgraded = hyper::upgrade::on(request);
        Self(Box::pin(async move {
            match upgraded.await {
                Ok(connection) => protocol(TokioIo::new(connection)).await,
                Err(error) => tracing::debug!(%error, "connection ended before its upgrade"),
            }
        }))
    }

    /// Attaches a value, which is dropped when the upgrade ends.
    pub(crate) fn keeping(self, kept: impl Send + 'static) -> Self {
        Self(Box::pin(async move {
            let _kept = kept;
            self.0.await;
        }))
    }

    /// Runs the protocol until it ends.
    pub(crate) async fn run(self) {
        self.0.await;
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}
