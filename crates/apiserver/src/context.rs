//! The context that all stages of one request share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nave_admission::Notes;
use nave_machinery::user::UserInfo;

/// How long a write of the server itself may take.
const INTERNAL_TIMEOUT: Duration = Duration::from_mins(1);

/// A request, or a piece of work of the server itself, as the stages after authorization see it.
#[derive(Debug)]
pub struct RequestContext {
    /// The user that the request acts as.
    pub user: Arc<UserInfo>,
    /// When it must be answered.
    pub deadline: Instant,
    /// The warnings and audit annotations so far.
    pub notes: Notes,
}

impl RequestContext {
    /// The context of a request.
    pub fn new(user: Arc<UserInfo>, deadline: Instant) -> Self {
        Self { user, deadline, notes: Notes::default() }
    }

    /// The context of work that the server does as `user`.
    pub fn internal(user: UserInfo) -> Self {
        Self::new(Arc::new(user), Instant::now() + INTERNAL_TIMEOUT)
    }
}
