//! [`LeaderElector`]: elects one of several processes as the leader, with a Lease that the leader renews.
//!
//! ```no_run
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use nave_client::leader_election::{LeaderElectionConfig, LeaderElector};
//! use tokio_util::sync::CancellationToken;
//!
//! let elector = LeaderElector::new(client, LeaderElectionConfig::new("kube-system", "my-controller", "host-1_a7c3"))?;
//! let stop = CancellationToken::new();
//! elector.run(stop, async |lead| { /* act until `lead` is cancelled */ lead.cancelled().await }).await;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use nave_machinery::backoff::jittered;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::record::{EventKind, EventRecorder, reference_of};
use crate::redacted;

/// The settings of an election. The default times are client-go's.
#[derive(Clone, Debug)]
pub struct LeaderElectionConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The identity of this process. Must be unique among the candidates.
    pub identity: String,
    /// The time that other candidates wait after an observed renewal before they take the Lease (15 s).
    pub lease_duration: Duration,
    /// The time that a leader continues after its last successful renewal request (10 s).
    pub renew_deadline: Duration,
    /// The interval between tries (2 s).
    pub retry_period: Duration,
    /// True if a stopped leader releases the Lease, so that another candidate can take it immediately.
    pub release_on_cancel: bool,
    /// Records events on the Lease when leadership starts and ends.
    pub events: Option<EventRecorder>,
}

impl LeaderElectionConfig {
    /// Creates a configuration with client-go's times, which releases the Lease on cancellation.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
            events: None,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.identity.is_empty() {
            return Err(ConfigError::Identity);
        }
        self.check_durations()
    }

    /// Checks that the durations are consistent.
    ///
    /// # Errors
    /// [`ConfigError::LeaseDuration`] or [`ConfigError::RenewDeadline`].
    pub fn check_durations(&self) -> Result<(), ConfigError> {
        let Self { lease_duration, renew_deadline, retry_period, .. } = self;
        if lease_duration <= renew_deadline || lease_duration.as_secs() < 1 {
            return Err(ConfigError::LeaseDuration);
        }
        if *renew_deadline <= retry_period.mul_f64(JITTER) || retry_period.is_zero() {
            return Err(ConfigError::RenewDeadline);
        }
        Ok(())
    }
}

/// The reasons why a configuration is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The identity is empty.
    #[error("the identity is empty")]
    Identity,
    /// Other candidates could take the Lease while the leader is still active.
    #[error("lease duration must be longer than the renew deadline, and at least a second")]
    LeaseDuration,
    /// A single failed renewal would end the leadership.
    #[error("renew deadline must be longer than 1.2 times the retry period, which must not be zero")]
    RenewDeadline,
}

/// The leader has not renewed its Lease in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed election to renew leadership on lease {0}")]
pub struct NotRenewed(String);

/// The reason why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `stop` was cancelled.
    Stopped,
    /// The Lease was not renewed in time, or another process holds it. The leader's future was dropped.
    Lost,
    /// The leader's future completed.
    Finished,
}

/// A candidate for leadership.
///
/// The clocks of other machines are not trusted. As in client-go, the validity of a Lease starts when this process
/// observes its change. A leader measures the time from its renewal request instead of the response, so slow
/// responses cannot extend its leadership beyond the Lease.
pub struct LeaderElector {
    leases: Api<Lease>,
    config: LeaderElectionConfig,
    observed: Mutex<Observed>,
}

/// The last observed Lease.
#[derive(Default)]
struct Observed {
    lease: Option<Lease>,
    /// The time at which this state was first observed.
    at: Option<Instant>,
}

