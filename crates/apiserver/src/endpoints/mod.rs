//! The endpoints below `/api` and `/apis`: one file per group of verbs, shared by all resources.
//!
//! | file | contents |
//! | --- | --- |
//! | [`read`] | get, list |
//! | [`watch`] | watch |
//! | [`write`](self::write) | create, update, patch |
//! | [`delete`] | delete, deletecollection |
//! | [`virtual_resource`] | create of virtual resources and subresources: reviews, bindings, evictions, tokens |
//! | [`selection`] | converts the namespace, name and selectors of a request to the watch cache's filter |
//! | [`continuation`] | the continue token of lists |
//! | [`view`] | the part of an object that a request reads and writes: the object, its status, its scale |
//! | `versions` | custom objects in the version of a request |
//! | [`decode`] | decodes request bodies to objects |
//! | [`response`] | responses of endpoints |
//! | `established` | custom resources that another server has established |
//! | `encode`, [`frames`] | encode objects, lists and events |

pub mod computed_resource;
pub mod continuation;
pub mod decode;
pub mod delete;
mod encode;
mod established;
pub mod frames;
pub mod read;
pub mod response;
pub mod selection;
mod served_selector;
pub mod versions;
pub mod view;
pub mod virtual_resource;
pub mod watch;
pub mod write;

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body::Body;
use nave_admission::Chain;
use nave_codec::negotiate::{self, ContentType, Format, PatchType};
use nave_machinery::options::{CreateOptions, DeleteOptions, ListOptions, PatchOptions};
use nave_machinery::{GroupResource, GroupVersionKind, GroupVersionResource, Status, Value, names};
use nave_resources::custom::CustomSchema;
use nave_resources::{ResourceDef, ResourceVersion};

use self::response::{EndpointResponse, List, ObjectResponse};
use self::view::View;
use self::virtual_resource::{VirtualRequest, VirtualResources};
use self::watch::{WatchStats, Watches};
use self::write::{CreateRight, Payload, Target};
use crate::allocation::ServiceAllocator;
use crate::authorization::RequestAttributes;
use crate::body::{self, BodyError};
use crate::catalog::{Catalog, Catalogs};
use crate::connect::backends::Backends;
use crate::connect::{self, ConnectRequest};
use crate::context::RequestContext;
use crate::cpu_pool::{CpuPool, LARGE};
use crate::negotiation::Offer;
use crate::raw_response;
use crate::request_info::{ResourceRequest, Verb};
use crate::storage::ResourceStorage;
use crate::websocket::handshake::Handshake;
use crate::websocket::session;

/// A resource in a served version.
#[derive(Clone)]
pub struct Endpoint {
    /// The resource.
    pub def: Arc<ResourceDef>,
    /// The index of the version in `def.versions`.
    pub version: usize,
    /// The storage; `None` for virtual resources.
    pub storage: Option<Arc<ResourceStorage>>,
    /// Statistics of watches.
    pub watched: Arc<WatchStats>,
    /// Allocates the addresses and ports of services; `None` for other resources.
    pub allocator: Option<Arc<ServiceAllocator>>,
}

/// Serves the requests for resources.
pub struct Resources {
    catalogs: Catalogs,
    admission: Arc<Chain>,
    virtual_endpoints: VirtualResources,
    authorization: nave_authz::Chain,
    watches: Watches,
    cpu: CpuPool,
    backends: Arc<Backends>,
    /// The objects of a collection that are deleted at a time.
    delete_workers: usize,
}

impl Resources {
    /// Creates the endpoints of the current catalog and its replacements.
    pub fn new(
        catalogs: Catalogs,
        admission: Arc<Chain>,
        virtual_endpoints: VirtualResources,
        authorization: nave_authz::Chain,
        watches: Watches,
        cpu: CpuPool,
        backends: Arc<Backends>,
    ) -> Self {
        Self {
            catalogs,
            admission,
            virtual_endpoints,
            authorization,
            watches,
            cpu,
            backends,
            delete_workers: 1,
        }
    }

