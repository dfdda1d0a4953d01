//! Leader election with several candidates.

use std::sync::Arc;
use std::time::Duration;

use nave_client::leader_election::{ConfigError, Ended, LeaderElectionConfig, LeaderElector};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake_leases::{FakeLeases, Mood};

/// The leaders, with the start and end of their terms in seconds since the start of the test.
type Terms = Vec<(String, f64, Option<f64>)>;

#[derive(Clone)]
struct History(Arc<Mutex<Terms>>, Instant);

impl History {
    fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    fn enter(&self, name: &str) -> Term {
        let mut terms = self.0.lock();
        terms.push((name.to_owned(), self.1.elapsed().as_secs_f64(), None));
        Term(self.clone(), terms.len() - 1)
    }

    fn terms(&self) -> Terms {
        self.0.lock().clone()
    }

    fn assert_no_terms_overlap(&self) {
        let terms = self.terms();
        for pair in terms.windows(2) {
            assert!(pair[0].2.is_some_and(|end| end <= pair[1].1), "two led at once: {terms:?}");
        }
    }
}

/// A leader's term. Dropping it, like the leader's future, ends the term.
struct Term(History, usize);

impl Drop for Term {
    fn drop(&mut self) {
        let History(terms, start) = &self.0;
        terms.lock()[self.1].2 = Some(start.elapsed().as_secs_f64());
    }
}

