//! Resolution of services to addresses (upstream: `apiserver/pkg/util/proxy`, `kube-aggregator/pkg/apiserver`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::Value;

/// Reads services and their endpoints, usually from watch caches.
pub trait Services: Send + Sync {
    /// Returns a service (`v1`).
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// Returns the endpoint slices (`discovery.k8s.io/v1`) of a service, by the label `kubernetes.io/service-name`.
    fn endpoint_slices(&self, namespace: &str, name: &str) -> Vec<Arc<Value>>;
}

/// The address of a service that is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// The cluster IP, which kube-proxy routes.
    #[default]
    ClusterIp,
    /// A ready endpoint (`--enable-aggregator-routing`).
    Endpoints,
}

/// The reason why a service cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The service does not exist.
    #[error("service {0:?} not found")]
    NotFound(String),
    /// The service has no such port.
    #[error("no service port {port} found for service {name:?}")]
    NoPort {
        /// The service.
        name: String,
        /// The port.
        port: u16,
    },
    /// No endpoint is ready.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    /// The service is headless.
    #[error("cannot route to service with ClusterIP \"None\"")]
    Headless,
    /// Services of this type have no address to dial.
    #[error("unsupported service type {0:?}")]
    Type(String),
}

/// A host and port to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// An IP address, or the name of an ExternalName service.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Resolves services to addresses.
pub struct ServiceResolver {
    services: Arc<dyn Services>,
    routing: Routing,
    loopback: Option<SocketAddr>,
}

impl ServiceResolver {
    /// Creates a resolver. The service `kubernetes` in `default` resolves to `loopback`, the server itself.
    pub fn new(services: Arc<dyn Services>, routing: Routing, loopback: Option<SocketAddr>) -> Self {
        Self { services, routing, loopback }
    }

    /// Returns whether a service is this server itself.
    pub(crate) fn is_own(&self, namespace: &str, name: &str, port: u16) -> bool {
        self.loopback.is_some() && (namespace, name, port) == ("default", "kubernetes", 443)
    }

    /// Returns the address of a port of a service.
    ///
    /// # Errors
    /// The service does not exist, has no such port, or has no address of the kind that is dialled.
    pub fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Destination, ResolveError> {
        if let Some(own) = self.loopback
            && self.is_own(namespace, name, port)
        {
            return Ok(Destination { host: own.ip().to_string(), port: own.port() });
        }
        let service = self.services.service(namespace, name);
        let service = service.ok_or_else(|| ResolveError::NotFound(name.to_owned()))?;
        match self.routing {
            Routing::ClusterIp => cluster_ip(&service, name, port),
            Routing::Endpoints => {
                endpoint(&service, self.services.endpoint_slices(namespace, name), name, port)
            }
        }
    }
}

fn spec_text<'a>(service: &'a Value, field: &str) -> &'a str {
    service["spec"][field].as_str().unwrap_or_default()
}

/// Returns the port of a service with this number.
fn service_port<'a>(service: &'a Value, name: &str, port: u16) -> Result<&'a Value, ResolveError> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut matching = ports.filter(|entry| entry["port"].as_u64() == Some(u64::from(port)));
    matching.next().ok_or_else(|| ResolveError::NoPort { name: name.to_owned(), port })
}

fn cluster_ip(service: &Value, name: &str, port: u16) -> Result<Destination, ResolveError> {
    match spec_text(service, "type") {
        "ClusterIP" if spec_text(service, "clusterIP") == "None" => Err(ResolveError::Headless),
        "ClusterIP" | "LoadBalancer" | "NodePort" => {
            service_port(service, name, port)?;
            Ok(Destination { host: spec_text(service, "clusterIP").to_owned(), port })
        }
        "ExternalName" => Ok(Destination { host: spec_text(service, "externalName").to_owned(), port }),
        other => Err(ResolveError::Type(other.to_owned())),
    }
}

