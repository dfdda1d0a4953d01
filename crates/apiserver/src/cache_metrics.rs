//! Metrics of watch caches and reads, with upstream's names. The values are read from the caches and storages when the
//! metrics are collected. Counters with the value 0 are omitted.

use std::collections::HashMap;
use std::sync::Arc;

use nave_cacher::{Histogram, Introspection, Stats};
use nave_machinery::GroupVersionResource;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use crate::catalog::{Catalog, Catalogs};
use crate::endpoints::watch::WatchStats;
use crate::storage::{ListStats, ResourceStorage};

/// Collects the metrics of all watch caches.
pub(crate) struct CacheMetrics {
    catalogs: Catalogs,
    descriptions: Vec<Desc>,
}

impl CacheMetrics {
    /// Creates the collector, which collects the metrics of all resources that are served at that time.
    ///
    /// # Errors
    /// A name or label is invalid, which is a bug in this file.
    pub(crate) fn new(catalogs: Catalogs) -> Result<Self, prometheus::Error> {
        let describe = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
        };
        let simple = PER_CACHE.iter().map(|(family, _)| family);
        let descriptions = simple.chain(&OTHERS).map(describe).collect::<Result<_, _>>()?;
        Ok(Self { catalogs, descriptions })
    }
}

/// Returns all caches, sorted by resource. Groups that share stored objects are counted once.
fn caches(catalog: &Catalog) -> Vec<Observed<'_>> {
    let mut caches: Vec<_> = catalog.storages().all().map(|storage| Observed::new(storage)).collect();
    caches.sort_by(|one, other| one.labels().cmp(&other.labels()));
    caches
}

impl Collector for CacheMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let catalog = self.catalogs.load();
        let caches = caches(&catalog);
        let mut families = Vec::with_capacity(PER_CACHE.len() + OTHERS.len());
        for (family, value) in &PER_CACHE {
            families
                .push(family.with_values(caches.iter().map(|cache| (cache.labels().to_vec(), value(cache)))));
        }
        families.extend(lists(&caches));
        families.extend(watches(&catalog.watched()));
        // The registry rejects a family without metrics.
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

/// The cache of a resource and its statistics.
struct Observed<'a> {
    storage: &'a ResourceStorage,
    stats: &'a Stats,
    now: Introspection,
}

impl<'a> Observed<'a> {
    fn new(storage: &'a ResourceStorage) -> Self {
        Self { storage, stats: storage.cacher().stats(), now: storage.cacher().introspect() }
    }

    fn labels(&self) -> [&'a str; 2] {
        let def = self.storage.def();
        [&def.group, &def.resource]
    }

    /// Returns the number of objects that the cache and lists have read from the store.
    fn objects_fetched(&self) -> f64 {
        (self.stats.objects_read.get() + self.storage.reads().store().fetched.get()) as f64
    }
}

/// Computes the value of a metric for one cache. The only labels are the resource's group and name.
type Value = fn(&Observed<'_>) -> f64;

/// A metric family.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::COUNTER, labels: RESOURCE }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: MetricType::GAUGE, labels: RESOURCE }
}

