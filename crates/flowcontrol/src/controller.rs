//! The configuration in use: the flow schemas in order and their priority levels (upstream: `apf_controller.go`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::allocation::{Claim, adjust};
use crate::bootstrap::{CATCH_ALL_LEVEL, EXEMPT_LEVEL, catch_all_schema, exempt_schema};
use crate::flow::Flow;
use crate::level::{Level, Refusal, Seat};
use crate::matching::RequestAttributes;
use crate::metrics::{FlowMetrics, ReadWrite};
use crate::objects::{CATCH_ALL, EXEMPT, FlowSchemaSpec, LevelConfig, PriorityLevelSpec};
use crate::queues::{Queuing, Rejection};
use crate::watches::WatchCounts;
use crate::work::WorkEstimate;

/// Interval in which seats are lent and borrowed.
const ADJUSTMENT_PERIOD: Duration = Duration::from_secs(10);

/// Maximum time for which the initialization of a watch holds seats.
const WATCH_INITIALIZATION_LIMIT: Duration = Duration::from_mins(1);

/// A request to admit.
#[derive(Clone)]
pub struct Request {
    /// The user.
    pub user: Arc<UserInfo>,
    /// The other attributes.
    pub attributes: Arc<dyn RequestAttributes>,
    /// True if the request may change objects.
    pub mutating: bool,
    /// True for a watch, which holds its seats only until it is initialized.
    pub is_watch: bool,
    /// The time until which it may wait.
    pub wait_until: Instant,
}

/// A stored object of the configuration.
#[derive(Clone, Debug)]
pub struct Stored<S> {
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: String,
    /// The specification.
    pub spec: S,
}

/// The outcome for a request.
#[derive(Debug)]
pub enum Admission {
    /// The request may run while it holds the seat.
    Admitted(Seat),
    /// The request is rejected.
    Rejected {
        /// The reason.
        reason: Rejection,
        /// The seconds after which to retry.
        retry_after: u64,
    },
}

/// Classifies requests and gives them seats.
pub struct Controller {
    /// The server's seats in total.
    seats: u32,
    flows: ArcSwap<Flows>,
    levels: Mutex<Levels>,
    watches: Arc<WatchCounts>,
    metrics: Arc<FlowMetrics>,
    read_write: Arc<ReadWrite>,
    releases: Arc<Notify>,
}

/// The flow schemas in the order of matching.
struct Flows {
    ordered: Vec<Arc<Flow>>,
    /// Serves a request that matches none.
    catch_all: Arc<Flow>,
}

/// The priority levels by name, and the result of the latest adjustment.
#[derive(Default)]
pub(crate) struct Levels {
    pub(crate) by_name: BTreeMap<String, Managed>,
    pub(crate) fair_fraction: f64,
}

/// A priority level and its configuration.
pub(crate) struct Managed {
    pub(crate) level: Arc<Level>,
    config: LevelConfig,
    uid: String,
    /// The level is no longer wanted, and goes when its requests are done.
    pub(crate) quiescing: bool,
}

impl Controller {
    /// Creates a controller for `seats` seats with the mandatory configuration.
    pub fn new(seats: u32, metrics: FlowMetrics) -> Self {
        let now = Instant::now();
        let (metrics, read_write, releases) =
            (Arc::new(metrics), Arc::new(ReadWrite::new(now)), Arc::<Notify>::default());
        let level =
            Level::new(now, CATCH_ALL, &CATCH_ALL_LEVEL, Arc::clone(&read_write), Arc::clone(&releases));
        let flow = Flow::new((CATCH_ALL, ""), catch_all_schema(), Arc::new(level), "", Arc::clone(&metrics));
        let flows = ArcSwap::from_pointee(Flows { ordered: Vec::new(), catch_all: Arc::new(flow) });
        let (levels, watches) = (Mutex::default(), Arc::default());
        let controller = Self { seats, flows, levels, watches, metrics, read_write, releases };
        controller.configure(Vec::new(), Vec::new());
        controller
    }

    /// Returns the counts of watches.
    pub fn watches(&self) -> &Arc<WatchCounts> {
        &self.watches
    }

