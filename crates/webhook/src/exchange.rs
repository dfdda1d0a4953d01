//! One exchange of a request and a response on a connection that runs within the task of the call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of steps without a pause for other tasks.
const MAX_STEPS: usize = 16;

/// The state of a connection's current exchange.
///
/// The connection and the call wake each other through channels. As both are polled by the same task, a wake during a
/// poll is only noted and causes another step. Without this, each response would schedule the task once more, and an
/// idle thread would be woken to take it.
#[derive(Default)]
pub(crate) struct Exchange {
    task: AtomicWaker,
    is_polled: AtomicBool,
    is_woken: AtomicBool,
    /// The number of bytes that may still be read.
    left: AtomicUsize,
    is_too_long: AtomicBool,
}

/// An exchange until its end, also if the call is dropped.
pub(crate) struct Running<'e> {
    exchange: &'e Arc<Exchange>,
    waker: Waker,
}

impl Exchange {
    /// Creates the state of a connection that may receive this many bytes before its first exchange.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { left: AtomicUsize::new(max_bytes), ..Self::default() }
    }

    /// Starts an exchange in which at most `max_bytes` are read.
    pub(crate) fn start(self: &Arc<Self>, max_bytes: usize) -> Running<'_> {
        self.left.store(max_bytes, Ordering::Relaxed);
        self.is_too_long.store(false, Ordering::Relaxed);
        Running { exchange: self, waker: Waker::from(Arc::clone(self)) }
    }

    /// Returns whether more bytes were received than allowed.
    pub(crate) fn is_too_long(&self) -> bool {
        self.is_too_long.load(Ordering::Relaxed)
    }

    /// Counts received bytes.
    fn charge(&self, bytes: usize) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes);
        self.left.store(left.unwrap_or_default(), Ordering::Relaxed);
        if left.is_none() {
            self.is_too_long.store(true, Ordering::Relaxed);
            return Err(io::Error::other("the response is too long"));
        }
        Ok(())
    }
}

impl Wake for Exchange {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        if !self.is_polled.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Running<'_> {
    /// Polls `step` until it is ready.
    pub(crate) async fn poll<T>(self, mut step: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        std::future::poll_fn(|cx| self.poll_steps(cx, &mut step)).await
    }

    fn poll_steps<T>(
        &self,
        cx: &mut Context<'_>,
        step: &mut impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Exchange { task, is_polled, is_woken, .. } = &**self.exchange;
        task.register(cx.waker());
        let mut own = Context::from_waker(&self.waker);
        for _ in 0..MAX_STEPS {
            is_polled.store(true, Ordering::SeqCst);
            is_woken.store(false, Ordering::SeqCst);
            let polled = step(&mut own);
            is_polled.store(false, Ordering::SeqCst);
            if polled.is_ready() {
                return polled;
            }
            // A wake before this point is seen here; a later one wakes the task.
            if !is_woken.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // An idle connection must not keep the memory of the last task.
        drop(self.exchange.task.take());
    }
}

/// A stream whose received bytes are counted for the current exchange.
pub(crate) struct Metered<S> {
    stream: S,
    exchange: Arc<Exchange>,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, exchange: Arc<Exchange>) -> Self {
        Self { stream, exchange }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let received = buffer.filled().len() - before;
        if received > 0 {
            self.exchange.charge(received)?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use super::*;

    /// A waker that counts.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_during_a_step_cause_another_step_and_later_ones_wake_the_task() {
        let (exchange, task) = (Arc::new(Exchange::default()), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let steps = Cell::new(0);
        let mut running = pin!(exchange.start(0).poll(|cx| {
            steps.set(steps.get() + 1);
            match steps.get() {
                1 => cx.waker().wake_by_ref(),
                2 => {}
                _ => return Poll::Ready(()),
            }
            Poll::Pending
        }));
        assert!(running.as_mut().poll(&mut cx).is_pending());
        assert_eq!((steps.get(), task.0.load(Ordering::SeqCst)), (2, 0), "one poll has both steps");
        Waker::from(Arc::clone(&exchange)).wake();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
        assert!(running.as_mut().poll(&mut cx).is_ready());
        assert_eq!(steps.get(), 3);
    }

    #[test]
    fn steps_that_always_wake_leave_the_thread_to_other_tasks() {
        let (exchange, task) = (Arc::new(Exchange::default()), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&task));
        let steps = Cell::new(0);
        let mut running = pin!(exchange.start(0).poll(|cx| {
            steps.set(steps.get() + 1);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
        assert_eq!(steps.get(), MAX_STEPS);
    }

    #[test]
    fn an_ended_exchange_does_not_keep_its_task() {
        let (exchange, task) = (Arc::new(Exchange::default()), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&task));
        {
            let mut running = pin!(exchange.start(0).poll(|_| Poll::<()>::Pending));
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!(Arc::strong_count(&task), 3);
        }
        assert_eq!(Arc::strong_count(&task), 2);
    }
}