/// Returns a random ready endpoint; the slices of the service's first address family come first.
fn endpoint(
    service: &Value,
    mut slices: Vec<Arc<Value>>,
    name: &str,
    port: u16,
) -> Result<Destination, ResolveError> {
    let service_type = spec_text(service, "type");
    if !matches!(service_type, "ClusterIP" | "LoadBalancer" | "NodePort") {
        return Err(ResolveError::Type(service_type.to_owned()));
    }
    let port_name = service_port(service, name, port)?["name"].as_str().unwrap_or_default();
    let mut random = rand::rng();
    slices.shuffle(&mut random);
    let family = &service["spec"]["ipFamilies"][0];
    slices.sort_by_key(|slice| slice["addressType"] != *family);
    for slice in &slices {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let number = |entry: &Value| entry["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        // A slice without names of ports matches no port, as upstream.
        let mut named = ports.filter(|entry| entry["name"].as_str() == Some(port_name)).filter_map(number);
        let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (Some(port), false) = (named.next(), endpoints.is_empty()) else { continue };
        let start = random.random_range(0..endpoints.len());
        let (before, from) = endpoints.split_at(start);
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let address = |endpoint: &Value| endpoint["addresses"][0].as_str().map(str::to_owned);
        if let Some(host) = from.iter().chain(before).filter(ready).find_map(address) {
            return Ok(Destination { host, port });
        }
    }
    Err(ResolveError::NoEndpoints(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed(Value, Vec<Value>);

    impl Services for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
            (namespace == "ns" && name == "svc").then(|| Arc::new(self.0.clone()))
        }

        fn endpoint_slices(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
            self.1.iter().cloned().map(Arc::new).collect()
        }
    }

    fn resolve(routing: Routing, spec: &Value, slices: Vec<Value>, port: u16) -> Result<String, String> {
        let own = "127.0.0.1:6443".parse().ok();
        let resolver = ServiceResolver::new(Arc::new(Fixed(json!({"spec": spec}), slices)), routing, own);
        let found = resolver.resolve("ns", "svc", port);
        found.map(|found| found.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn cluster_ip_routing_follows_the_type_of_the_service() {
        let ports = json!([{"port": 443, "targetPort": 8443}]);
        for (spec, port, expected) in [
            (json!({"type": "ClusterIP", "clusterIP": "10.0.0.9", "ports": ports}), 443, Ok("10.0.0.9:443")),
            (json!({"type": "NodePort", "clusterIP": "fd00::9", "ports": ports}), 443, Ok("[fd00::9]:443")),
            (
                json!({"type": "ClusterIP", "clusterIP": "10.0.0.9", "ports": ports}),
                80,
                Err("no service port 80 found for service \"svc\""),
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "ports": ports}),
                443,
                Err("cannot route to service with ClusterIP \"None\""),
            ),
            (json!({"type": "ExternalName", "externalName": "a.example"}), 8443, Ok("a.example:8443")),
            (json!({"type": "Other"}), 443, Err("unsupported service type \"Other\"")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(resolve(Routing::ClusterIp, &spec, vec![], port), expected, "{spec}");
        }
    }

    #[test]
    fn endpoint_routing_chooses_a_ready_endpoint_of_the_first_family() {
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "ipFamilies": ["IPv6"],
            "ports": [{"name": "https", "port": 443}]});
        let slice = |family: &str, address: &str, ready: Value| {
            json!({"addressType": family, "ports": [{"name": "https", "port": 9443}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}]})
        };
        let ready_v6 = slice("IPv6", "fd00::7", Value::Null);
        let (v4, unready) = (slice("IPv4", "10.1.0.7", json!(true)), slice("IPv6", "fd00::8", json!(false)));
        let found = |slices| resolve(Routing::Endpoints, &spec, slices, 443);
        for _ in 0..10 {
            assert_eq!(found(vec![v4.clone(), unready.clone(), ready_v6.clone()]).unwrap(), "[fd00::7]:9443");
        }
        assert_eq!(found(vec![v4, unready.clone()]).unwrap(), "10.1.0.7:9443");
        assert_eq!(found(vec![unready]).unwrap_err(), "no endpoints available for service \"svc\"");
        let external = json!({"type": "ExternalName"});
        let refused = resolve(Routing::Endpoints, &external, vec![], 443).unwrap_err();
        assert_eq!(refused, "unsupported service type \"ExternalName\"");
    }

    #[test]
    fn own_service_is_the_loopback_address() {
        let own = "127.0.0.1:6443".parse().ok();
        let resolver = ServiceResolver::new(Arc::new(Fixed(Value::Null, vec![])), Routing::ClusterIp, own);
        assert_eq!(resolver.resolve("default", "kubernetes", 443).unwrap().to_string(), "127.0.0.1:6443");
        let missing = resolver.resolve("default", "kubernetes", 80).unwrap_err();
        assert_eq!(missing.to_string(), "service \"kubernetes\" not found");
    }
}
