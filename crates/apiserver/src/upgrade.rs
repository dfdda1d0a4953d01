//! Connections that continue in another protocol after the response (RFC 9110, section 7.8).

use std::fmt;
use std::pin::Pin;

use http::Request;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

/// What follows the response on the same connection. The server runs it as a task of its own, until it ends or the
/// server cuts its connections.
pub struct Upgrade(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Upgrade {
    /// Returns whether the connection of a request can change its protocol: one of HTTP/1.1 that the client asks to upgrade.
    pub(crate) fn is_possible<B>(request: &Request<B>) -> bool {
        request.extensions().get::<OnUpgrade>().is_some()
    }

    /// Runs `protocol` on the connection of the request after the response was sent.
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

    /// The same, with which `kept` is dropped.
    pub(crate) fn keeping(self, kept: impl Send + 'static) -> Self {
        Self(Box::pin(async move {
            let _kept = kept;
            self.0.await;
        }))
    }

    /// Runs the protocol to its end.
    pub(crate) async fn run(self) {
        self.0.await;
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}
