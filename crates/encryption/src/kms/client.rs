//! Calls to a plugin over its socket.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nave_store::grpc::{CallError, Code, Connection};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::messages::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use crate::metrics::Metrics;

/// A connection to a plugin, opened when it is needed.
pub(super) struct Client {
    provider: String,
    socket: PathBuf,
    timeout: Duration,
    metrics: Metrics,
    connection: Mutex<Option<Connection>>,
}

/// A failed call.
#[derive(Debug)]
pub(super) struct Failure {
    /// The gRPC code, by Go's name.
    pub(super) code: &'static str,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code, self.text)
    }
}

impl Client {
    /// Creates a client of the socket `unix:///path` or `unix:///@name`.
    pub(super) fn new(provider: &str, endpoint: &str, timeout: Duration, metrics: Metrics) -> Self {
        // The part before the path is a host, which is ignored.
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let path = path.find('/').and_then(|start| path.get(start..)).unwrap_or_default();
        let socket = match path.strip_prefix("/@") {
            Some(name) => format!("\0{name}"),
            None => path.to_owned(),
        };
        let provider = provider.to_owned();
        Self { provider, socket: socket.into(), timeout, metrics, connection: Mutex::default() }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, Failure> {
        self.call("/v2.KeyManagementService/Status", &StatusRequest {}).await
    }

    pub(super) async fn encrypt(&self, request: &EncryptRequest) -> Result<EncryptResponse, Failure> {
        self.call("/v2.KeyManagementService/Encrypt", request).await
    }

    pub(super) async fn decrypt(&self, request: &DecryptRequest) -> Result<DecryptResponse, Failure> {
        self.call("/v2.KeyManagementService/Decrypt", request).await
    }

    async fn call<Out: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<Out, Failure> {
        let started = Instant::now();
        let mut last_failure = String::new();
        let outcome = timeout(self.timeout, self.send(method, request, &mut last_failure)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let text = format!("no answer within {:?}{last_failure}", self.timeout);
            Err(Failure { code: "DeadlineExceeded", text })
        });
        let code = outcome.as_ref().map_or_else(|failure| failure.code, |_| "OK");
        self.metrics.called(&self.provider, method, code, started.elapsed());
        outcome
    }

    /// Sends a request, again until it is sent: the plugin may be starting.
    async fn send<Out: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        last_failure: &mut String,
    ) -> Result<Out, Failure> {
        loop {
            let failure = match self.connection().await {
                Ok(connection) => match connection.call(method, request).await {
                    Ok(answer) => return Ok(answer),
                    Err(CallError::NotSent(why)) => why,
                    Err(CallError::Broken(text)) => return Err(Failure { code: "Unavailable", text }),
                    Err(CallError::Status(status)) => {
                        return Err(Failure { code: go_name(status.code), text: status.message });
                    }
                },
                Err(why) => why,
            };
            *last_failure = format!(": {failure}");
            *self.connection.lock().await = None;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn connection(&self) -> Result<Connection, String> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| error.to_string())?;
        let opened = Connection::open(TokioIo::new(stream), "http://localhost".to_owned()).await?;
        let opened = opened.with_max_message(MAX_MESSAGE);
        *slot = Some(opened.clone());
        Ok(opened)
    }
}

/// Returns the name of a code in upstream's metrics and errors.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Maximum length of a plugin's answer, in bytes, as in upstream's client.
const MAX_MESSAGE: usize = 4 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
