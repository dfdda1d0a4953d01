//! The goals of each scenario, and the table.
//!
//! Goals are compared with the figures of the reference server in the same run (`--against`), or with
//! [recorded](recorded) figures. CPU per operation is comparable between similar machines; rates are hardly comparable.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::load::Sample;
use crate::scenario::Scenario;

/// A goal of a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Minimum rate, as a multiple of the reference's rate.
    RateTimes(f64),
    /// Minimum ratio of the reference's CPU per operation to the server's.
    CpuTimes(f64),
    /// Maximum CPU per operation.
    CpuAtMost(Duration),
    /// Maximum median latency.
    MedianAtMost(Duration),
    /// Maximum CPU per operation, as a multiple of that of creates without watchers.
    CpuAsUnwatched(f64),
}

/// Figures of the reference server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reference {
    /// Operations per second.
    pub rate: Option<f64>,
    /// CPU per operation.
    pub cpu: Option<Duration>,
}

/// A row of the table. Unavailable values are empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the measured work.
    pub work: String,
    /// Operations per second.
    pub rate: String,
    /// Median latency.
    pub p50: String,
    /// 99th percentile of the latency.
    pub p99: String,
    /// The server's CPU per operation.
    pub cpu: String,
    /// The server's resident memory at the end.
    pub rss: String,
    /// The reference's rate and CPU.
    pub reference: String,
    /// The goals.
    pub goal: String,
    /// The verdict on the goals: `yes`, `NO`, or empty if unknown.
    pub met: String,
}

/// Returns the figures of kube-apiserver 1.36.2 with etcd 3.6 on a machine with two cores.
pub fn recorded(scenario: Scenario) -> Reference {
    let (rate, micros) = match scenario {
        Scenario::CreatePods => (Some(1_000.0), Some(1_880.0)),
        Scenario::CreateConfigMaps => (Some(1_915.0), Some(960.0)),
        Scenario::SmallRead => (Some(2_594.0), Some(700.0)),
        Scenario::ListJson => (None, Some(1_450_000.0)),
        Scenario::ListProtobuf => (None, Some(91_000.0)),
        Scenario::ListPages => (None, Some(36_000.0)),
        Scenario::ListByNode => (None, Some(14_600.0)),
        Scenario::ListByAbsentLabel => (None, Some(25_500.0)),
        Scenario::WatchFanOut => (Some(52_700.0), Some(20.4)),
        Scenario::CreateWatchedElsewhere => (None, Some(3_360.0)),
        Scenario::CreateUnwatched | Scenario::CreateWithWebhooks => (None, None),
    };
    Reference { rate, cpu: micros.map(|micros| Duration::from_secs_f64(micros / 1e6)) }
}

/// Returns the goals of this project.
pub fn goals(scenario: Scenario) -> &'static [Goal] {
    use Goal::{CpuAsUnwatched, CpuAtMost, CpuTimes, MedianAtMost, RateTimes};
    const fn cpu(micros: u64) -> Goal {
        CpuAtMost(Duration::from_micros(micros))
    }
    match scenario {
        Scenario::CreatePods => const { &[RateTimes(10.0), cpu(150)] },
        Scenario::CreateConfigMaps => const { &[RateTimes(8.0), cpu(80)] },
        Scenario::SmallRead => const { &[RateTimes(15.0), cpu(40)] },
        Scenario::ListJson => const { &[CpuTimes(20.0), cpu(70_000)] },
        Scenario::ListProtobuf => &[CpuTimes(15.0)],
        Scenario::ListPages | Scenario::ListByNode => &[CpuTimes(20.0)],
        Scenario::ListByAbsentLabel => &[CpuTimes(10.0)],
        Scenario::WatchFanOut => {
            const {
                &[
                    RateTimes(8.0),
                    CpuAtMost(Duration::from_nanos(2_500)),
                    MedianAtMost(Duration::from_millis(60)),
                ]
            }
        }
        Scenario::CreateWatchedElsewhere => &[CpuAsUnwatched(1.15)],
        Scenario::CreateUnwatched | Scenario::CreateWithWebhooks => &[],
    }
}

