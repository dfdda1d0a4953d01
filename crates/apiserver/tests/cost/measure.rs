//! Measures the CPU time and memory of a task at several input sizes.

use std::alloc::System;
use std::fmt::Write;
use std::time::Duration;

use nave_codec::json;
use peakmem_alloc::{INSTRUMENTED_SYSTEM, PeakMemAlloc, PeakMemAllocTrait};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: &PeakMemAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Maximum growth of the cost relative to the growth of the size. Allows for sorting and cache misses; the growth of a
/// quadratic cost would be ten times that of the size.
const GROWTH: f64 = 3.0;

/// Shorter times are rounded up to this, because clock resolution and caches would dominate them.
const SHORTEST: Duration = Duration::from_micros(300);

/// Memory that a task may use whatever the size, in bytes.
const FREE_BYTES: usize = 2 << 20;

/// Memory per byte of input for tasks that build small objects. A non-empty object takes 544 bytes.
const BYTES_PER_BYTE: usize = 400;

/// Memory per byte of input for objects that are defaulted and validated: an empty item of three bytes gets fields, an
/// update has it twice, and each field may cause an error.
const BYTES_PER_BYTE_OF_OBJECTS: usize = 2000;

/// Maximum memory of a task for any input: a few trees of the maximum size, in bytes.
const MOST_BYTES: usize = 320 << 20;

/// Number of measurements before an excessive cost counts as a failure. Other work on the machine can only increase a
/// measurement.
const ATTEMPTS: usize = 4;

/// A test case: builds an input of a given size and a task that processes it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bound: Bound,
    pub(crate) work: Work,
}

/// The bound of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Linear in the size of the input.
    Linear,
    /// Linear, with [`BYTES_PER_BYTE_OF_OBJECTS`].
    Objects,
    /// Superlinear up to a limit: at most [`LIMITED`] times the reference time, and at most [`MOST_BYTES`].
    Limited,
}

impl Case {
    pub(crate) fn linear(name: String, work: impl Fn(usize) -> Job + 'static) -> Self {
        Self { name, bound: Bound::Linear, work: Box::new(work) }
    }
}

/// Maximum time of limited work, as a multiple of decoding a megabyte of numbers.
const LIMITED: u32 = 20;

/// Builds an input of about the given size, in bytes, and its task.
pub(crate) type Work = Box<dyn Fn(usize) -> Job>;

/// The actual size of an input, and its task.
pub(crate) struct Job {
    pub(crate) size: usize,
    pub(crate) run: Box<dyn Fn()>,
}

impl Job {
    pub(crate) fn new(size: usize, run: impl Fn() + 'static) -> Self {
        Self { size, run: Box::new(run) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    size: usize,
    time: Duration,
    bytes: usize,
}

impl Cost {
    fn measure(job: &Job) -> Self {
        ALLOCATOR.reset_peak_memory();
        let start = cpu();
        (job.run)();
        let time = cpu().saturating_sub(start);
        Self { size: job.size, time, bytes: ALLOCATOR.get_peak_memory() }
    }

    fn least(self, other: Self) -> Self {
        Self { time: self.time.min(other.time), bytes: self.bytes.min(other.bytes), ..self }
    }

    fn growth_over(&self, smaller: &Self) -> f64 {
        let time = |cost: &Self| cost.time.max(SHORTEST).as_secs_f64();
        time(self) / time(smaller) / (self.size as f64 / smaller.size as f64).max(1.0)
    }

    fn is_within_memory(&self, bound: Bound) -> bool {
        let allowed = match bound {
            Bound::Linear => self.size * BYTES_PER_BYTE + FREE_BYTES,
            Bound::Objects => self.size * BYTES_PER_BYTE_OF_OBJECTS + FREE_BYTES,
            Bound::Limited => MOST_BYTES,
        };
        self.bytes <= allowed.min(MOST_BYTES)
    }
}

/// Measures each case at each size, smallest first. Returns the cases that exceed their bounds.
pub(crate) fn excesses(cases: &[Case], sizes: &[usize], table: bool) -> Vec<String> {
    let mut excesses = Vec::new();
    let reference = reference();
    for case in cases {
        let jobs: Vec<Job> = sizes.iter().map(|size| (case.work)(*size)).collect();
        let mut costs: Vec<Cost> = jobs.iter().map(Cost::measure).collect();
        let mut found = check(case, &costs, reference);
        for _ in 1..ATTEMPTS {
            if found.is_empty() {
                break;
            }
            costs = costs.iter().zip(&jobs).map(|(cost, job)| cost.least(Cost::measure(job))).collect();
            found = check(case, &costs, reference);
        }
        if table {
            println!("{}", line(&case.name, &costs));
        }
        excesses.extend(found);
    }
    excesses
}

fn check(case: &Case, costs: &[Cost], reference: Duration) -> Vec<String> {
    let (name, mut found) = (&case.name, Vec::new());
    for pair in costs.windows(2) {
        let growth = pair[1].growth_over(&pair[0]);
        if case.bound != Bound::Limited && growth > GROWTH {
            found.push(format!("{name}: the time grows {growth:.1} times as fast as the size: {pair:?}"));
        }
    }
    for cost in costs {
        if case.bound == Bound::Limited && cost.time > reference * LIMITED {
            found.push(format!("{name}: longer than {LIMITED} times {reference:?}: {cost:?}"));
        }
        if !cost.is_within_memory(case.bound) {
            found.push(format!("{name}: too much memory: {cost:?}"));
        }
    }
    found
}

/// Returns the time to decode a megabyte of numbers, for this build on this machine.
fn reference() -> Duration {
    let text = format!("[{}0]", "0,".repeat(500_000));
    let job = Job::new(text.len(), move || drop(std::hint::black_box(json::decode(text.as_bytes()))));
    Cost::measure(&job).least(Cost::measure(&job)).time
}

fn line(name: &str, costs: &[Cost]) -> String {
    let mut line = format!("{name:60}");
    for Cost { size, time, bytes } in costs {
        let per_byte = time.as_nanos() as f64 / (*size).max(1) as f64;
        let factor = *bytes as f64 / (*size).max(1) as f64;
        let _ = write!(line, " | {size:>8} B {per_byte:>8.1} ns/B {factor:>6.1} B/B");
    }
    line
}

/// Returns the CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
