//! Audit events (`audit.k8s.io/v1` `Event`) and their JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use nave_codec::json;
use nave_machinery::time::Timestamp;
use nave_machinery::user::UserInfo;
use nave_machinery::{Status, Value};
use serde::Serialize;

use crate::body::Body;
use crate::policy::{API_VERSION, Level};

/// The stage of a request that an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The request was received, and its user is known.
    RequestReceived,
    /// The head of the response is sent. Long-running requests only.
    ResponseStarted,
    /// The response is complete.
    ResponseComplete,
    /// The handler of the request panicked.
    Panic,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    /// Returns the name in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    /// Returns the stage of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    /// Adds a stage.
    pub fn with(self, stage: Stage) -> Self {
        Self(self.0 | 1 << stage as u8)
    }

    /// Adds all stages of another set.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether the set contains a stage.
    pub fn contains(self, stage: Stage) -> bool {
        self.0 & 1 << stage as u8 != 0
    }
}

/// The parts of a request that all its events share.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The level of the events.
    pub level: Level,
    /// The id of the request.
    pub audit_id: String,
    /// The path and query as received.
    pub request_uri: String,
    /// The verb: of the API for a resource, the HTTP method in lower case for another path.
    pub verb: String,
    /// The authenticated user; `None` if authentication failed.
    pub user: Option<Arc<UserInfo>>,
    /// The addresses of the client and of the proxies before it.
    pub source_ips: Vec<IpAddr>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The time when the request was received.
    pub received: SystemTime,
}

/// An event: the state of a request at a stage.
#[derive(Clone, Debug)]
pub struct Event {
    /// The request.
    pub origin: Arc<Origin>,
    /// The stage.
    pub stage: Stage,
    /// The time of the stage.
    pub time: SystemTime,
    /// The user that the request acts as, if it impersonates one.
    pub impersonated: Option<Arc<UserInfo>>,
    /// The verb that allowed a constrained impersonation; empty for others.
    pub impersonation_constraint: &'static str,
    /// The object; `None` for paths outside the API's resources.
    pub object: Option<ObjectReference>,
    /// The result; `None` before the response.
    pub response: Option<ResponseStatus>,
    /// The object, options or patch in the request.
    pub request_object: Option<Body>,
    /// The object in the response.
    pub response_object: Option<Body>,
    /// Annotations from all stages of the request.
    pub annotations: BTreeMap<String, String>,
}

/// The object of a request. Absent parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// The resource, in plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// The namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The uid, if the request contains it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The API version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The resource version, if the request contains it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseStatus {
    /// The HTTP status code.
    pub code: u16,
    /// The fields of the `Status` in the response; `Null` if the response is another object.
    pub status: Value,
}

impl ResponseStatus {
    /// Creates the result of a response that is not a `Status`.
    pub fn code(code: u16) -> Self {
        Self { code, status: Value::Null }
    }

    /// Creates the result of a failed request.
    pub fn failure(status: &Status) -> Self {
        Self { code: status.code, status: status.to_value() }
    }

    /// Writes upstream's fields of a `Status` in upstream's order.
    fn encode(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::start(out);
        fields.raw("metadata", b"{}");
        for name in ["status", "message", "reason", "details"] {
            if let Some(value) = self.status.get(name).filter(|value| !is_empty(value)) {
                fields.field(name, value);
            }
        }
        if self.code != 0 {
            fields.field("code", &self.code);
        }
        fields.end();
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == ""
}

impl Event {
    /// Appends the event's JSON. A single event has a kind, an item of a list has none.
    pub fn encode(&self, is_item: bool, out: &mut Vec<u8>) {
        let origin = &*self.origin;
        let mut fields = Fields::start(out);
        if !is_item {
            fields.field("kind", "Event");
            fields.field("apiVersion", API_VERSION);
        }
        fields.field("level", origin.level.as_str());
        fields.field("auditID", &origin.audit_id);
        fields.field("stage", self.stage.as_str());
        fields.field("requestURI", &origin.request_uri);
        fields.field("verb", &origin.verb);
        fields.field("user", &User::from(origin.user.as_deref()));
        if let Some(user) = &self.impersonated {
            fields.field("impersonatedUser", &User::from(Some(&**user)));
        }
        if !self.impersonation_constraint.is_empty() {
            let constraint = self.impersonation_constraint;
            fields.field("authenticationMetadata", &AuthenticationMetadata { constraint });
        }
        if !origin.source_ips.is_empty() {
            fields.field("sourceIPs", &origin.source_ips);
        }
        if !origin.user_agent.is_empty() {
            fields.field("userAgent", &origin.user_agent);
        }
        if let Some(object) = &self.object {
            fields.field("objectRef", object);
        }
        if let Some(response) = &self.response {
            response.encode(fields.name("responseStatus"));
        }
        for (name, body) in
            [("requestObject", &self.request_object), ("responseObject", &self.response_object)]
        {
            if let Some(json) = body.as_ref().and_then(Body::json) {
                fields.raw(name, &json);
            }
        }
        fields.field("requestReceivedTimestamp", &timestamp(origin.received).rfc3339_micro());
        fields.field("stageTimestamp", &timestamp(self.time).rfc3339_micro());
        if !self.annotations.is_empty() {
            fields.field("annotations", &self.annotations);
        }
        fields.end();
    }

