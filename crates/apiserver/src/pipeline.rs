//! The stages of every request, in order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response};
use http_body::Body;
use nave_machinery::Status;
use nave_store::grpc::traced;

use crate::audit::{self, Audit};
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::body::{self, BodyError, ResponseBody};
use crate::browsers::Browsers;
use crate::catalog::Catalog;
use crate::console::Console;
use crate::context::{Client, RequestContext};
use crate::deadline::{self, RequestTimeout};
use crate::draining::Drain;
use crate::endpoints::response::encode_failure;
use crate::flow_control::FlowControl;
use crate::impersonation::Impersonation;
use crate::metrics::{Completed, Filter, Metrics, RequestLabels};
use crate::raw_response;
use crate::route::Router;
use crate::serving::Served;
use crate::steps::StepKind;
use crate::traces::{Exchange, Traces};
use crate::warnings;

/// The stages of a server.
pub struct Pipeline {
    /// Refuses requests at shutdown, and asks clients to leave.
    pub(crate) drain: Drain,
    /// The CORS and HSTS headers.
    pub browsers: Browsers,
    /// Maximum duration of a request.
    pub timeout: RequestTimeout,
    /// The authenticators.
    pub authentication: Authentication,
    /// The audit policy and its backends.
    pub(crate) audit: Audit,
    /// The traces of requests.
    pub(crate) traces: Traces,
    /// Impersonation checks.
    pub impersonation: Impersonation,
    /// Limits on the requests served concurrently.
    pub(crate) flow_control: FlowControl,
    /// The authorizers.
    pub authorization: Authorization,
    /// The handlers.
    pub router: Router,
    /// The metrics of requests.
    pub metrics: Arc<Metrics>,
    /// The console; `None` if it is switched off.
    pub(crate) console: Option<Arc<Console>>,
}

