//! The context that all stages of a request share.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use nave_admission::Notes;
use nave_authn::PeerCertificate;
use nave_machinery::Status;
use nave_machinery::names::{FIELD_MANAGER_MAX, is_printable};
use nave_machinery::user::UserInfo;

use crate::audit::{self, Record};
use crate::deadline::RequestTimeout;
use crate::flow_control::FlowState;
use crate::negotiation::Negotiation;
use crate::request_info::RequestInfo;
use crate::serving::ConnectionInfo;
use crate::steps::Steps;
use crate::traces::RequestSpan;

/// The deadline of the server's own writes.
const INTERNAL_TIMEOUT: Duration = Duration::from_mins(1);

/// The user agent of the server's own writes.
const SERVER_AGENT: &str = "kube-apiserver";

/// The user agent of the controllers in this process, which send no `User-Agent` header.
const CONTROLLERS_AGENT: &str = "kube-controller-manager";

/// The user of a request without an authenticated user, who has no name, groups or rights.
static NO_USER: UserInfo = UserInfo {
    name: String::new(),
    uid: String::new(),
    groups: Vec::new(),
    extra: std::collections::BTreeMap::new(),
};

/// The state of a request, or of a write by the server itself, that all stages share.
#[derive(Debug)]
pub struct RequestContext {
    /// The parsed method, path and query.
    pub info: Arc<RequestInfo>,
    /// The sender.
    pub client: Client,
    /// The encodings that the client accepts.
    pub negotiation: Negotiation,
    /// The authenticated user, if the request impersonates another one.
    pub impersonator: Option<Arc<UserInfo>>,
    /// Warnings and audit annotations.
    pub notes: Notes,
    /// When the request was received.
    pub received: Instant,
    /// The deadline; `None` for a long-running request.
    pub deadline: Option<Instant>,
    /// The flow of the request, and the seats of a watch that is being initialized.
    pub(crate) flow: FlowState,
    /// The id of the request in audit events and in the response.
    pub(crate) audit_id: HeaderValue,
    /// The audit events of the request, if the policy records it.
    pub(crate) audit: Option<Box<Record>>,
    /// The size of the body, once it has been read.
    pub(crate) body_size: OnceLock<usize>,
    /// The times of the request's steps.
    pub(crate) steps: Steps,
    /// The span of the request, if requests are traced.
    pub(crate) trace: Option<RequestSpan>,
    /// True if impersonation or authorization has refused the request.
    pub(crate) is_forbidden: bool,
    user: Option<Arc<UserInfo>>,
    user_agent: Option<HeaderValue>,
}

/// The sender of a request.
#[derive(Clone)]
pub enum Client {
    /// A client that authenticates through its connection or headers; `None` for a client without a connection.
    Remote(Option<Arc<ConnectionInfo>>),
    /// This process, acting as a user.
    Process(Arc<UserInfo>),
}

impl RequestContext {
    /// Parses the head of a request. The deadline is set by [`Self::set_deadline`].
    pub fn new<B>(request: &Request<B>, client: Client) -> Self {
        let received = Instant::now();
        let info = Arc::new(RequestInfo::new(request.method(), request.uri()));
        let negotiation = Negotiation::new(request.headers(), &info.query);
        let negotiation = match &info.resource {
            Some(resource) => negotiation.for_resource(resource),
            None => negotiation,
        };
        let notes = Notes::default();
        let user_agent = request.headers().get(header::USER_AGENT).cloned();
        Self {
            info,
            client,
            negotiation,
            impersonator: None,
            notes,
            received,
            flow: FlowState::default(),
            deadline: None,
            audit_id: audit::audit_id(request.headers()),
            audit: None,
            body_size: OnceLock::new(),
            steps: Steps::new(received),
            trace: None,
            is_forbidden: false,
            user: None,
            user_agent,
        }
    }

    /// Creates the context of a write by the server itself, acting as `user`.
    pub fn internal(user: UserInfo) -> Self {
        let (user, received) = (Arc::new(user), Instant::now());
        Self {
            info: Arc::default(),
            client: Client::Process(Arc::clone(&user)),
            negotiation: Negotiation::default(),
            impersonator: None,
            notes: Notes::default(),
            received,
            deadline: Some(received + INTERNAL_TIMEOUT),
            flow: FlowState::default(),
            audit_id: HeaderValue::from_static(""),
            audit: None,
            body_size: OnceLock::new(),
            steps: Steps::new(received),
            trace: None,
            is_forbidden: false,
            user: Some(user),
            user_agent: Some(HeaderValue::from_static(SERVER_AGENT)),
        }
    }

    /// Sets the field manager of a write by the server itself.
    pub(crate) fn with_field_manager(mut self, manager: &'static str) -> Self {
        self.user_agent = Some(HeaderValue::from_static(manager));
        self
    }