impl Family {
    const fn by(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// Returns the family with these values.
    fn with_values<'a>(&self, values: impl IntoIterator<Item = (Vec<&'a str>, f64)>) -> MetricFamily {
        let counts = self.kind == MetricType::COUNTER;
        let values = values.into_iter().filter(|(_, value)| !counts || *value > 0.0);
        let metric = |(labels, value): (Vec<&str>, f64)| {
            let mut metric = Metric::from_label(self.pairs(&labels));
            if counts {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        };
        self.family(values.map(metric).collect())
    }

    /// Returns the family with these histograms.
    fn with_histograms<'a>(
        &self,
        histograms: impl IntoIterator<Item = (Vec<&'a str>, &'a Histogram)>,
    ) -> MetricFamily {
        let used = histograms.into_iter().filter(|(_, histogram)| histogram.count() > 0);
        let metric = |(labels, histogram): (Vec<&str>, &Histogram)| {
            let mut buckets = Vec::new();
            for (bound, count) in histogram.cumulative() {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
            let mut of = proto::Histogram::default();
            of.set_sample_count(histogram.count());
            of.set_sample_sum(histogram.sum());
            of.set_bucket(buckets);
            let mut metric = Metric::from_label(self.pairs(&labels));
            metric.set_histogram(of);
            metric
        };
        self.family(used.map(metric).collect())
    }

    fn family(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
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

/// Lists of a resource from memory, by an index or without one.
struct IndexLists<'a> {
    group: &'a str,
    index: String,
    resource: &'a str,
    lists: &'a ListStats,
}

impl<'a> IndexLists<'a> {
    fn for_storage(storage: &'a ResourceStorage) -> impl Iterator<Item = Self> {
        let def = storage.def();
        storage.reads().caches().map(|(field, lists)| {
            let field = field.and_then(|field| def.fields.get(field));
            // The name that upstream gives to a field's index.
            let index = field.map_or_else(String::new, |field| format!("f:{}", field.path));
            Self { group: &def.group, index, resource: &def.resource, lists }
        })
    }

    fn value(&self, counted: fn(&ListStats) -> u64) -> (Vec<&str>, f64) {
        (vec![self.group, &self.index, self.resource], counted(self.lists) as f64)
    }
}

/// Returns the metrics of lists from memory and from the store.
fn lists(caches: &[Observed<'_>]) -> Vec<MetricFamily> {
    let by_index: Vec<_> = caches.iter().flat_map(|cache| IndexLists::for_storage(cache.storage)).collect();
    let returned = caches.iter().map(|cache| {
        let returned: u64 = cache.storage.reads().caches().map(|(_, lists)| lists.returned.get()).sum();
        (cache.labels().to_vec(), returned as f64)
    });
    let consistent = caches.iter().flat_map(|cache| {
        let [group, resource] = cache.labels();
        let reads = cache.storage.reads().consistent();
        [
            ("false", "true", &reads.in_memory),
            ("true", "true", &reads.fallbacks),
            ("true", "false", &reads.failures),
        ]
        .map(|(fallback, success, count)| (vec![fallback, group, resource, success], count.get() as f64))
    });
    let checks = caches.iter().flat_map(|cache| {
        let [group, resource] = cache.labels();
        let checks = cache.storage.consistency();
        [("error", &checks.errors), ("failure", &checks.failures), ("success", &checks.successes)]
            .map(|(status, count)| (vec![group, resource, status], count.get() as f64))
    });
    let objects = caches.iter().map(|cache| (vec![&*cache.now.resource], cache.now.objects as f64));
    let waits = caches.iter().map(|cache| (cache.labels().to_vec(), &cache.stats.read_waits));
    vec![
        CACHE_LISTS.with_values(by_index.iter().map(|it| it.value(|lists| lists.lists.get()))),
        CACHE_FETCHED.with_values(by_index.iter().map(|it| it.value(|lists| lists.fetched.get()))),
        CACHE_RETURNED.with_values(returned),
        CONSISTENT_READS.with_values(consistent),
        CONSISTENCY_CHECKS.with_values(checks),
        STORAGE_OBJECTS.with_values(objects),
        READ_WAITS.with_histograms(waits),
    ]
}

/// Returns the metrics of watches.
fn watches(watches: &[(GroupVersionResource, Arc<WatchStats>)]) -> Vec<MetricFamily> {
    let mut events = Vec::new();
    let mut sizes = Vec::new();
    let mut lists = Vec::new();
    for (GroupVersionResource { group, version, resource }, stats) in watches {
        let labels = vec![group.as_str(), resource, version];
        events.push((labels.clone(), stats.event_sizes.count() as f64));
        sizes.push((labels, &stats.event_sizes));
        lists.extend(
            stats.lists().map(|(scope, times)| (vec![group.as_str(), resource, scope, version], times)),
        );
    }
    vec![
        WATCH_EVENTS.with_values(events),
        WATCH_EVENT_SIZES.with_histograms(sizes),
        WATCH_LISTS.with_histograms(lists),
    ]
}

const RESOURCE: &[&str] = &["group", "resource"];

/// The metrics with one value per watch cache.
const PER_CACHE: [(Family, Value); 20] = [
    (counter("apiserver_watch_cache_events_received_total", "Changes received from the store."), |cache| {
        cache.stats.events_received.get() as f64
    }),
    (counter("apiserver_watch_cache_events_dispatched_total", "Changes dispatched to watchers."), |cache| {
        cache.stats.events_dispatched.get() as f64
    }),
    (
        counter("apiserver_watch_cache_initializations_total", "Number of times a cache was filled."),
        |cache| cache.stats.initializations.get() as f64,
    ),
    (gauge("apiserver_watch_cache_resource_version", "Revision that a cache has reached."), |cache| {
        cache.now.revision as f64
    }),
    (counter("apiserver_init_events_total", "Initial events sent to watchers."), |cache| {
        cache.stats.initial_events.get() as f64
    }),
    (
        counter("apiserver_terminated_watchers_total", "Watchers terminated because they were too slow."),
        |cache| cache.stats.terminated_watchers.get() as f64,
    ),
    (gauge("watch_cache_capacity", "Capacity of a cache's window, in events."), |cache| {
        cache.now.window.capacity as f64
    }),
    (counter("watch_cache_capacity_increase_total", "Number of times a cache's window grew."), |cache| {
        cache.now.window.increases as f64
    }),
    (counter("watch_cache_capacity_decrease_total", "Number of times a cache's window shrank."), |cache| {
        cache.now.window.decreases as f64
    }),
    (gauge("apiserver_resource_objects", "Stored objects."), |cache| cache.now.objects as f64),
    (gauge("apiserver_resource_size_estimate_bytes", "Size of the stored objects, in bytes."), |cache| {
        cache.now.bytes as f64
    }),
    (counter("apiserver_storage_events_received_total", "Changes received from the store."), |cache| {
        cache.stats.events_received.get() as f64
    }),
    (counter("etcd_bookmark_total", "Progress notifications from the store."), |cache| {
        cache.stats.progress_received.get() as f64
    }),
    (counter("apiserver_storage_list_total", "Lists read from the store."), |cache| {
        (cache.stats.pages_read.get() + cache.storage.reads().store().lists.get()) as f64
    }),
    (
        counter("apiserver_storage_list_fetched_objects_total", "Objects read from the store by lists."),
        |cache| cache.objects_fetched(),
    ),
    (
        counter(
            "apiserver_storage_list_evaluated_objects_total",
            "Objects read from the store and matched against selectors.",
        ),
        |cache| cache.objects_fetched(),
    ),
    (
        counter("apiserver_storage_list_returned_objects_total", "Objects returned by lists from the store."),
        |cache| (cache.stats.objects_read.get() + cache.storage.reads().store().returned.get()) as f64,
    ),
    (counter("nave_watch_cache_undecodable_total", "Stored versions that could not be decoded."), |cache| {
        cache.stats.undecodable.get() as f64
    }),
    (
        gauge("nave_watch_cache_window_bytes", "Size of superseded objects in a cache's window, in bytes."),
        |cache| cache.now.window.bytes as f64,
    ),
    (gauge("nave_watch_cache_watchers", "Watchers of a cache."), |cache| {
        cache.now.watchers.iter().map(|(_, count)| *count).sum::<usize>() as f64
    }),
];

const CACHE_LISTS: Family =
    counter("apiserver_cache_list_total", "Lists read from memory.").by(&["group", "index", "resource"]);
const CACHE_FETCHED: Family =
    counter("apiserver_cache_list_fetched_objects_total", "Objects examined by lists from memory.")
        .by(&["group", "index", "resource"]);
const CACHE_RETURNED: Family =
    counter("apiserver_cache_list_returned_objects_total", "Objects returned by lists from memory.");
const CONSISTENT_READS: Family =
    counter("apiserver_watch_cache_consistent_read_total", "Lists of the latest state.")
        .by(&["fallback", "group", "resource", "success"]);
const CONSISTENCY_CHECKS: Family =
    counter("apiserver_storage_consistency_checks_total", "Comparisons of watch caches with the store.")
        .by(&["group", "resource", "status"]);
const STORAGE_OBJECTS: Family = gauge("apiserver_storage_objects", "Stored objects.").by(&["resource"]);
const READ_WAITS: Family = Family {
    name: "apiserver_watch_cache_read_wait_seconds",
    help: "Time that reads waited for a cache to catch up, in seconds.",
    kind: MetricType::HISTOGRAM,
    labels: RESOURCE,
};
const WATCH_EVENTS: Family =
    counter("apiserver_watch_events_total", "Events sent to watches.").by(&["group", "resource", "version"]);
const WATCH_EVENT_SIZES: Family = Family {
    name: "apiserver_watch_events_sizes",
    help: "Sizes of the events sent to watches, in bytes.",
    kind: MetricType::HISTOGRAM,
    labels: &["group", "resource", "version"],
};
const WATCH_LISTS: Family = Family {
    name: "apiserver_watch_list_duration_seconds",
    help: "Time to send the initial state of a streaming list, in seconds.",
    kind: MetricType::HISTOGRAM,
    labels: &["group", "resource", "scope", "version"],
};

/// Metrics with other labels or several values.
const OTHERS: [Family; 10] = [
    CACHE_LISTS,
    CACHE_FETCHED,
    CACHE_RETURNED,
    CONSISTENT_READS,
    CONSISTENCY_CHECKS,
    STORAGE_OBJECTS,
    READ_WAITS,
    WATCH_EVENTS,
    WATCH_EVENT_SIZES,
    WATCH_LISTS,
];
