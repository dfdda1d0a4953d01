//! Metrics of the process, by the names of Prometheus' client libraries, and of the build.

use std::fs;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Gauge, Opts};

/// Reads the state of the process when metrics are collected (Linux: `/proc/self`).
pub(crate) struct ProcessMetrics {
    gauges: Vec<Reading>,
}

/// A gauge, and the function that reads its value; `None` if it stays.
struct Reading {
    gauge: Gauge,
    read: fn(&Process) -> Option<f64>,
}

/// The state of the process.
struct Process {
    stat: Vec<u64>,
    limits: String,
    network: String,
}

impl ProcessMetrics {
    /// Creates the metrics.
    ///
    /// # Errors
    /// A name is invalid (a bug in this file).
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start = Gauge::with_opts(Opts::new(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970.",
        ))?;
        start.set(started.as_secs_f64());
        let mut gauges = vec![Reading { gauge: start, read: |_| None }];
        let mut add = |name, help, read| {
            gauges.push(Reading { gauge: Gauge::with_opts(Opts::new(name, help))?, read });
            Ok::<(), prometheus::Error>(())
        };
        add("process_resident_memory_bytes", "Resident memory, in bytes.", |process| {
            Some(process.stat(RSS)? * PAGE)
        })?;
        add("process_virtual_memory_bytes", "Virtual memory, in bytes.", |process| process.stat(VSIZE))?;
        add("process_virtual_memory_max_bytes", "Limit on virtual memory, in bytes.", |process| {
            process.limit("Max address space")
        })?;
        add("process_max_fds", "Limit on open file descriptors.", |process| process.limit("Max open files"))?;
        add("process_open_fds", "Open file descriptors.", |_| {
            Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
        })?;
        Ok(Self { gauges })
    }
}

impl Process {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let stat = text("/proc/self/stat");
        // The name of the process is in parentheses and may contain anything.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        Self {
            stat: fields.map(|field| field.parse().unwrap_or_default()).collect(),
            limits: text("/proc/self/limits"),
            network: text("/proc/self/net/netstat"),
        }
    }

    /// Returns a field of `/proc/self/stat`, numbered from the state of the process.
    fn stat(&self, index: usize) -> Option<f64> {
        self.stat.get(index).map(|value| *value as f64)
    }

    /// Returns a soft limit; -1 if it is unlimited.
    fn limit(&self, name: &str) -> Option<f64> {
        let line = self.limits.lines().find_map(|line| line.strip_prefix(name))?;
        let soft = line.split_whitespace().next()?;
        Some(if soft == "unlimited" { -1.0 } else { soft.parse().ok()? })
    }

    /// Returns a counter of `/proc/self/net/netstat`, whose lines come in pairs of names and values.
    fn network(&self, name: &str) -> Option<f64> {
        let mut lines = self.network.lines().filter(|line| line.starts_with("IpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let position = names.split(' ').position(|listed| listed == name)?;
        values.split(' ').nth(position)?.parse().ok()
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|reading| reading.gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let process = Process::read();
        let mut families = Vec::new();
        for Reading { gauge, read } in &self.gauges {
            if let Some(value) = read(&process) {
                gauge.set(value);
            }
            families.extend(gauge.collect());
        }
        let ticks = process.stat(UTIME).unwrap_or_default() + process.stat(STIME).unwrap_or_default();
        for (name, help, value) in [
            ("process_cpu_seconds_total", "CPU time, in seconds.", Some(ticks / TICKS)),
            (
                "process_network_receive_bytes_total",
                "Received bytes of the network namespace.",
                process.network("InOctets"),
            ),
            (
                "process_network_transmit_bytes_total",
                "Sent bytes of the network namespace.",
                process.network("OutOctets"),
            ),
        ] {
            families.extend(value.map(|value| counter(name, help, value)));
        }
        families
    }
}

fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = prometheus::proto::Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(vec![metric]);
    family
}

/// Fields of `/proc/self/stat` after the name of the process (proc(5)).
const UTIME: usize = 11;
const STIME: usize = 12;
const VSIZE: usize = 20;
const RSS: usize = 21;
/// Clock ticks per second, and bytes per page, on Linux.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_state_of_this_process() {
        let families = ProcessMetrics::new().unwrap().collect();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name);
            let metric = family.and_then(|family| family.get_metric().first()).unwrap();
            metric.get_gauge().get_value().max(metric.get_counter().get_value())
        };
        for name in
            ["process_resident_memory_bytes", "process_virtual_memory_bytes", "process_start_time_seconds"]
        {
            assert!(value(name) > 1_000_000.0, "{name}");
        }
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        assert!(names.contains(&"process_cpu_seconds_total"), "{names:?}");
    }
}
