//! The debug dumps of the queues, in upstream's format (`apf_controller_debug.go`).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_machinery::time::Timestamp;
use tokio::time::Instant;

use crate::controller::{Controller, Request};
use crate::level::{Held, State};
use crate::queues::{Entry, Queue, Queuing};

/// Maximum number of idle queues of a level in a dump.
const MAX_IDLE_QUEUES: u32 = 1 << 16;

/// Minimum width of a column, and the distance between columns.
const MIN_WIDTH: usize = 8;
const PADDING: usize = 1;

/// A queue that has requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyQueue {
    /// The name of its priority level.
    pub level: String,
    /// Its number.
    pub index: u32,
    /// The number of waiting requests.
    pub waiting: usize,
    /// The number of executing requests that waited in it.
    pub executing: u32,
    /// The seats of these requests.
    pub seats_in_use: u64,
}

impl Controller {
    /// Returns the queues with requests, those with the most waiting requests first, up to a number.
    pub fn busy_queues(&self, most: usize) -> Vec<BusyQueue> {
        let mut busy = Vec::new();
        self.with_levels(|levels| {
            for (name, managed) in &levels.by_name {
                let State { set, .. } = &*managed.level.state();
                busy.extend(set.queues().iter().map(|(index, queue)| BusyQueue {
                    level: name.clone(),
                    index: *index,
                    waiting: queue.waiting(),
                    executing: queue.executing(),
                    seats_in_use: queue.seats_in_use(),
                }));
            }
        });
        busy.retain(|queue| queue.waiting > 0 || queue.executing > 0);
        // The sort is stable, so equal queues stay in the order of levels and numbers.
        busy.sort_by_key(|queue| (std::cmp::Reverse(queue.waiting), std::cmp::Reverse(queue.seats_in_use)));
        busy.truncate(most);
        busy
    }

    /// Returns one row for each priority level.
    pub fn dump_priority_levels(&self) -> String {
        let mut table = Table::new(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ]);
        self.with_levels(|levels| {
            for (name, managed) in &levels.by_name {
                let State { set, .. } = &*managed.level.state();
                let active = set.queues().values().filter(|queue| queue.waiting() > 0).count();
                let totals = set.totals();
                table.add([
                    name.clone(),
                    active.to_string(),
                    set.is_idle().to_string(),
                    managed.quiescing.to_string(),
                    set.waiting().to_string(),
                    set.executing().to_string(),
                    totals.dispatched.to_string(),
                    totals.rejected.to_string(),
                    // Upstream counts requests that waited too long as cancelled.
                    "0".to_owned(),
                    totals.cancelled.to_string(),
                ]);
            }
        });
        table.text()
    }

    /// Returns one row for each queue.
    pub fn dump_queues(&self) -> String {
        let mut table = Table::new(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ]);
        let idle = Queue::default();
        self.with_levels(|levels| {
            for (name, managed) in &levels.by_name {
                let State { set, .. } = &*managed.level.state();
                let count = match set.queuing() {
                    Queuing::Queue { queues, .. } => queues.min(MAX_IDLE_QUEUES),
                    _ => 0,
                };
                let beyond = set.queues().keys().copied().filter(|index| *index >= count);
                for index in (0..count).chain(beyond) {
                    let queue = set.queues().get(&index).unwrap_or(&idle);
                    let sums = queue.sums();
                    table.add([
                        name.clone(),
                        index.to_string(),
                        queue.waiting().to_string(),
                        queue.executing().to_string(),
                        queue.seats_in_use().to_string(),
                        queue.next_dispatch().to_string(),
                        sums.initial_seats.to_string(),
                        sums.max_seats.to_string(),
                        sums.work.to_string(),
                    ]);
                }
            }
        });
        table.text()
    }

    /// Returns one row for each request, with user and attributes if `details` is true.
    pub fn dump_requests(&self, details: bool) -> String {
        let columns = [
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ];
        let shown = if details { columns.len() } else { columns.len() - DETAILS };
        let mut table = Table::new(columns.get(..shown).unwrap_or_default());
        let clock = Clock::now();
        self.with_levels(|levels| {
            for (name, managed) in &levels.by_name {
                let state = managed.level.state();
                let mut entries: Vec<_> = state.set.entries().map(|(_, entry)| entry).collect();
                // By queue: first the waiting requests by arrival, then the executing ones; those without queue last.
                entries.sort_by_key(|entry| {
                    (entry.queue.is_none(), entry.queue, entry.started.is_some(), entry.number())
                });
                let (mut queue, mut position) = (None, 0);
                for entry in entries {
                    position = if queue == entry.queue { position + 1 } else { 0 };
                    queue = entry.queue;
                    table.add(row(name, entry, position, &clock).into_iter().take(shown));
                }
            }
        });
        table.text()
    }
}

