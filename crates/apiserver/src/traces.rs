//! The traces stage: spans of requests and their steps (upstream: `endpoints/filters/traces.go`), and the log lines of
//! slow requests (upstream: `k8s.io/utils/trace`).

use std::time::{Instant, SystemTime};

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use nave_authz::SYSTEM_MASTERS;
use nave_machinery::{duration, limits};
use nave_telemetry::{Attribute, Kind, Span, TraceContext, Tracer};

use crate::context::{Client, RequestContext};
use crate::steps::{self, SLOW, Step};

/// Maximum length of a client's text in a span or a log line, in bytes. Spans wait in a queue that is limited by number.
const MAX_TEXT: usize = 1024;

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

/// The HTTP of a request and its response.
pub(crate) struct Exchange<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    /// The headers of the request, without those of stages that have removed them.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) code: u16,
    /// The size of the response; `None` for a stream.
    pub(crate) response_size: Option<u64>,
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
    pub(crate) fn completed(&self, context: &RequestContext, exchange: &Exchange<'_>) {
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
                uri = limits::clipped(exchange.uri.path(), MAX_TEXT),
                code = exchange.code,
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
            export(tracer, span, context, exchange, &steps);
        }
    }
}

fn export(
    tracer: &Tracer,
    span: RequestSpan,
    context: &RequestContext,
    exchange: &Exchange<'_>,
    steps: &[Step],
) {
    let now = (Instant::now(), SystemTime::now());
    let at = |instant: Instant| now.1.checked_sub(now.0.saturating_duration_since(instant)).unwrap_or(now.1);
    for step in steps {
        tracer.export(Span {
            context: span.context.child(),
            parent: Some(span.context.span_id),
            link: None,
            name: step.kind.span_name().to_owned(),
            kind: Kind::Internal,
            start: at(step.start),
            end: at(step.end),
            attributes: attributes_of_step(context),
            failed: false,
        });
    }
    tracer.export(Span {
        context: span.context,
        parent: span.parent,
        link: span.link,
        name: limits::clipped(name(context), MAX_TEXT),
        kind: Kind::Server,
        start: at(context.received),
        end: now.1,
        attributes: exchange.attributes(context),
        failed: exchange.code >= 500,
    });
}

/// Returns the attributes of a step's span: those of upstream's spans that follow from the request.
fn attributes_of_step(context: &RequestContext) -> Vec<(&'static str, Attribute)> {
    let mut attributes = vec![("audit-id", audit_id(context))];
    if let Some(resource) = &context.info.resource {
        attributes.push(("group", clipped(&resource.gvr.group)));
        attributes.push(("resource", clipped(&resource.gvr.resource)));
    }
    attributes
}

fn audit_id(context: &RequestContext) -> Attribute {
    context.audit_id.to_str().unwrap_or_default().into()
}

impl Exchange<'_> {
    /// Returns the attributes of the request's span, named by OpenTelemetry's conventions for HTTP, as upstream.
    fn attributes(&self, context: &RequestContext) -> Vec<(&'static str, Attribute)> {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let mut attributes = vec![
            ("http.request.method", clipped(context.info.method.as_str())),
            ("url.scheme", "https".into()),
            ("url.path", clipped(self.uri.path())),
            ("http.target", clipped(self.uri.path_and_query().map_or("", |target| target.as_str()))),
            ("network.protocol.version", protocol_version(self.version).into()),
            ("http.response.status_code", self.code.into()),
            ("audit-id", audit_id(context)),
        ];
        let host = text(header::HOST.as_str()).and_then(|host| host.parse::<Authority>().ok());
        if let Some(host) = self.uri.authority().or(host.as_ref()) {
            attributes.push(("server.address", clipped(host.host().trim_matches(['[', ']']))));
            let port = host.port_u16().filter(|port| *port != HTTPS_PORT);
            attributes.extend(port.map(|port| ("server.port", port.into())));
        }
        let forwarded = text("x-forwarded-for").and_then(|addresses| addresses.split(',').next());
        let mut client = forwarded.filter(|address| !address.is_empty()).map(str::to_owned);
        if let Client::Remote(Some(connection)) = &context.client {
            let address = connection.peer.ip().to_canonical().to_string();
            attributes.push(("network.peer.address", address.clone().into()));
            attributes.push(("network.peer.port", connection.peer.port().into()));
            client = client.or(Some(address));
        }
        attributes.extend(client.map(|client| ("client.address", clipped(&client))));
        let agent = String::from_utf8_lossy(context.user_agent());
        let texts = [("user_agent.original", agent)].into_iter().filter(|(_, text)| !text.is_empty());
        attributes.extend(texts.map(|(name, text)| (name, clipped(&text))));
        let body_size = context.body_size.get().map(|size| *size as u64);
        let sizes = [("http.request.body.size", body_size), ("http.response.body.size", self.response_size)];
        let sizes = sizes.into_iter().filter_map(|(name, size)| Some((name, size.filter(|size| *size > 0)?)));
        attributes.extend(sizes.map(|(name, size)| (name, size.into())));
        attributes
    }
}

/// Returns an attribute with at most [`MAX_TEXT`] bytes of a client's text.
fn clipped(text: &str) -> Attribute {
    Attribute::Text(limits::clipped(text, MAX_TEXT))
}

/// Returns the version of HTTP, as Go writes it.
fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2.0",
        _ => "",
    }
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

/// The port that OpenTelemetry leaves out.
const HTTPS_PORT: u16 = 443;
const TRACE_PARENT: &str = "traceparent";
/// The groups of users whose traces are continued.
const TRUSTED: [&str; 2] = [SYSTEM_MASTERS, "system:monitoring"];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn span_names_have_no_names_of_objects() {
        for (uri, expected) in [
            ("/api/v1/namespaces/n/pods/p/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
            ("/apis/apps/v1/deployments", "GET /apis/apps/v1/deployments"),
            ("/version", "GET"),
        ] {
            let request = Request::get(uri).body(()).unwrap();
            assert_eq!(name(&RequestContext::new(&request, Client::Remote(None))), expected);
        }
    }

    #[test]
    fn attributes_have_the_names_of_upstream() {
        let request = Request::get("https://api.example.com:6443/api/v1/pods?limit=5")
            .version(Version::HTTP_2)
            .header("user-agent", "kubectl/v1")
            .header("x-forwarded-for", "192.0.2.1,192.0.2.2")
            .body(())
            .unwrap();
        let context = RequestContext::new(&request, Client::Remote(None));
        context.body_size.set(7).unwrap();
        let exchange = Exchange {
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            code: 200,
            response_size: None,
        };
        let mut attributes = exchange.attributes(&context);
        attributes.retain(|(name, _)| *name != "audit-id");
        attributes.sort_by_key(|(name, _)| *name);
        let expected: [(&str, Attribute); 11] = [
            ("client.address", "192.0.2.1".into()),
            ("http.request.body.size", 7_u64.into()),
            ("http.request.method", "GET".into()),
            ("http.response.status_code", 200_u16.into()),
            ("http.target", "/api/v1/pods?limit=5".into()),
            ("network.protocol.version", "2.0".into()),
            ("server.address", "api.example.com".into()),
            ("server.port", 6443_u16.into()),
            ("url.path", "/api/v1/pods".into()),
            ("url.scheme", "https".into()),
            ("user_agent.original", "kubectl/v1".into()),
        ];
        assert_eq!(attributes, expected);
    }
}