impl Goal {
    /// Returns whether the sample meets the goal; `None` if a figure is missing.
    fn is_met(self, sample: &Sample, reference: Reference, unwatched: Option<Duration>) -> Option<bool> {
        let cpu = sample.cpu_per_operation();
        Some(match self {
            Self::RateTimes(times) => sample.rate() >= times * reference.rate?,
            Self::CpuTimes(times) => cpu?.mul_f64(times) <= reference.cpu?,
            Self::CpuAtMost(most) => cpu? <= most,
            Self::MedianAtMost(most) => sample.percentile(0.5) <= most,
            Self::CpuAsUnwatched(times) => cpu? <= unwatched?.mul_f64(times),
        })
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateTimes(times) => write!(f, "{times}x rate"),
            Self::CpuTimes(times) => write!(f, "1/{times} CPU"),
            Self::CpuAtMost(most) => write!(f, "<= {} CPU", duration(*most)),
            Self::MedianAtMost(most) => write!(f, "p50 <= {}", duration(*most)),
            Self::CpuAsUnwatched(times) => write!(f, "<= {times}x CPU without watchers"),
        }
    }
}

impl Row {
    /// Returns the row of a scenario. `unwatched` is the CPU time of a create without watchers.
    pub fn for_scenario(
        work: String,
        scenario: Scenario,
        sample: &Sample,
        reference: Reference,
        unwatched: Option<Duration>,
    ) -> Self {
        let (goals, cpu) = (goals(scenario), sample.cpu_per_operation());
        let verdicts: Vec<_> = goals.iter().map(|goal| goal.is_met(sample, reference, unwatched)).collect();
        let mut compared = Vec::new();
        if let Some(rate) = reference.rate {
            compared.push(format!("{}/s ({:.1}x)", grouped(rate), sample.rate() / rate));
        }
        if let Some(theirs) = reference.cpu {
            let times = cpu.map(|ours| theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9));
            compared.push(format!(
                "{} CPU{}",
                duration(theirs),
                times.map_or(String::new(), |t| format!(" ({t:.1}x)"))
            ));
        }
        Self {
            reference: compared.join(", "),
            goal: goals.iter().map(Goal::to_string).collect::<Vec<_>>().join(", "),
            met: verdict(&verdicts),
            ..Self::plain(work, sample)
        }
    }

    /// Returns a row without a goal.
    pub fn plain(work: String, sample: &Sample) -> Self {
        Self {
            work,
            rate: format!("{}/s", grouped(sample.rate())),
            p50: duration(sample.percentile(0.5)),
            p99: duration(sample.percentile(0.99)),
            cpu: sample.cpu_per_operation().map_or(String::new(), duration),
            rss: sample.rss.map_or(String::new(), megabytes),
            ..Self::default()
        }
    }

    /// Returns the row of a duration and its maximum.
    pub fn time(work: &str, took: Duration, most: Duration) -> Self {
        Self {
            work: work.into(),
            p50: duration(took),
            goal: format!("<= {}", duration(most)),
            met: verdict(&[Some(took <= most)]),
            ..Self::default()
        }
    }

    /// Returns the row of a memory size in bytes, without a goal.
    pub fn size(work: &str, rss: u64) -> Self {
        Self { work: work.into(), rss: megabytes(rss), ..Self::default() }
    }

    /// Returns the row of a memory size in bytes and its maximum.
    pub fn memory(work: &str, rss: u64, most: u64) -> Self {
        Self {
            work: work.into(),
            rss: megabytes(rss),
            goal: format!("<= {}", megabytes(most)),
            met: verdict(&[Some(rss <= most)]),
            ..Self::default()
        }
    }

    fn cells(&self) -> [&str; 9] {
        let Self { work, rate, p50, p99, cpu, rss, reference, goal, met } = self;
        [work, rate, p50, p99, cpu, rss, reference, goal, met]
    }
}