/// The number of columns that only details have.
const DETAILS: usize = 8;

fn row(level: &str, entry: &Entry<Held>, position: i64, clock: &Clock) -> [String; 18] {
    let Held { request: Request { user, attributes, .. }, flow, .. } = &entry.request;
    let resource = attributes.resource().unwrap_or_default();
    let version = match resource.group {
        "" => resource.version.to_owned(),
        group => format!("{group}/{}", resource.version),
    };
    [
        level.to_owned(),
        flow.name.to_string(),
        entry.queue.map_or(-1, i64::from).to_string(),
        (if entry.started.is_some() { -1 } else { position }).to_string(),
        flow.distinguisher(user, &**attributes).to_owned(),
        clock.time(entry.arrived),
        entry.estimate.initial_seats.to_string(),
        entry.estimate.final_seats.to_string(),
        go_duration(entry.estimate.additional_latency),
        entry.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |started| clock.time(started)),
        user.name.clone(),
        attributes.verb().to_owned(),
        attributes.path().to_owned(),
        resource.namespace.to_owned(),
        resource.name.to_owned(),
        version,
        resource.resource.to_owned(),
        resource.subresource.to_owned(),
    ]
}

/// Converts instants to the time of day.
struct Clock {
    now: Instant,
    since_epoch: Duration,
}

impl Clock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: Instant::now(), since_epoch }
    }

    /// Formats as Go's `RFC3339Nano`, in UTC.
    fn time(&self, instant: Instant) -> String {
        let time = self.since_epoch.saturating_sub(self.now.saturating_duration_since(instant));
        let seconds =
            Timestamp::from_unix(time.as_secs() as i64, 0).map(Timestamp::rfc3339).unwrap_or_default();
        let fraction = format!("{:09}", time.subsec_nanos());
        match fraction.trim_end_matches('0') {
            "" => seconds,
            fraction => format!("{}.{fraction}Z", seconds.trim_end_matches('Z')),
        }
    }
}

/// Formats as Go's `time.Duration`.
fn go_duration(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let (unit, name) = match nanoseconds {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (mut whole, rest) = (nanoseconds / unit, nanoseconds % unit);
    let mut text = String::new();
    if name == "s" {
        let (hours, minutes) = (whole / 3600, whole / 60 % 60);
        // Writing to a string cannot fail.
        let _ = if hours > 0 { write!(text, "{hours}h{minutes}m") } else { Ok(()) };
        let _ = if hours == 0 && minutes > 0 { write!(text, "{minutes}m") } else { Ok(()) };
        whole %= 60;
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    match fraction.trim_end_matches('0') {
        "" => text + &format!("{whole}{name}"),
        fraction => text + &format!("{whole}.{fraction}{name}"),
    }
}

/// Rows of cells in columns, as Go's `text/tabwriter` aligns them.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|column| (*column).to_owned()).collect()] }
    }

    fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns the rows. All cells but the last end with a comma and are padded.
    fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count() + 1).max().unwrap_or(0);
            (longest + PADDING).max(MIN_WIDTH)
        };
        let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                let Some(width) = widths.get(column) else { continue };
                text.push(',');
                text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count() + 1)));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_durations_as_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (5_000_000, "5ms"),
            (333_333_333, "333.333333ms"),
            (1_000_000_000, "1s"),
            (61_050_000_000, "1m1.05s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn aligns_columns_as_the_tab_writer() {
        let mut table = Table::new(&["PriorityLevelName", "Index", "Last"]);
        table.add(["catch-all", "0", "x"].map(str::to_owned));
        assert_eq!(table.text(), "PriorityLevelName, Index,  Last\ncatch-all,         0,      x\n");
    }
}