    /// Waits for the seats of a request. `estimate` is called with the flow schema of the request. Returns that schema
    /// and the outcome. A future that is dropped leaves the queue.
    pub async fn admit(
        &self,
        request: &Request,
        estimate: impl Fn(&Flow) -> WorkEstimate,
    ) -> (Arc<Flow>, Admission) {
        let started = Instant::now();
        loop {
            let flow = self.classify(&request.user, &*request.attributes);
            let estimate = estimate(&flow);
            let outcome = flow.level.acquire(&flow, request, estimate).await;
            let handles = flow.handles();
            handles.seats.observe(estimate.max_seats().into());
            let waited = || started.elapsed().as_secs_f64();
            match outcome {
                // The configuration is being replaced.
                Err(Refusal::Retired) => tokio::task::yield_now().await,
                Ok(seat) => {
                    handles.dispatched.inc();
                    if flow.level_name() != EXEMPT {
                        handles.waits.observe(waited());
                    }
                    return (flow, Admission::Admitted(seat));
                }
                Err(Refusal::Rejected(reason, retry_after)) => {
                    self.metrics.waited_in_vain(flow.level_name(), &flow.name, waited());
                    return (flow, Admission::Rejected { reason, retry_after });
                }
            }
        }
    }

    /// Returns the first flow schema that a request matches. The mandatory schemas match all users.
    pub fn classify(&self, user: &UserInfo, request: &dyn RequestAttributes) -> Arc<Flow> {
        let flows = self.flows.load();
        let matching = flows.ordered.iter().find(|flow| flow.spec.matches(user, request));
        Arc::clone(matching.unwrap_or(&flows.catch_all))
    }

    /// Replaces the configuration. Returns for each of the schemas, in their order, whether its priority level exists.
    /// Missing mandatory objects are added. Removed levels stay until their requests are done.
    pub fn configure(
        &self,
        levels: Vec<Stored<PriorityLevelSpec>>,
        schemas: Vec<Stored<FlowSchemaSpec>>,
    ) -> Vec<bool> {
        let now = Instant::now();
        let mut managed = self.levels.lock();
        let wanted = usable(levels);
        let found = schemas.iter().map(|it| wanted.contains_key(&it.spec.priority_level_configuration.name));
        let found: Vec<bool> = found.collect();
        self.set_levels(&mut managed, wanted, now);
        let mut kept: Vec<_> =
            schemas.into_iter().zip(&found).filter(|(_, found)| **found).map(|(schema, _)| schema).collect();
        kept.sort_by(|one, other| {
            let key = |it: &Stored<FlowSchemaSpec>| it.spec.matching_precedence;
            key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
        });
        let has = |kept: &[Stored<FlowSchemaSpec>], name| kept.iter().any(|schema| schema.name == name);
        let unstored = |name: &str, spec| Stored { name: name.to_owned(), uid: String::new(), spec };
        if !has(&kept, EXEMPT) {
            kept.insert(0, unstored(EXEMPT, exempt_schema()));
        }
        if !has(&kept, CATCH_ALL) {
            kept.push(unstored(CATCH_ALL, catch_all_schema()));
        }
        let flow = |schema: Stored<FlowSchemaSpec>| {
            let level = managed.by_name.get(&schema.spec.priority_level_configuration.name)?;
            let (names, metrics) = ((&*schema.name, &*schema.uid), Arc::clone(&self.metrics));
            Some(Arc::new(Flow::new(names, schema.spec, Arc::clone(&level.level), &level.uid, metrics)))
        };
        let ordered: Vec<_> = kept.into_iter().filter_map(flow).collect();
        self.metrics.retain(|level, schema| {
            ordered.iter().any(|flow| flow.level_name() == level && &*flow.name == schema)
        });
        let catch_all = ordered.iter().rfind(|flow| &*flow.name == CATCH_ALL);
        let catch_all = catch_all.map_or_else(|| Arc::clone(&self.flows.load().catch_all), Arc::clone);
        self.flows.store(Arc::new(Flows { ordered, catch_all }));
        found
    }

