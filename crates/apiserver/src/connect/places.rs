//! The places of connections to backends. Each connection holds one until it is closed, so that clients of backends
//! that do not answer cannot use up the file descriptors.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use nave_machinery::Status;
use nave_webhook::BackendConnection;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of places that one host may have for each free place.
///
/// The share of a host thus depends on the others (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", 1998): alone, it gets two thirds of all places; with others that take all they can,
/// all get the same number, and some places always stay free for the next host.
const PER_FREE_PLACE: usize = 2;

/// The places of all connections.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_host: HashMap<String, usize>,
}

/// The place of a connection, which is free again when the value is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    host: String,
}

impl Places {
    pub(super) fn new(total: usize) -> Self {
        Self { total, taken: Mutex::default() }
    }

    /// Takes a place for a connection to a host. All ports of a host count as one backend.
    ///
    /// # Errors
    /// 429 if no place is free, or the host has its share.
    pub(super) fn take(self: &Arc<Self>, host: &str) -> Result<Place, Status> {
        let mut taken = self.taken.lock();
        let free = self.total.saturating_sub(taken.all);
        let of_host = taken.by_host.get(host).copied().unwrap_or_default();
        if of_host >= free.saturating_mul(PER_FREE_PLACE) {
            let why = "Too many connections to backends, please try again later.";
            return Err(Status::too_many_requests(why, 1));
        }
        taken.all += 1;
        taken.by_host.insert(host.to_owned(), of_host + 1);
        Ok(Place { places: Arc::clone(self), host: host.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_host) = taken.by_host.get_mut(&self.host) {
            *of_host -= 1;
            if *of_host == 0 {
                taken.by_host.remove(&self.host);
            }
        }
    }
}

/// A connection with its place.
pub(crate) struct PlacedConnection {
    connection: Box<dyn BackendConnection>,
    is_http2: bool,
    /// Dropped after the connection.
    _place: Place,
}

impl PlacedConnection {
    pub(crate) fn new(connection: Box<dyn BackendConnection>, place: Place) -> Self {
        Self { connection, is_http2: false, _place: place }
    }

    /// Marks the connection as one that speaks HTTP/2, by ALPN.
    pub(super) fn with_http2(self, is_http2: bool) -> Self {
        Self { is_http2, ..self }
    }
}

impl Connection for PlacedConnection {
    fn connected(&self) -> Connected {
        if self.is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl AsyncRead for PlacedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PlacedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many places for a host as it gets.
    fn take_all(places: &Arc<Places>, host: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(host).ok()).collect()
    }

    #[test]
    fn hosts_that_take_all_they_can_leave_places_for_others() {
        let places = Arc::new(Places::new(300));
        let mut taken = vec![take_all(&places, "a")];
        assert_eq!(taken[0].len(), 200);
        for host in ["b", "c", "d"] {
            taken.push(take_all(&places, host));
            assert!(!taken.last().unwrap().is_empty(), "{host}");
        }
        let refused = places.take("a").unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(places.take("e").is_ok());
        // Places that are given back are free for all.
        drop(taken);
        assert_eq!(take_all(&places, "e").len(), 200);
    }

    #[test]
    fn never_has_more_than_all_places_taken() {
        let places = Arc::new(Places::new(50));
        let hosts: Vec<String> = (0..100).map(|number| format!("h{number}")).collect();
        let taken: Vec<Vec<Place>> = hosts.iter().map(|host| take_all(&places, host)).collect();
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 50);
        assert_eq!(places.take("other").unwrap_err().code, 429);
        drop(taken);
        assert!(places.taken.lock().by_host.is_empty());
        assert!(Arc::new(Places::new(0)).take("a").is_err());
    }
}