    /// Sets the number of objects of a collection that are deleted at a time; 0 means 1.
    #[must_use]
    pub fn with_delete_workers(mut self, workers: usize) -> Self {
        self.delete_workers = workers.max(1);
        self
    }

    /// Serves a request for a resource.
    ///
    /// # Errors
    /// The failure for the client.
    pub async fn serve<B>(
        &self,
        request: &mut Request<B>,
        resource: &ResourceRequest,
        context: &RequestContext,
        catalog: &Catalog,
    ) -> Result<EndpointResponse, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let RequestContext { info, negotiation, .. } = context;
        let newer;
        let (catalog, endpoint) = if let Some(endpoint) = catalog.endpoint(&resource.gvr) {
            (catalog, endpoint)
        } else {
            newer = Box::pin(established::find(&self.catalogs, &resource.gvr)).await?;
            match newer.as_deref().and_then(|newer| Some((newer, newer.endpoint(&resource.gvr)?))) {
                Some(found) => found,
                None => return unknown(catalog, &resource.gvr),
            }
        };
        if endpoint.is_out_of_scope(info.verb, resource) {
            return Ok(raw_response::page_not_found().into());
        }
        endpoint.check_request(info.verb, resource)?;
        if connect::is_connection(&endpoint.def, &resource.subresource) {
            let (backends, admission, authorization) =
                (&*self.backends, &*self.admission, &self.authorization);
            let connect =
                ConnectRequest { backends, admission, authorization, catalog, endpoint, resource, context };
            // Boxed, because this large future is rarely needed.
            return Box::pin(connect.serve(request)).await.map(EndpointResponse::from);
        }
        if info.method == Method::HEAD {
            return Err(Status::method_not_allowed_here());
        }
        if let Some(deprecation) = &endpoint.version().deprecation {
            context.notes.warn(deprecation);
            // A valid key with one value.
            let _ = context.notes.annotate("k8s.io/deprecated", "true");
        }
        let query = info.query.pairs();
        if info.verb == Verb::Create
            && let Some(virtual_resource) = self.virtual_endpoints.find(&endpoint.def, &resource.subresource)
        {
            negotiation.choose(Offer::Object, encode::encodings(endpoint))?;
            let options = CreateOptions::parse(query)?;
            let payload = read_payload(request, context).await?;
            let request =
                VirtualRequest { resources: self, catalog, endpoint, resource, context, options: &options };
            let size = payload.bytes.len().max(endpoint.size_of_object(resource));
            let created = virtual_resource::create(virtual_resource, &request, &payload);
            return self.run(endpoint, size, pin!(created)).await.map(EndpointResponse::from);
        }
        let view = View::for_subresource(endpoint, &resource.subresource)
            .map_err(|refusal| endpoint.absent(resource).unwrap_or(refusal))?;
        match info.verb {
            Verb::Get | Verb::List if endpoint.storage.is_none() => {
                let Some(computed) = self.virtual_endpoints.find_computed(&endpoint.def) else {
                    return Err(Status::not_implemented(endpoint.resource()));
                };
                let response = if info.verb == Verb::Get {
                    negotiation.choose(Offer::Object, view.encodings(endpoint))?;
                    computed_resource::get(computed, catalog, endpoint, resource).await
                } else {
                    let options = ListOptions::parse(query)?;
                    computed_resource::list(computed, catalog, endpoint, resource, &options).await
                };
                return response.map(EndpointResponse::from);
            }
            Verb::Get => {
                // As upstream, an unacceptable format is reported before an absent object.
                negotiation.choose(Offer::Object, view.encodings(endpoint))?;
                // The bytes of the object are copied, so the request is small.
                let size = if view == View::Object { 0 } else { endpoint.size_of_object(resource) };
                let get = read::get(endpoint, &view, resource, query, &context.steps);
                return self.cpu.run(size, pin!(get)).await.map(EndpointResponse::from);
            }
            Verb::List => {
                let list = async {
                    read::list(endpoint, resource, &ListOptions::parse(query)?, &context.steps).await
                };
                // A request that waits for a webhook must not take the place of a large request.
                if endpoint.converter().is_some() {
                    return self.cpu.run_off_executor(pin!(list)).await.map(EndpointResponse::from);
                }
                let size = read::size_of_list(endpoint, resource, query);
                return self.cpu.run(size, pin!(list)).await.map(EndpointResponse::from);
            }
            Verb::Watch => {
                let handshake = match Handshake::read(request) {
                    Ok(handshake) => handshake,
                    Err(refusal) => return Ok(refusal.response().into()),
                };
                let start = async {
                    let options = ListOptions::parse(query)?;
                    let initialization = context.flow.take_initialization();
                    watch::watch(endpoint, resource, &options, negotiation, &self.watches, initialization)
                        .await
                };
                let watch = self.cpu.run(size_of_query(query), pin!(start)).await?;
                let response = match handshake {
                    Some(handshake) => {
                        handshake.accept(request, |socket| session::send_all(socket, watch.into_messages()))
                    }
                    None => watch.into_response(),
                };
                return Ok(response.into());
            }
            _ => {}
        }
        // Reject a write before it happens if the client accepts no available response format.
        let offer = if info.verb == Verb::DeleteCollection { Offer::List } else { Offer::Object };
        negotiation.choose(offer, view.encodings(endpoint))?;
        let payload = read_payload(request, context).await?;
        let size = payload.bytes.len().max(match info.verb {
            Verb::DeleteCollection => read::size_of_list(endpoint, resource, query),
            _ => endpoint.size_of_object(resource),
        });
        let target = Target {
            context,
            endpoint,
            view,
            namespace: if endpoint.def.namespaced { &resource.namespace } else { "" },
            name: &resource.name,
            admission: &self.admission,
        };
        let write = pin!(self.write(&target, &payload, resource));
        let written = if endpoint.converter().is_some() {
            self.cpu.run_off_executor(write).await
        } else {
            self.run(endpoint, size, write).await
        };
        written.map(EndpointResponse::from)
    }

    /// Runs a write of `size` bytes, off the executor if it is large or costly.
    async fn run<T>(
        &self,
        endpoint: &Endpoint,
        size: usize,
        write: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        if size < LARGE && is_costly(endpoint) {
            return self.cpu.run_off_executor(write).await;
        }
        self.cpu.run(size, write).await
    }

    /// Runs the write of a request.
    async fn write(
        &self,
        target: &Target<'_>,
        payload: &Payload,
        resource: &ResourceRequest,
    ) -> Result<ObjectResponse, Status> {
        let (info, endpoint) = (&target.context.info, target.endpoint);
        let query = info.query.pairs();
        match info.verb {
            Verb::Create => write::create(target, payload, &CreateOptions::parse(query)?).await,
            Verb::Update | Verb::Patch => {
                let attributes = RequestAttributes::new(info);
                let attributes =
                    nave_authz::Attributes { verb: "create", ..attributes.of_user(target.context.user()) };
                let create = Some(CreateRight { authorization: &self.authorization, attributes });
                if info.verb == Verb::Update {
                    return write::update(target, payload, &CreateOptions::parse_update(query)?, create)
                        .await;
                }
                let apply = payload.content_type == Some(ContentType::Patch(PatchType::Apply));
                write::patch(target, payload, &PatchOptions::parse(query, apply)?, create).await
            }
            Verb::Delete => {
                let options = delete_options(target.context, payload)?;
                Box::pin(delete::delete(target, &options)).await
            }
            Verb::DeleteCollection => {
                let options = delete_options(target.context, payload)?;
                let list = ListOptions::parse(query)?;
                let page = read::select(endpoint, resource, &list, &target.context.steps);
                let page = Box::pin(page).await?;
                let delete = delete::delete_collection(target, page.objects, &options, self.delete_workers);
                let objects = Box::pin(delete).await?;
                let selects_all = list.label_selector.is_empty() && list.field_selector.is_empty();
                // Pages do not contain undecodable objects, so delete them with the last page.
                if selects_all && page.continue_token.is_empty() {
                    Box::pin(delete::delete_collection_of_undecodable(target, &options)).await?;
                }
                Ok(ObjectResponse::list(List { objects, ..page }))
            }
            _ => Err(Status::method_not_allowed_here()),
        }
    }

    /// Returns the current catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalogs.load()
    }

    /// Returns the holder of the current catalog.
    pub(crate) fn catalogs(&self) -> &Catalogs {
        &self.catalogs
    }

    /// Returns the admission chain.
    pub fn admission(&self) -> &Chain {
        &self.admission
    }
}

