//! The places of connections to backends. Each connection holds one until it is closed, so that clients of backends
//! that do not answer cannot use up the file descriptors.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use nave_machinery::Status;
use nave_streams::throttle::Throttled;
use nave_webhook::BackendConnection;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of places that one host, or one user, may have for each free place.
///
/// The share of a host thus depends on the others (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", 1998): alone, it gets two thirds of all places; with others that take all they can,
/// all get the same number, and some places always stay free for the next host.
const PER_FREE_PLACE: usize = 2;

/// The maximum numbers of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// All connections to backends.
    pub total: usize,
    /// The connections to one host; `None` if its share is the only limit.
    pub per_host: Option<usize>,
    /// The connections for one user; `None` if the user's share is the only limit.
    pub per_user: Option<usize>,
}

/// The places of all connections.
#[derive(Debug)]
pub(super) struct Places {
    counts: ConnectionCounts,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_host: Owners,
    by_user: Owners,
}

/// The number of places of each host or user.
#[derive(Debug, Default)]
struct Owners(HashMap<String, usize>);

impl Owners {
    fn has_room(&self, owner: &str, free: usize, limit: Option<usize>) -> bool {
        let share = free.saturating_mul(PER_FREE_PLACE).min(limit.unwrap_or(usize::MAX));
        self.0.get(owner).copied().unwrap_or_default() < share
    }

    fn add(&mut self, owner: &str) {
        match self.0.get_mut(owner) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(owner.to_owned(), 1)),
        }
    }

    fn remove(&mut self, owner: &str) {
        if let Some(count) = self.0.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(owner);
            }
        }
    }
}

/// The place of a connection, which is free again when the value is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    host: String,
    user: Option<String>,
    /// The rate of the connection; `None` for no limit.
    rate: Option<NonZeroU64>,
}

impl Place {
    /// Limits the connection to a number of bytes per second in each direction.
    pub(super) fn with_rate(mut self, rate: Option<NonZeroU64>) -> Self {
        self.rate = rate;
        self
    }
}

impl Places {
    pub(super) fn new(counts: ConnectionCounts) -> Self {
        Self { counts, taken: Mutex::default() }
    }

    /// Has no limit but shares of `total`.
    #[cfg(test)]
    pub(super) fn with_total(total: usize) -> Arc<Self> {
        Arc::new(Self::new(ConnectionCounts { total, per_host: None, per_user: None }))
    }

    /// Takes a place for a connection to a host. All ports of a host count as one backend. `user` is `None` for
    /// connections that requests of several users share.
    ///
    /// # Errors
    /// 429 if no place is free, or the host or the user has its share.
    pub(super) fn take(self: &Arc<Self>, host: &str, user: Option<&str>) -> Result<Place, Status> {
        let mut taken = self.taken.lock();
        let ConnectionCounts { total, per_host, per_user } = self.counts;
        let free = total.saturating_sub(taken.all);
        let has_room = taken.by_host.has_room(host, free, per_host)
            && user.is_none_or(|user| taken.by_user.has_room(user, free, per_user));
        if !has_room {
            let why = "Too many connections to backends, please try again later.";
            return Err(Status::too_many_requests(why, 1));
        }
        taken.all += 1;
        taken.by_host.add(host);
        if let Some(user) = user {
            taken.by_user.add(user);
        }
        Ok(Place {
            places: Arc::clone(self),
            host: host.to_owned(),
            user: user.map(str::to_owned),
            rate: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        taken.by_host.remove(&self.host);
        if let Some(user) = &self.user {
            taken.by_user.remove(user);
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
        let connection = match place.rate {
            Some(rate) => Box::new(Throttled::new(connection, rate)),
            None => connection,
        };
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
        std::iter::from_fn(|| places.take(host, None).ok()).collect()
    }

    #[test]
    fn hosts_that_take_all_they_can_leave_places_for_others() {
        let places = Places::with_total(300);
        let mut taken = vec![take_all(&places, "a")];
        assert_eq!(taken[0].len(), 200);
        for host in ["b", "c", "d"] {
            taken.push(take_all(&places, host));
            assert!(!taken.last().unwrap().is_empty(), "{host}");
        }
        let refused = places.take("a", None).unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(places.take("e", None).is_ok());
        // Places that are given back are free for all.
        drop(taken);
        assert_eq!(take_all(&places, "e").len(), 200);
    }

    #[test]
    fn a_user_with_many_hosts_leaves_places_for_others() {
        let places = Places::with_total(300);
        let take = |user: &str, number: usize| places.take(&format!("h{number}"), Some(user)).ok();
        let greedy: Vec<Place> = (0..300).map_while(|number| take("a", number)).collect();
        assert_eq!(greedy.len(), 200);
        assert!(take("a", 0).is_none());
        assert!(take("b", 0).is_some());
        drop(greedy);
        assert!(take("a", 0).is_some());
    }

    #[test]
    fn limits_apply_in_addition_to_shares() {
        let counts = ConnectionCounts { total: 300, per_host: Some(3), per_user: Some(5) };
        let places = Arc::new(Places::new(counts));
        assert_eq!(take_all(&places, "a").len(), 3);
        let of_user: Vec<Place> =
            (0..300).map_while(|number| places.take(&number.to_string(), Some("u")).ok()).collect();
        assert_eq!(of_user.len(), 5);
    }

    #[test]
    fn never_has_more_than_all_places_taken() {
        let places = Places::with_total(50);
        let hosts: Vec<String> = (0..100).map(|number| format!("h{number}")).collect();
        let taken: Vec<Vec<Place>> = hosts.iter().map(|host| take_all(&places, host)).collect();
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 50);
        assert_eq!(places.take("other", None).unwrap_err().code, 429);
        drop(taken);
        let left = places.taken.lock();
        assert!(left.by_host.0.is_empty() && left.by_user.0.is_empty());
        assert!(Places::with_total(0).take("a", None).is_err());
    }
}
