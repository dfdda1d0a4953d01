//! An `APIService`, as the aggregation layer uses it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use nave_machinery::{Value, conditions, meta};
use nave_webhook::{Address, BackendTls, ClientConfig, Roots, Tls};
use serde_json::json;
use tokio::sync::Semaphore;

use super::circuit::Circuit;
use super::identity::ProxyIdentity;
use crate::connect::backends::Backends;
use crate::connect::pool::Pool;

/// Maximum number of requests in flight to an aggregated server, besides watches. A server that does not answer must
/// not take all places of this server.
const REQUESTS: usize = 200;

/// A version of a group that is served by this server or by an aggregated server.
#[derive(Debug)]
pub(crate) struct ApiService {
    /// The name: `VERSION.GROUP`.
    pub(crate) name: String,
    /// The group; empty for the core group.
    pub(crate) group: String,
    /// The version.
    pub(crate) version: String,
    /// `spec.groupPriorityMinimum`.
    pub(crate) group_priority: i64,
    /// `spec.versionPriority`.
    pub(crate) version_priority: i64,
    /// The condition `Available`; `None` if it is not set.
    pub(crate) availability: Option<Availability>,
    /// The aggregated server; `None` if this server serves the version.
    pub(crate) remote: Option<Arc<Remote>>,
}

/// An aggregated server. A change of the APIService that does not concern the server keeps it.
pub(crate) struct Remote {
    /// The namespace of the service.
    pub(crate) namespace: String,
    /// The name of the service.
    pub(crate) service: String,
    /// The port of the service.
    pub(crate) port: u16,
    /// The authorities for its certificate; the error is the reason why there are none.
    roots: Result<Roots, String>,
    /// The fields of the APIService that it was read from.
    spec: [Value; 3],
    /// Connections with the client certificate that was used last.
    transport: ArcSwapOption<Transport>,
    /// Places for requests that are not long-running.
    pub(crate) places: Arc<Semaphore>,
    /// Fails requests at once after failures.
    pub(super) circuit: Circuit,
}

/// Connections with one client certificate.
pub(super) struct Transport {
    identity: ProxyIdentity,
    /// For connections of their own.
    pub(super) tls: BackendTls,
    /// For requests that are not long-running.
    pub(super) pool: Pool,
}

/// The condition `Available`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Availability {
    /// The status: `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// The reason.
    pub(crate) reason: String,
    /// The message.
    pub(crate) message: String,
}

impl ApiService {
    /// Reads an object. `previous` is its state before the change.
    pub(crate) fn read(object: &Value, previous: Option<&Self>) -> Self {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let group = text("group");
        // The core group and the group of APIServices are always served here.
        let is_own = group.is_empty() || group == "apiregistration.k8s.io";
        let previous = previous.and_then(|previous| previous.remote.as_ref());
        let remote = if is_own { None } else { Remote::read(spec, previous) };
        Self {
            name: meta::name(object).to_owned(),
            group,
            version: text("version"),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            availability: conditions::find(object, "Available").map(Availability::read),
            remote,
        }
    }

    /// Returns whether requests are passed on.
    pub(crate) fn is_available(&self) -> bool {
        self.availability.as_ref().is_some_and(|available| available.status == "True")
    }

    /// Returns the path of the version.
    pub(crate) fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

impl Remote {
    fn read(spec: &Value, previous: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        spec["service"].as_object()?;
        let fields = ["service", "caBundle", "insecureSkipTLSVerify"].map(|field| spec[field].clone());
        if let Some(previous) = previous.filter(|previous| previous.spec == fields) {
            return Some(Arc::clone(previous));
        }
        let (namespace, service, port, roots) = match ClientConfig::from_json(spec) {
            Ok(config) => {
                let roots = config.roots().map_err(|error| error.to_string());
                let Address::Service { namespace, name, port, .. } = config.address else { return None };
                (namespace, name, port, roots)
            }
            Err(error) => {
                let text = |field: &str| spec["service"][field].as_str().unwrap_or_default().to_owned();
                (text("namespace"), text("name"), 443, Err(error.to_string()))
            }
        };
        let is_unchecked = spec["insecureSkipTLSVerify"].as_bool().unwrap_or(false);
        Some(Arc::new(Self {
            namespace,
            service,
            port,
            roots: if is_unchecked { Ok(Roots::Unchecked) } else { roots },
            spec: fields,
            transport: ArcSwapOption::empty(),
            // Requests that are running still count.
            places: previous.map_or_else(|| Arc::new(Semaphore::new(REQUESTS)), |it| Arc::clone(&it.places)),
            circuit: Circuit::default(),
        }))
    }

