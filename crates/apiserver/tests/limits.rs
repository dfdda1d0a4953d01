//! Objects of the maximum depth, objects that are too deep, and objects that cannot be decoded, in all requests and
//! responses.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use nave_admission::Chain;
use nave_apiserver::context::RequestContext;
use nave_apiserver::endpoints::response::ObjectResponse;
use nave_apiserver::endpoints::view::View;
use nave_apiserver::endpoints::write::{Payload, Target};
use nave_apiserver::endpoints::{Endpoint, delete, read, write};
use nave_apiserver::negotiation::Negotiation;
use nave_apiserver::request_info::{Query, ResourceRequest};
use nave_apiserver::steps::Steps;
use nave_apiserver::storage::{Storages, WatchCacheSizes};
use nave_codec::negotiate::{ContentType, Format, PatchType};
use nave_codec::{json, protobuf, yaml};
use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::options::{CreateOptions, DeleteOptions, ListOptions, PatchOptions, UpdateOptions};
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionResource, Reason, Status, Value};
use nave_resources::Registry;
use nave_store::{Embedded, Expect, Op, Store, Txn, embedded};
use serde_json::json;

const NAMESPACE: &str = "default";

const PATCHES: [PatchType; 3] = [PatchType::Json, PatchType::Merge, PatchType::Strategic];

/// All forms of response with an object; those with a list have other names of metadata. Tables have no protobuf form.
const ACCEPTED: [&str; 8] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/yaml;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/yaml;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
];

struct World {
    store: Arc<dyn Store>,
    storages: Storages,
    admission: Chain,
    context: RequestContext,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(folder.path(), &embedded::Options::default()).unwrap());
        let registry = Registry::builtin(nave_schema::builtin());
        let storages = Storages::open(registry, Arc::clone(&store), &WatchCacheSizes::default());
        storages.wait_ready().await;
        Self {
            store,
            storages,
            admission: Chain::default(),
            context: RequestContext::internal(UserInfo::default()),
            _folder: folder,
        }
    }

    fn endpoint(&self, resource: Resource) -> Endpoint {
        let def = Arc::clone(self.storages.registry().lookup(&resource.gvr()).unwrap());
        let storage = self.storages.get(&resource.gvr()).cloned();
        Endpoint { def, version: 0, storage, watched: Arc::default(), allocator: None }
    }

    async fn create(
        &self,
        resource: Resource,
        object: &Value,
        format: Format,
    ) -> Result<ObjectResponse, Status> {
        let endpoint = self.endpoint(resource);
        let payload =
            Payload { bytes: body(object, format), content_type: Some(ContentType::Object(format)) };
        write::create(&self.target(&endpoint, ""), &payload, &CreateOptions::default()).await
    }

    async fn update(&self, resource: Resource, name: &str, object: &Value) -> Result<ObjectResponse, Status> {
        let endpoint = self.endpoint(resource);
        let content_type = Some(ContentType::Object(Format::Json));
        let payload = Payload { bytes: body(object, Format::Json), content_type };
        let options = UpdateOptions::default();
        write::update(&self.target(&endpoint, name), &payload, &options, None).await
    }

    async fn patch(
        &self,
        resource: Resource,
        name: &str,
        kind: PatchType,
        patch: &Value,
    ) -> Result<ObjectResponse, Status> {
        let endpoint = self.endpoint(resource);
        let content_type = Some(ContentType::Patch(kind));
        let payload = Payload { bytes: serde_json::to_vec(patch).unwrap().into(), content_type };
        write::patch(&self.target(&endpoint, name), &payload, &PatchOptions::default(), None).await
    }

    async fn delete(&self, resource: Resource, name: &str, options: Value) -> Result<ObjectResponse, Status> {
        let endpoint = self.endpoint(resource);
        let options = DeleteOptions::parse(&[], &options).unwrap();
        delete::delete(&self.target(&endpoint, name), &options).await
    }

    async fn delete_collection(&self, resource: Resource) -> Result<(), Status> {
        let endpoint = self.endpoint(resource);
        let request = resource.request("");
        let selected = read::select(&endpoint, &request, &ListOptions::default(), &steps()).await?.objects;
        let target = self.target(&endpoint, "");
        delete::delete_collection(&target, selected, &DeleteOptions::default(), 1).await?;
        delete::delete_collection_of_undecodable(&target, &DeleteOptions::default()).await
    }

    async fn get(&self, resource: Resource, name: &str, accept: &str) -> Result<Bytes, Status> {
        let request = resource.request(name);
        encoded(read::get(&self.endpoint(resource), &View::Object, &request, &[], &steps()).await?, accept)
            .await
    }

    async fn list(&self, resource: Resource, accept: &str) -> Result<Bytes, Status> {
        let request = resource.request("");
        let accept = accept.replace("PartialObjectMetadata", "PartialObjectMetadataList");
        encoded(
            read::list(&self.endpoint(resource), &request, &ListOptions::default(), &steps()).await?,
            &accept,
        )
        .await
    }

    fn target<'a>(&'a self, endpoint: &'a Endpoint, name: &'a str) -> Target<'a> {
        let (context, admission) = (&self.context, &self.admission);
        Target { context, endpoint, view: View::Object, namespace: NAMESPACE, name, admission }
    }

    /// Stores bytes as another server could, and waits for the watch cache.
    async fn store(&self, resource: Resource, name: &str, value: impl Into<Bytes>) -> u64 {
        let key = resource.key(name);
        let op = Op::Put { value: value.into(), ttl: None };
        self.store.txn(Txn { key: key.as_str().into(), expect: Expect::Absent, op }).await.unwrap();
        let revision = self.store.current_revision().await.unwrap();
        let cacher = self.storages.cacher(&resource.gvr()).unwrap();
        cacher.wait_until(revision, Duration::from_secs(30)).await.unwrap();
        revision
    }
}

