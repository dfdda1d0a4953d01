//! Limits the number of requests served concurrently, without priority and fairness (upstream:
//! `filters/maxinflight.go`).
//!
//! | request | counted against |
//! | --- | --- |
//! | long-running (watch, exec, …) | no limit |
//! | get, list | `--max-requests-inflight` |
//! | all others | `--max-mutating-requests-inflight` |
//!
//! A request beyond the limit gets 429, unless its user is in `system:masters`. Requests from within the process are
//! never limited (`flow_control`): controllers make at most as many as they have workers, and must make progress while
//! clients overload the server. As upstream (priority level "exempt"), health checks are not limited either, so that a
//! busy server is not restarted.

use std::sync::Arc;

use nave_authn::UserInfo;
use nave_authz::SYSTEM_MASTERS;
use nave_machinery::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request_info::RequestInfo;

/// Maximum numbers of requests served concurrently, by kind; 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightLimits {
    /// Read-only requests (`--max-requests-inflight`).
    pub read_only: usize,
    /// Mutating requests (`--max-mutating-requests-inflight`).
    pub mutating: usize,
}

impl Default for InflightLimits {
    fn default() -> Self {
        Self { read_only: 400, mutating: 200 }
    }
}

/// The limits, and the permits that are in use.
#[derive(Debug)]
pub(crate) struct Inflight {
    read_only: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
}

/// The permit of an admitted request, released on drop; `None` if the request needs no permit.
#[derive(Debug)]
pub(crate) struct Admitted(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Inflight {
    pub(crate) fn new(limits: InflightLimits) -> Self {
        let limit =
            |most: usize| (most > 0).then(|| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))));
        Self { read_only: limit(limits.read_only), mutating: limit(limits.mutating) }
    }

    /// Takes a permit for a request of a client.
    ///
    /// # Errors
    /// 429 if no permit is left.
    pub(crate) fn admit(&self, info: &RequestInfo, user: &UserInfo) -> Result<Admitted, Status> {
        if info.is_long_running() || info.is_health_check() {
            return Ok(Admitted(None));
        }
        let places = if info.verb.is_mutating() { &self.mutating } else { &self.read_only };
        let Some(places) = places else { return Ok(Admitted(None)) };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => Ok(Admitted(Some(place))),
            Err(_) if user.groups.iter().any(|group| group == SYSTEM_MASTERS) => Ok(Admitted(None)),
            Err(_) => Err(Status::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }
}

#[cfg(test)]
impl Inflight {
    /// Returns the number of mutating requests that can be admitted now; `None` without a limit.
    pub(crate) fn free_mutating(&self) -> Option<usize> {
        self.mutating.as_ref().map(|places| places.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn admit(inflight: &Inflight, method: &Method, uri: &str, group: &str) -> Result<Admitted, Status> {
        let info = RequestInfo::new(method, &uri.parse().unwrap());
        let user = UserInfo { groups: vec![group.to_owned()], ..UserInfo::default() };
        inflight.admit(&info, &user)
    }

    #[test]
    fn limits_requests_by_kind_except_exempt_ones() {
        let inflight = Inflight::new(InflightLimits { read_only: 2, mutating: 1 });
        let (get, post) = (Method::GET, Method::POST);
        let pods = "/api/v1/namespaces/a/pods";
        let held = [admit(&inflight, &get, pods, "g"), admit(&inflight, &get, "/apis", "g")];
        let writing = admit(&inflight, &post, pods, "g").unwrap();
        for (method, uri) in [
            (&get, pods.to_owned()),
            (&get, format!("{pods}/p")),
            (&get, "/version".to_owned()),
            (&post, pods.to_owned()),
            (&Method::DELETE, pods.to_owned()),
            (&Method::PUT, format!("{pods}/p/status")),
        ] {
            let refused = admit(&inflight, method, &uri, "g").unwrap_err();
            assert_eq!(refused.message, "Too many requests, please try again later.", "{uri}");
            let reason = Some(nave_machinery::Reason::TooManyRequests);
            assert_eq!((refused.code, refused.reason), (429, reason), "{uri}");
            assert_eq!(refused.details.unwrap().retry_after_seconds, 1, "{uri}");
            admit(&inflight, method, &uri, SYSTEM_MASTERS).unwrap();
        }
        for (method, uri) in [
            (&get, format!("{pods}?watch=true")),
            (&get, "/api/v1/watch/pods".to_owned()),
            (&get, format!("{pods}/p/log")),
            (&get, format!("{pods}/p/log?follow=true")),
            (&post, format!("{pods}/p/exec")),
            (&get, format!("{pods}/p/attach")),
            (&post, format!("{pods}/p/portforward")),
            (&get, "/api/v1/namespaces/a/services/s/proxy/x".to_owned()),
            (&get, "/livez".to_owned()),
            (&get, "/readyz/ping".to_owned()),
            (&get, "/healthz?verbose".to_owned()),
        ] {
            admit(&inflight, method, &uri, "g").unwrap();
        }
        drop((held, writing));
        admit(&inflight, &get, pods, "g").unwrap();
        admit(&inflight, &post, pods, "g").unwrap();
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let inflight = Inflight::new(InflightLimits { read_only: 0, mutating: 1 });
        let held: Vec<_> =
            (0..1_000).map(|_| admit(&inflight, &Method::GET, "/api/v1/pods", "g").unwrap()).collect();
        let _writing = admit(&inflight, &Method::POST, "/api/v1/namespaces", "g").unwrap();
        assert_eq!(admit(&inflight, &Method::POST, "/api/v1/namespaces", "g").unwrap_err().code, 429);
        drop(held);
    }
}