    /// Returns the connections with this client certificate. Those with another one are closed when their requests end.
    ///
    /// # Errors
    /// The authorities or the certificate are invalid.
    pub(super) fn transport(
        &self,
        identity: &ProxyIdentity,
        backends: &Arc<Backends>,
    ) -> Result<Arc<Transport>, String> {
        if let Some(transport) = self.transport.load_full()
            && transport.identity == *identity
        {
            return Ok(transport);
        }
        let roots = self.roots.clone()?;
        let server_name = Some(format!("{}.{}.svc", self.service, self.namespace));
        let tls = BackendTls::new(Tls { roots, identity: identity.get(), server_name });
        let tls = tls.map_err(|error| error.to_string())?;
        let pool = Pool::new(Arc::clone(backends), &tls, REQUESTS);
        let transport = Arc::new(Transport { identity: identity.clone(), tls, pool });
        self.transport.store(Some(Arc::clone(&transport)));
        Ok(transport)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

impl Availability {
    /// Returns the condition of a version that this server serves.
    pub(crate) fn local() -> Self {
        Self::new("True", "Local", "Local APIServices are always available")
    }

    /// Returns the condition of an aggregated server that passes all checks.
    pub(crate) fn passed() -> Self {
        Self::new("True", "Passed", "all checks passed")
    }

    /// Returns the condition of an aggregated server that cannot be used.
    pub(crate) fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self::new("False", reason, message)
    }

    fn new(status: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { status: status.to_owned(), reason: reason.to_owned(), message: message.into() }
    }

    fn read(condition: &Value) -> Self {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        Self::new(text("status"), text("reason"), text("message"))
    }

    /// Returns the condition as an object.
    pub(crate) fn to_json(&self, now: &str) -> Value {
        json!({
            "type": "Available", "status": self.status, "reason": self.reason, "message": self.message,
            "lastTransitionTime": now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &Value) -> ApiService {
        let object = json!({"metadata": {"name": "v1.a.example"}, "spec": spec});
        ApiService::read(&object, None)
    }

    #[test]
    fn reads_the_service_and_its_authorities() {
        let service = json!({"namespace": "ns", "name": "s", "port": 8443});
        let spec = |field: &str, value: Value| {
            let mut spec = json!({"group": "a.example", "version": "v1", "service": service});
            spec[field] = value;
            read(&spec).remote.unwrap()
        };
        let remote = spec("insecureSkipTLSVerify", json!(true));
        assert_eq!(format!("{remote:?}"), "ns/s:8443");
        let transport = |remote: &Remote| remote.transport(&ProxyIdentity::default(), &Arc::default());
        assert!(transport(&remote).is_ok());
        for bundle in ["bm8gUEVN", "%"] {
            let why = transport(&spec("caBundle", json!(bundle))).err().unwrap();
            assert!(why.starts_with("unable to load root certificates"), "{why}");
        }
    }

    #[test]
    fn own_groups_are_never_remote() {
        for group in ["", "apiregistration.k8s.io"] {
            let service = json!({"namespace": "ns", "name": "s"});
            assert!(read(&json!({"group": group, "version": "v1", "service": service})).remote.is_none());
        }
        assert!(read(&json!({"group": "a.example", "version": "v1"})).remote.is_none());
    }

    #[test]
    fn only_changes_of_the_server_end_its_connections() {
        let mut object = json!({"metadata": {"name": "v1.a.example"}, "spec": {"group": "a.example",
            "version": "v1", "service": {"namespace": "n", "name": "s"}, "insecureSkipTLSVerify": true}});
        let first = ApiService::read(&object, None);
        let remote = |service: &ApiService| Arc::clone(service.remote.as_ref().unwrap());
        object["spec"]["versionPriority"] = json!(7);
        object["status"]["conditions"] = json!([{"type": "Available", "status": "True"}]);
        let second = ApiService::read(&object, Some(&first));
        assert!(second.is_available() && Arc::ptr_eq(&remote(&first), &remote(&second)));
        for (field, value) in [
            ("service", json!({"namespace": "n", "name": "t"})),
            ("insecureSkipTLSVerify", json!(false)),
            ("caBundle", json!("YQ==")),
        ] {
            object["spec"][field] = value;
            let changed = ApiService::read(&object, Some(&first));
            assert!(!Arc::ptr_eq(&remote(&first), &remote(&changed)), "{field}");
            assert!(Arc::ptr_eq(&remote(&first).places, &remote(&changed).places), "{field}");
        }
    }

    #[test]
    fn another_client_certificate_has_other_connections() {
        let spec = json!({"group": "a.example", "version": "v1", "insecureSkipTLSVerify": true,
            "service": {"namespace": "n", "name": "s"}});
        let remote = read(&spec).remote.unwrap();
        let backends = Arc::default();
        let transport = |identity: &ProxyIdentity| remote.transport(identity, &backends).unwrap();
        let none = transport(&ProxyIdentity::default());
        assert!(Arc::ptr_eq(&none, &transport(&ProxyIdentity::default())));
        let pair = rcgen::generate_simple_self_signed(["c".to_owned()]).unwrap();
        let chain = vec![pair.cert.der().clone()];
        let identity = ProxyIdentity::new(chain, pair.signing_key.into());
        let with = transport(&identity);
        assert!(!Arc::ptr_eq(&none, &with) && Arc::ptr_eq(&with, &transport(&identity)));
    }
}