/// Resources with fields that contain arbitrary JSON.
#[derive(Clone, Copy, Debug)]
enum Resource {
    ConfigMaps,
    ControllerRevisions,
}

impl Resource {
    const ALL: [Self; 2] = [Self::ConfigMaps, Self::ControllerRevisions];

    fn gvr(self) -> GroupVersionResource {
        match self {
            Self::ConfigMaps => GroupVersionResource::new("", "v1", "configmaps"),
            Self::ControllerRevisions => GroupVersionResource::new("apps", "v1", "controllerrevisions"),
        }
    }

    fn key(self, name: &str) -> String {
        format!("/registry/{}/{NAMESPACE}/{name}", self.gvr().resource)
    }

    fn request(self, name: &str) -> ResourceRequest {
        ResourceRequest {
            gvr: self.gvr(),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            ..ResourceRequest::default()
        }
    }

    /// Returns an object that nests `depth` levels.
    fn nested(self, name: &str, depth: usize) -> Value {
        let raw = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ self.element(): inner }));
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        match self {
            Self::ConfigMaps => {
                let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
                object["metadata"]["managedFields"] = json!([{
                    "manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                    "time": "2026-01-01T00:00:00Z", "fieldsV1": raw(depth - 4),
                }]);
                object
            }
            Self::ControllerRevisions => json!({
                "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": 1,
                "data": raw(depth - 1),
            }),
        }
    }

    /// Returns the field name of each level of the deep JSON.
    fn element(self) -> &'static str {
        match self {
            Self::ConfigMaps => "f:a",
            Self::ControllerRevisions => "a",
        }
    }

    /// Returns the JSON pointer to the deep JSON.
    fn path(self) -> &'static str {
        match self {
            Self::ConfigMaps => "/metadata/managedFields/0/fieldsV1",
            Self::ControllerRevisions => "/data",
        }
    }
}

fn steps() -> Steps {
    Steps::new(Instant::now())
}

fn body(object: &Value, format: Format) -> Bytes {
    match format {
        Format::Json => json::encode(object).into(),
        Format::Yaml => yaml::encode(object).into(),
        Format::Protobuf => protobuf_body(object).into(),
    }
}

/// Encodes an object in its envelope, even if the object is too deep for the server's encoder.
fn protobuf_body(object: &Value) -> Vec<u8> {
    let resource =
        if object["kind"] == "ConfigMap" { Resource::ConfigMaps } else { Resource::ControllerRevisions };
    let mut shallow = object.clone();
    let raw = shallow.pointer_mut(resource.path()).unwrap().take();
    let set = nave_schema::builtin();
    let version = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap();
    let id = match resource {
        Resource::ConfigMaps => "io.k8s.api.core.v1.ConfigMap",
        Resource::ControllerRevisions => "io.k8s.api.apps.v1.ControllerRevision",
    };
    // The lengths of all enclosing messages depend on the JSON text, so a placeholder of the same length is encoded
    // first.
    let text = json::encode(&raw);
    let padded = format!("{{\"{}\":1}}", "x".repeat(text.len() - 6));
    *shallow.pointer_mut(resource.path()).unwrap() = serde_json::from_str(&padded).unwrap();
    let mut message = Vec::new();
    protobuf::encode(set, set.find(id).unwrap(), &shallow, &mut message).unwrap();
    let at = message.windows(padded.len()).position(|window| window == padded.as_bytes()).unwrap();
    message[at..at + text.len()].copy_from_slice(&text);
    protobuf::envelope::wrap(version, kind, &message)
}

