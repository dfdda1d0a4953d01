//! The road every request takes, on every resource, in the order of the stages.
//!
//! | stage | file |
//! | --- | --- |
//! | panic guard, count and time | [`Pipeline::handle`] |
//! | what is asked | [`request_info`](crate::request_info) |
//! | who asks | `nave_authn` |
//! | for whom they want to be taken | [`impersonation`](crate::impersonation) |
//! | whether there is room | [`inflight`](crate::inflight) |
//! | may they | `nave_authz` |
//! | documents, health and metrics | [`documents`](crate::documents) |
//! | resources | [`endpoints`](crate::endpoints), within the time limit unless the request is long-running |
//! | bytes | [`endpoints::answer`](crate::endpoints::answer) |

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use nave_authn::{ANONYMOUS, Credentials, Identity};
use nave_machinery::Status;

use crate::authorization::Asked;
use crate::body::ResponseBody;
use crate::context::RequestContext;
use crate::cpu_pool::CpuPool;
use crate::documents::Documents;
use crate::endpoints::Resources;
use crate::endpoints::answer::Negotiation;
use crate::impersonation;
use crate::inflight::Inflight;
use crate::metrics::{Metrics, RequestLabels};
use crate::request_info::{Query, RequestInfo};
use crate::serving::{ConnectionInfo, end_by};

/// The stages of one server.
pub struct Pipeline {
    /// Who sends a request.
    pub authentication: nave_authn::Chain,
    /// What they may do.
    pub authorization: nave_authz::Chain,
    /// Discovery, OpenAPI, health, metrics, version.
    pub documents: Documents,
    /// The API's resources.
    pub resources: Resources,
    /// The requests being served, within limits.
    pub(crate) inflight: Inflight,
    /// Where large requests run.
    pub(crate) cpu: CpuPool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a request may take that is not long-running (`--request-timeout`).
    pub request_timeout: Duration,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// A client, identified by the certificate of its connection or by credentials in the request. `None` is a client
    /// without a connection of its own.
    Connection(Option<&'a ConnectionInfo>),
    /// The process itself, as this user.
    Known(&'a Identity),
}

impl Pipeline {
    /// Answers a request, whatever happens on the way.
    pub async fn handle<B>(&self, request: Request<B>, caller: Caller<'_>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        let info = match RequestInfo::new(request.method(), request.uri()) {
            Ok(info) => info,
            Err(status) => return Negotiation::of(&request, &Query::default()).encode_status(&status),
        };
        let accepted = Negotiation::of(&request, &info.query);
        let labels = self.resources.labels(&info);
        let serving = if info.is_long_running() {
            self.metrics.long_running(labels)
        } else {
            self.metrics.serving(info.verb.is_mutating())
        };
        // A fault in one request ends that request alone.
        let outcome =
            AssertUnwindSafe(self.answer(request, &info, &accepted, caller, labels)).catch_unwind().await;
        let response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => accepted.encode_status(&status),
            Err(_) => {
                self.metrics.aborted(labels.verb);
                tracing::error!(verb = labels.verb, resource = labels.resource, "a request ended in a fault");
                accepted.encode_status(&Status::internal("this request ended in a fault of the server"))
            }
        };
        self.metrics.answered(labels, response.status().as_u16(), started.elapsed());
        // It is served for as long as its body is, which only a long-running request may draw out.
        if info.is_long_running() {
            response.map(|body| body.keeping(serving))
        } else {
            response.map(|body| body.keeping((serving, end_by((started + self.request_timeout).into()))))
        }
    }

    async fn answer<B>(
        &self,
        mut request: Request<B>,
        info: &RequestInfo,
        accepted: &Negotiation,
        caller: Caller<'_>,
        labels: RequestLabels<'_>,
    ) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Who asks: the first authenticator that recognises the credential.
        let identity = match caller {
            Caller::Connection(connection) => {
                let peer = connection.and_then(|connection| connection.client_certificate.as_ref());
                let credentials = Credentials { peer, headers: request.headers(), path: &info.path };
                let identity = self.authentication.authenticate(&credentials).await?;
                if let Some(connection) = connection.filter(|_| identity.user.name != ANONYMOUS) {
                    connection.mark_authenticated();
                }
                identity
            }
            Caller::Known(identity) => identity.clone(),
        };
        // From here on no header says who asks.
        self.authentication.strip(request.headers_mut());
        // For whom they want to be taken, if they may.
        let asked = Asked::new(info, request.method());
        let own = asked.by(&identity.user);
        let other = impersonation::apply(&own, request.headers_mut(), &self.authorization).await?;
        let identity = other.unwrap_or_else(|| identity.clone());
        // Whether there is room for one more; what runs within the process always finds some.
        let admitted = match caller {
            Caller::Connection(_) => {
                let admitted = self.inflight.admit(info, &identity.user);
                Some(admitted.inspect_err(|status| self.metrics.terminated(labels, status.code))?)
            }
            Caller::Known(_) => None,
        };
        // May they: any authorizer that allows it.
        self.authorization.authorize(&asked.by(&identity.user)).await?;
        let deadline = Instant::now() + self.request_timeout;
        let served = async {
            // Everything that is no resource: health, discovery, OpenAPI, metrics.
            let Some(resource) = &info.resource else {
                let (method, headers) = (request.method(), request.headers());
                let document = self.documents.answer(method, headers, info, accepted);
                return accepted.encode(self.cpu.run(self.documents.size(info), document).await?);
            };
            let context = RequestContext::new(Arc::clone(&identity.user), deadline);
            let answer = self.resources.serve(request, info, resource, &context, accepted).await?;
            self.cpu.run(answer.size(accepted), async { accepted.encode(answer) }).await
        };
        let response = if info.is_long_running() {
            served.await?
        } else {
            let late = |_| {
                self.metrics.terminated(labels, 504);
                Status::timeout("request did not complete within the allotted timeout", 0)
            };
            tokio::time::timeout(self.request_timeout, served).await.map_err(late)??
        };
        Ok(response.map(|body| body.keeping(admitted)))
    }
}