impl Pipeline {
    /// Handles a request. Returns a response even for failures and panics.
    pub async fn handle<B>(&self, request: Request<B>, client: Client) -> Served<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        // Draining: a server that shuts down refuses new requests.
        if let Some(response) = self.drain.run(&request, &client) {
            return Served { response, deadline: None, upgrade: None };
        }
        // Browsers: determines the allowed origin and answers CORS preflight requests.
        let origin = self.browsers.allowed_origin(request.headers());
        let mut served = match origin.as_ref().and_then(|_| Browsers::preflight(&request)) {
            Some(response) => Served { response, deadline: None, upgrade: None },
            None => self.answer(request, client).await,
        };
        self.browsers.add(served.response.headers_mut(), origin);
        served
    }

    async fn answer<B>(&self, mut request: Request<B>, client: Client) -> Served<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        // The context: parsed request, client, audit id.
        let mut context = RequestContext::new(&request, client);
        // The catalog: one snapshot of the served resources for all stages of the request.
        // Metrics: counts the request as in flight until its body is sent.
        let catalog = self.router.resources.catalog();
        let uri = request.uri().clone();
        let labels = catalog.labels(&context.info, request.headers());
        let serving = (self.metrics.serving(&context.info, labels), self.drain.count(&context.info));
        // A panic ends only this request.
        let outcome =
            AssertUnwindSafe(self.run(&mut request, &mut context, &catalog, labels)).catch_unwind().await;
        // Converts the failure of any stage to a response.
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => {
                if let Some(record) = &context.audit {
                    record.failure(&status);
                }
                let mut response = encode_failure(&status, &context.negotiation);
                if context.is_forbidden {
                    // As upstream: the response may quote the path.
                    raw_response::forbid_sniffing(&mut response);
                }
                response
            }
            Err(_) => {
                let status = self.panicked(labels);
                if let Some(record) = context.audit.take() {
                    // Boxed to keep the futures of other requests small.
                    Box::pin(record.panicked(&status, context.notes.take_annotations())).await;
                }
                encode_failure(&status, &context.negotiation)
            }
        };
        // Drains a small body that no stage has read: some clients miss a response that is sent before the end of their
        // body.
        body::drain(request.body_mut()).await;
        // A response to HEAD has no body.
        if context.info.method == Method::HEAD {
            response = body::head_of(response);
        }
        // Adds the warnings of all stages, even to failures.
        warnings::add(response.headers_mut(), context.notes.take_warnings());
        context.flow.add_headers(response.headers_mut());
        // Slow requests are logged, and traced requests are exported, with the times of their steps.
        let code = response.status().as_u16();
        let exchange = Exchange {
            uri: &uri,
            version: request.version(),
            headers: request.headers(),
            code,
            response_size: response.body().size_hint().exact(),
        };
        self.traces.completed(&context, &exchange);
        // Audit: records the response, or its start if it is long-running.
        audit::add_id(response.headers_mut(), &context.audit_id);
        if let Some(record) = context.audit.take() {
            let completion = Box::pin(record.respond(code, context.notes.take_annotations())).await;
            response = response.map(|body| body.keeping(completion));
        }
        let elapsed = context.received.elapsed();
        let completed = Completed {
            verb: context.info.verb,
            code,
            elapsed,
            waited: context.notes.webhook_time() + context.flow.waited,
            response_size: response.body().size_hint().exact(),
            body_size: context.body_size.get().copied(),
            field_validation: context.info.query.get("fieldValidation"),
            is_internal: matches!(context.client, Client::Process(_)),
        };
        self.metrics.request_completed(labels, completed);
        if let Some(console) = &self.console {
            console.activity.completed(labels.verb, &context.user().name, code, elapsed);
        }
        let mut response = response.map(|body| body.keeping(serving));
        let upgrade = response.body_mut().take_upgrade();
        Served { response, deadline: context.deadline, upgrade }
    }

    async fn run<B>(
        &self,
        request: &mut Request<B>,
        context: &mut RequestContext,
        catalog: &Catalog,
        labels: RequestLabels<'_>,
    ) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let terminated = |code| self.metrics.terminated(labels, code);
        let filtered = |filter, started| self.metrics.stages.filtered(filter, started);
        // Console: the files of its page contain no data and need no credentials.
        let file =
            self.console.as_ref().and_then(|console| console.public_file(&context.info, request.headers()));
        if let Some(response) = file {
            return Ok(response);
        }
        // Deadline, unless the request is long-running.
        let mut accepted = context.set_deadline(self.timeout);
        let mut started = Instant::now();
        // Authentication: the user of the request. No later stage reads a user from a header.
        if accepted.is_ok() {
            accepted = self.authentication.run(context, request.headers_mut()).await.map_err(Status::from);
            let ended = filtered(Filter::Authentication, started);
            context.steps.record_until(StepKind::Authentication, started, ended);
            started = ended;
            // Traces: continues the trace of the client, or starts one.
            self.traces.start(context, request.headers());
        }
        // Audit: records the request, also if it is rejected by the stages before.
        self.audit.run(context, request.uri(), request.headers(), accepted.is_ok()).await?;
        started = filtered(Filter::Audit, started);
        accepted?;
        // Impersonation: the user that the request acts as.
        let impersonated = self.impersonation.run(context, request.headers_mut()).await;
        started = filtered(Filter::Impersonation, started);
        context.is_forbidden = impersonated.is_err();
        impersonated?;
        // Flow control: waits for seats, which are held until the response body is sent.
        let waiting = self.metrics.waiting(&context.info);
        let place = self.flow_control.run(context, catalog).await;
        drop(waiting);
        started = filtered(Filter::FlowControl, started);
        let place = place.inspect_err(|status| terminated(status.code))?;
        // Authorization: checks that the user may make this request.
        let authorized = self.authorization.run(context).await;
        let ended = filtered(Filter::Authorization, started);
        context.steps.record_until(StepKind::Authorization, started, ended);
        context.is_forbidden = authorized.is_err();
        authorized?;
        context.info.check_encoding()?;
        // Routing: runs the handler within the deadline.
        // Boxed, so that the future of a request that waits in a queue is small.
        let mut response = Box::pin(self.router.run(request, context, catalog));
        let exceeded = || terminated(504);
        let response = match &context.trace {
            None => deadline::enforce(context.deadline, response.as_mut(), exceeded).await?,
            // Calls of etcd belong to the trace. Boxed, because few requests are traced.
            Some(span) => {
                let traced = Box::pin(traced(span.header(), response.as_mut()));
                deadline::enforce(context.deadline, traced, exceeded).await?
            }
        };
        Ok(response.map(|body| body.keeping(place)))
    }

    fn panicked(&self, labels: RequestLabels<'_>) -> Status {
        self.metrics.aborted(labels.verb);
        tracing::error!(verb = labels.verb, resource = labels.resource, "request handler panicked");
        Status::internal("the request handler panicked")
    }
}
