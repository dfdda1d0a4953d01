//! Connections to members: directly, or by a dialer from outside, such as one that uses a proxy.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection to a member.
pub trait MemberStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> MemberStream for T {}

/// Opens connections to members.
pub trait Dial: Send + Sync {
    /// Opens a connection to a host. The error is the reason why there is none.
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, Result<Box<dyn MemberStream>, String>>;
}

/// The way to the members; direct by default.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<dyn Dial>>);

impl Dialer {
    /// Returns a dialer from outside.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self(Some(dial))
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn MemberStream>, String> {
        if let Some(dial) = &self.0 {
            return dial.dial(host.to_owned(), port).await;
        }
        let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Dialer(given)" } else { "Dialer(direct)" })
    }
}
