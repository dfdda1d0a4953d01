//! Metrics that are read from the levels when they are collected.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus::Error;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use crate::controller::{Controller, Managed};
use crate::demand::DemandStats;
use crate::level::Utilization;
use crate::queues::DispatchStats;
use crate::timing::TimingHistogram;

/// Collects the state of all priority levels.
pub struct LevelMetrics {
    controller: Arc<Controller>,
    descriptions: Vec<Desc>,
}

/// A metric family.
struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

/// The state of a level at the time of the collection.
struct Observed {
    name: String,
    gauges: [f64; 13],
    flows: BTreeMap<Arc<str>, FlowCounts>,
    dispatch: DispatchStats,
    utilization: Utilization,
}

/// The requests of a flow schema in a level.
#[derive(Default)]
struct FlowCounts {
    executing: f64,
    executing_seats: f64,
    waiting: f64,
    waiting_seats: f64,
}

impl LevelMetrics {
    /// Creates the collector.
    ///
    /// # Errors
    /// A name or label is invalid, which is a bug in this file.
    pub fn new(controller: Arc<Controller>) -> Result<Self, Error> {
        let families = LEVEL_GAUGES.iter().chain(&FLOW_GAUGES).chain(&OTHERS);
        let descriptions = families.map(Family::describe).collect::<Result<_, _>>()?;
        Ok(Self { controller, descriptions })
    }
}

impl Collector for LevelMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let (levels, fraction) = self.controller.with_levels(|levels| {
            let observed = levels.by_name.values().map(|managed| Observed::new(managed, now));
            (observed.collect::<Vec<_>>(), levels.fair_fraction)
        });
        let mut families = Vec::with_capacity(LEVEL_GAUGES.len() + FLOW_GAUGES.len() + OTHERS.len());
        for (at, family) in LEVEL_GAUGES.iter().enumerate() {
            let values = levels.iter().filter_map(|it| Some((vec![it.name.as_str()], *it.gauges.get(at)?)));
            families.push(family.gauges(values));
        }
        let counts: [fn(&FlowCounts) -> f64; 4] =
            [|it| it.executing, |it| it.executing_seats, |it| it.waiting, |it| it.waiting_seats];
        for (family, count) in FLOW_GAUGES.iter().zip(counts) {
            let of_level = |level| {
                let Observed { name, flows, .. }: &Observed = level;
                flows.iter().map(move |(flow, counts)| (vec![&**flow, name.as_str()], count(counts)))
            };
            families.push(family.gauges(levels.iter().flat_map(of_level)));
        }
        families.extend(others(&levels, &self.controller.read_write().histograms(now), fraction));
        // The registry rejects a family without metrics.
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn others(
    levels: &[Observed],
    read_write: &[([&'static str; 2], TimingHistogram)],
    fraction: f64,
) -> [MetricFamily; 7] {
    let [demand, seats, requests, kinds, bounds, discounted, fair] = &OTHERS;
    let bound = |range: fn(&Observed) -> (f64, f64)| {
        levels.iter().flat_map(move |it| {
            let (min, max) = range(it);
            [(vec!["min", it.name.as_str()], min), (vec!["max", it.name.as_str()], max)]
        })
    };
    let phases = levels.iter().flat_map(|it| {
        let Utilization { waiting, executing, .. } = &it.utilization;
        [(vec!["waiting", it.name.as_str()], waiting), (vec!["executing", it.name.as_str()], executing)]
    });
    [
        demand.histograms(levels.iter().map(|it| (vec![it.name.as_str()], &it.utilization.demand))),
        seats
            .histograms(levels.iter().map(|it| (vec!["executing", it.name.as_str()], &it.utilization.seats))),
        requests.histograms(phases),
        kinds.histograms(read_write.iter().map(|(labels, histogram)| (labels.to_vec(), histogram))),
        bounds.gauges(bound(|it| (it.dispatch.starts.0.as_f64(), it.dispatch.starts.1.as_f64()))),
        discounted.gauges(bound(|it| (it.dispatch.discounted.0.as_f64(), it.dispatch.discounted.1.as_f64()))),
        fair.gauges([(Vec::new(), fraction)]),
    ]
}

impl Observed {
    fn new(managed: &Managed, now: Instant) -> Self {
        let state = managed.level.state();
        let mut flows: BTreeMap<Arc<str>, FlowCounts> = BTreeMap::new();
        for (_, entry) in state.set.entries() {
            let counts = flows.entry(Arc::clone(&entry.request.flow.name)).or_default();
            let seats = f64::from(entry.estimate.max_seats());
            if entry.started.is_some() {
                counts.executing += 1.0;
                counts.executing_seats += seats;
            } else {
                counts.waiting += 1.0;
                counts.waiting_seats += seats;
            }
        }
        let (limits, dispatch) = (state.limits, state.set.latest_dispatch());
        let DemandStats { average, deviation, high_watermark, smoothed } = state.stats;
        let gauges = [
            limits.nominal.into(),
            limits.min.into(),
            limits.max.into(),
            state.set.limit().into(),
            state.set.progress().as_f64(),
            dispatch.progress.as_f64(),
            dispatch.start.as_f64(),
            average,
            deviation,
            high_watermark.into(),
            smoothed,
            state.target,
            state.set.not_accommodated() as f64,
        ];
        let (name, utilization) = (managed.level.name().to_owned(), state.utilization.until(now));
        Self { name, gauges, flows, dispatch, utilization }
    }
}

impl Family {
    fn describe(&self) -> Result<Desc, Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }

    fn gauges<'a>(&self, values: impl IntoIterator<Item = (Vec<&'a str>, f64)>) -> MetricFamily {
        let metric = |(labels, value): (Vec<&str>, f64)| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(self.pairs(&labels));
            metric.set_gauge(gauge);
            metric
        };
        self.family(MetricType::GAUGE, values.into_iter().map(metric).collect())
    }

    fn histograms<'a>(
        &self,
        values: impl IntoIterator<Item = (Vec<&'a str>, &'a TimingHistogram)>,
    ) -> MetricFamily {
        let metric = |(labels, value): (Vec<&str>, &TimingHistogram)| {
            let mut histogram = proto::Histogram::default();
            let bucket = |(bound, count)| {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            };
            histogram.set_bucket(value.cumulative().map(bucket).collect());
            histogram.set_sample_count(value.count());
            histogram.set_sample_sum(value.sum());
            let mut metric = Metric::from_label(self.pairs(&labels));
            metric.set_histogram(histogram);
            metric
        };
        self.family(MetricType::HISTOGRAM, values.into_iter().map(metric).collect())
    }

    fn family(&self, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }

    fn pairs(&self, values: &[&str]) -> Vec<LabelPair> {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.labels.iter().zip(values).map(pair).collect()
    }
}

