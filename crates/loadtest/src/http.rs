//! Connections to an API server, requests, and response bodies that are read without parsing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

pub use ::http::Method;
use ::http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use ::http::uri::Authority;
use ::http::{Request, Response, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nave_webhook::{Kubeconfig, Roots, Tls};
use rustls::pki_types::ServerName;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::LoadError;

/// A server and its credentials.
#[derive(Clone)]
pub struct Target {
    origin: Arc<Origin>,
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

pub(crate) struct Origin {
    pub(crate) authority: Authority,
    pub(crate) bearer: Option<HeaderValue>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Media type of the `Accept` header. Defaults to `application/json`.
    pub accept: &'static str,
    /// Media type of the body, if the request has a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// True if the response may be compressed.
    pub compressed: bool,
    /// The user and the group to impersonate.
    pub impersonated: Option<(String, String)>,
}

/// A connection. Several values may share one HTTP/2 connection.
pub struct Connection {
    origin: Arc<Origin>,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A response whose body has not been read.
pub struct StreamingResponse {
    call: String,
    response: Response<Incoming>,
}

/// Several HTTP/2 connections shared by callers.
#[derive(Clone)]
pub struct Pool {
    origin: Arc<Origin>,
    lanes: Arc<[http2::SendRequest<Full<Bytes>>]>,
}

impl Target {
    /// Returns the server of the kubeconfig's current context.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, LoadError> {
        let problem = |problem: String| LoadError::Kubeconfig { path: path.to_owned(), problem };
        let config = Kubeconfig::read(path).map_err(|error| problem(error.to_string()))?;
        let (Some("https"), Some(authority)) = (config.server.scheme_str(), config.server.authority()) else {
            return Err(problem(format!("{} is not an https URL", config.server)));
        };
        let authority = authority.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let name = config.tls.server_name.clone().unwrap_or_else(|| host.to_owned());
        let token = match (config.token, config.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => {
                let text = fs::read_to_string(&file).map_err(|error| LoadError::File(file, error))?;
                Some(text.trim().to_owned())
            }
            (None, None) => None,
        };
        let bearer = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let bearer = bearer.transpose().map_err(|e| problem(format!("token: {e}")))?;
        Ok(Self {
            server_name: ServerName::try_from(name).map_err(|e| problem(e.to_string()))?,
            tls: Arc::new(tls_config(config.tls).map_err(|e| problem(e.to_string()))?),
            origin: Arc::new(Origin { authority, bearer }),
        })
    }

    /// Opens an HTTP/1.1 connection.
    pub async fn connect_http1(&self) -> Result<Connection, LoadError> {
        self.http1_over(self.connect("http/1.1").await?).await
    }

    /// Opens an HTTP/1.1 connection with a small receive buffer, for slow readers. Unread data then blocks the server
    /// early.
    pub async fn connect_slow_reader(&self) -> Result<Connection, LoadError> {
        let stream = self.connect("http/1.1").await?;
        let socket = SockRef::from(stream.get_ref().0.get_ref());
        socket.set_recv_buffer_size(SLOW_READER_BUFFER).map_err(LoadError::Broken)?;
        self.http1_over(stream).await
    }

    /// Opens a connection with a WebSocket of this subprotocol, and returns it after the head of the response. A slow
    /// reader has a small receive buffer.
    pub async fn connect_web_socket(
        &self,
        path: &str,
        protocol: &str,
        is_slow: bool,
    ) -> Result<Stream, LoadError> {
        let mut stream = self.connect("http/1.1").await?;
        if is_slow {
            let socket = SockRef::from(stream.get_ref().0.get_ref());
            socket.set_recv_buffer_size(SLOW_READER_BUFFER).map_err(LoadError::Broken)?;
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n",
            self.origin.authority
        );
        stream.write_all(request.as_bytes()).await.map_err(LoadError::Broken)?;
        stream.flush().await.map_err(LoadError::Broken)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
            head.push(stream.read_u8().await.map_err(LoadError::Broken)?);
        }
        if head.starts_with(b"HTTP/1.1 101") {
            return Ok(stream);
        }
        Err(LoadError::Unexpected(String::from_utf8_lossy(&head).into_owned()))
    }

    async fn http1_over(&self, stream: Stream) -> Result<Connection, LoadError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { origin: Arc::clone(&self.origin), sender: Sender::Http1(sender) })
    }

    /// Opens an HTTP/2 connection.
    pub async fn connect_http2(&self) -> Result<Connection, LoadError> {
        let sender = self.handshake_http2().await?;
        Ok(Connection { origin: Arc::clone(&self.origin), sender: Sender::Http2(sender) })
    }

    /// Opens `connections` HTTP/2 connections.
    pub async fn pool(&self, connections: usize) -> Result<Pool, LoadError> {
        let mut lanes = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            lanes.push(self.handshake_http2().await?);
        }
        Ok(Pool { origin: Arc::clone(&self.origin), lanes: lanes.into() })
    }

    /// Sets large windows, so that flow control never delays the server.
    async fn handshake_http2(&self) -> Result<http2::SendRequest<Full<Bytes>>, LoadError> {
        let stream = self.connect("h2").await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(MAX_FRAME)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Returns the common parts of all requests.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) async fn connect(&self, protocol: &str) -> Result<Stream, LoadError> {
        let authority = &self.origin.authority;
        let failed = |error| LoadError::Connect(authority.to_string(), error);
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443));
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![protocol.into()];
        // Without the buffer, TLS would read only 4 KiB per system call.
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        TlsConnector::from(Arc::new(tls)).connect(self.server_name.clone(), stream).await.map_err(failed)
    }
}

