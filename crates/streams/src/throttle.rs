//! Connections with a maximum rate.

use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The part of a second within which bytes move at once.
const PIECES_PER_SECOND: u64 = 10;

/// A connection on which at most a number of bytes per second moves in each direction.
#[derive(Debug)]
pub struct Throttled<T> {
    inner: T,
    reads: Pace,
    writes: Pace,
}

impl<T> Throttled<T> {
    /// Limits a connection to `rate` bytes per second in each direction.
    pub fn new(inner: T, rate: NonZeroU64) -> Self {
        Self { inner, reads: Pace::new(rate), writes: Pace::new(rate) }
    }
}

/// The bytes of one direction.
#[derive(Debug)]
struct Pace {
    rate: NonZeroU64,
    /// The time from which the next bytes may move.
    due: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(rate: NonZeroU64) -> Self {
        Self { rate, due: Instant::now(), timer: None }
    }

    /// Waits until bytes may move, and returns how many.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.due > Instant::now() {
            let due = self.due;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
        }
        let piece = (self.rate.get() / PIECES_PER_SECOND).max(1);
        Poll::Ready(usize::try_from(piece).unwrap_or(usize::MAX))
    }

    fn moved(&mut self, bytes: usize) {
        // A piece takes at most a second, so the number fits.
        let nanoseconds = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000)
            / u128::from(self.rate.get());
        let pause = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.due = self.due.max(Instant::now()) + pause;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Throttled<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, reads, .. } = &mut *self;
        let piece = ready!(reads.poll_turn(cx)).min(buffer.remaining());
        let mut limited = ReadBuf::new(buffer.initialize_unfilled_to(piece));
        ready!(Pin::new(inner).poll_read(cx, &mut limited))?;
        let read = limited.filled().len();
        buffer.advance(read);
        reads.moved(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Throttled<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, writes, .. } = &mut *self;
        let piece = ready!(writes.poll_turn(cx)).min(bytes.len());
        let written = ready!(Pin::new(inner).poll_write(cx, bytes.get(..piece).unwrap_or(bytes)))?;
        writes.moved(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const RATE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    #[tokio::test(start_paused = true)]
    async fn each_direction_has_the_rate() {
        let (near, mut far) = duplex(1 << 20);
        let (sent, started) = (vec![7; 10_000], Instant::now());
        far.write_all(&sent).await.unwrap();
        let (mut reads, mut writes) = tokio::io::split(Throttled::new(near, RATE));
        let mut received = vec![0; sent.len()];
        let (read, written) = tokio::join!(reads.read_exact(&mut received), writes.write_all(&sent));
        assert_eq!((read.unwrap(), written.is_ok(), received == sent), (10_000, true, true));
        let elapsed = started.elapsed().as_millis();
        assert!((9_900..=10_000).contains(&elapsed), "{elapsed}");
        let mut arrived = vec![0; sent.len()];
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(arrived, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_gives_no_credit() {
        let (near, mut far) = duplex(1 << 20);
        let mut throttled = Throttled::new(near, RATE);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let started = Instant::now();
        throttled.write_all(&[1; 2_000]).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(1_900));
        // The end of the other side is seen at once.
        drop(throttled);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_rate_moves_bytes() {
        let (near, mut far) = duplex(64);
        let mut throttled = Throttled::new(near, NonZeroU64::MIN);
        let started = Instant::now();
        throttled.write_all(b"abc").await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 2);
        drop(throttled);
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "abc");
    }
}
