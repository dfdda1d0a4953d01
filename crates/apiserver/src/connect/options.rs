//! The parameters of a connection, from the query of the request (upstream: `Convert_url_Values_To_v1_Pod…Options`).

use nave_machinery::{FieldError, FieldPath, GroupKind, Object, Status, Value, time::Timestamp};
use nave_streams::remote_command::Channels;
use serde_json::{Map, json};

use crate::request_info::Query;

/// The options of `pods/exec` and `pods/attach`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandOptions {
    /// The container; empty selects the only one.
    pub(super) container: String,
    pub(super) channels: Channels,
    /// The command; empty for `attach`.
    pub(super) command: Vec<String>,
}

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

impl CommandOptions {
    /// Returns the options of a query as an object, for admission.
    pub(super) fn object(kind: &str, query: &Query) -> Value {
        let mut object = object(kind);
        for flag in FLAGS.into_iter().filter(|flag| query.flag(flag)) {
            object.insert(flag.to_owned(), true.into());
        }
        if let Some(container) = query.get("container").filter(|container| !container.is_empty()) {
            object.insert("container".to_owned(), container.into());
        }
        let command: Vec<&str> = values(query, "command").collect();
        if !command.is_empty() && kind == "PodExecOptions" {
            object.insert("command".to_owned(), command.into());
        }
        Value::Object(object)
    }

    /// Reads the admitted options.
    pub(super) fn from_object(object: &Object) -> Self {
        let [stdin, stdout, stderr, tty] = FLAGS.map(|flag| object.is_true_at(&[flag]));
        let command = object.list_at(&["command"]).iter().filter_map(Value::as_str);
        Self {
            container: object.str_at(&["container"]).unwrap_or_default().to_owned(),
            channels: Channels { stdin, stdout, stderr, tty },
            command: command.map(str::to_owned).collect(),
        }
    }

    /// Returns the parameters of the kubelet.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let Channels { stdin, stdout, stderr, tty } = self.channels;
        let flags = [("input", stdin), ("output", stdout), ("error", stderr), ("tty", tty)];
        let set = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| (flag, "1".to_owned()));
        let command = self.command.iter().map(|word| ("command", word.clone()));
        set.chain(command).collect()
    }
}

/// Returns the options of `pods/portforward` as an object.
///
/// # Errors
/// 400 for a port that is not a number.
pub(super) fn port_forward_object(query: &Query) -> Result<Value, Status> {
    let mut ports = Vec::new();
    for text in values(query, "ports").flat_map(|ports| ports.split(',')) {
        let port: Result<i32, _> = text.parse();
        ports.push(port.map_err(|_| {
            let why = if is_number(text) { "value out of range" } else { "invalid syntax" };
            let why = format!("strconv.ParseUint: parsing {text:?}: {why}");
            Status::bad_request(format!("cannot convert to []int32: {why}"))
        })?);
    }
    let mut object = object("PodPortForwardOptions");
    if !ports.is_empty() {
        object.insert("ports".to_owned(), ports.into());
    }
    Ok(Value::Object(object))
}

/// Returns the options of a proxy as an object. `rest` is the part of the request's path after `/proxy`. The path of the
/// options begins with a slash, and ends with one if the request's path does (upstream: `getRequestOptions`).
pub(super) fn proxy_object(kind: &str, rest: &str, request_path: &str) -> Value {
    let mut path = rest.to_owned();
    if !path.is_empty() && !path.starts_with('/') {
        path.insert(0, '/');
    }
    if request_path.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    let mut object = object(kind);
    if !path.is_empty() {
        object.insert("path".to_owned(), path.into());
    }
    Value::Object(object)
}

/// The options of `pods/log`.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the parameters of the request")]
pub(super) struct LogOptions {
    pub(super) container: String,
    pub(super) skip_verification: bool,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    has_stream: bool,
}

impl LogOptions {
    /// Reads the options of a query.
    ///
    /// # Errors
    /// 400 for a value that is not a number or time.
    pub(super) fn parse(query: &Query) -> Result<Self, Status> {
        let optional = |name| values(query, name).next().map(int).transpose();
        let since_time = query.get("sinceTime").filter(|text| !text.is_empty() && *text != "null");
        Ok(Self {
            container: query.get("container").unwrap_or_default().to_owned(),
            skip_verification: query.flag("insecureSkipTLSVerifyBackend"),
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since_seconds: optional("sinceSeconds")?,
            since_time: since_time.map(time).transpose()?,
            tail_lines: optional("tailLines")?,
            limit_bytes: optional("limitBytes")?,
            has_stream: query.get("stream").is_some(),
        })
    }

