//! Connections through a proxy, by the method CONNECT of HTTP/1.1.
//!
//! The proxy is chosen by an administrator, but what it sends is checked: the head of its response has a limit, the only
//! success is the status 200, and no byte of a destination may come before this server has sent one.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::backend::{BackendConnection, BackendTls};
use crate::client::{ClientError, Tls};
use crate::tcp::{self, AddressPolicy, ConnectError};

/// Maximum size of the head of a proxy's response, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Maximum time of the steps until the proxy is connected. The whole has a limit of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy.
#[derive(Debug)]
pub struct ConnectProxy {
    address: ProxyAddress,
}

#[derive(Debug)]
enum ProxyAddress {
    Host { host: String, port: u16, tls: Option<BackendTls> },
    Socket(PathBuf),
}

impl ConnectProxy {
    /// Returns the proxy at a host, with TLS if it is given.
    pub(super) fn at_host(host: String, port: u16, tls: Option<Tls>) -> Result<Self, ClientError> {
        let tls = tls.map(BackendTls::new).transpose()?;
        Ok(Self { address: ProxyAddress::Host { host, port, tls } })
    }

    /// Returns the proxy at a Unix domain socket.
    pub(super) fn at_socket(path: PathBuf) -> Self {
        Self { address: ProxyAddress::Socket(path) }
    }

    /// Opens a connection to a destination.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Box<dyn BackendConnection>, ConnectError> {
        let mut stream: Box<dyn BackendConnection> = match &self.address {
            ProxyAddress::Host { host, port, tls } => {
                // The administrator chooses the proxy, which may be on this machine.
                let stream = tcp::connect(host, *port, AddressPolicy::Unicast, PATIENCE).await;
                let stream = stream.map_err(|error| self.failed(error.to_string()))?;
                match tls {
                    None => Box::new(stream),
                    Some(tls) => {
                        let opened = tls.handshake(host, stream, PATIENCE).await;
                        Box::new(opened.map_err(|error| self.failed(error.to_string()))?)
                    }
                }
            }
            ProxyAddress::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                Box::new(stream.map_err(|error| self.failed(format!("dial unix: {error}")))?)
            }
        };
        tunnel(&mut stream, &destination(host, port)).await.map_err(|why| self.failed(why))?;
        Ok(stream)
    }

    /// Returns the error of a connection that took too long.
    pub(super) fn timed_out(&self) -> ConnectError {
        self.failed("i/o timeout".to_owned())
    }

    fn failed(&self, why: String) -> ConnectError {
        ConnectError::Proxy { proxy: self.to_string(), why }
    }
}

/// Returns host and port, as proxies read them.
pub(super) fn destination(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

impl fmt::Display for ConnectProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ProxyAddress::Host { host, port, .. } => write!(f, "{host}:{port}"),
            ProxyAddress::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Asks the proxy at the other end to connect to a destination.
async fn tunnel<S>(stream: &mut S, destination: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A name with other characters could add headers or a second request.
    if !destination.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
        return Err(format!("{destination:?} is not a host"));
    }
    let request = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n");
    let sent = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| format!("sending CONNECT to {destination} failed: {error}"))?;
    let response = read_head(stream).await;
    let (head, extra) = response.map_err(|why| format!("reading the response to CONNECT: {why}"))?;
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match status(line) {
        // The client of a destination speaks first.
        Some(200) if extra > 0 => Err(format!("unexpected {extra} bytes after the response to CONNECT")),
        Some(200) => Ok(()),
        Some(code) => Err(format!("proxy error while dialing {destination}, code {code}")),
        None => Err("malformed HTTP response".to_owned()),
    }
}

/// Reads the head of a response. Returns it with the number of bytes that followed it.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Vec<u8>, usize), String> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let read = stream.read(&mut piece).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("unexpected EOF".to_owned());
        }
        // The end may be split between two pieces.
        let searched = head.len().saturating_sub(END.len() - 1);
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
        let found = head.get(searched..).and_then(|tail| tail.windows(END.len()).position(|it| it == END));
        if let Some(place) = found {
            let extra = head.len() - searched - place - END.len();
            return Ok((head, extra));
        }
        if head.len() > MAX_HEAD {
            return Err(format!("the head is longer than {MAX_HEAD} bytes"));
        }
    }
}

/// Returns the status code in the first line of a response.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let code = rest.split(' ').next()?;
    code.parse().ok().filter(|_| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()))
}

const END: &[u8] = b"\r\n\r\n";

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Returns the outcome of a tunnel through a proxy that sends these pieces.
    async fn through(pieces: &[&[u8]]) -> Result<(), String> {
        let (mut near, mut far) = duplex(64 << 10);
        for piece in pieces {
            far.write_all(piece).await.unwrap();
        }
        let outcome = tunnel(&mut near, "host.example:443").await;
        let mut asked = vec![0; 64];
        let length = far.read(&mut asked).await.unwrap();
        let request = "CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\n\r\n";
        assert_eq!(&asked[..length], &request.as_bytes()[..length]);
        outcome
    }

    #[tokio::test]
    async fn only_a_plain_success_opens_a_tunnel() {
        let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; MAX_HEAD + 2048]].concat();
        for (pieces, error) in [
            (&[&b"HTTP/1.1 200 Connection established\r\n\r\n"[..]][..], ""),
            (&[b"HTTP/1.0 200 OK\r\nVia: a\r\nContent-Length: 5\r\n\r\n"], ""),
            (&[b"HTTP/1.1 200 O", b"K\r\n\r", b"\n"], ""),
            (&[b"HTTP/1.1 204 No Content\r\n\r\n"], "code 204"),
            (&[b"HTTP/1.1 502 Bad Gateway\r\n\r\nwhy"], "code 502"),
            (&[b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], "code 407"),
            (&[b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0"], "unexpected 7 bytes"),
            (&[b"HTTP/2 200 OK\r\n\r\n"], "malformed"),
            (&[b"HTTP/1.1 0200 OK\r\n\r\n"], "malformed"),
            (&[b"SSH-2.0\r\n\r\n"], "malformed"),
            (&[b"\xff\r\n\r\n"], "malformed"),
            (&[&long], "longer than"),
        ] {
            match through(pieces).await {
                Ok(()) => assert_eq!(error, "", "{pieces:?}"),
                Err(found) => assert!(!error.is_empty() && found.contains(error), "{error}: {found}"),
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_hangs_up_is_an_error() {
        let (mut near, mut far) = duplex(1024);
        far.write_all(b"HTTP/1.1 200").await.unwrap();
        far.shutdown().await.unwrap();
        assert!(tunnel(&mut near, "a:1").await.unwrap_err().contains("EOF"));
    }

    #[tokio::test]
    async fn a_name_adds_nothing_to_the_request() {
        let (mut near, _far) = duplex(1024);
        for name in ["a\r\nX: y:1", "a b:1", "a/b:1", "ä:1"] {
            assert!(tunnel(&mut near, name).await.unwrap_err().contains("is not a host"), "{name}");
        }
    }
}
