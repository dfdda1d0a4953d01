//! Connections to kubelets, pods and services (upstream: `registry/core/pod/rest`, `node/rest`, `service/proxy.go`).
//!
//! ```text
//! options (query) ─→ admission (CONNECT) ─→ location ─→ dial ─┬─→ logs      a stream of text
//!                                                             ├─→ proxy     any request and response, or an upgrade
//!                                                             └─→ streams   exec, attach, portforward
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | [`backends`] | the configuration: addresses, TLS, timeouts, limits |
//! | [`options`] | the parameters of a request |
//! | [`location`] | the address of a kubelet, pod or service |
//! | [`places`] | the limit of connections |
//! | [`exchange`] | one HTTP request and response |
//! | [`pool`] | connections that are used for several requests, one after the other or at the same time |
//! | [`headers`] | the headers that are passed on |
//! | [`upgrade`] | connections that switch to another protocol |
//!
//! A backend is not trusted: its redirects are never followed, the address that was checked is the one that is dialled,
//! and its responses are parsed and written again, never copied as bytes before an upgrade is complete.

pub mod backends;
pub(crate) mod exchange;
pub(crate) mod headers;
pub(crate) mod location;
mod log_usage;
mod logs;
mod options;
pub(crate) mod places;
pub(crate) mod pool;
pub(crate) mod proxy;
mod streams;
pub(crate) mod upgrade;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use nave_admission::{Attributes, Chain, Operation, RequestOptions};
use nave_machinery::options::CreateOptions;
use nave_machinery::{GroupVersionResource, Object, Reason, Status, Value};
use nave_resources::{ResourceDef, storage_key};
use nave_webhook::{BackendError, ConnectError};

use self::backends::Backends;
use crate::authorization::RequestAttributes;
use crate::body::{BodyError, ResponseBody};
use crate::catalog::Catalog;
use crate::context::RequestContext;
use crate::endpoints::Endpoint;
use crate::request_info::{ResourceRequest, Verb};

/// Returns whether requests for the subresource are passed on to a backend.
pub(crate) fn is_connection(def: &ResourceDef, subresource: &str) -> bool {
    def.group.is_empty()
        && match def.resource.as_str() {
            "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "nodes" | "services" => subresource == "proxy",
            _ => false,
        }
}

/// A request that is passed on.
#[derive(Clone, Copy)]
pub(crate) struct ConnectRequest<'a> {
    pub(crate) backends: &'a Backends,
    pub(crate) admission: &'a Chain,
    pub(crate) authorization: &'a nave_authz::Chain,
    pub(crate) catalog: &'a Catalog,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) resource: &'a ResourceRequest,
    pub(crate) context: &'a RequestContext,
}

impl ConnectRequest<'_> {
    /// Serves the request.
    ///
    /// # Errors
    /// The failure for the client.
    pub(crate) async fn serve<B>(&self, request: &mut Request<B>) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        match self.resource.subresource.as_str() {
            "log" => logs::serve(self).await,
            "proxy" => proxy::serve(self, request).await,
            _ => streams::serve(self, request).await,
        }
    }

    /// Admits the options of a connection. Returns the options, which plugins may have changed.
    async fn admit(&self, options: Value) -> Result<Object, Status> {
        let kind = self.kind();
        let create = CreateOptions::default();
        let attributes = Attributes {
            def: &self.endpoint.def,
            kind: &kind,
            version: &self.endpoint.version().name,
            subresource: &self.resource.subresource,
            namespace: &self.resource.namespace,
            name: &self.resource.name,
            operation: Operation::Connect,
            verb: self.context.info.attribute_verb(),
            old: None,
            options: RequestOptions::Write(&create),
            user: self.context.user(),
            deadline: self.context.work_deadline(),
            notes: &self.context.notes,
        };
        let mut options = Object::try_from(options).map_err(Status::internal)?;
        self.admission.mutate(&attributes, Some(&mut options)).await?;
        self.admission.validate(&attributes, Some(&options)).await?;
        Ok(options)
    }

    /// Returns the kind of the options.
    fn kind(&self) -> nave_machinery::GroupVersionKind {
        let subresource = self.endpoint.version().subresource(&self.resource.subresource);
        let kind = subresource.map_or("", |found| found.response.kind.as_str());
        nave_machinery::GroupVersionKind::new("", "v1", kind)
    }

    /// Checks that the user may also create the connection. A WebSocket is opened with GET, which is authorized as
    /// `get` (upstream: the feature `AuthorizePodWebsocketUpgradeCreatePermission`).
    async fn authorize_create(&self) -> Result<(), Status> {
        let info = &self.context.info;
        if info.verb == Verb::Create {
            return Ok(());
        }
        let attributes = RequestAttributes::new(info);
        let attributes = nave_authz::Attributes { verb: "create", ..attributes.of_user(self.context.user()) };
        self.authorization.authorize(&attributes).await
    }

    /// Reads an object of the core group.
    async fn read(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        let gvr = GroupVersionResource::new("", "v1", resource);
        let endpoint = self.catalog.endpoint(&gvr).ok_or_else(Status::no_such_path)?;
        // As upstream, the error names the resource of the request, also if a pod's node is absent.
        let not_found = || Status::not_found(&self.endpoint.resource(), name);
        let storage = endpoint.storage()?;
        let namespace = endpoint.def.namespaced.then_some(namespace);
        let key = storage_key(&endpoint.def, namespace, name).map_err(|_| not_found())?;
        let found = storage.get_latest(&key).await?.ok_or_else(not_found)?;
        storage.codec().parse_cached(&found)
    }
}

/// Returns the failure of an upgrade whose backend cannot be reached.
fn unreachable(error: &BackendError) -> Status {
    match error {
        BackendError::Connect(ConnectError::Refused(_)) => Status::bad_request("address not allowed"),
        error => failed(format!("error dialing backend: {error}")),
    }
}

/// Returns a failure that upstream reports without a reason.
fn failed(message: impl Into<String>) -> Status {
    Status::failure(500, Reason::Unknown, message)
}