    /// Checks the options (upstream: `ValidatePodLogOptions`; the feature `PodLogsQuerySplitStreams` is off).
    ///
    /// # Errors
    /// 422.
    pub(super) fn validate(&self, pod: &str) -> Result<(), Status> {
        let mut errors = Vec::new();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&FieldPath::new("tailLines"), lines, why));
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(FieldError::invalid(&FieldPath::new("limitBytes"), bytes, "must be greater than 0"));
        }
        match (self.since_seconds, self.since_time) {
            (Some(_), Some(_)) => {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                // Upstream prints a path without a name like this.
                errors.push(FieldError::forbidden(&FieldPath::new("[]"), why));
            }
            (Some(seconds), None) if seconds < 1 => {
                let path = FieldPath::new("sinceSeconds");
                errors.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
            }
            _ => {}
        }
        if self.has_stream {
            errors.push(FieldError::forbidden(&FieldPath::new("stream"), "may not be specified"));
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = GroupKind { group: String::new(), kind: "PodLogOptions".to_owned() };
        Err(Status::invalid(&kind, pod, &errors))
    }

    /// Returns the parameters of the kubelet.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let flags = [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)];
        let flags = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| (flag, "true".to_owned()));
        let numbers = [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())));
        let time = self.since_time.map(|time| ("sinceTime", time.rfc3339()));
        flags.chain(numbers).chain(time).collect()
    }
}

fn object(kind: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("kind".to_owned(), json!(kind));
    object.insert("apiVersion".to_owned(), json!("v1"));
    object
}

fn values<'q>(query: &'q Query, name: &str) -> impl Iterator<Item = &'q str> {
    query.pairs().iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Parses a number; the error is Go's.
fn int(text: &str) -> Result<i64, Status> {
    text.parse().map_err(|_| {
        let why = if is_number(text) { "value out of range" } else { "invalid syntax" };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn time(text: &str) -> Result<Timestamp, Status> {
    let layout = "2006-01-02T15:04:05Z07:00";
    Timestamp::parse(text).ok_or_else(|| {
        Status::bad_request(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request_info::RequestInfo;

    fn query(text: &str) -> Query {
        let uri = format!("/api/v1/namespaces/a/pods/p/log?{text}").parse().unwrap();
        RequestInfo::new(&Method::GET, &uri).query
    }

    #[test]
    fn the_options_of_a_command_survive_admission() {
        let query =
            query("stdin=true&stdout=1&stderr=false&tty&command=sh&command=-c&command=a+b&container=c");
        let object = CommandOptions::object("PodExecOptions", &query);
        assert_eq!(
            object,
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "tty": true,
                "container": "c", "command": ["sh", "-c", "a b"]})
        );
        let options = CommandOptions::from_object(&Object::try_from(object).unwrap());
        let parameters = options.parameters();
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let flags = [("input", "1"), ("output", "1"), ("tty", "1")];
        let command = [("command", "sh"), ("command", "-c"), ("command", "a b")];
        assert_eq!(parameters, flags.into_iter().chain(command).collect::<Vec<_>>());
        let attach = CommandOptions::object("PodAttachOptions", &query);
        assert_eq!(attach.get("command"), None);
    }

    #[test]
    fn the_path_of_a_proxy_keeps_its_slashes() {
        for (rest, expected) in [
            ("", json!(null)),
            ("/", json!("/")),
            ("/a", json!("/a")),
            ("/a/b/", json!("/a/b/")),
            ("/a//b", json!("/a//b")),
        ] {
            let path = format!("/api/v1/namespaces/a/pods/p/proxy{rest}");
            let info = RequestInfo::new(&Method::GET, &path.parse().unwrap());
            let object = proxy_object("PodProxyOptions", &info.resource.unwrap().rest, &info.path);
            assert_eq!(object.get("path").cloned().unwrap_or_default(), expected, "{rest}");
        }
    }

    #[test]
    fn ports_are_numbers() {
        let ports = port_forward_object(&query("ports=80,81&ports=82")).unwrap();
        assert_eq!(ports["ports"], json!([80, 81, 82]));
        let error = port_forward_object(&query("ports=http")).unwrap_err();
        let message = "cannot convert to []int32: strconv.ParseUint: parsing \"http\": invalid syntax";
        assert_eq!((error.code, &*error.message), (400, message));
    }

    #[test]
    fn log_options_are_passed_on() {
        let options = LogOptions::parse(&query(
            "follow=true&previous=false&timestamps=true&sinceTime=2026-01-02T03:04:05Z&tailLines=3&limitBytes=9",
        ));
        let options = options.unwrap();
        options.validate("p").unwrap();
        let parameters: Vec<String> =
            options.parameters().iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            parameters,
            [
                "follow=true",
                "timestamps=true",
                "tailLines=3",
                "limitBytes=9",
                "sinceTime=2026-01-02T03:04:05Z"
            ]
        );
    }

    #[test]
    fn rejects_invalid_log_options() {
        for (text, message) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("stream=Stdout", "stream: Forbidden: may not be specified"),
        ] {
            let status = LogOptions::parse(&query(text)).unwrap().validate("p").unwrap_err();
            let expected = format!("PodLogOptions \"p\" is invalid: {message}");
            assert_eq!((status.code, status.message), (422, expected));
        }
        let both = LogOptions::parse(&query("sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z")).unwrap();
        assert!(both.validate("p").unwrap_err().message.contains("[]: Forbidden: at most one of"));
        for text in ["tailLines=x", "tailLines=99999999999999999999", "sinceTime=yesterday", "limitBytes=1.5"]
        {
            assert_eq!(LogOptions::parse(&query(text)).unwrap_err().code, 400, "{text}");
        }
    }
}