async fn encoded(answer: ObjectResponse, accept: &str) -> Result<Bytes, Status> {
    let request = Request::builder().header(header::ACCEPT, accept).body(()).unwrap();
    let response = answer.encode(&Negotiation::new(request.headers(), &Query::default()))?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

fn code<T>(outcome: Result<T, Status>) -> u16 {
    outcome.map_or_else(|status| status.code, |_| 200)
}

#[tokio::test]
async fn objects_of_maximum_depth_pass_all_requests_and_responses() {
    let world = World::new().await;
    for resource in Resource::ALL {
        for format in Format::ALL {
            let deepest = resource.nested("deep", MAX_DEPTH);
            let created = world.create(resource, &deepest, format).await.unwrap();
            encoded(created, "application/json").await.unwrap();
            for accept in ACCEPTED {
                world.get(resource, "deep", accept).await.unwrap();
                world.list(resource, accept).await.unwrap();
            }
            let read: Value =
                serde_json::from_slice(&world.get(resource, "deep", ACCEPTED[0]).await.unwrap()).unwrap();
            assert_eq!(read.pointer(resource.path()), deepest.pointer(resource.path()), "{format:?}");
            for kind in PATCHES {
                let patch = match kind {
                    PatchType::Json => {
                        json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "json"}}])
                    }
                    _ => json!({"metadata": {"labels": {"a": format!("{kind:?}")}}}),
                };
                world.patch(resource, "deep", kind, &patch).await.unwrap();
            }
            let mut changed = read.clone();
            changed["metadata"]["resourceVersion"] = json!("");
            changed["metadata"]["labels"] = json!({"a": "update"});
            world.update(resource, "deep", &changed).await.unwrap();
            world.delete(resource, "deep", json!(null)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn rejects_deeper_objects_in_all_requests() {
    let world = World::new().await;
    for resource in Resource::ALL {
        let small = resource.nested("small", 6);
        world.create(resource, &small, Format::Json).await.unwrap();
        for depth in [MAX_DEPTH + 1, 125, 129, 513, 1500] {
            let deep = resource.nested("deep", depth);
            for format in Format::ALL {
                assert_eq!(code(world.create(resource, &deep, format).await), 400, "{depth} {format:?}");
            }
            assert_eq!(code(world.update(resource, "small", &resource.nested("small", depth)).await), 400);
            for kind in PATCHES {
                let value = deep.pointer(resource.path()).unwrap();
                let patch = match (kind, resource) {
                    (PatchType::Json, _) => {
                        json!([{"op": "replace", "path": resource.path(), "value": value}])
                    }
                    (_, Resource::ConfigMaps) => json!({"metadata": deep["metadata"]}),
                    (_, Resource::ControllerRevisions) => json!({"data": value}),
                };
                assert_eq!(code(world.patch(resource, "small", kind, &patch).await), 400, "{depth} {kind:?}");
            }
        }
        let path = resource.path();
        let mut doubling = vec![json!({"op": "replace", "path": path, "value": {}})];
        for at in 0..14 {
            let place = format!("{path}{}", format!("/{}", resource.element()).repeat(1 << at));
            doubling.push(json!({"op": "copy", "from": path, "path": place}));
        }
        assert_eq!(code(world.patch(resource, "small", PatchType::Json, &json!(doubling)).await), 400);
        let read = world.get(resource, "small", ACCEPTED[0]).await.unwrap();
        let read: Value = serde_json::from_slice(&read).unwrap();
        assert_eq!(read.pointer(path), small.pointer(path));
        world.delete(resource, "small", json!(null)).await.unwrap();
    }
}

/// The stored bytes come from an older version or another server, or are damaged.
#[tokio::test]
async fn undecodable_objects_can_be_deleted_and_block_nothing() {
    let world = World::new().await;
    for resource in Resource::ALL {
        let deep = protobuf_body(&resource.nested("deep", 1500));
        let cut = deep[..deep.len() - 40].to_vec();
        let broken: [(&str, Vec<u8>); 4] =
            [("deep", deep), ("cut", cut), ("garbage", vec![0xff; 100]), ("empty", Vec::new())];
        world.create(resource, &resource.nested("whole", 6), Format::Json).await.unwrap();
        for (name, bytes) in broken {
            let revision = world.store(resource, name, bytes.clone()).await;
            for accept in ACCEPTED {
                world.list(resource, accept).await.unwrap();
            }
            let status = world.get(resource, name, ACCEPTED[0]).await.unwrap_err();
            assert_eq!((status.code, status.reason), (500, Some(Reason::StoreReadError)), "{name}");
            let taken = world.create(resource, &resource.nested(name, 6), Format::Json).await;
            assert_eq!(code(taken), 409, "{name}");
            for options in [
                json!({"preconditions": {"uid": "another"}}),
                json!({"preconditions": {"resourceVersion": "1"}}),
            ] {
                assert_eq!(code(world.delete(resource, name, options).await), 409, "{name}");
            }
            let dry_run = json!({"dryRun": ["All"]});
            world.delete(resource, name, dry_run).await.unwrap();
            assert_eq!(code(world.get(resource, name, ACCEPTED[0]).await), 500, "{name}");
            let meant = json!({"preconditions": {"resourceVersion": revision.to_string()}});
            world.delete(resource, name, meant).await.unwrap();
            assert_eq!(code(world.get(resource, name, ACCEPTED[0]).await), 404, "{name}");
            world.create(resource, &resource.nested(name, 6), Format::Json).await.unwrap();
            world.delete(resource, name, json!(null)).await.unwrap();
            world.store(resource, name, bytes).await;
        }
        // Deletes the collection, as the namespace controller does.
        world.delete_collection(resource).await.unwrap();
        for name in ["deep", "cut", "garbage", "empty", "whole"] {
            assert_eq!(code(world.get(resource, name, ACCEPTED[0]).await), 404, "{name}");
        }
    }
}