impl Pool {
    /// Returns the connection for the caller with this number.
    pub fn lane(&self, caller: usize) -> Connection {
        let sender = self.lanes[caller % self.lanes.len()].clone();
        Connection { origin: Arc::clone(&self.origin), sender: Sender::Http2(sender) }
    }

    /// Sends a request on the first connection and reads the whole response.
    pub async fn call(&self, call: &Call) -> Result<Bytes, LoadError> {
        self.lane(0).send(call).await?.success().await?.read_all().await
    }
}

impl Call {
    /// Returns a GET request.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, None, Bytes::new())
    }

    /// Returns a POST request with a JSON body.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path, Some(JSON), body.into())
    }

    /// Returns a DELETE request for an object or a collection.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, None, Bytes::new())
    }

    /// Returns a request with any method.
    pub fn new(
        method: Method,
        path: impl Into<String>,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Self {
        Self {
            method,
            path: path.into(),
            accept: JSON,
            content_type,
            body,
            compressed: false,
            impersonated: None,
        }
    }

    /// Impersonates a user with one group.
    pub fn as_user(mut self, user: &str, group: &str) -> Self {
        self.impersonated = Some((user.to_owned(), group.to_owned()));
        self
    }

    /// Accepts a compressed response. It is not decompressed.
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Sets the `Accept` header.
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }
}

impl Connection {
    /// Sends a request and waits for the head of the response.
    pub async fn send(&mut self, call: &Call) -> Result<StreamingResponse, LoadError> {
        let request = Request::builder().method(call.method.clone()).header(ACCEPT, call.accept);
        // HTTP/1.1 requests contain the path and a `Host` header; HTTP/2 requests contain the full URL.
        let request = match &self.sender {
            Sender::Http1(_) => request.uri(&call.path).header(
                HOST,
                HeaderValue::try_from(self.origin.authority.as_str()).map_err(::http::Error::from)?,
            ),
            Sender::Http2(_) => {
                let uri = Uri::builder().scheme("https").authority(self.origin.authority.clone());
                request.uri(uri.path_and_query(&call.path).build()?)
            }
        };
        let request = self.origin.bearer.iter().fold(request, |r, bearer| r.header(AUTHORIZATION, bearer));
        let request = call.content_type.iter().fold(request, |r, kind| r.header(CONTENT_TYPE, *kind));
        let request = call.impersonated.iter().fold(request, |request, (user, group)| {
            request.header("Impersonate-User", user).header("Impersonate-Group", group)
        });
        let request = if call.compressed { request.header(ACCEPT_ENCODING, "gzip") } else { request };
        let request = request.body(Full::new(call.body.clone()))?;
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok(StreamingResponse { call: format!("{} {}", call.method, call.path), response })
    }
}

impl StreamingResponse {
    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the value of a header; `None` if it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the response if its status is a success, otherwise an error with the body.
    pub async fn success(self) -> Result<Self, LoadError> {
        let status = self.status();
        if status.is_success() {
            return Ok(self);
        }
        let call = self.call.clone();
        let body = self.read_all().await?;
        let body = String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned();
        Err(LoadError::Refused { call, status: status.as_u16(), body })
    }

    /// Returns the next chunk of the body, or `None` at the end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, LoadError> {
        while let Some(frame) = self.response.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads to the end. Returns the length of the body and its first kilobytes.
    pub async fn drain(mut self) -> Result<(u64, Bytes), LoadError> {
        let (mut length, mut head) = (0, Bytes::new());
        while let Some(chunk) = self.next_chunk().await? {
            if length == 0 {
                head = chunk.slice(..chunk.len().min(HEAD));
            }
            length += chunk.len() as u64;
        }
        Ok((length, head))
    }

    /// Reads the whole body.
    pub async fn read_all(mut self) -> Result<Bytes, LoadError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Returns the text of the first field with this name by scanning. Used for `resourceVersion` and `continue` at the
/// start of a list.
pub fn scan_field<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let key = format!("\"{name}\":\"");
    let start = memchr::memmem::find(json, key.as_bytes())? + key.len();
    let end = memchr::memchr(b'"', &json[start..])?;
    std::str::from_utf8(&json[start..start + end]).ok()
}

/// Media type of JSON.
pub const JSON: &str = "application/json";
/// Media type of the Kubernetes protobuf encoding.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A connection before HTTP is spoken on it.
pub type Stream = TlsStream<BufReader<TcpStream>>;

/// Maximum length of the head of a response to a handshake.
const MAX_HEAD: usize = 16 << 10;
const READ_BUFFER: usize = 256 << 10;
/// Socket buffer size of a slow reader. The kernel doubles it.
const SLOW_READER_BUFFER: usize = 16 << 10;
const WINDOW: u32 = 512 << 20;
const MAX_FRAME: u32 = 1 << 20;
/// Maximum number of bytes that [`StreamingResponse::drain`] returns.
const HEAD: usize = 8 << 10;

fn tls_config(tls: Tls) -> Result<ClientConfig, rustls::Error> {
    let Roots::Custom(authorities) = tls.roots else {
        return Err(rustls::Error::General("the cluster has no certificate authority".to_owned()));
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // Go clients on hardware with AES support prefer this cipher suite.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    match tls.identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key),
        None => Ok(config.with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_by_scanning() {
        let list = br#"{"kind":"PodList","metadata":{"resourceVersion":"42","continue":"abc"},"items":[]}"#;
        assert_eq!(scan_field(list, "resourceVersion"), Some("42"));
        assert_eq!(scan_field(list, "continue"), Some("abc"));
        assert_eq!(scan_field(list, "uid"), None);
        assert_eq!(scan_field(br#"{"continue":"cut off"#, "continue"), None);
    }
}
