//! A fake server with one Lease.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::coordination::v1::Lease;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use tower_service::Service;

/// The server's behaviour on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Responds with 500.
    Failing,
    /// Never responds.
    Silent,
    /// Executes the request, but never responds.
    DoesAndIsSilent,
}

/// A connection to the server. Clones use the same connection.
#[derive(Clone)]
pub(crate) struct FakeLeases {
    lease: Arc<Mutex<Option<Lease>>>,
    pub(crate) mood: Arc<Mutex<Mood>>,
}

impl FakeLeases {
    pub(crate) fn new() -> Self {
        Self { lease: Arc::default(), mood: Arc::new(Mutex::new(Mood::Well)) }
    }

    /// Creates a connection for another client, with its own mood.
    pub(crate) fn connection(&self) -> Self {
        Self { lease: Arc::clone(&self.lease), mood: Arc::new(Mutex::new(Mood::Well)) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease.lock().clone().expect("there is a lease")
    }

    pub(crate) fn holder(&self) -> String {
        self.lease().spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Response<Full<bytes::Bytes>> {
        let mut stored = self.lease.lock();
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let new = serde_json::from_slice::<Lease>(body).ok();
        let written = match (method, stored.as_ref(), new) {
            (&Method::GET, Some(lease), _) => return ok(lease),
            (&Method::GET | &Method::PUT, None, _) => return status(404, "NotFound"),
            (&Method::POST, None, Some(new)) => new,
            (&Method::POST, Some(_), _) => return status(409, "AlreadyExists"),
            (&Method::PUT, Some(old), Some(new)) if version(old) == version(&new) => new,
            (&Method::PUT, Some(_), Some(_)) => return status(409, "Conflict"),
            _ => return status(400, "BadRequest"),
        };
        let next = stored.as_ref().and_then(version).map_or(1, |version| version.parse::<u64>().unwrap() + 1);
        let mut written = written;
        written.metadata.resource_version = Some(next.to_string());
        let answer = ok(&written);
        *stored = Some(written);
        answer
    }
}

impl Service<Request<Body>> for FakeLeases {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let mood = *server.mood.lock();
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            match mood {
                Mood::Well => Ok(server.answer(&parts.method, &body)),
                Mood::Failing => Ok(status(500, "InternalError")),
                Mood::Silent => std::future::pending().await,
                Mood::DoesAndIsSilent => {
                    server.answer(&parts.method, &body);
                    std::future::pending().await
                }
            }
        })
    }
}

fn ok(lease: &Lease) -> Response<Full<bytes::Bytes>> {
    Response::new(serde_json::to_vec(lease).unwrap().into())
}

fn status(code: u16, reason: &str) -> Response<Full<bytes::Bytes>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": reason, "code": code});
    Response::builder().status(code).body(status.to_string().into()).unwrap()
}