    /// Lends and borrows seats, releases those of finished requests in time, and removes levels that are done. Never
    /// returns.
    pub async fn run(&self) -> Infallible {
        let mut ticks = interval(ADJUSTMENT_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let release = async {
                match self.next_release() {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => self.adjust_now(),
                () = self.releases.notified() => {}
                () = release => {
                    let now = Instant::now();
                    self.levels.lock().by_name.values().for_each(|managed| managed.level.release_due(now));
                }
            }
        }
    }

    /// Ends an adjustment period: adapts the limits to the demand.
    pub fn adjust_now(&self) {
        let now = Instant::now();
        let mut levels = self.levels.lock();
        for managed in levels.by_name.values() {
            managed.level.end_slow_watches(now, WATCH_INITIALIZATION_LIMIT);
        }
        let before = levels.by_name.len();
        levels.by_name.retain(|_, managed| !(managed.quiescing && managed.level.retire(now)));
        if levels.by_name.len() != before {
            self.divide_shares(&mut levels);
        }
        self.adjust(&mut levels, now);
    }

    pub(crate) fn with_levels<R>(&self, read: impl FnOnce(&Levels) -> R) -> R {
        read(&self.levels.lock())
    }

    pub(crate) fn read_write(&self) -> &ReadWrite {
        &self.read_write
    }

    fn new_level(&self, name: &str, config: &LevelConfig, now: Instant) -> Arc<Level> {
        let (read_write, releases) = (Arc::clone(&self.read_write), Arc::clone(&self.releases));
        Arc::new(Level::new(now, name, config, read_write, releases))
    }

    fn set_levels(
        &self,
        levels: &mut Levels,
        mut wanted: BTreeMap<String, (String, LevelConfig)>,
        now: Instant,
    ) {
        for (name, config) in [(EXEMPT, EXEMPT_LEVEL), (CATCH_ALL, CATCH_ALL_LEVEL)] {
            if !wanted.contains_key(name) {
                // The level stays in use while its object is missing.
                let kept = levels.by_name.get(name).map_or(config, |managed| managed.config);
                wanted.insert(name.to_owned(), (String::new(), kept));
            }
        }
        levels.by_name.retain(|name, managed| {
            managed.quiescing = !wanted.contains_key(name);
            !(managed.quiescing && managed.level.retire(now))
        });
        for (name, (uid, config)) in wanted {
            if let Some(managed) = levels.by_name.get_mut(&name) {
                (managed.config, managed.uid) = (config, uid);
            } else {
                let level = self.new_level(&name, &config, now);
                levels.by_name.insert(name, Managed { level, config, uid, quiescing: false });
            }
        }
        self.divide_shares(levels);
        self.adjust(levels, now);
    }

    /// Sets the limits that result from the shares of all levels.
    fn divide_shares(&self, levels: &mut Levels) {
        let sum = levels.by_name.values().map(|managed| u64::from(managed.config.shares.nominal)).sum();
        let (mut executing, mut waiting) = (0.0, 0.0);
        for managed in levels.by_name.values() {
            let limits = managed.config.shares.limits(sum, self.seats);
            managed.level.set_limits(&managed.config, limits);
            executing += f64::from(limits.nominal);
            if let Queuing::Queue { queues, queue_length_limit, .. } = managed.config.queuing {
                waiting += f64::from(queues) * f64::from(queue_length_limit);
            }
        }
        self.read_write.set_capacities(executing, waiting);
    }

    fn adjust(&self, levels: &mut Levels, now: Instant) {
        let claim = |managed: &Managed| {
            let demand = managed.level.end_period(now);
            let state = managed.level.state();
            let exempt = managed.config.queuing == Queuing::Exempt;
            Claim { limits: state.limits, demand, current: state.set.limit(), exempt }
        };
        let claims: Vec<_> = levels.by_name.values().map(claim).collect();
        let allocation = adjust(&claims);
        levels.fair_fraction = allocation.fair_fraction;
        let fallback = (f64::from(self.seats) / 10.0).round().max(1.0);
        let results = allocation.limits.iter().zip(&allocation.targets);
        for (managed, (limit, target)) in levels.by_name.values().zip(results) {
            managed.level.configure(now, &managed.config, *limit, *target, fallback);
        }
    }

    fn next_release(&self) -> Option<Instant> {
        let levels = self.levels.lock();
        levels.by_name.values().filter_map(|managed| managed.level.state().set.next_release()).min()
    }
}

/// Returns the levels that can be used, with uid and configuration. The API's validation refuses the others.
fn usable(levels: Vec<Stored<PriorityLevelSpec>>) -> BTreeMap<String, (String, LevelConfig)> {
    let usable = |level: Stored<PriorityLevelSpec>| match level.spec.config(&level.name) {
        Ok(config) => Some((level.name, (level.uid, config))),
        Err(error) => {
            tracing::warn!(name = level.name, error, "priority level ignored");
            None
        }
    };
    levels.into_iter().filter_map(usable).collect()
}

#[cfg(test)]
mod tests;
