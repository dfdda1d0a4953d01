//! Samples requests, and exports spans in batches.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::MILLION;
use crate::otlp::{ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans};
use crate::{Config, Span, TraceContext};

/// Decides which requests are traced, and queues their spans.
#[derive(Clone, Debug)]
pub struct Tracer {
    rate: u32,
    spans: mpsc::Sender<Span>,
}

impl Tracer {
    /// Returns the context of a new span. Continues the trace of a client, or samples a new one.
    pub fn start(&self, parent: Option<TraceContext>) -> TraceContext {
        match parent {
            Some(parent) => parent.child(),
            None => TraceContext::new(rand::rng().random_range(0..MILLION) < self.rate),
        }
    }

    /// Queues a span; drops it if the queue is full.
    pub fn export(&self, span: Span) {
        let _ = self.spans.try_send(span);
    }
}

/// Sends spans to the collector.
pub struct Exporter {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    instance: String,
    spans: mpsc::Receiver<Span>,
}

impl Exporter {
    /// Creates a tracer, and the exporter of its spans. `instance` identifies this server.
    ///
    /// # Errors
    /// The endpoint is not a valid authority.
    pub fn new(config: &Config, instance: &str) -> Result<(Tracer, Self), http::Error> {
        let uri =
            Uri::builder().scheme("http").authority(config.endpoint.as_str()).path_and_query(PATH).build()?;
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
        let (sender, spans) = mpsc::channel(MAX_QUEUE);
        let tracer = Tracer { rate: config.sampling_rate_per_million, spans: sender };
        Ok((tracer, Self { client, uri, instance: instance.to_owned(), spans }))
    }

    /// Sends spans until the tracer is dropped.
    pub async fn run(mut self) {
        while let Some(span) = self.spans.recv().await {
            let mut batch = vec![span];
            let end = Instant::now() + MAX_WAIT;
            while batch.len() < MAX_BATCH
                && let Ok(Some(span)) = tokio::time::timeout_at(end, self.spans.recv()).await
            {
                batch.push(span);
            }
            let count = batch.len();
            if let Err(error) = self.send(batch).await {
                tracing::warn!(spans = count, %error, "trace export failed");
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), ExportError> {
        let resource = Resource {
            attributes: vec![
                KeyValue::new("service.name", "apiserver"),
                KeyValue::new("service.instance.id", self.instance.as_str()),
            ],
        };
        let scope = Some(Scope { name: "nave".to_owned() });
        let scope_spans = vec![ScopeSpans { scope, spans: spans.into_iter().map(Into::into).collect() }];
        let message = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }],
        };
        let mut request = Request::post(self.uri.clone()).body(Full::new(framed(&message)))?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        let call = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(ExportError::Body)?;
            let status =
                body.trailers().and_then(|trailers| trailers.get(STATUS)).or(head.headers.get(STATUS));
            let status = status.and_then(|status| status.to_str().ok()).unwrap_or("2");
            if status == "0" { Ok(()) } else { Err(ExportError::Refused(status.to_owned())) }
        };
        tokio::time::timeout(TIMEOUT, call).await.map_err(|_| ExportError::TimedOut)?
    }
}

/// Returns a message with the prefix of gRPC: not compressed, length.
fn framed(message: &ExportTraceServiceRequest) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(length + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

/// The reasons why spans are not accepted.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    #[error("cannot reach the collector: {0}")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("cannot read the response: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector responded with gRPC status {0}")]
    Refused(String),
    #[error("the collector did not respond in time")]
    TimedOut,
}

/// The method of the collector.
const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const STATUS: &str = "grpc-status";
/// The defaults of OpenTelemetry's batch span processor.
const MAX_QUEUE: usize = 2048;
const MAX_BATCH: usize = 512;
const MAX_WAIT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::Kind;

    fn config(endpoint: String, sampling_rate_per_million: u32) -> Config {
        Config { endpoint, sampling_rate_per_million }
    }

    #[tokio::test]
    async fn exports_spans_to_a_collector() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (received, mut requests) = mpsc::channel(1);
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let received = received.clone();
                async move {
                    assert_eq!(request.uri().path(), PATH);
                    let body = request.into_body().collect().await?.to_bytes();
                    received.send(body).await.unwrap();
                    let answer = http::Response::builder().header(STATUS, "0");
                    Ok::<_, hyper::Error>(answer.body(Full::new(Bytes::new())).unwrap())
                }
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        });
        let (tracer, exporter) = Exporter::new(&config(endpoint, MILLION), "me").unwrap();
        let context = tracer.start(None);
        assert!(context.sampled);
        let now = SystemTime::now();
        tracer.export(Span {
            context,
            parent: None,
            link: Some(TraceContext::new(true)),
            name: "get".to_owned(),
            kind: Kind::Server,
            start: now,
            end: now,
            attributes: vec![("audit-id", "a".into()), ("http.response.status_code", 200_u16.into())],
            failed: true,
        });
        drop(tracer);
        exporter.run().await;
        let body = requests.recv().await.unwrap();
        let message = ExportTraceServiceRequest::decode(&body[5..]).unwrap();
        let spans = &message.resource_spans[0].scope_spans[0].spans;
        assert_eq!((spans.len(), spans[0].name.as_str(), spans[0].kind), (1, "get", 2));
        assert_eq!(spans[0].trace_id, context.trace_id);
        let values = spans[0].attributes.iter().map(|attribute| attribute.value.clone().unwrap());
        let values: Vec<_> = values.map(|value| (value.string_value, value.int_value)).collect();
        assert_eq!(values, [(Some("a".to_owned()), None), (None, Some(200))]);
        assert_eq!((spans[0].links.len(), spans[0].status.as_ref().unwrap().code), (1, 2));
    }

    #[test]
    fn samples_by_rate_and_by_the_parent() {
        let tracer = |rate| Exporter::new(&config("a:1".to_owned(), rate), "").unwrap().0;
        assert!(!tracer(0).start(None).sampled && tracer(MILLION).start(None).sampled);
        let parent = TraceContext::new(true);
        let context = tracer(0).start(Some(parent));
        assert_eq!((context.trace_id, context.sampled), (parent.trace_id, true));
    }
}
