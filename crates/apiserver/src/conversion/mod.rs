//! Conversion of custom objects between versions by a webhook of their definition (upstream:
//! `apiextensions-apiserver/pkg/apiserver/conversion`).
//!
//! | file | contents |
//! | --- | --- |
//! | `mod` | the converter of a definition: one call for a batch of objects |
//! | `review` | the `ConversionReview` and its response |
//! | `raw` | splits a response into its values |
//! | `checks` | the checks of a converted object against the original |
//! | `shared` | calls that concurrent readers of an event share |
//! | `metrics` | upstream's metrics |
//!
//! Invariants: a converted object has the kind, name, namespace and uid of the original, and its metadata except for
//! labels and annotations. It is within the limits of every object. The calls of a definition that run or wait at the
//! same time are bounded, so that a slow webhook cannot use up the server's requests in flight.

mod checks;
mod metrics;
mod raw;
mod review;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use nave_machinery::{GroupVersion, GroupVersionKind, Reason, Status, Value, meta};
use nave_resources::{Conversion, ResourceDef};
use nave_webhook::{CallLimits, ClientConfig, ClientConfigError, ClientManager};
use tokio::sync::Semaphore;

pub use self::metrics::ConversionMetrics;
use self::review::{Review, ReviewVersion};
pub(crate) use self::shared::ObjectKey;
use self::shared::SharedCalls;

/// Time limit of a call (upstream's default of webhook clients).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of calls of one definition at a time.
const CALLS: usize = 32;
/// Maximum number of calls of one definition that run or wait. Further ones fail with 429.
const WAITING: usize = 128;
/// A response may have this many times the length of the request, and [`RESPONSE_BYTES`] more.
const RESPONSE_GROWTH: usize = 4;
/// Maximum length of the response to a small request, in bytes.
const RESPONSE_BYTES: usize = 4 << 20;
/// Maximum number of objects per call. More objects are converted in several calls.
pub(crate) const BATCH_OBJECTS: usize = 2_000;
/// Approximate maximum size of the objects per call, in bytes.
pub(crate) const BATCH_BYTES: usize = 8 << 20;

/// Creates the converters of definitions.
#[derive(Clone)]
pub struct Converters {
    clients: Arc<ClientManager>,
    metrics: Arc<ConversionMetrics>,
}

impl Converters {
    /// Creates converters that call webhooks with these clients.
    pub fn new(clients: Arc<ClientManager>, metrics: Arc<ConversionMetrics>) -> Self {
        Self { clients, metrics }
    }

    /// Returns the converter of a resource; `None` if its versions are converted without a webhook.
    pub fn for_resource(&self, def: &ResourceDef) -> Option<Arc<Converter>> {
        let Conversion::Webhook(webhook) = &def.conversion else { return None };
        let supported = webhook.review_versions.iter().find_map(|version| ReviewVersion::parse(version));
        Some(Arc::new(Converter {
            definition: format!("{}.{}", def.resource, def.group),
            clients: Arc::clone(&self.clients),
            metrics: Arc::clone(&self.metrics),
            config: ClientConfig::from_json(&webhook.client_config),
            review_version: supported,
            calls: Semaphore::new(CALLS),
            waiting: AtomicUsize::new(0),
            shared: SharedCalls::default(),
        }))
    }
}

/// The error of a conversion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Too many calls of the webhook run or wait.
    #[error("too many requests wait for the conversion webhook of {0}")]
    Busy(String),
    /// The webhook cannot be called, or its response is not accepted.
    #[error("{0}")]
    Failed(String),
}

impl ConversionError {
    /// Returns the response to a request: 429, or as upstream 500 without a reason.
    pub fn into_status(self) -> Status {
        match self {
            Self::Busy(_) => Status::too_many_requests(self.to_string(), 1),
            Self::Failed(why) => Status::failure(500, Reason::Unknown, why),
        }
    }
}

/// Converts the objects of one definition by its webhook.
pub struct Converter {
    /// The name of the definition.
    definition: String,
    clients: Arc<ClientManager>,
    metrics: Arc<ConversionMetrics>,
    config: Result<ClientConfig, ClientConfigError>,
    /// `None` if the webhook accepts no known version.
    review_version: Option<ReviewVersion>,
    calls: Semaphore,
    waiting: AtomicUsize,
    shared: SharedCalls,
}