    /// Sets the deadline from the `timeout` parameter.
    ///
    /// # Errors
    /// 400 if the parameter is invalid.
    pub(crate) fn set_deadline(&mut self, timeout: RequestTimeout) -> Result<(), Status> {
        self.deadline = timeout.deadline(&self.info, self.received)?;
        Ok(())
    }

    /// Sets the authenticated user.
    pub(crate) fn set_user(&mut self, user: Arc<UserInfo>) {
        self.user = Some(user);
    }

    /// Makes the request act as another user.
    pub(crate) fn impersonate(&mut self, user: Arc<UserInfo>) {
        self.impersonator = self.user.replace(user);
    }

    /// Returns the effective user; before authentication, a user without name and rights.
    pub fn user(&self) -> &UserInfo {
        self.user.as_deref().unwrap_or(&NO_USER)
    }

    /// Returns the effective user, to keep.
    pub(crate) fn shared_user(&self) -> Arc<UserInfo> {
        self.user.as_ref().map_or_else(|| Arc::new(NO_USER.clone()), Arc::clone)
    }

    /// Returns the effective user; `None` before authentication.
    pub(crate) fn known_user(&self) -> Option<Arc<UserInfo>> {
        self.user.clone()
    }

    /// Returns the authenticated user, even if the request impersonates another user.
    pub fn authenticated_user(&self) -> &UserInfo {
        self.impersonator.as_deref().unwrap_or_else(|| self.user())
    }

    /// Returns the user agent; empty if the client sent none.
    pub(crate) fn user_agent(&self) -> &[u8] {
        match (&self.user_agent, &self.client) {
            (Some(agent), _) => agent.as_bytes(),
            (None, Client::Process(_)) => CONTROLLERS_AGENT.as_bytes(),
            (None, Client::Remote(_)) => b"",
        }
    }

    /// Returns the field manager of a write that does not specify one: the user agent up to the first slash. Components
    /// in this process have the names of upstream's components.
    pub fn default_field_manager(&self) -> String {
        let prefix = self.user_agent().split(|byte| *byte == b'/').next().unwrap_or_default();
        let mut manager = String::new();
        for character in String::from_utf8_lossy(prefix).chars().filter(|character| is_printable(*character))
        {
            if manager.len() + character.len_utf8() > FIELD_MANAGER_MAX {
                break;
            }
            manager.push(character);
        }
        manager
    }

    /// Returns the deadline for plugins and webhooks.
    pub fn work_deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + INTERNAL_TIMEOUT)
    }
}

impl Drop for RequestContext {
    /// Records the end of a request that is dropped before its response.
    fn drop(&mut self) {
        if let Some(record) = self.audit.take() {
            record.abandoned(self.notes.take_annotations());
        }
    }
}

impl Client {
    /// Returns the address of the client's connection.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Remote(connection) => Some(connection.as_ref()?.peer.ip()),
            Self::Process(_) => None,
        }
    }

    /// Returns the certificate of the client's connection.
    pub fn certificate(&self) -> Option<&PeerCertificate> {
        match self {
            Self::Remote(connection) => connection.as_ref()?.client_certificate.as_ref(),
            Self::Process(_) => None,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(connection) => {
                f.debug_tuple("Remote").field(&connection.as_ref().map(|it| it.peer)).finish()
            }
            Self::Process(user) => f.debug_tuple("Process").field(&user.name).finish(),
        }
    }
}

/// Returns the user of the server's own writes (upstream: `user.APIServerUser`).
pub fn server_user() -> UserInfo {
    UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..UserInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Arc<UserInfo> {
        Arc::new(UserInfo { name: name.to_owned(), ..UserInfo::default() })
    }

    fn context(uri: &str) -> Result<RequestContext, Status> {
        let request = Request::get(uri).body(()).unwrap();
        let mut context = RequestContext::new(&request, Client::Remote(None));
        context.set_deadline(RequestTimeout(Duration::from_mins(1)))?;
        Ok(context)
    }

    #[test]
    fn a_request_has_no_rights_before_it_is_authenticated() {
        let mut context = context("/api/v1/pods").unwrap();
        assert_eq!((context.user(), context.authenticated_user()), (&NO_USER, &NO_USER));
        context.set_user(user("a"));
        assert_eq!((&*context.user().name, &*context.authenticated_user().name), ("a", "a"));
        context.impersonate(user("b"));
        assert_eq!((&*context.user().name, &*context.authenticated_user().name), ("b", "a"));
    }

    #[test]
    fn rejects_invalid_timeouts() {
        assert_eq!(context("/api/v1/pods?timeout=x").unwrap_err().code, 400);
    }
}
