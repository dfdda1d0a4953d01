//! The latest events, for people who look at the server. They are kept only while somebody reads them, so that they cost
//! nothing otherwise. Events have no bodies here, and those that the policy does not record are absent.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use nave_machinery::limits;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::event::{Event, Stage, timestamp};

/// Maximum number of events.
const MAX_EVENTS: usize = 100;
/// Maximum length of a text from a client, in bytes.
const MAX_TEXT: usize = 256;
/// Time after the last reader until events are no longer kept.
const READ_TIME: Duration = Duration::from_secs(30);

/// The end, the start or the failure of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentEvent {
    /// The time, in RFC 3339.
    pub time: String,
    /// The id of the request.
    pub audit_id: String,
    /// The stage.
    pub stage: &'static str,
    /// The level of the policy's rule.
    pub level: &'static str,
    /// The authenticated user; empty if authentication failed.
    pub user: String,
    /// The user that the request acts as; empty without impersonation.
    pub impersonated: String,
    /// The verb.
    pub verb: String,
    /// The path without the query.
    pub path: String,
    /// The status code; 0 before the response.
    pub code: u16,
    /// The time since the request was received, in seconds.
    pub seconds: f64,
}

/// The latest events, newest first.
#[derive(Default)]
pub(crate) struct Recent(Mutex<State>);

#[derive(Default)]
struct State {
    /// The time when the events were last read.
    read: Option<Instant>,
    events: VecDeque<RecentEvent>,
}

impl Recent {
    /// Keeps an event if somebody reads them. The reception of a request is left out: its end follows.
    pub(crate) fn add(&self, event: &Event) {
        if event.stage == Stage::RequestReceived {
            return;
        }
        let state = &mut *self.0.lock();
        match state.read {
            None => return,
            Some(read) if read.elapsed() >= READ_TIME => {
                *state = State::default();
                return;
            }
            Some(_) => {}
        }
        state.events.truncate(MAX_EVENTS - 1);
        state.events.push_front(RecentEvent::new(event));
    }

    /// Returns the events, newest first, and keeps further ones for a while.
    pub(crate) fn read(&self) -> Vec<RecentEvent> {
        let state = &mut *self.0.lock();
        state.read = Some(Instant::now());
        state.events.iter().cloned().collect()
    }
}

impl RecentEvent {
    fn new(event: &Event) -> Self {
        let origin = &*event.origin;
        let text = |text: &str| limits::clip(text.to_owned(), MAX_TEXT);
        let name = |user: Option<&nave_machinery::user::UserInfo>| {
            user.map_or_else(String::new, |user| text(&user.name))
        };
        let since = |time: SystemTime| time.duration_since(origin.received).unwrap_or_default();
        Self {
            time: timestamp(event.time).rfc3339_micro(),
            audit_id: text(&origin.audit_id),
            stage: event.stage.as_str(),
            level: origin.level.as_str(),
            user: name(origin.user.as_deref()),
            impersonated: name(event.impersonated.as_deref()),
            verb: text(&origin.verb),
            path: text(origin.request_uri.split('?').next().unwrap_or_default()),
            code: event.response.as_ref().map_or(0, |response| response.code),
            seconds: since(event.time).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_latest_events_while_they_are_read() {
        let recent = Recent::default();
        recent.add(&event("before"));
        assert_eq!(recent.read(), []);
        for number in 0..2 * MAX_EVENTS {
            recent.add(&event(&format!("e{number}?labelSelector=secret")));
        }
        recent.add(&Event { stage: Stage::RequestReceived, ..event("received") });
        let events = recent.read();
        assert_eq!(events.len(), MAX_EVENTS);
        let newest = &events[0];
        assert_eq!(newest.path, format!("/api/v1/namespaces/n/configmaps/e{}", 2 * MAX_EVENTS - 1));
        assert_eq!((newest.verb.as_str(), newest.code, newest.user.as_str()), ("get", 200, "a \"b\""));
        tokio::time::advance(READ_TIME).await;
        recent.add(&event("late"));
        assert_eq!(recent.read(), [], "nobody reads them");
    }

    #[tokio::test]
    async fn texts_of_clients_are_bounded() {
        let recent = Recent::default();
        recent.read();
        recent.add(&event(&"x".repeat(1 << 20)));
        assert!(recent.read()[0].path.len() <= MAX_TEXT + "…".len());
    }
}
