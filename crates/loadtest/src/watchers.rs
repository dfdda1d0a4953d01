//! Many watchers at once. Each counts the newlines that end its events and takes the time of each; no event is parsed.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::LoadError;
use crate::http::{Call, Pool, Target};

/// Watches that are open.
pub struct Watchers {
    /// Kept while they are open: the pool's connections end with it.
    _pool: Pool,
    tasks: JoinSet<Result<Seen, LoadError>>,
    stop: watch::Sender<bool>,
}

/// What one watcher saw.
#[derive(Default)]
pub struct Seen {
    /// Bytes of events.
    pub bytes: u64,
    /// When each event had arrived.
    pub arrivals: Vec<Instant>,
}

impl Watchers {
    /// Opens `count` watches, each on the path that `path` makes of its number, and returns when the server has
    /// answered all of them. Each ends after `expected` events, or when it is told to.
    pub async fn open(
        target: &Target,
        count: usize,
        expected: usize,
        path: impl Fn(usize) -> String,
    ) -> Result<Self, LoadError> {
        let pool = target.pool(count.div_ceil(PER_CONNECTION)).await?;
        let (stop, stopped) = watch::channel(false);
        let mut opening = JoinSet::new();
        for number in 0..count {
            let (mut connection, call) = (pool.lane(number), Call::get(path(number)));
            opening.spawn(async move { connection.send(&call).await?.success().await });
        }
        let mut tasks = JoinSet::new();
        while let Some(answer) = opening.join_next().await {
            let mut answer = answer.map_err(|e| LoadError::Unexpected(e.to_string()))??;
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                let mut seen = Seen::default();
                while seen.arrivals.len() < expected {
                    let chunk = tokio::select! {
                        chunk = answer.next_chunk() => chunk?,
                        _ = stopped.changed() => None,
                    };
                    let Some(chunk) = chunk else { break };
                    seen.bytes += chunk.len() as u64;
                    let events = memchr::memchr_iter(b'\n', &chunk).count();
                    seen.arrivals.extend(std::iter::repeat_n(Instant::now(), events));
                }
                Ok(seen)
            });
        }
        Ok(Self { _pool: pool, tasks, stop })
    }

    /// Waits until every watcher has seen what it expects.
    pub async fn finish(mut self, limit: Duration) -> Result<Vec<Seen>, LoadError> {
        let all = async {
            let mut seen = Vec::new();
            while let Some(one) = self.tasks.join_next().await {
                seen.push(one.map_err(|e| LoadError::Unexpected(e.to_string()))??);
            }
            Ok(seen)
        };
        let late = |_| LoadError::Late { what: "delivering every event to every watcher".into(), limit };
        tokio::time::timeout(limit, all).await.map_err(late)?
    }

    /// Ends all watches and returns what they saw.
    pub async fn close(self) -> Result<Vec<Seen>, LoadError> {
        // An error means that every watcher has ended by itself.
        let _ = self.stop.send(true);
        self.finish(Duration::from_secs(30)).await
    }
}

/// How long each event took, where a watcher's n-th event is the n-th write.
pub fn delays(seen: &[Seen], sent: &[Instant]) -> Vec<Duration> {
    let each = seen.iter().flat_map(|s| s.arrivals.iter().zip(sent.iter()));
    each.map(|(arrived, sent)| arrived.saturating_duration_since(*sent)).collect()
}

/// Servers limit the streams of a connection, kube-apiserver to 100.
const PER_CONNECTION: usize = 90;
