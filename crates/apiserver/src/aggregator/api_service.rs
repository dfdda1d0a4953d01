//! An `APIService`, as the aggregation layer uses it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use nave_machinery::{Value, conditions, meta};
use nave_webhook::{Address, BackendTls, ClientConfig, Roots, Tls};
use serde_json::json;
use tokio::sync::Semaphore;

use super::identity::ProxyIdentity;

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
    pub(crate) remote: Option<Remote>,
}

/// An aggregated server.
pub(crate) struct Remote {
    /// The namespace of the service.
    pub(crate) namespace: String,
    /// The name of the service.
    pub(crate) service: String,
    /// The port of the service.
    pub(crate) port: u16,
    /// The authorities for its certificate; the error is the reason why there are none.
    roots: Result<Roots, String>,
    /// TLS with the client certificate that was used last.
    tls: ArcSwapOption<(ProxyIdentity, BackendTls)>,
    /// Places for requests that are not long-running.
    pub(crate) places: Arc<Semaphore>,
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
        let places = previous.and_then(|previous| Some(Arc::clone(&previous.remote.as_ref()?.places)));
        let places = places.unwrap_or_else(|| Arc::new(Semaphore::new(REQUESTS)));
        let remote = if is_own { None } else { Remote::read(spec, places) };
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
    fn read(spec: &Value, places: Arc<Semaphore>) -> Option<Self> {
        spec["service"].as_object()?;
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
        let roots = if is_unchecked { Ok(Roots::Unchecked) } else { roots };
        Some(Self { namespace, service, port, roots, tls: ArcSwapOption::empty(), places })
    }

    /// Returns TLS with this client certificate.
    ///
    /// # Errors
    /// The authorities or the certificate are invalid.
    pub(super) fn tls(&self, identity: &ProxyIdentity) -> Result<BackendTls, String> {
        if let Some((of, tls)) = self.tls.load().as_deref()
            && of == identity
        {
            return Ok(tls.clone());
        }
        let roots = self.roots.clone()?;
        let server_name = Some(format!("{}.{}.svc", self.service, self.namespace));
        let tls = BackendTls::new(Tls { roots, identity: identity.get(), server_name });
        let tls = tls.map_err(|error| error.to_string())?;
        self.tls.store(Some(Arc::new((identity.clone(), tls.clone()))));
        Ok(tls)
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
        assert!(remote.tls(&ProxyIdentity::default()).is_ok());
        for bundle in ["bm8gUEVN", "%"] {
            let why = spec("caBundle", json!(bundle)).tls(&ProxyIdentity::default()).unwrap_err();
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
    fn a_change_keeps_the_places_of_running_requests() {
        let spec = json!({"group": "a.example", "version": "v1", "service": {"namespace": "n", "name": "s"}});
        let object = json!({"metadata": {"name": "v1.a.example"}, "spec": spec});
        let first = ApiService::read(&object, None);
        let second = ApiService::read(&object, Some(&first));
        let places = |service: &ApiService| Arc::clone(&service.remote.as_ref().unwrap().places);
        assert!(Arc::ptr_eq(&places(&first), &places(&second)));
    }
}
