//! The parts of a snapshot that a server may lack: priority levels and flows, webhooks, aggregated servers, audit. They
//! are read by the names of their metrics, and are absent without them. Queues have no metrics and are read from the
//! controller of priority and fairness.

use std::collections::BTreeMap;

use nave_flowcontrol::{BusyQueue, Controller};

use super::families::{Families, Totals};
use super::snapshot::{ApiService, Audit, Flow, PriorityLevel, Queue, Webhook};
use super::span::{Counted, Span, largest};

pub(super) fn priority_levels(span: Span<'_>, rare: Span<'_>) -> Option<Vec<PriorityLevel>> {
    let label = ["priority_level"];
    let limits = span.families().by(&apf("current_limit_seats"), label);
    if limits.is_empty() {
        return None;
    }
    let now = |name: &str| span.families().by(&apf(name), label);
    let (nominal, seats, executing, queued) = (
        now("nominal_limit_seats"),
        now("current_executing_seats"),
        now("current_executing_requests"),
        now("current_inqueue_requests"),
    );
    let dispatched = span.by(&apf("dispatched_requests_total"), label);
    let rejected = span.by(&apf("rejected_requests_total"), label);
    let waits = rare.by(&apf("request_wait_duration_seconds"), label);
    let value =
        |of: &BTreeMap<[String; 1], Totals>, key: &[String; 1]| of.get(key).map_or(0.0, |it| it.value);
    let rate = |of: &BTreeMap<[String; 1], Counted>, key: &[String; 1]| {
        span.rate(of.get(key).map_or(0.0, |it| it.increase.value))
    };
    let rows = limits.iter().map(|(key, limit)| PriorityLevel {
        name: key[0].clone(),
        seats_in_use: value(&seats, key),
        seats: limit.value,
        nominal_seats: value(&nominal, key),
        executing: value(&executing, key),
        queued: value(&queued, key),
        dispatched_per_second: rate(&dispatched, key),
        rejected: rejected.get(key).map_or(0.0, |it| it.total),
        rejected_per_second: rate(&rejected, key),
        wait_p99: waits.get(key).and_then(|it| it.increase.quantile(0.99)),
    });
    Some(largest(rows, |level| level.nominal_seats))
}

/// Returns the queues with requests, which have no metrics of their own.
pub(super) fn queues(controller: &Controller) -> Vec<Queue> {
    let queues = controller.busy_queues(MAX_QUEUES).into_iter();
    let queue = |BusyQueue { level, index, waiting, executing, seats_in_use }| Queue {
        level,
        index,
        waiting,
        executing,
        seats_in_use,
    };
    queues.map(queue).collect()
}

pub(super) fn flows(span: Span<'_>, rare: Span<'_>) -> Option<Vec<Flow>> {
    let labels = ["flow_schema", "priority_level"];
    let dispatched = rare.by(&apf("dispatched_requests_total"), labels);
    if dispatched.is_empty() {
        return None;
    }
    let executing = span.families().by(&apf("current_executing_requests"), labels);
    let queued = span.families().by(&apf("current_inqueue_requests"), labels);
    let durations = rare.by(&apf("request_execution_seconds"), labels);
    let value =
        |of: &BTreeMap<[String; 2], Totals>, key: &[String; 2]| of.get(key).map_or(0.0, |it| it.value);
    let rows = dispatched.iter().map(|(key, counted)| {
        let [name, priority_level] = key.clone();
        let duration = durations.get(key).map(|it| &it.increase);
        Flow {
            name,
            priority_level,
            dispatched: counted.total,
            per_second: rare.rate(counted.increase.value),
            executing: value(&executing, key),
            queued: value(&queued, key),
            mean: duration.and_then(Totals::mean),
            p99: duration.and_then(|it| it.quantile(0.99)),
        }
    });
    Some(largest(rows, |flow| flow.dispatched))
}

pub(super) fn webhooks(rare: Span<'_>) -> Option<Vec<Webhook>> {
    let labels = ["name", "type"];
    let calls = rare.by("apiserver_admission_webhook_admission_duration_seconds", labels);
    let rejections = rare.by("apiserver_admission_webhook_rejection_count", ["name", "type", "error_type"]);
    let failures_open = rare.by("apiserver_admission_webhook_fail_open_count", labels);
    if calls.is_empty() && rejections.is_empty() && failures_open.is_empty() {
        return None;
    }
    let mut rows: BTreeMap<[String; 2], Webhook> = BTreeMap::new();
    let new = |key: &[String; 2]| {
        let [name, kind] = key.clone();
        Webhook {
            name,
            kind,
            calls: 0.0,
            per_second: None,
            mean: None,
            p99: None,
            denied: 0.0,
            failed: 0.0,
            failed_per_second: None,
        }
    };
    for (key, counted) in &calls {
        let row = rows.entry(key.clone()).or_insert_with(|| new(key));
        row.calls = counted.total;
        row.per_second = rare.rate(counted.increase.value);
        (row.mean, row.p99) = (counted.increase.mean(), counted.increase.quantile(0.99));
    }
    let mut failing: BTreeMap<[String; 2], f64> = BTreeMap::new();
    for (key, counted) in failures_open {
        *failing.entry(key.clone()).or_default() += counted.increase.value;
        rows.entry(key.clone()).or_insert_with(|| new(&key)).failed += counted.total;
    }
    for ([name, kind, error], counted) in rejections {
        let key = [name, kind];
        let row = rows.entry(key.clone()).or_insert_with(|| new(&key));
        if error == "no_error" {
            row.denied += counted.total;
        } else {
            row.failed += counted.total;
            *failing.entry(key).or_default() += counted.increase.value;
        }
    }
    for (key, row) in &mut rows {
        row.failed_per_second = rare.rate(failing.get(key).copied().unwrap_or_default());
    }
    Some(largest(rows.into_values(), |row| row.calls))
}

