//! The parsed method, path and query of a request (upstream: `endpoints/request`).
//!
//! | path | parsed as |
//! | --- | --- |
//! | `/api/v1/namespaces/ns/pods/p/status` | core group, `pods`, namespace `ns`, name `p`, subresource `status` |
//! | `/apis/apps/v1/deployments` | group `apps`, all namespaces |
//! | `/api/v1/namespaces/ns` | the namespace itself |
//! | `/api/v1/watch/pods` | the same as `/api/v1/pods?watch=true` |
//! | `/healthz/etcd` | a non-resource path |
//! | `/api/v1//pods`, `/api/v1/namespaces//pods` | a non-resource path: a segment is empty |
//!
//! Storage keys and authorization use these parts, never the path itself.

use http::{Method, Uri};
use nave_machinery::{GroupVersionResource, Status};
use percent_encoding::percent_decode_str;

/// A decoded query string, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// The parsed head of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestInfo {
    /// The HTTP method.
    pub method: Method,
    /// The verb for authorization and metrics.
    pub verb: Verb,
    /// The decoded path.
    pub path: String,
    /// The requested resource; `None` for non-resource paths.
    pub resource: Option<ResourceRequest>,
    /// The decoded query.
    pub query: Query,
    /// True if the path and the query are UTF-8, and the path has no invalid escapes. Otherwise these parts are only
    /// what audit events and errors show: the request is refused.
    is_well_encoded: bool,
    /// The method in lower case, if it is not one of the usual methods.
    unusual_method: String,
}

/// The parts of a request for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The resource.
    pub gvr: GroupVersionResource,
    /// The namespace; empty for cluster-scoped resources and for all namespaces. A request for a `Namespace` object has
    /// that namespace here, so that a role binding in the namespace can grant access to the object.
    pub namespace: String,
    /// True if the path has the form `…/namespaces/NAMESPACE/RESOURCE`, false for `…/namespaces/NAME`. Cluster-scoped
    /// resources have no path of the first form.
    pub in_namespace: bool,
    /// The object's name; empty for the collection.
    pub name: String,
    /// The subresource, such as `status`; empty for the object itself.
    pub subresource: String,
    /// The path after the subresource, as in `…/proxy/a/b`.
    pub rest: String,
    /// True for a watch path (`/api/v1/watch/pods`).
    pub watch: bool,
}

/// The verb of a resource request; for other paths, derived from the HTTP method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
    /// An unsupported HTTP method.
    #[default]
    Other,
}

/// The path of the console's stream.
pub(crate) const CONSOLE_STREAM: &str = "/console/stream";

/// Subresources of a namespace. Any other third segment of `/namespaces/NAME/…` is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Maximum number of segments for resource, name and subresource.
const PARTS_OF_OBJECT: usize = 3;

impl RequestInfo {
    /// Parses the head of a request.
    pub fn new(method: &Method, uri: &Uri) -> Self {
        let query_text = uri.query().unwrap_or_default();
        let is_well_encoded = is_utf8(uri.path()) && is_utf8(query_text) && has_valid_escapes(uri.path());
        let (path, query) = (decode(uri.path()), Query::parse(query_text));
        let resource = ResourceRequest::parse(uri.path());
        let verb = Verb::from_request(method, resource.as_ref(), &query);
        let unusual_method =
            if verb == Verb::Other { method.as_str().to_ascii_lowercase() } else { String::new() };
        Self { method: method.clone(), verb, path, resource, query, is_well_encoded, unusual_method }
    }

    /// Checks that the path and the query are UTF-8, like all names that are stored, and that the path has no invalid
    /// escapes.
    ///
    /// # Errors
    /// 400 if they are not.
    pub fn check_encoding(&self) -> Result<(), Status> {
        if self.is_well_encoded {
            return Ok(());
        }
        Err(Status::bad_request(
            "the request's path or query is not UTF-8, or the path has an invalid escape",
        ))
    }

    /// Returns the verb for authorization, flow schemas and audit: for paths that are not resources, the HTTP method in
    /// lower case. It is empty for a resource and a method without a verb.
    pub fn attribute_verb(&self) -> &str {
        if self.resource.is_some() {
            return self.verb.as_str();
        }
        match self.method {
            Method::GET => "get",
            Method::HEAD => "head",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => &self.unusual_method,
        }
    }

