//! Limits the size of events (upstream: `plugin/pkg/audit/truncate`).

use crate::event::Event;
use crate::policy::Level;

/// Limits on the size of events and batches, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Maximum size of an event. A larger one loses its objects; if it is still too large, it is dropped.
    pub max_event_size: usize,
    /// Maximum size of a batch. A larger one is split.
    pub max_batch_size: usize,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { max_event_size: 100 * 1024, max_batch_size: 10 * 1024 * 1024 }
    }
}

/// Appends the encoded event, without its objects if it is too large; returns false if it is too large even then.
pub(crate) fn encode(
    event: &Event,
    limits: Option<Truncation>,
    encode: impl Fn(&Event, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    encode(event, out);
    let Some(Truncation { max_event_size, .. }) = limits else { return true };
    if out.len() - start > max_event_size && event.origin.level >= Level::Request {
        out.truncate(start);
        let mut truncated = Event { request_object: None, response_object: None, ..event.clone() };
        truncated.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        encode(&truncated, out);
    }
    let fits = out.len() - start <= max_event_size;
    if !fits {
        out.truncate(start);
    }
    fits
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::Body;
    use crate::event::tests::event;

    fn truncated(event: &Event, max_event_size: usize) -> Option<Value> {
        let limits = Truncation { max_event_size, ..Truncation::default() };
        let mut out = b"before".to_vec();
        let fits = encode(event, Some(limits), |event, out| event.encode(true, out), &mut out);
        assert!(fits || out == b"before");
        fits.then(|| serde_json::from_slice(&out[6..]).unwrap())
    }

    #[test]
    fn large_events_lose_their_objects() {
        let large = Some(Body::encoded(&json!({"data": "x".repeat(2000)})));
        let event = Event { request_object: large.clone(), response_object: large, ..event("a") };
        assert!(truncated(&event, 10_000).unwrap()["requestObject"].is_object());
        let cut = truncated(&event, 2000).unwrap();
        assert_eq!((&cut["requestObject"], &cut["responseObject"]), (&Value::Null, &Value::Null));
        assert_eq!(cut["annotations"]["audit.k8s.io/truncated"], "true");
        assert_eq!(truncated(&event, 100), None);
    }
}