impl LeaderElector {
    /// Creates a candidate. Call [`run`](Self::run) to start the election.
    pub fn new(client: kube::Client, config: LeaderElectionConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { leases: Api::namespaced(client, &config.namespace), config, observed: Mutex::default() })
    }

    /// Waits for leadership, then runs the future of `lead` until it completes, leadership is lost, or `stop` is
    /// cancelled. In the last two cases, the token passed to `lead` is cancelled. On a stop, the future may run
    /// for up to `renew_deadline`, and the Lease is still renewed. On a loss, the future is dropped immediately.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        stop: CancellationToken,
        lead: impl FnOnce(CancellationToken) -> F,
    ) -> Ended {
        let Some(requested) = stop.run_until_cancelled(self.acquire()).await else { return Ended::Stopped };
        self.report("became leader");
        let token = stop.child_token();
        let led = pin!(lead(token.clone()));
        let overtime = async {
            stop.cancelled().await;
            sleep(self.config.renew_deadline).await;
        };
        let ended = tokio::select! {
            () = led => if stop.is_cancelled() { Ended::Stopped } else { Ended::Finished },
            () = self.renew(requested) => Ended::Lost,
            () = overtime => Ended::Stopped,
        };
        token.cancel();
        self.report("stopped leading");
        if ended != Ended::Lost && self.config.release_on_cancel {
            self.release().await;
        }
        ended
    }

    /// Returns whether this process was the leader at the last observation.
    pub fn is_leader(&self) -> bool {
        self.leader().as_ref() == Some(&self.config.identity)
    }

    /// Returns the identity of the leader at the last observation.
    pub fn leader(&self) -> Option<String> {
        let observed = self.observed.lock();
        observed.lease.as_ref()?.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())
    }

    /// Health check: fails if this process is the leader but its Lease has expired. Such a process is stuck and
    /// should be restarted (client-go: `HealthzAdaptor`). Candidates that are not the leader are healthy.
    ///
    /// # Errors
    /// The Lease expired more than `tolerance` ago.
    pub fn check(&self, tolerance: Duration) -> Result<(), NotRenewed> {
        let at = self.observed.lock().at;
        let overdue = at.is_some_and(|at| at.elapsed() > self.config.lease_duration + tolerance);
        if overdue && self.is_leader() { Err(NotRenewed(self.config.name.clone())) } else { Ok(()) }
    }

    /// Reports a change of leadership in the log and as an event.
    fn report(&self, what: &str) {
        let LeaderElectionConfig { name, identity, .. } = &self.config;
        tracing::info!(lease = name, identity, "{what}");
        let lease = self.observed.lock().lease.clone();
        if let (Some(events), Some(lease)) = (&self.config.events, lease) {
            let message = format!("{identity} {what}");
            events.record(&reference_of(&lease), EventKind::Normal, "LeaderElection", &message);
        }
    }

    /// Tries until this process has the Lease. Returns the time of the successful request.
    async fn acquire(&self) -> Instant {
        loop {
            let asked = Instant::now();
            if self.try_acquire_or_renew(asked + self.config.renew_deadline).await {
                return asked;
            }
            sleep(jittered(self.config.retry_period, JITTER)).await;
        }
    }

    /// Renews the Lease. Returns when the renew deadline has passed or another process holds the Lease.
    async fn renew(&self, mut renewed: Instant) {
        loop {
            let deadline = renewed + self.config.renew_deadline;
            let next = Instant::now() + self.config.retry_period;
            if timeout_at(deadline, tokio::time::sleep_until(next)).await.is_err() {
                return;
            }
            let asked = Instant::now();
            if self.try_acquire_or_renew(deadline).await {
                renewed = asked;
            } else if !self.is_leader() {
                return;
            }
        }
    }

    /// Tries to acquire or renew the Lease. Returns whether it succeeded.
    async fn try_acquire_or_renew(&self, deadline: Instant) -> bool {
        match timeout_at(deadline, self.take()).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                let error = redacted(error);
                tracing::debug!(lease = self.config.name, %error, "acquiring the lease failed");
                false
            }
            Err(_) => false,
        }
    }

    async fn take(&self) -> Result<bool, kube::Error> {
        if let Some(lease) = self.own().filter(|_| self.is_valid())
            && self.write(lease).await.is_ok()
        {
            return Ok(true);
        }
        match self.leases.get_opt(&self.config.name).await? {
            None => self.create().await?,
            Some(lease) => {
                self.observe(lease.clone());
                if self.leader().is_some() && !self.is_leader() && self.is_valid() {
                    return Ok(false);
                }
                self.write(lease).await?;
            }
        }
        Ok(true)
    }

    async fn create(&self) -> Result<(), kube::Error> {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.config.name.clone());
        lease.metadata.namespace = Some(self.config.namespace.clone());
        lease.spec = Some(self.spec(None));
        self.observe(self.leases.create(&PostParams::default(), &lease).await?);
        Ok(())
    }

    async fn write(&self, mut lease: Lease) -> Result<(), kube::Error> {
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        self.observe(self.leases.replace(&self.config.name, &PostParams::default(), &lease).await?);
        Ok(())
    }

    /// Returns the Lease's spec with this process as the holder.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let renewed = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.config.identity));
        let transitions = before.map_or(0, |spec| spec.lease_transitions.unwrap_or(0));
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(self.config.lease_duration.as_secs() as i32),
            acquire_time: renewed.map_or_else(|| now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(transitions + i32::from(before.is_some() && renewed.is_none())),
            ..before.cloned().unwrap_or_default()
        }
    }

    /// Releases the Lease, so that other candidates do not have to wait.
    async fn release(&self) {
        let Some(mut lease) = self.own() else { return };
        let now = Some(MicroTime(Timestamp::now()));
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        (spec.renew_time, spec.acquire_time) = (now.clone(), now);
        let deadline = Instant::now() + self.config.renew_deadline;
        let options = PostParams::default();
        match timeout_at(deadline, self.leases.replace(&self.config.name, &options, &lease)).await {
            Ok(Ok(lease)) => self.observe(lease),
            Ok(Err(error)) => {
                let error = redacted(error);
                tracing::warn!(lease = self.config.name, %error, "releasing the lease failed");
            }
            Err(_) => tracing::warn!(lease = self.config.name, "releasing the lease timed out"),
        }
    }

    /// Returns the last observed Lease if this process holds it.
    fn own(&self) -> Option<Lease> {
        let lease = self.observed.lock().lease.clone();
        lease.filter(|_| self.is_leader())
    }

    fn observe(&self, lease: Lease) {
        let mut observed = self.observed.lock();
        if observed.lease.as_ref().is_none_or(|known| known.spec != lease.spec) {
            observed.at = Some(Instant::now());
        }
        observed.lease = Some(lease);
    }

    /// Returns whether the observed Lease has not expired.
    fn is_valid(&self) -> bool {
        let observed = self.observed.lock();
        let spec = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0).max(0);
        observed.at.is_some_and(|at| at.elapsed() < Duration::from_secs(seconds.unsigned_abs().into()))
    }
}

impl fmt::Debug for LeaderElector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderElector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The maximum random extension of the retry period, as a factor, as in client-go.
const JITTER: f64 = 1.2;