/// Returns the response for a resource that is not served: a `Status` if its group is built in, otherwise the 404 page
/// of an unknown path.
fn unknown(catalog: &Catalog, gvr: &GroupVersionResource) -> Result<EndpointResponse, Status> {
    let is_known = catalog.registry().group(&gvr.group).is_some_and(|group| !group.is_custom());
    if is_known { Err(Status::no_such_path()) } else { Ok(raw_response::page_not_found().into()) }
}

/// Returns whether a small write can take long, so that its size does not show its cost.
fn is_costly(endpoint: &Endpoint) -> bool {
    /// Validation compiles schemas, patterns and CEL expressions of these groups.
    const COMPILED: [&str; 3] = ["admissionregistration.k8s.io", "apiextensions.k8s.io", "resource.k8s.io"];
    let def = &endpoint.def;
    COMPILED.contains(&def.group.as_str())
        // Collects the rules of all bindings of the cluster.
        || def.resource == "selfsubjectrulesreviews"
        || endpoint.version().custom().is_some_and(CustomSchema::is_costly)
}

/// Returns the size of the query's values, which may be large selectors.
fn size_of_query(query: &[(String, String)]) -> usize {
    query.iter().map(|(_, value)| value.len()).sum()
}

/// Reads the body of a request; without a content type, or with an empty one, it is JSON.
async fn read_payload<B>(request: &mut Request<B>, context: &RequestContext) -> Result<Payload, Status>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let content_type = match request.headers().get(header::CONTENT_TYPE) {
        None => Some(ContentType::Object(Format::Json)),
        Some(value) if value.is_empty() => Some(ContentType::Object(Format::Json)),
        Some(value) => value.to_str().ok().and_then(negotiate::content_type),
    };
    let bytes = body::read(request.body_mut()).await?;
    // A body is read once.
    let _ = context.body_size.set(bytes.len());
    Ok(Payload { bytes, content_type })
}