pub(super) fn api_services(families: &Families) -> Option<Vec<ApiService>> {
    let unavailable = families.by("aggregator_unavailable_apiservice", ["name"]);
    if unavailable.is_empty() {
        return None;
    }
    let failures = families.by("aggregator_unavailable_apiservice_total", ["name"]);
    let rows = unavailable.into_iter().map(|(key, totals)| ApiService {
        available: totals.value == 0.0,
        failures: failures.get(&key).map_or(0.0, |it| it.value),
        name: key.into_iter().next().unwrap_or_default(),
    });
    // The sort is stable and the rows are sorted by name.
    Some(largest(rows, |row| f64::from(u8::from(!row.available))))
}

pub(super) fn audit(span: Span<'_>) -> Option<Audit> {
    let total = span.families().total("apiserver_audit_event_total").filter(|total| *total > 0.0)?;
    Some(Audit {
        total,
        per_second: span.rate(span.total("apiserver_audit_event_total").increase.value),
        errors: span.families().total("apiserver_audit_error_total").unwrap_or_default(),
    })
}

/// Maximum number of queues.
const MAX_QUEUES: usize = 40;

fn apf(name: &str) -> String {
    format!("apiserver_flowcontrol_{name}")
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nave_metrics::Registrar;
    use prometheus::Registry;
    use tokio::time::Instant;

    use super::*;
    use crate::console::span::Sample;

    fn sample(registry: &Registry, at: Instant) -> Sample {
        Sample { at, families: Arc::new(Families::new(registry.gather())), status: None }
    }

    #[test]
    fn parts_without_metrics_are_absent() {
        let now = sample(&Registry::new(), Instant::now());
        let span = Span { now: &now, before: None };
        assert!(priority_levels(span, span).is_none() && flows(span, span).is_none());
        assert!(webhooks(span).is_none() && api_services(span.families()).is_none() && audit(span).is_none());
    }

    #[test]
    fn levels_and_flows_have_the_values_of_their_metrics() {
        let registry = Registry::new();
        let (registrar, level, flow) =
            (Registrar(&registry), ["priority_level"], ["flow_schema", "priority_level"]);
        let limits = registrar.int_gauges(&apf("current_limit_seats"), "L.", &level).unwrap();
        limits.with_label_values(&["global-default"]).set(12);
        let seats = registrar.int_gauges(&apf("current_executing_seats"), "S.", &flow).unwrap();
        seats.with_label_values(&["one", "global-default"]).set(3);
        seats.with_label_values(&["two", "global-default"]).set(4);
        let dispatched = registrar.counters(&apf("dispatched_requests_total"), "D.", &flow).unwrap();
        let dispatched = dispatched.with_label_values(&["one", "global-default"]);
        dispatched.inc_by(10);
        let started = Instant::now();
        let before = sample(&registry, started);
        dispatched.inc_by(20);
        let now = sample(&registry, started + Duration::from_secs(2));
        let span = Span { now: &now, before: Some(&before) };
        let [level] = priority_levels(span, span).unwrap().try_into().unwrap();
        assert_eq!((level.seats, level.seats_in_use, level.dispatched_per_second), (12.0, 7.0, Some(10.0)));
        let [flow] = flows(span, span).unwrap().try_into().unwrap();
        assert_eq!((flow.name.as_str(), flow.dispatched, flow.per_second), ("one", 30.0, Some(10.0)));
        let first = Span { now: &now, before: None };
        assert_eq!(flows(first, first).unwrap()[0].per_second, None, "one sample has no rates");
    }

    #[test]
    fn failures_of_webhooks_are_not_denials() {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        let labels = ["name", "type", "error_type"];
        let name = "apiserver_admission_webhook_rejection_count";
        let rejections = registrar.counters(name, "R.", &labels).unwrap();
        rejections.with_label_values(&["a", "admit", "no_error"]).inc_by(2);
        rejections.with_label_values(&["a", "admit", "calling_webhook_error"]).inc_by(3);
        let open =
            registrar.counters("apiserver_admission_webhook_fail_open_count", "F.", &labels[..2]).unwrap();
        open.with_label_values(&["a", "admit"]).inc();
        let now = sample(&registry, Instant::now());
        let [webhook] = webhooks(Span { now: &now, before: None }).unwrap().try_into().unwrap();
        assert_eq!((webhook.denied, webhook.failed), (2.0, 4.0));
    }

    #[test]
    fn unavailable_servers_come_first() {
        let registry = Registry::new();
        let unavailable =
            Registrar(&registry).int_gauges("aggregator_unavailable_apiservice", "U.", &["name"]).unwrap();
        unavailable.with_label_values(&["v1.a"]).set(0);
        unavailable.with_label_values(&["v1.b"]).set(1);
        let services = api_services(&Families::new(registry.gather())).unwrap();
        let services: Vec<_> = services.iter().map(|it| (it.name.as_str(), it.available)).collect();
        assert_eq!(services, [("v1.b", false), ("v1.a", true)]);
    }
}
