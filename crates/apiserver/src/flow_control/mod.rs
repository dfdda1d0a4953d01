//! The flow control stage: limits the requests that are served concurrently.
//!
//! With priority and fairness (upstream: `filters/priority-and-fairness.go`), a request waits for seats of its priority
//! level:
//!
//! | request | seats |
//! | --- | --- |
//! | watch | until its initial events have been taken |
//! | exec, attach, portforward, proxy, log | none |
//! | all others | until the response body is sent |
//!
//! Without it, [`Inflight`] applies. Requests from within the process are never limited: controllers make at most as many
//! as they have workers, and must make progress while clients overload the server.

mod config;
mod estimate;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use nave_flowcontrol::matching::RequestAttributes;
use nave_flowcontrol::watches::CountedWatch;
use nave_flowcontrol::{Admission, Controller, Flow, Request, Seat};
use nave_machinery::RequestedResource;
use nave_machinery::Status;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use self::config::{FlowConfig, LEVELS, SCHEMAS};
use self::estimate::watched_name;
use crate::catalog::Catalog;
use crate::context::{Client, RequestContext};
use crate::deadline::RequestTimeout;
use crate::inflight::{Admitted, Inflight};
use crate::request_info::{RequestInfo, Verb};

const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");

/// Maximum time that a request waits for seats.
const MAX_WAIT: Duration = Duration::from_mins(1);

/// The fraction of its time that a request may wait: one in four.
const WAIT_DIVISOR: u32 = 4;

/// The limits of a server.
pub(crate) enum FlowControl {
    /// Priority and fairness.
    Fair(Fair),
    /// One limit for reads and one for writes.
    Inflight(Inflight),
}

/// Priority and fairness.
pub(crate) struct Fair {
    /// Classifies requests and gives them seats.
    pub(crate) controller: Arc<Controller>,
    /// The time limit of requests, for the wait of requests without one.
    pub(crate) timeout: RequestTimeout,
}

/// The part of a request's context that belongs to this stage.
#[derive(Debug, Default)]
pub(crate) struct FlowState {
    headers: Option<[(HeaderName, HeaderValue); 2]>,
    /// The seats of a watch until its initialization takes them.
    initialization: Mutex<Option<Seat>>,
    /// The time that the request waited for its seats.
    pub(crate) waited: Duration,
}

/// The seats or the place that a request holds while it is served.
#[expect(dead_code, reason = "held for their drop")]
pub(crate) enum Place {
    /// The request is not limited.
    Unlimited,
    /// A permit of a limit.
    Permit(Admitted),
    /// Seats of a priority level.
    Seat(Seat),
    /// A watch, which counts for the work of writes.
    Watch(Option<CountedWatch>),
}

impl FlowControl {
    /// Waits until the request may be served.
    ///
    /// # Errors
    /// 429 if the server is too busy.
    pub(crate) async fn run(&self, context: &mut RequestContext, catalog: &Catalog) -> Result<Place, Status> {
        if matches!(context.client, Client::Process(_)) {
            return Ok(Place::Unlimited);
        }
        match self {
            Self::Fair(fair) => fair.run(context, catalog).await,
            Self::Inflight(inflight) => inflight.admit(&context.info, context.user()).map(Place::Permit),
        }
    }

    /// Returns the controller of priority and fairness.
    pub(crate) fn controller(&self) -> Option<&Arc<Controller>> {
        match self {
            Self::Fair(fair) => Some(&fair.controller),
            Self::Inflight(_) => None,
        }
    }
}

impl Fair {
    async fn run(&self, context: &mut RequestContext, catalog: &Catalog) -> Result<Place, Status> {
        let is_watch = context.info.resource.is_some() && context.info.verb == Verb::Watch;
        if context.info.is_connection() || context.info.is_long_running() && !is_watch {
            return Ok(Place::Unlimited);
        }
        let request = Request {
            user: context.shared_user(),
            attributes: Arc::clone(&context.info) as _,
            mutating: context.info.verb.is_mutating(),
            is_watch,
            wait_until: self.wait_until(context),
        };
        let estimate =
            |flow: &Flow| estimate::estimate(&context.info, catalog, self.controller.watches(), flow);
        let started = Instant::now();
        let (flow, admission) = self.controller.admit(&request, estimate).await;
        context.flow.waited = started.elapsed();
        context.flow.set_headers(&flow);
        match admission {
            Admission::Rejected { retry_after, .. } => {
                let seconds = u32::try_from(retry_after).unwrap_or(u32::MAX);
                Err(Status::too_many_requests("Too many requests, please try again later.", seconds))
            }
            Admission::Admitted(seat) if is_watch => {
                *context.flow.initialization.lock() = Some(seat);
                Ok(Place::Watch(self.count_watch(&context.info)))
            }
            Admission::Admitted(seat) => Ok(Place::Seat(seat)),
        }
    }

    fn count_watch(&self, info: &RequestInfo) -> Option<CountedWatch> {
        let resource = info.resource()?;
        let (name, node) = watched_name(info);
        let watched = RequestedResource { name: name.as_deref().unwrap_or(resource.name), ..resource };
        self.controller.watches().count(&watched, node.as_deref())
    }

    /// Returns the time until which a request may wait: a quarter of its time.
    fn wait_until(&self, context: &RequestContext) -> Instant {
        let time = context.deadline.map_or(self.timeout.0, |deadline| deadline - context.received);
        Instant::from_std(context.received + (time / WAIT_DIVISOR).min(MAX_WAIT))
    }
}

impl FlowState {
    /// Takes the seats of a watch that is being initialized. Its initialization ends when they are dropped.
    pub(crate) fn take_initialization(&self) -> Option<Seat> {
        self.initialization.lock().take()
    }

    /// Adds the uids of the request's flow schema and priority level. The names of these objects may be confidential.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(uids) = &self.headers {
            headers.extend(uids.clone());
        }
    }

    fn set_headers(&mut self, flow: &Flow) {
        let value = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        self.headers = Some([(LEVEL_HEADER, value(&flow.level_uid)), (SCHEMA_HEADER, value(&flow.uid))]);
    }
}

impl RequestAttributes for RequestInfo {
    fn verb(&self) -> &str {
        self.attribute_verb()
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn resource(&self) -> Option<RequestedResource<'_>> {
        let resource = self.resource.as_ref()?;
        Some(RequestedResource {
            group: &resource.gvr.group,
            version: &resource.gvr.version,
            resource: &resource.gvr.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
        })
    }
}

#[cfg(test)]
impl FlowControl {
    /// Returns the number of mutating requests that can be admitted now; `None` without such a limit.
    pub(crate) fn free_mutating(&self) -> Option<usize> {
        match self {
            Self::Fair(_) => None,
            Self::Inflight(inflight) => inflight.free_mutating(),
        }
    }
}