fn candidate(
    server: &FakeLeases,
    name: &'static str,
    stop: &CancellationToken,
    history: &History,
) -> JoinHandle<Ended> {
    let config = LeaderElectionConfig::new("kube-system", "controllers", name);
    let elector = LeaderElector::new(server.client(), config).unwrap();
    let (stop, history) = (stop.clone(), history.clone());
    tokio::spawn(async move {
        let lead = async |token: CancellationToken| {
            let _term = history.enter(name);
            token.cancelled().await;
        };
        elector.run(stop, lead).await
    })
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn second_candidate_takes_over_at_once_after_release() {
    let (server, history) = (FakeLeases::new(), History::new());
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let a = candidate(&server, "a", &stop_a, &history);
    seconds(1.0).await;
    let _b = candidate(&server, "b", &stop_b, &history);
    seconds(60.0).await;
    assert_eq!(server.holder(), "a");
    assert_eq!(server.lease().spec.unwrap().lease_transitions, Some(0));
    assert_eq!(history.terms().len(), 1);

    stop_a.cancel();
    assert_eq!(a.await.unwrap(), Ended::Stopped);
    assert_eq!(server.holder(), "", "released");
    seconds(2.0 * 2.2 + 0.1).await;
    assert_eq!(server.holder(), "b");
    assert_eq!(server.lease().spec.unwrap().lease_transitions, Some(1));
    assert_eq!(history.terms().len(), 2);
    history.assert_no_terms_overlap();
}

#[tokio::test(start_paused = true)]
async fn killed_leader_is_replaced_only_after_its_lease() {
    let (server, history) = (FakeLeases::new(), History::new());
    let stop = CancellationToken::new();
    let a = candidate(&server, "a", &stop, &history);
    seconds(1.0).await;
    let _b = candidate(&server, "b", &stop, &history);
    seconds(30.0).await;
    a.abort();
    let _ = a.await;
    let killed = history.terms()[0].2.unwrap();
    seconds(11.0).await;
    assert_eq!(server.holder(), "a", "the lease is still valid");
    seconds(25.0).await;
    let terms = history.terms();
    assert_eq!(terms[1].0, "b");
    // The last renewal is at most 2 s before the kill. The other candidate observes it at most 4.4 s later, and
    // retries at most 4.4 s after the lease expires.
    let waited = terms[1].1 - killed;
    assert!((13.0..=23.8).contains(&waited), "{waited}");
    history.assert_no_terms_overlap();
}

#[tokio::test(start_paused = true)]
async fn disconnected_leader_stops_before_another_leads() {
    for mood in [Mood::Silent, Mood::Failing, Mood::DoesAndIsSilent] {
        let (server, history) = (FakeLeases::new(), History::new());
        let (stop, other) = (CancellationToken::new(), server.connection());
        let a = candidate(&server, "a", &stop, &history);
        seconds(1.0).await;
        let _b = candidate(&other, "b", &stop, &history);
        seconds(30.3).await;
        let cut = Instant::now();
        *server.mood.lock() = mood;
        assert_eq!(a.await.unwrap(), Ended::Lost, "{mood:?}");
        assert!(cut.elapsed() <= Duration::from_secs(10), "{mood:?}: {:?}", cut.elapsed());
        seconds(30.0).await;
        assert_eq!(other.holder(), "b", "{mood:?}");
        history.assert_no_terms_overlap();
    }
}

#[tokio::test(start_paused = true)]
async fn short_outage_does_not_end_leadership() {
    let (server, history) = (FakeLeases::new(), History::new());
    let stop = CancellationToken::new();
    let a = candidate(&server, "a", &stop, &history);
    for _ in 0..5 {
        seconds(20.0).await;
        *server.mood.lock() = Mood::Failing;
        // Including one retry before and one after it, the outage is shorter than the renew deadline.
        seconds(5.0).await;
        *server.mood.lock() = Mood::Well;
    }
    assert!(!a.is_finished());
    assert_eq!(history.terms().len(), 1);
    assert_eq!(server.lease().spec.unwrap().lease_transitions, Some(0));
}

#[tokio::test(start_paused = true)]
async fn lease_is_released_when_the_led_future_completes() {
    let server = FakeLeases::new();
    let config = LeaderElectionConfig::new("kube-system", "controllers", "a");
    let elector = LeaderElector::new(server.client(), config).unwrap();
    let ended = elector.run(CancellationToken::new(), async |_| seconds(5.0).await).await;
    assert_eq!(ended, Ended::Finished);
    assert_eq!((server.holder().as_str(), elector.is_leader()), ("", false));
}

#[tokio::test(start_paused = true)]
async fn check_fails_for_a_stuck_leader() {
    let server = FakeLeases::new();
    let config = LeaderElectionConfig::new("kube-system", "controllers", "a");
    let elector = LeaderElector::new(server.client(), config).unwrap();
    let tolerance = Duration::from_secs(20);
    assert_eq!(elector.check(tolerance), Ok(()));
    let lead = async |_| {
        seconds(60.0).await;
        assert_eq!(elector.check(tolerance), Ok(()), "it renews");
        *server.mood.lock() = Mood::Failing;
    };
    // The leader's future ends, but the Lease cannot be released. As far as this process knows, it is still the
    // leader.
    assert_eq!(elector.run(CancellationToken::new(), lead).await, Ended::Finished);
    seconds(30.0).await;
    assert_eq!(elector.check(tolerance), Ok(()));
    seconds(10.0).await;
    let stuck = elector.check(tolerance).unwrap_err().to_string();
    assert_eq!(stuck, "failed election to renew leadership on lease controllers");
}

#[tokio::test(start_paused = true)]
async fn lease_taken_by_another_ends_leadership() {
    let (server, history) = (FakeLeases::new(), History::new());
    let a = candidate(&server, "a", &CancellationToken::new(), &history);
    seconds(5.0).await;
    let leases =
        kube::Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(server.client(), "kube-system");
    let mut lease = server.lease();
    lease.spec.as_mut().unwrap().holder_identity = Some("somebody".into());
    leases.replace("controllers", &kube::api::PostParams::default(), &lease).await.unwrap();
    assert_eq!(a.await.unwrap(), Ended::Lost);
    assert_eq!(server.holder(), "somebody");
}

#[test]
fn rejects_contradictory_times() {
    let config = LeaderElectionConfig::new("n", "l", "a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let refused = |change: &dyn Fn(&mut LeaderElectionConfig)| {
        let mut config = config.clone();
        change(&mut config);
        LeaderElector::new(FakeLeases::new().client(), config).err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(refused(&|c| c.identity.clear()), Some(ConfigError::Identity));
    assert_eq!(refused(&|c| c.lease_duration = c.renew_deadline), Some(ConfigError::LeaseDuration));
    assert_eq!(refused(&|c| c.retry_period = Duration::from_secs(9)), Some(ConfigError::RenewDeadline));
    assert_eq!(refused(&|c| c.retry_period = Duration::ZERO), Some(ConfigError::RenewDeadline));
}