impl Converter {
    /// Converts objects, which have other versions, to `to`. Returns them in the same order. Objects of one version are
    /// converted in one call unless there are very many.
    ///
    /// # Errors
    /// The webhook cannot be called, or one of the objects in its response is not accepted.
    pub async fn convert(
        &self,
        objects: Vec<Value>,
        to: &GroupVersion,
    ) -> Result<Vec<Value>, ConversionError> {
        let mut converted = Vec::with_capacity(objects.len());
        let mut rest = objects.into_iter().peekable();
        while rest.peek().is_some() {
            let mut batch = Batch::default();
            while batch.has_room()
                && let Some(object) = rest.next()
            {
                batch.add(object);
            }
            converted.extend(self.convert_batch(batch, to).await?);
        }
        Ok(converted)
    }

    /// Returns the result of `call` for a version of an object. Concurrent callers share one call.
    pub(crate) async fn share(
        &self,
        key: ObjectKey,
        call: impl FnOnce() -> BoxFuture<'static, Result<Bytes, Status>>,
    ) -> Result<Bytes, Status> {
        self.shared.run(key, call).await
    }

    async fn convert_batch(&self, batch: Batch, to: &GroupVersion) -> Result<Vec<Value>, ConversionError> {
        let Some(kind) = batch.objects.first().map(gvk) else { return Ok(Vec::new()) };
        let _place = self.enter()?;
        let started = Instant::now();
        let outcome = match self.calls.acquire().await {
            Ok(_call) => self.call(&kind, batch, to).await,
            Err(_) => Err(Failure::call(&kind, "closed")),
        };
        let took = started.elapsed();
        self.metrics.observe(&self.definition, (&kind.version, &to.version), took, outcome.as_ref().err());
        outcome.map_err(|failure| ConversionError::Failed(failure.message))
    }

    async fn call(
        &self,
        kind: &GroupVersionKind,
        batch: Batch,
        to: &GroupVersion,
    ) -> Result<Vec<Value>, Failure> {
        let version = self.review_version.ok_or_else(|| Failure {
            class: FailureClass::Call,
            message: "no supported conversion review versions".to_owned(),
        })?;
        let client = match &self.config {
            Ok(config) => self.clients.client(config).map_err(|error| Failure::call(kind, error))?,
            Err(error) => return Err(Failure::call(kind, error)),
        };
        let review = Review::new(version, batch, to);
        let limits = CallLimits {
            timeout: TIMEOUT,
            response_bytes: RESPONSE_BYTES + RESPONSE_GROWTH * review.request().len(),
        };
        let response = client.post(review.request().clone(), limits, None).await;
        review.accept(kind, &response.map_err(|error| Failure::call(kind, error))?.body)
    }

    /// Takes a place among the calls that run or wait.
    fn enter(&self) -> Result<Place<'_>, ConversionError> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            return Err(ConversionError::Busy(self.definition.clone()));
        }
        Ok(place)
    }
}

/// A place among the calls that run or wait; freed when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The objects of one call.
#[derive(Default)]
struct Batch {
    objects: Vec<Value>,
    /// The compact JSON of the objects, without their resourceVersion, joined by commas.
    json: Vec<u8>,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.objects.len() < BATCH_OBJECTS && self.json.len() < BATCH_BYTES
    }

    /// Adds an object. As upstream, the webhook does not see the resourceVersion, which is not stored.
    fn add(&mut self, mut object: Value) {
        let version = meta::remove(&mut object, "resourceVersion");
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        nave_codec::json::encode_into(&object, &mut self.json);
        if let Some(version) = version {
            meta::set(&mut object, "resourceVersion", version);
        }
        self.objects.push(object);
    }
}

fn gvk(object: &Value) -> GroupVersionKind {
    GroupVersion::parse(meta::api_version(object)).unwrap_or_default().with_kind(meta::kind(object))
}

/// A failed conversion, by the classes of upstream's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureClass {
    Call,
    MalformedResponse,
    PartialResponse,
    InvalidObject,
}

#[derive(Debug)]
struct Failure {
    class: FailureClass,
    message: String,
}

impl Failure {
    fn new(class: FailureClass, kind: &GroupVersionKind, why: impl std::fmt::Display) -> Self {
        Self { class, message: format!("conversion webhook for {} {why}", text(kind)) }
    }

    fn call(kind: &GroupVersionKind, why: impl std::fmt::Display) -> Self {
        Self::new(FailureClass::Call, kind, format_args!("failed: {why}"))
    }
}

/// Formats a kind as Go does: `group/version, Kind=Kind`.
fn text(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

#[cfg(test)]
mod tests;
