//! The ways in which clients leave a server behind a load balancer: GOAWAY at random (upstream: `filters/goaway.go`), and the answers
//! after the shutdown delay (upstream: `filters/with_retry_after.go`).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::body::ResponseBody;
use crate::context::Client;
use crate::health::Switch;
use crate::raw_response;
use crate::request_info::RequestInfo;
use crate::serving::{ConnectionInfo, Protocol};

/// The settings of a server behind a load balancer.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainSettings {
    /// Probability that a request over HTTP/2 makes the server send GOAWAY (`--goaway-chance`).
    pub goaway_chance: f64,
    /// Time over which watches end at shutdown (`--shutdown-watch-termination-grace-period`).
    pub watch_grace: Duration,
}

/// Decides which clients must leave, and counts the requests in flight.
#[derive(Clone)]
pub(crate) struct Drain {
    goaway_chance: f64,
    /// Set when new requests are refused.
    refusing: Switch,
    requests: TaskTracker,
}

/// A request in flight, until it is dropped.
pub(crate) type InFlight = TaskTrackerToken;

impl Drain {
    pub(crate) fn new(settings: DrainSettings) -> Self {
        let requests = TaskTracker::new();
        requests.close();
        Self { goaway_chance: settings.goaway_chance, refusing: Switch::default(), requests }
    }

    /// Asks the client to leave if it is its turn. Returns the response if the server refuses new requests.
    pub(crate) fn run<B>(&self, request: &Request<B>, client: &Client) -> Option<Response<ResponseBody>> {
        let Client::Remote(connection) = client else { return None };
        if self.refusing.is_set() && !is_exempt(request.uri().path(), request.headers()) {
            return Some(refusal(connection.as_deref()));
        }
        if self.goaway_chance > 0.0
            && let Some(connection) = connection
            && connection.protocol == Protocol::Http2
            && rand::rng().random_bool(self.goaway_chance.min(1.0))
        {
            connection.ask_to_leave();
        }
        None
    }

    /// Counts a request as in flight, except a long-running one.
    pub(crate) fn count(&self, info: &RequestInfo) -> Option<InFlight> {
        (!info.is_long_running()).then(|| self.requests.token())
    }

    /// Refuses new requests with 429 and waits until the requests in flight have completed.
    pub(crate) async fn refuse_requests(&self) {
        self.refusing.set();
        self.requests.wait().await;
    }
}

/// Returns whether a request is served although new requests are refused: health checks, metrics, and servers.
fn is_exempt(path: &str, headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    EXEMPT_PATHS.iter().any(|exempt| path.starts_with(exempt)) || agent.starts_with("kube-apiserver/")
}

const EXEMPT_PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];

fn refusal(connection: Option<&ConnectionInfo>) -> Response<ResponseBody> {
    let text = "The apiserver is shutting down, please try again later.\n";
    let mut response = raw_response::text(StatusCode::TOO_MANY_REQUESTS, text);
    raw_response::set_header(&mut response, header::RETRY_AFTER, "5");
    match connection {
        Some(connection) if connection.protocol == Protocol::Http2 => connection.ask_to_leave(),
        _ => drop(response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"))),
    }
    response
}

/// The end of all watches at shutdown, each at a moment of its own within a grace period.
#[derive(Clone, Default)]
pub struct Closing {
    token: CancellationToken,
    /// When the period began.
    began: Arc<OnceLock<Instant>>,
    grace: Duration,
}

impl Closing {
    /// Creates the end of watches with a grace period.
    pub fn new(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// Begins the grace period.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Waits for the end of a watch with this share of the period, from 0 to 1.
    pub async fn ended(&self, share: f64) {
        self.token.cancelled().await;
        if let Some(began) = self.began.get() {
            tokio::time::sleep_until(*began + self.grace.mul_f64(share.clamp(0.0, 1.0))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn request(uri: &str, agent: &'static str) -> Request<()> {
        Request::builder().uri(uri).header(header::USER_AGENT, agent).body(()).unwrap()
    }

    #[tokio::test]
    async fn refuses_requests_after_those_in_flight() {
        let drain = Drain::new(DrainSettings::default());
        let client = Client::Remote(None);
        let info = |uri: &str| RequestInfo::new(&Method::GET, &uri.parse().unwrap());
        let (pods, watch) = ("/api/v1/pods", "/api/v1/pods?watch=true");
        let in_flight = drain.count(&info(pods));
        assert!(in_flight.is_some() && drain.count(&info(watch)).is_none());
        assert!(drain.run(&request(pods, "kubectl/1"), &client).is_none());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.refuse_requests().await }
        });
        while !drain.refusing.is_set() {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        for (uri, agent, code) in [
            (pods, "kubectl/1", Some(429)),
            (watch, "kubectl/1", Some(429)),
            (pods, "kube-apiserver/v1", None),
            ("/readyz", "probe", None),
            ("/livez/etcd", "probe", None),
            ("/metrics", "probe", None),
        ] {
            let refused = drain.run(&request(uri, agent), &client);
            assert_eq!(refused.as_ref().map(|refused| refused.status().as_u16()), code, "{uri} {agent}");
            if let Some(refused) = refused {
                assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
                assert_eq!(refused.headers()[header::CONNECTION], "close");
            }
        }
        drop(in_flight);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn watches_end_within_the_grace_period() {
        let closing = Closing::new(Duration::from_secs(10));
        let began = Instant::now();
        closing.begin();
        closing.ended(0.0).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        closing.ended(0.5).await;
        assert_eq!(began.elapsed().as_secs(), 5);
        closing.ended(1.0).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        let at_once = Closing::new(Duration::ZERO);
        at_once.begin();
        at_once.ended(1.0).await;
    }
}
