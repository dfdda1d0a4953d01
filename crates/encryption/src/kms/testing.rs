//! A key management plugin for tests: it encrypts by AES-GCM with a key that is derived from the key's ID.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Collected, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixListener;
use tokio::task::AbortHandle;

use super::messages::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusResponse};
use crate::ciphers::{gcm_key, open, seal};

/// A running plugin. It ends, with its connections, when it is dropped.
pub struct Plugin {
    state: Arc<State>,
    socket: PathBuf,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

struct State {
    /// The key ID of the status, that of encryptions, and the health.
    answers: Mutex<(String, String, String)>,
    decryptions: AtomicUsize,
}

impl Plugin {
    /// Starts a plugin on a new socket. Must be called within a Tokio runtime.
    ///
    /// # Panics
    /// The socket cannot be created.
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn start(socket: &Path, key_id: &str) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a free path");
        let answers = Mutex::new((key_id.to_owned(), key_id.to_owned(), "ok".to_owned()));
        let state = Arc::new(State { answers, decryptions: AtomicUsize::new(0) });
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let accept = {
            let (state, tasks) = (Arc::clone(&state), Arc::clone(&tasks));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = Arc::clone(&state);
                    let serve = service_fn(move |request| answer(Arc::clone(&state), request));
                    let connection = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), serve);
                    let task = tokio::spawn(async move { drop(connection.await) });
                    tasks.lock().push(task.abort_handle());
                }
            }
        };
        let accepting = tokio::spawn(accept).abort_handle();
        tasks.lock().push(accepting);
        Self { state, socket: socket.to_owned(), tasks }
    }

    /// Returns the endpoint for the configuration.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Changes the key that the status reports and that encrypts.
    pub fn set_key(&self, key_id: &str) {
        let mut answers = self.state.answers.lock();
        (answers.0, answers.1) = (key_id.to_owned(), key_id.to_owned());
    }

    /// Changes only the key that the status reports.
    pub fn set_status_key(&self, key_id: &str) {
        key_id.clone_into(&mut self.state.answers.lock().0);
    }

    /// Changes the health that the status reports; `ok` is healthy.
    pub fn set_health(&self, health: &str) {
        health.clone_into(&mut self.state.answers.lock().2);
    }

    /// Returns the number of decryptions.
    pub fn decryptions(&self) -> usize {
        self.state.decryptions.load(Ordering::Relaxed)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

type Answer = Result<Response<BoxBody<Bytes, Infallible>>, Infallible>;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let message = body.get(PREFIX..).unwrap_or_default();
    let answered = match method.as_str() {
        "Status" => Some(state.status()),
        "Encrypt" => state.encrypt(message),
        "Decrypt" => state.decrypt(message),
        _ => None,
    };
    let mut trailers = HeaderMap::new();
    let code = if answered.is_some() { "0" } else { "3" };
    trailers.insert("grpc-status", http::HeaderValue::from_static(code));
    let mut framed = BytesMut::new();
    if let Some(message) = answered {
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
        framed.extend_from_slice(&message);
    }
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(BoxBody::new(body));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    Ok(response)
}

impl State {
    fn status(&self) -> Vec<u8> {
        let (key_id, _, healthz) = self.answers.lock().clone();
        StatusResponse { version: "v2".to_owned(), healthz, key_id }.encode_to_vec()
    }

    fn encrypt(&self, message: &[u8]) -> Option<Vec<u8>> {
        let request = EncryptRequest::decode(message).ok()?;
        let key_id = self.answers.lock().1.clone();
        let mut ciphertext = Vec::new();
        seal(&gcm_key(&key_of(&key_id))?, ANNOTATION, &request.plaintext, &mut ciphertext).ok()?;
        let annotations = BTreeMap::from([(ANNOTATION.to_owned(), b"1".to_vec())]);
        Some(EncryptResponse { ciphertext, key_id, annotations }.encode_to_vec())
    }

    fn decrypt(&self, message: &[u8]) -> Option<Vec<u8>> {
        let request = DecryptRequest::decode(message).ok()?;
        self.decryptions.fetch_add(1, Ordering::Relaxed);
        request.annotations.get(ANNOTATION)?;
        let plaintext = open(&gcm_key(&key_of(&request.key_id))?, ANNOTATION, &request.ciphertext).ok()?;
        Some(DecryptResponse { plaintext }.encode_to_vec())
    }
}

fn key_of(key_id: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, key_id.as_bytes()).as_ref().to_vec()
}

const PREFIX: usize = 5;
const ANNOTATION: &str = "version.plugin.example.com";