    /// Returns whether the request has no deadline: a watch, a connection to a pod, node or service (upstream:
    /// `BasicLongRunningRequestCheck`), or the stream of the console.
    pub fn is_long_running(&self) -> bool {
        self.is_connection()
            || self.resource.is_some() && self.verb == Verb::Watch
            || self.resource.is_none() && self.path == CONSOLE_STREAM
    }

    /// Returns whether the request is passed on to a kubelet, a pod or a service.
    pub fn is_connection(&self) -> bool {
        let subresource = self.resource.as_ref().map_or("", |resource| resource.subresource.as_str());
        matches!(subresource, "proxy" | "exec" | "attach" | "portforward" | "log")
    }

    /// Returns whether the request is a health check.
    pub fn is_health_check(&self) -> bool {
        let endpoint = self.path.trim_start_matches('/').split('/').next();
        self.resource.is_none() && matches!(endpoint, Some("healthz" | "livez" | "readyz"))
    }
}

impl ResourceRequest {
    /// Parses the path of a resource; `None` for a non-resource path. Segments are decoded after splitting, so that an
    /// encoded slash does not separate segments. Trailing slashes are ignored; an empty segment elsewhere makes the
    /// path a non-resource path.
    fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (group, version, parts) = match parts.as_slice() {
            ["api", version, parts @ ..] => ("", version, parts),
            ["apis", group, version, parts @ ..] if !group.is_empty() => (*group, version, parts),
            _ => return None,
        };
        if version.is_empty() || parts.is_empty() {
            return None;
        }
        let (group, version) = (decode(group), decode(version));
        let parts: Vec<String> = parts.iter().map(|part| decode(part)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        // The legacy form of a watch, from before the query parameter.
        match parts.as_slice() {
            ["watch", parts @ ..] if !parts.is_empty() => {
                Self::from_parts(group, version, parts).map(|request| Self { watch: true, ..request })
            }
            parts => Self::from_parts(group, version, parts),
        }
    }

    /// Builds the request from the segments after the version; `None` if a segment is empty.
    fn from_parts(group: String, version: String, parts: &[&str]) -> Option<Self> {
        let (namespace, parts) = match parts {
            // The namespace object itself.
            ["namespaces", _name] => (None, parts),
            ["namespaces", _name, sub] if NAMESPACE_SUBRESOURCES.contains(sub) => (None, parts),
            ["namespaces", namespace, parts @ ..] if !parts.is_empty() => (Some(*namespace), parts),
            _ => (None, parts),
        };
        if namespace == Some("") || parts.iter().take(PARTS_OF_OBJECT).any(|part| part.is_empty()) {
            return None;
        }
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
        let (resource, name) = (part(0), part(1));
        let itself = if resource == "namespaces" { name.as_str() } else { "" };
        Some(Self {
            namespace: namespace.unwrap_or(itself).to_owned(),
            in_namespace: namespace.is_some(),
            gvr: GroupVersionResource { group, version, resource },
            name,
            subresource: part(2),
            rest: parts.get(PARTS_OF_OBJECT..).map(|rest| rest.join("/")).unwrap_or_default(),
            watch: false,
        })
    }
}

impl Verb {
    fn from_request(method: &Method, resource: Option<&ResourceRequest>, query: &Query) -> Self {
        let Some(resource) = resource else {
            return match *method {
                Method::GET | Method::HEAD => Self::Get,
                Method::POST => Self::Create,
                Method::PUT => Self::Update,
                Method::PATCH => Self::Patch,
                Method::DELETE => Self::Delete,
                _ => Self::Other,
            };
        };
        let collection = resource.name.is_empty();
        match *method {
            Method::GET | Method::HEAD if resource.watch => Self::Watch,
            _ if resource.watch => Self::Other,
            // A watch of one object is a watch of the collection with a field selector on the name.
            Method::GET | Method::HEAD if collection && query.flag("watch") => Self::Watch,
            Method::GET | Method::HEAD if collection => Self::List,
            Method::GET | Method::HEAD => Self::Get,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if collection => Self::DeleteCollection,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Returns whether the verb changes objects.
    pub fn is_mutating(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }

    /// Returns the verb's name for authorization and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Connect => "connect",
            Self::Other => "",
        }
    }

    /// Returns the verb's label in upstream's request metrics.
    pub fn metric_label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Watch => "WATCH",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::DeleteCollection => "DELETECOLLECTION",
            Self::Connect => "CONNECT",
            Self::Other => "other",
        }
    }
}