    /// Returns the memory that the event occupies, in bytes, approximately. Counts all that grows with the request.
    pub(crate) fn size(&self) -> usize {
        let origin = &*self.origin;
        let users = [&origin.user, &self.impersonated].into_iter().flatten();
        let bodies = [&self.request_object, &self.response_object].into_iter().flatten();
        let annotations = self.annotations.iter().map(|(key, value)| key.len() + value.len() + SIZE_OF_NODE);
        SIZE_OF_EVENT
            + origin.audit_id.len()
            + origin.request_uri.len()
            + origin.user_agent.len()
            + size_of_val(origin.source_ips.as_slice())
            + users.map(|user| size_of_user(user)).sum::<usize>()
            + self.object.as_ref().map_or(0, ObjectReference::size)
            + self.response.as_ref().map_or(0, |response| size_of_value(&response.status))
            + bodies.map(Body::len).sum::<usize>()
            + annotations.sum::<usize>()
    }
}

impl ObjectReference {
    fn size(&self) -> usize {
        let Self { resource, namespace, name, uid, api_group, api_version, resource_version, subresource } =
            self;
        [resource, namespace, name, uid, api_group, api_version, resource_version, subresource]
            .into_iter()
            .map(String::len)
            .sum()
    }
}

fn size_of_user(user: &UserInfo) -> usize {
    let UserInfo { name, uid, groups, extra } = user;
    let list = |texts: &[String]| texts.iter().map(|text| text.len() + SIZE_OF_TEXT).sum::<usize>();
    let extra = extra.iter().map(|(key, values)| key.len() + list(values) + SIZE_OF_NODE);
    name.len() + uid.len() + list(groups) + extra.sum::<usize>()
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of_value(item) + SIZE_OF_TEXT).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| key.len() + size_of_value(value) + SIZE_OF_NODE).sum()
        }
    }
}

/// Converts to a timestamp; the epoch if it is out of range.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = i32::try_from(since.subsec_nanos()).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Timestamp::from_unix(seconds, nanoseconds).unwrap_or_else(nave_machinery::time::now)
}

/// A user in an event.
#[derive(Default, Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

impl<'a> From<Option<&'a UserInfo>> for User<'a> {
    fn from(user: Option<&'a UserInfo>) -> Self {
        let Some(UserInfo { name, uid, groups, extra }) = user else { return Self::default() };
        Self { username: name, uid, groups, extra: Some(extra).filter(|extra| !extra.is_empty()) }
    }
}

#[derive(Serialize)]
struct AuthenticationMetadata {
    #[serde(rename = "impersonationConstraint")]
    constraint: &'static str,
}

