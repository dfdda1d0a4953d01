//! Deadlines of requests that are not long-running (upstream: `filters/request_deadline.go`, `filters/timeout.go`).

use std::time::{Duration, Instant};

use nave_machinery::{Status, duration};

use crate::request_info::RequestInfo;

/// Maximum duration of a request (`--request-timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimeout(pub Duration);

impl RequestTimeout {
    /// Returns the deadline of a request, given by its `timeout` parameter or the maximum, whichever is shorter; `None`
    /// for a long-running request.
    ///
    /// # Errors
    /// 400 if the parameter is invalid.
    pub(crate) fn deadline(self, info: &RequestInfo, received: Instant) -> Result<Option<Instant>, Status> {
        if info.is_long_running() {
            return Ok(None);
        }
        let wanted = info.query.get("timeout").map_or(Ok(Duration::ZERO), requested)?;
        let timeout = if wanted.is_zero() { self.0 } else { wanted.min(self.0) };
        Ok(Some(received + timeout))
    }
}

/// Runs work until the deadline.
///
/// # Errors
/// 504 after the deadline, or the error of the work.
pub(crate) async fn enforce<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Status>>,
    exceeded: impl FnOnce(),
) -> Result<T, Status> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
        exceeded();
        Err(Status::timeout("request did not complete within the allotted timeout", 0))
    })
}

/// Parses the `timeout` parameter; 0 selects the maximum.
fn requested(text: &str) -> Result<Duration, Status> {
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let nanos = duration::parse_nanos(text).map_err(|error| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
    })?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const LONGEST: Duration = Duration::from_mins(1);

    fn timeout(uri: &str) -> Result<Option<Duration>, Status> {
        let info = RequestInfo::new(&Method::GET, &uri.parse().unwrap());
        let received = Instant::now();
        let deadline = RequestTimeout(LONGEST).deadline(&info, received)?;
        Ok(deadline.map(|deadline| deadline - received))
    }

    #[test]
    fn a_client_can_shorten_the_time_and_not_lengthen_it() {
        for (query, wanted) in [
            ("", LONGEST),
            ("?timeout=", LONGEST),
            ("?timeout=5s", Duration::from_secs(5)),
            ("?timeout=%2B1m0.5s", LONGEST),
            ("?timeout=500ms", Duration::from_millis(500)),
            ("?timeout=2h", LONGEST),
            ("?timeout=0", LONGEST),
            ("?timeout=-5s", LONGEST),
        ] {
            assert_eq!(timeout(&format!("/api/v1/pods{query}")).unwrap(), Some(wanted), "{query}");
        }
        let unit = "missing unit in duration \"5\"";
        let unknown = "unknown unit \" s\" in duration \"5 s\"";
        for (query, why) in [("5", unit), ("x", "invalid duration \"x\""), ("5 s", unknown)] {
            let status = timeout(&format!("/api/v1/pods?timeout={}", query.replace(' ', "%20"))).unwrap_err();
            let text = format!("invalid timeout specified in the request URL - time: {why}");
            assert_eq!((status.code, status.message), (400, text));
        }
    }

    #[test]
    fn long_running_requests_have_no_deadline() {
        assert_eq!(timeout("/api/v1/pods?watch=true&timeout=x").unwrap(), None);
        assert_eq!(timeout("/api/v1/namespaces/a/pods/p/exec").unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_at_the_deadline() {
        let work = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(seconds)
        };
        let mut late = 0;
        let deadline = || Some((tokio::time::Instant::now() + LONGEST).into_std());
        assert_eq!(enforce(deadline(), work(59), || late += 1).await.unwrap(), 59);
        assert_eq!(enforce(None, work(6000), || late += 1).await.unwrap(), 6000);
        assert_eq!(enforce(deadline(), work(61), || late += 1).await.unwrap_err().code, 504);
        assert_eq!(late, 1);
    }
}
