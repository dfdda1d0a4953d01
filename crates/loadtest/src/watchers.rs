//! Many concurrent watchers. Each watcher counts the newlines that end its events and records the arrival time of each
//! event. Events are not parsed.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::LoadError;
use crate::http::Target;
use crate::streams::Streams;

/// A set of open watches.
pub struct Watchers {
    tasks: JoinSet<Result<Vec<Seen>, LoadError>>,
    stop: watch::Sender<bool>,
}

/// The result of one watcher.
#[derive(Default)]
pub struct Seen {
    /// Bytes of events.
    pub bytes: u64,
    /// Arrival time of each event.
    pub arrivals: Vec<Instant>,
}

impl Watchers {
    /// Opens `count` watches. Returns when the server has accepted all of them. `path` returns the path for a watcher's
    /// number. Each watch ends after `expected` events or on `close`.
    pub async fn open(
        target: &Target,
        count: usize,
        per_connection: usize,
        expected: usize,
        path: impl Fn(usize) -> String,
    ) -> Result<Self, LoadError> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let numbers: Vec<_> = (0..count).collect();
        for numbers in numbers.chunks(per_connection.max(1)) {
            let paths: Vec<_> = numbers.iter().map(|number| path(*number)).collect();
            let mut streams = Streams::open(target, &paths).await?;
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                tokio::select! {
                    read = streams.read_until(expected) => read?,
                    _ = stopped.changed() => {}
                }
                Ok(streams.into_seen())
            });
        }
        Ok(Self { tasks, stop })
    }

    /// Waits until every watcher has received the expected events.
    pub async fn finish(mut self, limit: Duration) -> Result<Vec<Seen>, LoadError> {
        let all = async {
            let mut seen = Vec::new();
            while let Some(some) = self.tasks.join_next().await {
                seen.extend(some.map_err(|e| LoadError::Unexpected(e.to_string()))??);
            }
            Ok(seen)
        };
        let late = |_| LoadError::Late { what: "delivering every event to every watcher".into(), limit };
        tokio::time::timeout(limit, all).await.map_err(late)?
    }

    /// Ends all watches and returns their results.
    pub async fn close(self) -> Result<Vec<Seen>, LoadError> {
        // An error means that every watcher has already ended.
        let _ = self.stop.send(true);
        self.finish(Duration::from_secs(30)).await
    }
}

/// Returns the delay of each event. A watcher's n-th event belongs to the n-th write.
pub fn delays(seen: &[Seen], sent: &[Instant]) -> Vec<Duration> {
    let each = seen.iter().flat_map(|s| s.arrivals.iter().zip(sent.iter()));
    each.map(|(arrived, sent)| arrived.saturating_duration_since(*sent)).collect()
}

/// Maximum number of streams per connection. kube-apiserver's limit is 100.
pub const PER_CONNECTION: usize = 90;