/// Writes the fields of a JSON object. Names need no escaping.
struct Fields<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> Fields<'o> {
    fn start(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_first: true }
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        json::encode_into(value, self.name(name));
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name).extend_from_slice(json);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// The memory of an event without its texts, in bytes.
const SIZE_OF_EVENT: usize = 1024;
/// The memory of an entry of a map, in bytes.
const SIZE_OF_NODE: usize = 64;
/// The memory of an entry of a list, in bytes.
const SIZE_OF_TEXT: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// An event of a request for a config map.
    pub(crate) fn event(name: &str) -> Event {
        let user = UserInfo {
            name: "a \"b\"".to_owned(),
            groups: vec!["g".to_owned(), "h".to_owned()],
            ..UserInfo::default()
        };
        let origin = Origin {
            level: Level::Request,
            audit_id: "id".to_owned(),
            request_uri: format!("/api/v1/namespaces/n/configmaps/{name}"),
            verb: "get".to_owned(),
            user: Some(Arc::new(user)),
            source_ips: vec![IpAddr::from([192, 0, 2, 1])],
            user_agent: "agent".to_owned(),
            received: SystemTime::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 5_000),
        };
        let object = ObjectReference {
            resource: "configmaps".to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
            api_version: "v1".to_owned(),
            ..ObjectReference::default()
        };
        Event {
            time: origin.received,
            origin: Arc::new(origin),
            stage: Stage::ResponseComplete,
            impersonated: None,
            impersonation_constraint: "",
            object: Some(object),
            response: Some(ResponseStatus::code(200)),
            request_object: None,
            response_object: None,
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn encoded(event: &Event) -> Value {
        let mut out = Vec::new();
        event.encode(false, &mut out);
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn encodes_the_fields_that_are_set() {
        assert_eq!(
            encoded(&event("a")),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "id",
                "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/n/configmaps/a", "verb": "get",
                "user": {"username": "a \"b\"", "groups": ["g", "h"]},
                "sourceIPs": ["192.0.2.1"], "userAgent": "agent",
                "objectRef": {"resource": "configmaps", "namespace": "n", "name": "a", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 200},
                "requestReceivedTimestamp": "2023-11-14T22:13:20.000005Z",
                "stageTimestamp": "2023-11-14T22:13:20.000005Z",
            })
        );
        let impersonated = UserInfo {
            name: "m".to_owned(),
            uid: "4".to_owned(),
            extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
            ..UserInfo::default()
        };
        let status = Status::method_not_allowed_here();
        let full = encoded(&Event {
            impersonated: Some(Arc::new(impersonated)),
            impersonation_constraint: "impersonate:user-info",
            response: Some(ResponseStatus::failure(&status)),
            request_object: Some(Body::encoded(&json!({"a": 1}))),
            annotations: [("x/y".to_owned(), "z".to_owned())].into(),
            ..event("a")
        });
        assert_eq!(full["impersonatedUser"], json!({"username": "m", "uid": "4", "extra": {"k": ["v"]}}));
        assert_eq!(
            full["authenticationMetadata"],
            json!({"impersonationConstraint": "impersonate:user-info"})
        );
        assert_eq!(full["responseStatus"]["reason"], "MethodNotAllowed");
        assert_eq!(full["responseStatus"]["code"], 405);
        assert_eq!((&full["requestObject"], &full["annotations"]), (&json!({"a": 1}), &json!({"x/y": "z"})));
    }

    #[test]
    fn the_size_includes_all_that_grows_with_the_request() {
        let long = || "x".repeat(100_000);
        let user = |user: UserInfo| Some(Arc::new(user));
        let status = |status: Value| Some(ResponseStatus { code: 422, status });
        let origin = |change: &dyn Fn(&mut Origin)| {
            let mut event = event("a");
            change(Arc::make_mut(&mut event.origin));
            event
        };
        let reference = || event("a").object.unwrap();
        for (number, larger) in [
            origin(&|origin| origin.audit_id = long()),
            origin(&|origin| origin.request_uri = long()),
            origin(&|origin| origin.user_agent = long()),
            origin(&|origin| origin.source_ips = vec![IpAddr::from([192, 0, 2, 1]); 10_000]),
            origin(&|origin| origin.user = user(UserInfo { name: long(), ..UserInfo::default() })),
            origin(&|origin| origin.user = user(UserInfo { uid: long(), ..UserInfo::default() })),
            origin(&|origin| origin.user = user(UserInfo { groups: vec![long()], ..UserInfo::default() })),
            Event {
                impersonated: user(UserInfo {
                    extra: [("k".to_owned(), vec![long()])].into(),
                    ..UserInfo::default()
                }),
                ..event("a")
            },
            Event { object: Some(ObjectReference { name: long(), ..reference() }), ..event("a") },
            Event { object: Some(ObjectReference { uid: long(), ..reference() }), ..event("a") },
            Event { object: Some(ObjectReference { subresource: long(), ..reference() }), ..event("a") },
            Event { response: status(json!({"message": long()})), ..event("a") },
            Event { response: status(json!({"details": {"causes": [{"message": long()}]}})), ..event("a") },
            Event {
                response: status(json!({"details": {"causes": vec![json!({"field": "f"}); 1_000]}})),
                ..event("a")
            },
            Event { request_object: Some(Body::encoded(&json!(long()))), ..event("a") },
            Event { response_object: Some(Body::encoded(&json!(long()))), ..event("a") },
            Event { annotations: [("k".to_owned(), long())].into(), ..event("a") },
        ]
        .into_iter()
        .enumerate()
        {
            assert!(larger.size() > event("a").size() + 90_000, "{number}: {}", larger.size());
        }
    }

    #[test]
    fn the_user_of_a_failed_authentication_is_empty() {
        let mut event = event("a");
        event.origin = Arc::new(Origin { user: None, ..(*event.origin).clone() });
        assert_eq!(encoded(&event)["user"], json!({}));
    }
}
