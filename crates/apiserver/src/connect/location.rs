//! The address of a kubelet, a pod or a service (upstream: `ResourceLocation`, `NodeConnectionInfoGetter`).

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use nave_machinery::{GroupResource, Status, Value, meta};
use nave_resources::pod;
use nave_webhook::{AddressPolicy, BackendDialer, BackendError, BackendTls};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;

use super::places::{Place, PlacedConnection};
use super::{ConnectRequest, failed};

/// The URL of a backend.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None` for HTTP without TLS.
    pub(super) tls: Option<BackendTls>,
    /// The path, decoded.
    pub(super) path: String,
    /// The query, encoded.
    pub(super) query: String,
}

/// A kubelet.
pub(super) struct Kubelet {
    pub(super) location: Location,
    /// True if it translates WebSockets itself (the feature `ExtendWebSocketsToKubelet`).
    pub(super) speaks_web_socket: bool,
}

/// The declared feature of nodes whose kubelet translates WebSockets.
const WEB_SOCKETS: &str = "ExtendWebSocketsToKubelet";

/// Characters that paths contain without encoding (Go: `URL.EscapedPath`).
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
/// Characters that parameters contain without encoding (Go: `url.QueryEscape`).
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Location {
    /// Returns the host and port, as in URLs.
    pub(super) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, self.port).to_string(),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// Returns the path and query of the request.
    ///
    /// # Errors
    /// They are too long.
    pub(super) fn target(&self) -> Result<Uri, Status> {
        let mut target = encode_path(if self.path.is_empty() { "/" } else { &self.path });
        if !self.query.is_empty() {
            target.push('?');
            target.push_str(&self.query);
        }
        Uri::try_from(target).map_err(|error| Status::bad_request(format!("invalid path: {error}")))
    }

    /// Opens a connection, which holds the place until it is closed.
    pub(super) async fn connect(
        &self,
        dialer: &BackendDialer,
        place: Place,
    ) -> Result<PlacedConnection, BackendError> {
        let connection = dialer.connect(&self.host, self.port, self.tls.as_ref()).await?;
        Ok(PlacedConnection::new(connection, place))
    }
}