impl Query {
    /// Parses a query string: `+` means a space, and a name may lack a value.
    fn parse(text: &str) -> Self {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(&name.replace('+', " ")), decode(&value.replace('+', " "))));
        }
        Self(pairs)
    }

    /// Returns the first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether a parameter is present and not false, by upstream's rules for booleans in queries.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// Returns all parameters, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn is_utf8(text: &str) -> bool {
    percent_decode_str(text).decode_utf8().is_ok()
}

/// Returns whether two digits follow each percent sign.
fn has_valid_escapes(text: &str) -> bool {
    let escapes = text.split('%').skip(1);
    escapes
        .map(str::as_bytes)
        .all(|after| matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &Method, uri: &str) -> RequestInfo {
        RequestInfo::new(method, &uri.parse().unwrap())
    }

    fn parts(uri: &str) -> (String, String, String, String, String) {
        let resource = info(&Method::GET, uri).resource.unwrap();
        (resource.gvr.group, resource.gvr.resource, resource.namespace, resource.name, resource.subresource)
    }

    fn own(parts: (&str, &str, &str, &str, &str)) -> (String, String, String, String, String) {
        (parts.0.into(), parts.1.into(), parts.2.into(), parts.3.into(), parts.4.into())
    }

    #[test]
    fn reads_each_form_of_path() {
        assert_eq!(parts("/api/v1/namespaces/a/pods/p/status"), own(("", "pods", "a", "p", "status")));
        assert_eq!(parts("/api/v1/namespaces/a"), own(("", "namespaces", "a", "a", "")));
        assert_eq!(parts("/api/v1/namespaces/a/finalize"), own(("", "namespaces", "a", "a", "finalize")));
        assert_eq!(parts("/api/v1/namespaces/a/status"), own(("", "namespaces", "a", "a", "status")));
        assert_eq!(parts("/api/v1/namespaces"), own(("", "namespaces", "", "", "")));
        assert_eq!(parts("/apis/apps/v1/deployments"), own(("apps", "deployments", "", "", "")));
        assert_eq!(parts("/api/v1/nodes/n"), own(("", "nodes", "", "n", "")));
        assert_eq!(parts("/api/v1/namespaces/a/pods/p%2Fq"), own(("", "pods", "a", "p/q", "")));
        for other in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/apis"] {
            assert_eq!(info(&Method::GET, other).resource, None, "{other}");
        }
    }

    #[test]
    fn a_path_with_an_empty_part_names_no_resource() {
        for path in [
            "//api/v1/pods",
            "/api//pods",
            "/api/v1//pods",
            "/apis//v1/deployments",
            "/apis/apps//deployments",
            "/api/v1/namespaces//pods",
            "/api/v1/namespaces//pods/p",
            "/api/v1/namespaces/a//pods",
            "/api/v1/namespaces/a//status",
            "/api/v1/namespaces/a/pods//status",
            "/api/v1/namespaces/a/pods/p//a",
            "/api/v1/namespaces//status",
            "/api/v1/watch//pods",
            "/api/v1/watch/namespaces//pods",
        ] {
            assert_eq!(info(&Method::GET, path).resource, None, "{path}");
        }
        for (path, other) in [("/api/v1/pods/", "/api/v1/pods"), ("/api/v1/nodes/n//", "/api/v1/nodes/n")] {
            assert_eq!(info(&Method::GET, path).resource, info(&Method::GET, other).resource);
        }
    }

    #[test]
    fn paths_are_namespaced_or_cluster_scoped() {
        for (path, namespace, in_namespace) in [
            ("/api/v1/namespaces/a/pods", "a", true),
            ("/api/v1/namespaces/a/namespaces/b", "a", true),
            ("/api/v1/namespaces/a/namespaces/b/status", "a", true),
            ("/api/v1/watch/namespaces/a/namespaces/b", "a", true),
            ("/api/v1/namespaces/namespaces/namespaces/namespaces", "namespaces", true),
            ("/api/v1/namespaces/a", "a", false),
            ("/api/v1/namespaces/a/status", "a", false),
            ("/api/v1/watch/namespaces/a", "a", false),
            ("/api/v1/pods", "", false),
            ("/api/v1/pods/p", "", false),
        ] {
            let resource = info(&Method::GET, path).resource.unwrap();
            assert_eq!(
                (resource.namespace.as_str(), resource.in_namespace),
                (namespace, in_namespace),
                "{path}"
            );
        }
    }

    #[test]
    fn verbs_depend_on_method_name_and_watch_parameter() {
        let cases = [
            (Method::GET, "/api/v1/pods", Verb::List),
            (Method::GET, "/api/v1/pods?watch=true", Verb::Watch),
            (Method::GET, "/api/v1/pods?watch=false", Verb::List),
            (Method::GET, "/api/v1/watch/pods", Verb::Watch),
            (Method::GET, "/apis/apps/v1/watch/namespaces/a/deployments/d", Verb::Watch),
            (Method::GET, "/api/v1/nodes/n", Verb::Get),
            (Method::GET, "/api/v1/nodes/n?watch=true", Verb::Get),
            (Method::DELETE, "/api/v1/nodes/n", Verb::Delete),
            (Method::DELETE, "/api/v1/nodes", Verb::DeleteCollection),
            (Method::POST, "/api/v1/nodes", Verb::Create),
            (Method::OPTIONS, "/api/v1/nodes", Verb::Other),
            (Method::POST, "/api/v1/watch/pods", Verb::Other),
            (Method::DELETE, "/api/v1/watch/nodes/n", Verb::Other),
        ];
        for (method, uri, verb) in cases {
            assert_eq!(info(&method, uri).verb, verb, "{uri}");
        }
    }

    #[test]
    fn watches_and_connections_are_long_running() {
        let pod = "/api/v1/namespaces/a/pods/p";
        let cases = [
            (Method::GET, "/api/v1/pods?watch=1".to_owned(), true),
            (Method::GET, "/api/v1/watch/pods".to_owned(), true),
            (Method::POST, format!("{pod}/exec?command=sh"), true),
            (Method::GET, format!("{pod}/attach"), true),
            (Method::POST, format!("{pod}/portforward"), true),
            (Method::GET, format!("{pod}/proxy/a/b"), true),
            (Method::DELETE, "/api/v1/nodes/n/proxy".to_owned(), true),
            (Method::GET, format!("{pod}/log?follow=true"), true),
            (Method::GET, format!("{pod}/log?follow=false"), true),
            (Method::GET, format!("{pod}/log"), true),
            (Method::GET, pod.to_owned(), false),
            (Method::GET, "/api/v1/pods?watch=false".to_owned(), false),
            (Method::PUT, format!("{pod}/status"), false),
            (Method::GET, "/livez?watch=true".to_owned(), false),
        ];
        for (method, uri, long) in cases {
            assert_eq!(info(&method, &uri).is_long_running(), long, "{method} {uri}");
        }
    }

    #[test]
    fn rejects_paths_and_queries_with_invalid_encodings() {
        for (uri, is_valid) in [
            ("/api/v1/pods/%c3%a9?a=%c3%a9", true),
            ("/api/v1/pods/%ff", false),
            ("/api/v1/%ff", false),
            ("/%ff", false),
            ("/api/v1/pods?a=%ff", false),
            ("/api/v1/pods?%ff", false),
            // An encoded character is not split between two parts.
            ("/api/v1/pods/%c3/%a9", false),
            ("/%zz", false),
            ("/api/v1/pods/a%2", false),
            ("/api/v1/pods/%", false),
            ("/api/v1/pods/%2F%2f", true),
        ] {
            let checked = info(&Method::GET, uri).check_encoding();
            assert_eq!(
                checked.map_err(|status| status.code),
                if is_valid { Ok(()) } else { Err(400) },
                "{uri}"
            );
        }
    }

    #[test]
    fn unusual_methods_are_verbs_outside_resources() {
        let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
        for (name, uri, verb) in [
            ("FOO", "/foo", "foo"),
            ("OPTIONS", "/foo", "options"),
            ("get", "/foo", "get"),
            ("CONNECT", "/healthz", "connect"),
            ("HEAD", "/foo", "head"),
            ("FOO", "/api/v1/pods", ""),
            ("OPTIONS", "/api/v1/pods", ""),
            ("get", "/api/v1/pods", ""),
            ("POST", "/api/v1/watch/pods", ""),
        ] {
            assert_eq!(info(&method(name), uri).attribute_verb(), verb, "{name} {uri}");
        }
    }
}