const fn by_level(name: &'static str, help: &'static str) -> Family {
    Family { name, help, labels: &["priority_level"] }
}

const fn by_flow(name: &'static str, help: &'static str) -> Family {
    Family { name, help, labels: &["flow_schema", "priority_level"] }
}

/// The gauges of a level, in the order of [`Observed::gauges`].
const LEVEL_GAUGES: [Family; 13] = [
    by_level("apiserver_flowcontrol_nominal_limit_seats", "Seats of the level by its shares."),
    by_level("apiserver_flowcontrol_lower_limit_seats", "Seats that the level never lends."),
    by_level("apiserver_flowcontrol_upper_limit_seats", "Seats with all that the level may borrow."),
    by_level("apiserver_flowcontrol_current_limit_seats", "Seats that the level has now."),
    by_level("apiserver_flowcontrol_current_r", "Progress in virtual time, in seat-seconds."),
    by_level("apiserver_flowcontrol_dispatch_r", "Progress at the latest dispatch, in seat-seconds."),
    by_level("apiserver_flowcontrol_latest_s", "Virtual start of the latest request, in seat-seconds."),
    by_level("apiserver_flowcontrol_demand_seats_average", "Average demand in the last period."),
    by_level(
        "apiserver_flowcontrol_demand_seats_stdev",
        "Standard deviation of the demand in the last period.",
    ),
    by_level("apiserver_flowcontrol_demand_seats_high_watermark", "Maximum demand in the last period."),
    by_level("apiserver_flowcontrol_demand_seats_smoothed", "Smoothed demand of all periods."),
    by_level("apiserver_flowcontrol_target_seats", "Target of the latest adjustment."),
    by_level(
        "nave_flowcontrol_dispatches_not_accommodated",
        "Dispatches that failed because a request needs more seats than were free.",
    ),
];

/// The gauges of a flow schema, in the order of [`FlowCounts`].
const FLOW_GAUGES: [Family; 4] = [
    by_flow("apiserver_flowcontrol_current_executing_requests", "Requests that hold seats."),
    by_flow("apiserver_flowcontrol_current_executing_seats", "Seats of the requests that hold some."),
    by_flow("apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for seats."),
    by_flow("apiserver_flowcontrol_current_inqueue_seats", "Seats that waiting requests need."),
];

const OTHERS: [Family; 7] = [
    by_level("apiserver_flowcontrol_demand_seats", "Nanoseconds by demand for seats, relative to the limit."),
    Family {
        name: "apiserver_flowcontrol_priority_level_seat_utilization",
        help: "Nanoseconds by seats in use, relative to the limit.",
        labels: &["phase", "priority_level"],
    },
    Family {
        name: "apiserver_flowcontrol_priority_level_request_utilization",
        help: "Nanoseconds by number of requests, relative to the limit.",
        labels: &["phase", "priority_level"],
    },
    Family {
        name: "apiserver_flowcontrol_read_vs_write_current_requests",
        help: "Nanoseconds by number of requests of all levels, relative to the limit.",
        labels: &["phase", "request_kind"],
    },
    Family {
        name: "apiserver_flowcontrol_next_s_bounds",
        help: "Range of the virtual starts of the queues at the latest dispatch, in seat-seconds.",
        labels: &["bound", "priority_level"],
    },
    Family {
        name: "apiserver_flowcontrol_next_discounted_s_bounds",
        help: "The same, less the estimated work in progress of each queue.",
        labels: &["bound", "priority_level"],
    },
    Family {
        name: "apiserver_flowcontrol_seat_fair_frac",
        help: "Fraction of its target that each level gets that is at none of its bounds.",
        labels: &[],
    },
];