/// Encodes a path.
pub(super) fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// Encodes parameters as a query.
pub(crate) fn encode_query(parameters: &[(&str, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, PARAMETER).to_string().replace("%20", "+");
    let pairs = parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

impl ConnectRequest<'_> {
    /// Returns the location of a node's kubelet.
    pub(super) async fn kubelet(&self, node: &str, verify: bool) -> Result<Kubelet, Status> {
        let node = self.read("nodes", "", node).await?;
        let kubelets = &self.backends.kubelets;
        let host = preferred_address(&node, &kubelets.address_types)?;
        let reported = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
        let port = reported.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let features = node["status"]["declaredFeatures"].as_array();
        Ok(Kubelet {
            location: Location {
                host,
                port: port.unwrap_or(kubelets.port),
                tls: Some(kubelets.tls.current(verify)?),
                path: String::new(),
                query: String::new(),
            },
            speaks_web_socket: features.into_iter().flatten().any(|feature| feature == WEB_SOCKETS),
        })
    }

    /// Returns the kubelet and the node's name of an assigned pod.
    ///
    /// # Errors
    /// 400 if the pod has no node.
    pub(super) async fn kubelet_of_pod(&self, pod: &Value) -> Result<Kubelet, Status> {
        match pod["spec"]["nodeName"].as_str().unwrap_or_default() {
            "" => {
                let name = meta::name(pod);
                Err(Status::bad_request(format!("pod {name} does not have a host assigned")))
            }
            node => self.kubelet(node, true).await,
        }
    }

    /// Returns the location that a proxy request names: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
    pub(super) async fn proxied(&self) -> Result<Location, Status> {
        let id = &self.resource.name;
        let kind = self.endpoint.def.singular.as_str();
        let named =
            Named::parse(id).ok_or_else(|| Status::bad_request(format!("invalid {kind} request {id:?}")))?;
        match kind {
            "node" => self.proxied_node(&named).await,
            "pod" => self.proxied_pod(&named).await,
            _ => self.proxied_service(&named, id).await,
        }
    }

    async fn proxied_node(&self, named: &Named<'_>) -> Result<Location, Status> {
        let kubelet = self.kubelet(named.name, true).await?.location;
        if named.port.is_empty() || named.port == kubelet.port.to_string() {
            return Ok(kubelet);
        }
        self.unverified(named, kubelet.host, parse_port(named.port)?)
    }

    async fn proxied_pod(&self, named: &Named<'_>) -> Result<Location, Status> {
        let pod = self.read("pods", &self.resource.namespace, named.name).await?;
        let port = if named.port.is_empty() {
            let mut ports = list(&pod, &["spec", "containers"]).iter().flat_map(|it| list(it, &["ports"]));
            let first = ports.find_map(|port| port["containerPort"].as_u64());
            first.and_then(|port| u16::try_from(port).ok())
        } else {
            Some(parse_port(named.port)?)
        };
        let host = pod["status"]["podIPs"][0]["ip"].as_str().unwrap_or_default();
        let address = host.parse().ok().filter(|address| self.policy().allows(*address));
        let address = address.ok_or_else(|| Status::bad_request("address not allowed"))?;
        let default = if named.is_https() { 443 } else { 80 };
        self.unverified(named, address.to_string(), port.unwrap_or(default))
    }

    /// Returns a random endpoint of a service's port, whose address is that of a pod.
    async fn proxied_service(&self, named: &Named<'_>, id: &str) -> Result<Location, Status> {
        let namespace = &self.resource.namespace;
        let mut port_name = named.port.to_owned();
        if let Ok(number) = named.port.parse::<i64>() {
            let service = self.read("services", namespace, named.name).await?;
            let ports = list(&service, &["spec", "ports"]);
            let port = ports.iter().find(|port| port["port"].as_i64() == Some(number));
            let port = port.ok_or_else(|| {
                let name = named.name;
                Status::service_unavailable(format!("no service port {number} found for service {name:?}"))
            })?;
            port_name = port["name"].as_str().unwrap_or_default().to_owned();
        }
        let unavailable =
            |what: &str| Status::service_unavailable(format!("no endpoints available for service {what:?}"));
        let endpoints = self.read("endpoints", namespace, named.name).await.map_err(|status| {
            let services = GroupResource::new("", "services");
            if status.code == 404 { Status::not_found(&services, named.name) } else { status }
        })?;
        let subsets = list(&endpoints, &["subsets"]);
        if subsets.is_empty() {
            return Err(unavailable(named.name));
        }
        for subset in rotated(subsets) {
            let ports = list(subset, &["ports"]);
            let port = ports.iter().find(|port| port["name"].as_str().unwrap_or_default() == port_name);
            let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
            let Some(port) = port else { continue };
            for address in rotated(list(subset, &["addresses"])) {
                if let Some(host) = self.address_of_pod(address).await {
                    return self.unverified(named, host, port);
                }
            }
        }
        Err(unavailable(id))
    }

    /// Returns the address of an endpoint if it is that of the pod to which the endpoint refers. Otherwise whoever can
    /// write endpoints could reach any address through the server (CVE-2020-8561, CVE-2020-8562).
    async fn address_of_pod(&self, endpoint: &Value) -> Option<String> {
        let (host, target) = (endpoint["ip"].as_str()?, &endpoint["targetRef"]);
        let namespace = &self.resource.namespace;
        if target["namespace"].as_str() != Some(namespace) {
            return None;
        }
        let pod = self.read("pods", namespace, target["name"].as_str()?).await.ok()?;
        let is_of_pod = list(&pod, &["status", "podIPs"]).iter().any(|ip| ip["ip"].as_str() == Some(host));
        is_of_pod.then(|| host.to_owned())
    }

    fn unverified(&self, named: &Named<'_>, host: String, port: u16) -> Result<Location, Status> {
        let mut tls = None;
        if named.is_https() {
            let unverified = self.backends.unverified.clone();
            tls = Some(unverified.ok_or_else(|| Status::internal("TLS to backends is not configured"))?);
        }
        Ok(Location { host, port, tls, path: String::new(), query: String::new() })
    }

    fn policy(&self) -> AddressPolicy {
        self.backends.dialer.policy
    }
}

/// The parts of a proxy request's name.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let valid = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        valid.then_some(Self { scheme, name, port })
    }

    fn is_https(&self) -> bool {
        self.scheme == "https"
    }
}

