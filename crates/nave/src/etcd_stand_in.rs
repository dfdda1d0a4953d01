//! `nave etcd`: takes the place of etcd beside one `kube-apiserver` of nave, for test environments such as
//! controller-runtime's envtest.
//!
//! It answers etcd's health checks on the client URLs and tells the server the data folder. The server then stores its
//! objects in this folder with the embedded engine ([`store_folder`]). It does not speak etcd's protocol: other clients
//! cannot use it, and a second server on the same folder is refused.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use nave_store::private_files;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::flags::EtcdStandInConfig;
use crate::plain_http::{self, text};
use crate::signals::Signals;

/// The path that tells the data folder.
const STORE_PATH: &str = "/nave/store";
/// Time to wait for the answer with the data folder.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Size limit of this answer.
const ANSWER_SIZE: u64 = 16 << 10;

/// The reasons why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdStandInError {
    /// The data folder cannot be created.
    #[error("--data-dir: {}: {error}", .folder.display())]
    Folder { folder: PathBuf, error: io::Error },
    /// A client URL cannot be listened on.
    #[error("cannot listen on {address} (--listen-client-urls): {error}")]
    Listen { address: SocketAddr, error: io::Error },
    /// The operating system denied a resource.
    #[error("operating system error: {0}")]
    System(#[from] io::Error),
}

/// Serves health checks until a signal arrives.
pub(crate) async fn run(config: EtcdStandInConfig) -> Result<(), EtcdStandInError> {
    let mut signals = Signals::new()?;
    let in_folder = |error| EtcdStandInError::Folder { folder: config.data_dir.clone(), error };
    private_files::create_folder(&config.data_dir).map_err(in_folder)?;
    let folder = std::fs::canonicalize(&config.data_dir).map_err(in_folder)?;
    let mut servers = Vec::new();
    for address in config.listen {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| EtcdStandInError::Listen { address, error })?;
        let folder = folder.clone();
        servers
            .push(Box::pin(plain_http::serve(listener, move |method, path| answer(&folder, method, path))));
    }
    tracing::info!(folder = %folder.display(), "standing in for etcd");
    tokio::select! {
        () = signals.next() => Ok(()),
        (never, _, _) = select_all(servers) => match never {},
    }
}

fn answer(folder: &Path, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    let body = match path {
        "/health" => json!({"health": "true", "reason": ""}).to_string(),
        "/readyz" | "/livez" => "ok\n".to_owned(),
        STORE_PATH => json!({"folder": folder}).to_string(),
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    text(StatusCode::OK, body)
}

/// Returns the data folder if `nave etcd` listens at this address; `None` for a real etcd or no answer.
pub(crate) async fn store_folder(address: SocketAddr) -> Option<PathBuf> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {STORE_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.take(ANSWER_SIZE).read_to_string(&mut response).await?;
        Ok::<_, io::Error>(response)
    };
    let response = tokio::time::timeout(ANSWER_TIME, exchange).await.ok()?.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let body: Value = serde_json::from_str(body).ok()?;
    body.get("folder")?.as_str().map(PathBuf::from).filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn serve(body: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(plain_http::serve(listener, move |_, _| text(StatusCode::OK, body.to_owned())));
        address
    }

    #[tokio::test]
    async fn tells_the_data_folder() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(plain_http::serve(listener, |method, path| answer(Path::new("/a/b"), method, path)));
        assert_eq!(store_folder(address).await, Some(PathBuf::from("/a/b")));
    }

    #[tokio::test]
    async fn ignores_other_servers() {
        for body in ["", "{}", r#"{"folder": 1}"#, r#"{"folder": "relative"}"#, "not JSON"] {
            assert_eq!(store_folder(serve(body).await).await, None, "{body}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(store_folder(closed).await, None);
    }

    #[test]
    fn answers_the_health_checks_of_etcd() {
        let code = |method: &Method, path: &str| answer(Path::new("/a"), method, path).status().as_u16();
        for path in ["/health", "/readyz", "/livez"] {
            assert_eq!(code(&Method::GET, path), 200, "{path}");
        }
        assert_eq!(code(&Method::GET, "/v3/kv/range"), 404);
        assert_eq!(code(&Method::POST, "/health"), 405);
    }
}
