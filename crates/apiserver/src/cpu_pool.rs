//! Polls CPU-intensive requests on separate threads instead of the executor's.
//!
//! The executor has one thread per core and does not preempt. While a thread decodes, patches, validates or encodes a
//! large object, health checks, leases and watches would have to wait. A request that processes [`LARGE`] bytes or more
//! is therefore polled on a bounded number of other threads. The operating system divides the cores between both, so
//! small requests are served under any load of large requests.
//!
//! Each poll runs in [`tokio::task::block_in_place`]: the executor thread hands its queue to another thread and runs
//! only this poll. Advantages over sending closures to a thread pool:
//!
//! - Work may borrow, so endpoints need no owned copies and do not depend on the pool.
//! - All work between two awaits is covered, including that of stages added later.
//! - A request that waits for the store or a webhook does not occupy a thread.
//! - A dropped request leaves no work behind: it is dropped between two polls, and its thread is released at the end of
//!   the poll.
//!
//! The disadvantage: a request's task does nothing else during a poll, so its timeout takes effect only after the poll.
//! Limits on bodies and objects bound a poll to some tens of milliseconds.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nave_machinery::Status;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// Minimum size of the body or object of a large request, in bytes. Smaller requests take less than a millisecond, so
/// another thread would cost more than it saves.
pub const LARGE: usize = 32 << 10;

/// Maximum number of concurrent large requests, which limits the memory of bodies and decoded objects. Further requests
/// get 429.
const MAX_REQUESTS: usize = 100;

/// A pool for CPU-intensive requests. Clones share it.
#[derive(Clone, Debug)]
pub struct CpuPool {
    /// One permit per thread.
    threads: Arc<Semaphore>,
    /// One permit per large request.
    requests: Arc<Semaphore>,
}

impl CpuPool {
    /// Creates a pool with a number of threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads.max(1))),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        }
    }

    /// Creates a pool with one thread per core.
    pub fn with_all_cores() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Runs work on `size` bytes: directly if it is small, otherwise on the pool's threads. Each poll waits for a free
    /// thread, so the caller must limit the time.
    ///
    /// # Errors
    /// 429 if there are too many large requests, or the error of the work.
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
        self.run_off_executor(work).await
    }

    /// Runs work on the pool's threads regardless of the size of its input, if the size does not determine its cost.
    pub async fn run_off_executor<T>(&self, work: impl Future<Output = T>) -> T {
        OffExecutor { threads: PollSemaphore::new(Arc::clone(&self.threads)), work: pin!(work) }.await
    }
}

#[cfg(test)]
impl CpuPool {
    /// Returns the number of idle threads.
    pub(crate) fn free_threads(&self) -> usize {
        self.threads.available_permits()
    }

    /// Returns the number of further large requests that can be admitted.
    pub(crate) fn free_requests(&self) -> usize {
        self.requests.available_permits()
    }
}

/// A future that is polled on the pool's threads.
struct OffExecutor<'a, F> {
    threads: PollSemaphore,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for OffExecutor<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { threads, work } = self.get_mut();
        // The permit is released after the poll, even after a panic. The semaphore is never closed.
        let _thread = ready!(threads.poll_acquire(cx));
        if can_hand_over() {
            tokio::task::block_in_place(|| work.as_mut().poll(cx))
        } else {
            work.as_mut().poll(cx)
        }
    }
}

/// Returns whether another thread can run the other tasks of this thread; false on a single-threaded runtime.
fn can_hand_over() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Reports its start, then blocks its thread until the sender is dropped.
    fn block(begun: &mpsc::Sender<()>, until: &mpsc::Receiver<()>) -> Result<(), Status> {
        begun.send(()).map_err(Status::internal)?;
        let _ = until.recv();
        Ok(())
    }

    /// Occupies all threads of a pool of two threads, on an executor with two threads. Dropping the senders releases
    /// them.
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
        // A large request waits for a thread until its caller's timeout.
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
    async fn rejects_more_large_requests_than_the_pool_admits() {
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
        // Admitted requests wait without a thread, and release their permits when they are dropped.
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
    async fn a_thread_is_released_when_the_work_ends_and_not_before() {
        let pool = CpuPool::new(2);
        let (begun, begins) = mpsc::channel();
        let (release, until) = mpsc::channel();
        let request = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(LARGE, async move { block(&begun, &until) }).await }
        });
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        // The client no longer waits for the response.
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
    async fn no_more_threads_run_than_the_pool_has() {
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