/// Returns the options of a deletion, from the query and an optional `DeleteOptions` body.
fn delete_options(context: &RequestContext, payload: &Payload) -> Result<DeleteOptions, Status> {
    let mut body = Value::Null;
    if !payload.bytes.is_empty() {
        body = decode::parse_options(&payload.bytes, payload.format()?)?;
        decode::check_types(&mut body, "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")?;
        if let Some(record) = &context.audit {
            record.request_options(&body);
        }
    }
    DeleteOptions::parse(context.info.query.pairs(), &body)
}

/// The subresource that may have further path segments, such as `…/proxy/a/b`.
const PATH_SUBRESOURCE: &str = "proxy";

impl Endpoint {
    /// Creates the endpoint of a storage in a version, for the server's own writes.
    pub(crate) fn for_storage(storage: Arc<ResourceStorage>, version: &str) -> Self {
        let def = Arc::clone(storage.def());
        let version = def.versions.iter().position(|served| served.name == version).unwrap_or_default();
        Self { def, version, storage: Some(storage), watched: Arc::default(), allocator: None }
    }

    /// Returns the served version.
    pub fn version(&self) -> &ResourceVersion {
        &self.def.versions[self.version]
    }

    /// Returns the kind of the served objects.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.def.group, &self.version().name, &self.def.kind)
    }

    /// Returns whether the served form of objects is the same as in the watch cache.
    pub fn is_storage_version(&self) -> bool {
        if self.def.is_custom() {
            return self.def.stored_schema().is_some();
        }
        self.def.storage.as_ref().is_none_or(|storage| {
            storage.version.group == self.def.group && storage.version.version == self.version().name
        })
    }

    /// Returns the resource's name in errors.
    pub fn resource(&self) -> GroupResource {
        self.def.group_resource()
    }

    /// Returns the storage.
    ///
    /// # Errors
    /// 501 for a virtual resource.
    pub fn storage(&self) -> Result<&Arc<ResourceStorage>, Status> {
        self.storage.as_ref().ok_or_else(|| Status::not_implemented(self.resource()))
    }

    /// Returns the size of the requested object in the watch cache; 0 if it does not exist.
    fn size_of_object(&self, request: &ResourceRequest) -> usize {
        let Some(storage) = self.storage.as_ref().filter(|_| !request.name.is_empty()) else { return 0 };
        storage.find(&request.namespace, &request.name).map_or(0, |object| object.json_len())
    }

    /// Returns 404 if the requested object does not exist. A missing object takes precedence over an unsupported
    /// subresource.
    fn absent(&self, request: &ResourceRequest) -> Option<Status> {
        let storage = self.storage.as_ref().filter(|_| !request.name.is_empty())?;
        let found = storage.find(&request.namespace, &request.name);
        found.is_none().then(|| Status::not_found(&self.resource(), &request.name))
    }

    /// Returns whether the path has a different scope than a custom resource, which is then not served at this path
    /// (upstream: `crdHandler.ServeHTTP`).
    fn is_out_of_scope(&self, verb: Verb, request: &ResourceRequest) -> bool {
        let is_read_of_all = matches!(verb, Verb::List | Verb::Watch) && self.def.namespaced;
        self.def.is_custom() && self.def.namespaced != request.in_namespace && !is_read_of_all
    }

    /// Checks that the path has the resource's scope, and that the resource or subresource supports the verb.
    fn check_request(&self, verb: Verb, request: &ResourceRequest) -> Result<(), Status> {
        let def = &self.def;
        match (def.namespaced, request.in_namespace) {
            (true, true) | (false, false) => {}
            // Requests across all namespaces can only read, and only if the resource can be listed.
            (true, false) if request.name.is_empty() && def.serves(nave_resources::Verb::List) => {
                if !matches!(verb, Verb::List | Verb::Watch) {
                    return Err(Status::method_not_allowed_here());
                }
            }
            (true, false) | (false, true) => return Err(Status::no_such_path()),
        }
        if !request.rest.is_empty() && request.subresource != PATH_SUBRESOURCE {
            return Err(Status::no_such_path());
        }
        // Names cannot contain `..` or an encoded slash.
        let can_be_named = |part: &str| part.is_empty() || names::is_path_segment_name(part).is_empty();
        if !can_be_named(&request.namespace) || !can_be_named(&request.name) {
            return Err(Status::no_such_path());
        }
        let verbs = if request.subresource.is_empty() {
            def.verbs
        } else {
            self.version().subresource(&request.subresource).ok_or_else(Status::no_such_path)?.verbs
        };
        // A proxy also passes on the method OPTIONS, which has no verb.
        let is_passed_on = verb == Verb::Other && request.subresource == PATH_SUBRESOURCE;
        let served = is_passed_on || verbs.iter().any(|served| served.as_str() == verb.as_str());
        // A create targets the collection or a subresource; other requests for one object must name it.
        let named = !request.name.is_empty();
        let fits = match verb {
            Verb::Create => !named || !request.subresource.is_empty(),
            Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => named,
            _ => true,
        };
        if served && fits {
            return Ok(());
        }
        Err(Status::method_not_allowed_here())
    }
}
