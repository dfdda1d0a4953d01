//! Requests that cost much CPU run off the executor's threads.
//!
//! The executor has a thread per core and does not preempt: decoding, patching, validating or encoding a large object
//! on one of them would keep health checks, leases and watches waiting. A request that works on [`LARGE`] bytes or more
//! is therefore polled on other threads, of which a bounded number work at once. The operating system shares the cores
//! between both kinds of threads, so that small requests are answered whatever large ones there are.
//!
//! Each poll runs in [`tokio::task::block_in_place`]: the executor's thread hands its queue to another thread and goes
//! on with this poll alone. Compared with a pool of threads that is sent closures,
//!
//! - the work may borrow: the endpoints need no owned copies, and no code in them knows of the pool;
//! - all that is computed between two awaits is covered, also what later stages add;
//! - no thread is held while the request waits for the store or for a webhook;
//! - a request that is dropped cannot leave work behind: it is dropped between two polls, and a thread is given back
//!   when the poll ends.
//!
//! The price is that the request's own task does nothing else meanwhile: its timeout is noticed when the poll ends. A
//! poll is bounded by the limits on bodies and objects, and takes some tens of milliseconds at most.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nave_machinery::Status;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// From so many bytes of body or object on, a request is large. Below, the work takes less than a millisecond, and
/// another thread would cost more than it saves.
pub const LARGE: usize = 32 << 10;

/// Large requests being served, at most: they hold their body and what is decoded from it. Others are refused.
const MAX_REQUESTS: usize = 100;

/// Runs large requests off the executor's threads. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct CpuPool {
    /// One permit for each thread that may work at once.
    threads: Arc<Semaphore>,
    /// One permit for each large request that may be served.
    requests: Arc<Semaphore>,
}

impl CpuPool {
    /// A pool of so many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads.max(1))),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// A pool of as many threads as there are cores.
    pub fn with_all_cores() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Runs work on `size` bytes: as it is where these are few, else off the executor's threads. It waits for a thread
    /// before each poll, so the caller's timeout bounds the wait.
    ///
    /// # Errors
    /// 429 where too many large requests are being served, or the work's error.
    pub async fn run<T>(
        &self,
        size: usize,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        if size < LARGE {
            return work.await;
        }
        let Ok(_request) = self.requests.try_acquire() else {
            return Err(Status::too_many_requests("too many large requests, please try again later", 1));
        };
        OffExecutor { threads: PollSemaphore::new(Arc::clone(&self.threads)), work: pin!(work) }.await
    }
}

#[cfg(test)]
impl CpuPool {
    /// Threads that do not work now.
    pub(crate) fn free_threads(&self) -> usize {
        self.threads.available_permits()
    }

    /// Large requests that would not be refused now.
    pub(crate) fn free_requests(&self) -> usize {
        self.requests.available_permits()
    }
}

/// A future that is polled off the executor's threads.
struct OffExecutor<'a, F> {
    threads: PollSemaphore,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for OffExecutor<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { threads, work } = self.get_mut();
        // Given back when the poll is over, also by a panic. The semaphore is never closed.
        let _thread = ready!(threads.poll_acquire(cx));
        if can_hand_over() {
            tokio::task::block_in_place(|| work.as_mut().poll(cx))
        } else {
            work.as_mut().poll(cx)
        }
    }
}

/// Returns whether this thread's other tasks can go on elsewhere; on the runtime of a single thread there is no elsewhere.
fn can_hand_over() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Work that blocks its thread until the sender is dropped, and says that it has begun.
    fn block(begun: &mpsc::Sender<()>, until: &mpsc::Receiver<()>) -> Result<(), Status> {
        begun.send(()).map_err(Status::internal)?;
        let _ = until.recv();
        Ok(())
    }

    /// Fills a pool of two threads on an executor of two threads; the pool is free when the senders are dropped.
    async fn filled(pool: &CpuPool) -> Vec<mpsc::Sender<()>> {
        let (begun, begins) = mpsc::channel();
        let blocked = (0..2).map(|_| {
            let (release, until) = mpsc::channel();
            let (pool, begun) = (pool.clone(), begun.clone());
            tokio::spawn(async move { pool.run(LARGE, async move { block(&begun, &until) }).await });
            release
        });
        let releases = blocked.collect();
        tokio::task::spawn_blocking(move || {
            begins.recv().unwrap();
            begins.recv().unwrap();
        })
        .await
        .unwrap();
        releases
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_executor_works_while_every_thread_of_the_pool_is_blocked() {
        let pool = CpuPool::new(2);
        let releases = filled(&pool).await;
        for _ in 0..100 {
            let small = tokio::spawn({
                let pool = pool.clone();
                async move {
                    let work = async {
                        tokio::task::yield_now().await;
                        Ok(())
                    };
                    pool.run(LARGE - 1, work).await
                }
            });
            small.await.unwrap().unwrap();
        }
        // A large request waits for a thread, as long as its caller lets it.
        let polled = AtomicBool::new(false);
        let work = async {
            polled.store(true, Ordering::Relaxed);
            Ok(())
        };
        let late = tokio::time::timeout(Duration::from_millis(1), pool.run(LARGE, work)).await;
        assert!(late.is_err() && !polled.load(Ordering::Relaxed));
        drop(releases);
        assert_eq!(pool.run(LARGE, async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn more_large_requests_than_the_pool_takes_are_refused() {
        let pool = CpuPool::new(2);
        let waiting: Vec<_> = (0..MAX_REQUESTS)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.run(LARGE, std::future::pending::<Result<(), _>>()).await })
            })
            .collect();
        while pool.free_requests() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = pool.run(LARGE, async { Ok(()) }).await.unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        // They wait without a thread, and leave nothing behind when they are dropped.
        while pool.free_threads() < 2 {
            tokio::task::yield_now().await;
        }
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        for one in waiting {
            assert!(one.await.unwrap_err().is_cancelled());
        }
        assert_eq!(pool.free_requests(), MAX_REQUESTS);
        pool.run(LARGE, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thread_is_given_back_when_the_work_ends_and_not_before() {
        let pool = CpuPool::new(2);
        let (begun, begins) = mpsc::channel();
        let (release, until) = mpsc::channel();
        let request = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(LARGE, async move { block(&begun, &until) }).await }
        });
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        // Nobody waits for the answer any more.
        request.abort();
        assert_eq!(pool.free_threads(), 1);
        drop(release);
        let _ = request.await;
        assert_eq!(pool.free_threads(), 2);
        let panics = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run::<()>(LARGE, async { std::panic::panic_any("a test's panic") }).await }
        });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(pool.free_threads(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_threads_work_at_once_than_the_pool_has() {
        let pool = CpuPool::new(2);
        let (working, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..50).map(|_| {
            let (pool, working, most) = (pool.clone(), Arc::clone(&working), Arc::clone(&most));
            tokio::spawn(async move {
                let work = async {
                    for _ in 0..3 {
                        most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        working.fetch_sub(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                };
                pool.run(LARGE, work).await
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn works_on_a_runtime_of_one_thread() {
        assert_eq!(CpuPool::new(1).run(LARGE, async { Ok(7) }).await.unwrap(), 7);
    }
}
