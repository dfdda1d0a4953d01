//! The body of a response.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::ClientError;

/// Length in bytes above which a body is large.
const LARGE: usize = 256 << 10;

/// The right to hold a large body.
pub(crate) type LargePermit = OwnedSemaphorePermit;

/// Reads a body of at most `max_bytes`. Its parts are joined as they arrive, because a body of tiny chunks would need a
/// multiple of its size as a list. A body that turns out to be large waits for one of the permits of `large`.
///
/// # Errors
/// The body is incomplete or longer.
pub(crate) async fn read(
    mut body: Incoming,
    max_bytes: usize,
    large: Option<&Arc<Semaphore>>,
) -> Result<(Bytes, Option<LargePermit>), ClientError> {
    let (mut first, mut joined) = (Bytes::new(), Vec::new());
    let mut permit = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClientError::Body(error.into()))?;
        // Trailers mean nothing.
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + joined.len() + data.len();
        if length > max_bytes {
            return Err(ClientError::TooLong(max_bytes));
        }
        if let Some(large) = large.filter(|_| length > LARGE && permit.is_none()) {
            // The semaphore is never closed.
            permit = Arc::clone(large).acquire_owned().await.ok();
        }
        if first.is_empty() && joined.is_empty() {
            first = data;
            continue;
        }
        joined.extend_from_slice(&std::mem::take(&mut first));
        joined.extend_from_slice(&data);
    }
    Ok((if joined.is_empty() { first } else { joined.into() }, permit))
}