/// Returns the container that a request for a pod selects.
///
/// # Errors
/// 400 if the pod has several containers and none is selected, or if it has none of the name.
pub(super) fn container<'a>(pod: &'a Value, selected: &'a str) -> Result<&'a str, Status> {
    let name = meta::name(pod);
    let names = || pod::containers(pod).filter_map(|(_, container)| container["name"].as_str());
    if !selected.is_empty() {
        if names().any(|known| known == selected) {
            return Ok(selected);
        }
        return Err(Status::bad_request(format!("container {selected} is not valid for pod {name}")));
    }
    match list(pod, &["spec", "containers"]) {
        [only] => Ok(only["name"].as_str().unwrap_or_default()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => {
            let names = names().collect::<Vec<_>>().join(" ");
            let why = format!("a container name must be specified for pod {name}, choose one of: [{names}]");
            Err(Status::bad_request(why))
        }
    }
}

fn preferred_address(node: &Value, types: &[String]) -> Result<String, Status> {
    let addresses = list(node, &["status", "addresses"]);
    let of_type = |wanted: &String| {
        addresses.iter().find(|address| address["type"].as_str() == Some(wanted)).map(|it| &it["address"])
    };
    let found = types.iter().find_map(of_type).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        let known = addresses.iter().map(|address| {
            let text = |field: &str| address[field].as_str().unwrap_or_default();
            format!("{{{} {}}}", text("type"), text("address"))
        });
        let known = known.collect::<Vec<_>>().join(" ");
        failed(format!("no preferred addresses found; known addresses: [{known}]"))
    })
}

fn parse_port(text: &str) -> Result<u16, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))
}

fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    let found = path.iter().try_fold(object, |place, field| place.get(field));
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns all elements, from a random one on.
fn rotated(list: &[Value]) -> impl Iterator<Item = &Value> {
    let start = if list.is_empty() { 0 } else { rand::rng().random_range(0..list.len()) };
    let (before, from) = list.split_at(start);
    from.iter().chain(before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_names_with_scheme_and_port() {
        for (id, expected) in [
            ("a", Some(("", "a", ""))),
            ("a:80", Some(("", "a", "80"))),
            ("https:a:443", Some(("https", "a", "443"))),
            ("https:a:", Some(("https", "a", ""))),
            (":a:web", Some(("", "a", "web"))),
            ("ftp:a:21", None),
            ("a:b:c:d", None),
            (":80", None),
            ("", None),
        ] {
            let expected = expected.map(|(scheme, name, port)| Named { scheme, name, port });
            assert_eq!(Named::parse(id), expected, "{id}");
        }
    }

    #[test]
    fn the_container_is_the_only_one_or_selected() {
        let pod = |containers: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
            json!({"metadata": {"name": "p"},
                "spec": {"containers": list(containers), "initContainers": list(&["setup"])}})
        };
        let message = |result: Result<&str, Status>| result.map(str::to_owned).map_err(|it| it.message);
        assert_eq!(container(&pod(&["a"]), "").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"]), "setup").unwrap(), "setup");
        for (pod, selected, expected) in [
            (
                pod(&["a", "b"]),
                "",
                "a container name must be specified for pod p, choose one of: [setup a b]",
            ),
            (pod(&[]), "", "a container name must be specified for pod p"),
            (pod(&["a"]), "x", "container x is not valid for pod p"),
        ] {
            assert_eq!(message(container(&pod, selected)).unwrap_err(), expected);
        }
    }

    #[test]
    fn the_preferred_type_of_address_is_used() {
        let node = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}]}});
        let address = |types: &[&str]| {
            let types: Vec<String> = types.iter().map(|it| (*it).to_owned()).collect();
            preferred_address(&node, &types).map_err(|status| status.message)
        };
        assert_eq!(address(&["Hostname", "InternalIP"]).unwrap(), "n");
        assert_eq!(address(&["ExternalIP", "InternalIP"]).unwrap(), "10.0.0.1");
        assert_eq!(
            address(&["ExternalIP"]).unwrap_err(),
            "no preferred addresses found; known addresses: [{InternalIP 10.0.0.1} {Hostname n}]"
        );
    }

    #[test]
    fn paths_and_parameters_are_encoded() {
        let mut location = Location {
            host: "fd00::1".to_owned(),
            port: 10250,
            tls: None,
            path: "/a b/ü?#%2f\r\nX: y".to_owned(),
            query: encode_query(&[("command", "sh -c \"a&b=c\"\r\n".to_owned()), ("tty", "1".to_owned())]),
        };
        assert_eq!(location.authority(), "[fd00::1]:10250");
        assert_eq!(
            location.target().unwrap().to_string(),
            "/a%20b/%C3%BC%3F%23%252f%0D%0AX:%20y?command=sh+-c+%22a%26b%3Dc%22%0D%0A&tty=1"
        );
        location.path = String::new();
        location.query = String::new();
        assert_eq!(location.target().unwrap(), "/");
    }
}