/// Formats the table as Markdown with aligned columns.
pub fn table(rows: &[Row]) -> String {
    let heads = ["work", "rate", "p50", "p99", "CPU each", "RSS", "reference", "goal", "met"];
    let cells = rows.iter().map(Row::cells);
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| cells.clone().map(|c| c[i].chars().count()).chain([heads[i].len()]).max().unwrap_or(0))
        .collect();
    let line = |cells: [&str; 9]| {
        let padded: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let rule = format!("| {} |\n", rule.join(" | "));
    [line(heads), rule].into_iter().chain(cells.map(line)).collect()
}

fn verdict(goals: &[Option<bool>]) -> String {
    let met = match goals {
        [] => "",
        _ if goals.contains(&Some(false)) => "NO",
        _ if goals.contains(&None) => "",
        _ => "yes",
    };
    met.into()
}

/// Formats a duration with three digits and a suitable unit.
pub fn duration(of: Duration) -> String {
    let micros = of.as_secs_f64() * 1e6;
    match micros {
        _ if micros < 100.0 => format!("{micros:.1} µs"),
        _ if micros < 1_000.0 => format!("{micros:.0} µs"),
        _ if micros < 100_000.0 => format!("{:.1} ms", micros / 1e3),
        _ if micros < 10_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        ..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(operations: u64, cpu_micros_each: u64) -> Sample {
        Sample {
            operations,
            elapsed: Duration::from_secs(1),
            latencies: vec![Duration::from_micros(900); 10],
            cpu: Some(Duration::from_micros(cpu_micros_each * operations)),
            ..Sample::default()
        }
    }

    #[test]
    fn misses_the_targets_if_one_is_missed() {
        let row = |sample: &Sample| {
            let scenario = Scenario::CreatePods;
            Row::for_scenario("create".into(), scenario, sample, recorded(scenario), None)
        };
        assert_eq!(row(&sample(10_000, 150)).met, "yes");
        assert_eq!(row(&sample(10_000, 151)).met, "NO");
        assert_eq!(row(&sample(9_999, 150)).met, "NO");
        let unmetered = Sample { cpu: None, ..sample(10_000, 0) };
        assert_eq!(row(&unmetered).met, "", "CPU is unknown");
        assert_eq!(row(&sample(10_000, 94)).reference, "1,000/s (10.0x), 1.9 ms CPU (20.0x)");
    }

    #[test]
    fn watched_creates_are_compared_with_unwatched_ones() {
        let met = |micros| {
            let scenario = Scenario::CreateWatchedElsewhere;
            let unwatched = Some(Duration::from_micros(100));
            Row::for_scenario(String::new(), scenario, &sample(2_000, micros), recorded(scenario), unwatched)
                .met
        };
        assert_eq!((met(115), met(116)), ("yes".into(), "NO".into()));
    }

    #[test]
    fn aligns_the_table() {
        let rows = [
            Row::time("ready", Duration::from_millis(40), Duration::from_millis(100)),
            Row::memory("idle", 30_000_000, 25_000_000),
        ];
        let table = table(&rows);
        let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 4);
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains("40.0 ms") && table.contains("30.0 MB") && table.contains("NO"), "{table}");
    }

    #[test]
    fn formats_short_figures() {
        assert_eq!(duration(Duration::from_nanos(2_500)), "2.5 µs");
        assert_eq!(duration(Duration::from_micros(1_880)), "1.9 ms");
        assert_eq!(duration(Duration::from_millis(1_450)), "1450 ms");
        assert_eq!(grouped(1_234_567.2), "1,234,567");
        assert_eq!(grouped(12.0), "12");
        assert_eq!((megabytes(50_000), megabytes(1_500_000)), ("50.0 KB".into(), "1.5 MB".into()));
    }
}
