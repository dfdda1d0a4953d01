//! The closed loop and the sample that each scenario returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::LoadError;
use crate::http::{Call, Connection, Pool};
use crate::process::Processes;

/// The result of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Number of completed operations.
    pub operations: u64,
    /// Number of bytes of responses read.
    pub bytes: u64,
    /// Time from the start of the first operation to the end of the last.
    pub elapsed: Duration,
    /// Latency of each operation, in ascending order.
    pub latencies: Vec<Duration>,
    /// CPU time of the server during the scenario, if its processes are known.
    pub cpu: Option<Duration>,
    /// Resident memory of the server at the end, in bytes, if its processes are known.
    pub rss: Option<u64>,
}

/// Limits of a loop. The first limit reached ends the loop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of operations.
    pub operations: u64,
    /// No operation starts after this time.
    pub time: Duration,
}

/// Measures the elapsed time of a scenario and the CPU time of the server.
pub struct Meter<'a> {
    processes: &'a Processes,
    cpu: Option<Duration>,
    started: Instant,
}

/// Keeps `in_flight` calls in flight until a limit is reached. Calls are numbered from 0.
pub async fn closed_loop(
    pool: &Pool,
    processes: &Processes,
    in_flight: usize,
    limits: Limits,
    call: impl Fn(u64) -> Call + Send + Sync + 'static,
) -> Result<Sample, LoadError> {
    let (call, next) = (Arc::new(call), Arc::new(AtomicU64::new(0)));
    let meter = Meter::start(processes)?;
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        let numbers = Numbers { next: Arc::clone(&next), limits, started: meter.started };
        workers.spawn(work(pool.lane(worker), numbers, Arc::clone(&call)));
    }
    let (mut bytes, mut latencies) = (0, Vec::new());
    while let Some(done) = workers.join_next().await {
        let done = done.map_err(|e| LoadError::Unexpected(e.to_string()))??;
        bytes += done.0;
        latencies.extend(done.1);
    }
    meter.stop(latencies.len() as u64, bytes, latencies)
}

/// Yields the numbers of operations until a limit is reached.
struct Numbers {
    next: Arc<AtomicU64>,
    limits: Limits,
    started: Instant,
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let in_time = self.started.elapsed() < self.limits.time;
        in_time.then(|| self.next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < self.limits.operations)
    }
}

async fn work(
    mut connection: Connection,
    numbers: Numbers,
    call: Arc<impl Fn(u64) -> Call>,
) -> Result<(u64, Vec<Duration>), LoadError> {
    let (mut bytes, mut latencies) = (0, Vec::new());
    for number in numbers {
        let call = call(number);
        let sent = Instant::now();
        let (length, _) = connection.send(&call).await?.success().await?.drain().await?;
        latencies.push(sent.elapsed());
        bytes += length;
    }
    Ok((bytes, latencies))
}

impl<'a> Meter<'a> {
    /// Starts the measurement.
    pub fn start(processes: &'a Processes) -> Result<Self, LoadError> {
        Ok(Self { processes, cpu: processes.cpu()?, started: Instant::now() })
    }

    /// Returns the start time.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Ends the measurement and returns the sample.
    pub fn stop(
        self,
        operations: u64,
        bytes: u64,
        mut latencies: Vec<Duration>,
    ) -> Result<Sample, LoadError> {
        let elapsed = self.started.elapsed();
        let cpu = self.cpu.zip(self.processes.cpu()?).map(|(before, after)| after.saturating_sub(before));
        latencies.sort_unstable();
        Ok(Sample { operations, bytes, elapsed, latencies, cpu, rss: self.processes.rss()? })
    }
}

impl Sample {
    /// Returns the operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the server's CPU time per operation.
    pub fn cpu_per_operation(&self) -> Option<Duration> {
        self.cpu.map(|cpu| cpu.div_f64(self.operations.max(1) as f64))
    }

    /// Returns the maximum latency of the fastest `share` (0 to 1) of operations.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summarizes_a_sample() {
        let latencies = (1..=101).map(Duration::from_millis).collect();
        let sample = Sample {
            operations: 101,
            elapsed: Duration::from_secs(2),
            latencies,
            cpu: Some(Duration::from_millis(202)),
            ..Sample::default()
        };
        assert!((sample.rate() - 50.5).abs() < 1e-6);
        assert_eq!(sample.percentile(0.5), Duration::from_millis(51));
        assert_eq!(sample.percentile(0.99), Duration::from_millis(100));
        assert_eq!(sample.cpu_per_operation(), Some(Duration::from_millis(2)));
        assert_eq!(Sample::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn numbers_end_at_the_limit() {
        let limits = Limits { operations: 3, time: Duration::from_mins(1) };
        let numbers = Numbers { next: Arc::default(), limits, started: Instant::now() };
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2]);
        let limits = Limits { operations: 3, time: Duration::ZERO };
        assert_eq!(Numbers { next: Arc::default(), limits, started: Instant::now() }.count(), 0);
    }
}
