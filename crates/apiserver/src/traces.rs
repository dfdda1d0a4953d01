//! The traces stage: spans of requests and their steps (upstream: `endpoints/filters/traces.go`), and the log lines of
//! slow requests (upstream: `k8s.io/utils/trace`).

use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Uri};
use nave_authz::SYSTEM_MASTERS;
use nave_machinery::duration;
use nave_telemetry::{Kind, Span, TraceContext, Tracer};

use crate::context::RequestContext;
use crate::steps::{self, SLOW, Step};

/// Traces requests; without a tracer, only logs slow ones.
#[derive(Clone, Default)]
pub(crate) struct Traces(pub(crate) Option<Tracer>);

/// The span of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestSpan {
    context: TraceContext,
    parent: Option<[u8; 8]>,
    link: Option<TraceContext>,
}

impl RequestSpan {
    /// Returns the header `traceparent` of calls that belong to the request.
    pub(crate) fn header(&self) -> HeaderValue {
        self.context.header()
    }
}

impl Traces {
    /// Starts the span of a request. As upstream, only the traces of privileged users are continued; the spans of other
    /// users have a link to the client's trace.
    pub(crate) fn start(&self, context: &mut RequestContext, headers: &HeaderMap) {
        let Some(tracer) = &self.0 else { return };
        let client = headers.get(TRACE_PARENT).and_then(TraceContext::parse);
        let is_trusted = context.user().groups.iter().any(|group| TRUSTED.contains(&group.as_str()));
        let (parent, link) = if is_trusted { (client, None) } else { (None, client) };
        let span = tracer.start(parent);
        if let Ok(header) = span.header().to_str() {
            context.notes.set_trace_parent(header.to_owned());
        }
        context.trace =
            Some(RequestSpan { context: span, parent: parent.map(|parent| parent.span_id), link });
    }

    /// Logs a slow request and adds the times to its audit event; exports the spans of a traced request.
    pub(crate) fn completed(&self, context: &RequestContext, uri: &Uri, code: u16) {
        let elapsed = context.received.elapsed();
        let is_slow = elapsed >= SLOW && !context.info.is_long_running();
        let traced = context.trace.filter(|span| span.context.sampled);
        if !is_slow && traced.is_none() {
            return;
        }
        let steps = context.steps.take();
        if is_slow {
            let totals = steps::totals(&steps);
            tracing::info!(
                verb = context.info.verb.as_str(),
                uri = %uri.path(),
                code,
                audit_id = context.audit_id.to_str().unwrap_or_default(),
                milliseconds = elapsed.as_millis(),
                steps = steps::describe(&totals),
                "slow request"
            );
            for (step, time) in totals.into_iter().chain([("total", elapsed)]) {
                let key = format!("apiserver.latency.k8s.io/{}", step.replace(' ', "-"));
                let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
                // A valid key with one value.
                let _ = context.notes.annotate(&key, duration::write_nanos(nanoseconds));
            }
        }
        if let (Some(tracer), Some(span)) = (&self.0, traced) {
            export(tracer, span, context, uri, code, &steps);
        }
    }
}

fn export(
    tracer: &Tracer,
    span: RequestSpan,
    context: &RequestContext,
    uri: &Uri,
    code: u16,
    steps: &[Step],
) {
    let now = (Instant::now(), SystemTime::now());
    let at = |instant: Instant| now.1.checked_sub(now.0.saturating_duration_since(instant)).unwrap_or(now.1);
    for step in steps {
        tracer.export(Span {
            context: span.context.child(),
            parent: Some(span.context.span_id),
            link: None,
            name: step.kind.as_str().to_owned(),
            kind: Kind::Internal,
            start: at(step.start),
            end: at(step.end),
            attributes: Vec::new(),
            failed: false,
        });
    }
    tracer.export(Span {
        context: span.context,
        parent: span.parent,
        link: span.link,
        name: name(context),
        kind: Kind::Server,
        start: at(context.received),
        end: now.1,
        attributes: vec![
            ("http.target", uri.path_and_query().map_or_else(String::new, ToString::to_string)),
            ("http.method", context.info.method.to_string()),
            ("http.status_code", code.to_string()),
            ("audit-id", context.audit_id.to_str().unwrap_or_default().to_owned()),
        ],
        failed: code >= 500,
    });
}

/// Returns the name of a request's span: its method and path, without the names of namespaces and objects.
fn name(context: &RequestContext) -> String {
    let info = &context.info;
    let Some(resource) = &info.resource else { return info.method.to_string() };
    let group = &resource.gvr.group;
    let mut name = format!("{} {}", info.method, if group.is_empty() { "/api" } else { "/apis" });
    let mut add = |part: &str| {
        name.push('/');
        name.push_str(part);
    };
    if !group.is_empty() {
        add(group);
    }
    add(&resource.gvr.version);
    if !resource.namespace.is_empty() {
        add("namespaces/{:namespace}");
    }
    add(&resource.gvr.resource);
    if !resource.name.is_empty() {
        add("{:name}");
    }
    if !resource.subresource.is_empty() {
        add(&resource.subresource);
    }
    name
}

const TRACE_PARENT: &str = "traceparent";
/// The groups of users whose traces are continued.
const TRUSTED: [&str; 2] = [SYSTEM_MASTERS, "system:monitoring"];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::context::Client;

    #[test]
    fn span_names_have_no_names_of_objects() {
        for (uri, expected) in [
            ("/api/v1/namespaces/n/pods/p/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
            ("/apis/apps/v1/deployments", "GET /apis/apps/v1/deployments"),
            ("/version", "GET"),
        ] {
            let request = Request::get(uri).body(()).unwrap();
            assert_eq!(name(&RequestContext::new(&request, Client::Remote(None)).unwrap()), expected);
        }
    }
}
