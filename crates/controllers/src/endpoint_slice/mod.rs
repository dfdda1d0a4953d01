//! Where the pods of a service are, in slices of at most 100 endpoints (upstream: `endpointslice`).
//!
//! A sync compares the endpoints that a service's pods make with those in its slices ([`slices::plan`]) and writes the
//! difference. Until the cache has seen what the last sync wrote, nothing is compared ([`pending`]).

pub(crate) mod endpoints;
pub(crate) mod mirroring;
mod pending;
mod slices;
mod writer;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nave_client::{Action, Lister, Object, ObjectName, SharedInformer, on_each_labelling};

use self::endpoints::Family;
use self::slices::Plan;
use self::writer::SliceWriter;
use crate::frame::{Context, ControllerBuilder, Descriptor, Reconciler, SyncError, Workers};
use crate::pods;
use crate::selectors::{Form, Selecting};

/// The label of a slice that names its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label of a slice that says who writes it.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// The label of the slices of a service without an address of its own.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Labels of slices that a service's own labels do not touch.
const OWN_LABELS: [&str; 3] = [SERVICE_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL];
/// The name under which this controller manages slices.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Changes of pods within this time are one sync: a service of many pods that come up together costs little.
const BATCH: Duration = Duration::from_millis(50);

/// The controller.
pub(crate) const ENDPOINT_SLICE: Descriptor = Descriptor {
    name: "endpointslice-controller",
    alias: "endpointslice",
    service_account: "endpointslice-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-service-endpoint-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("endpoint_slice");
    let (services, pods) = (builder.informer::<Service>(), builder.informer::<Pod>());
    let (nodes, slices) = (builder.informer::<Node>(), builder.informer::<EndpointSlice>());
    builder.work_on(&services);
    watch_pods(&mut builder, &services, &pods);
    let writer = SliceWriter::new(context.client.clone(), &slices, MANAGER);
    builder.watch(&slices, writer.handler(builder.queue()));
    builder.run(EndpointSliceController {
        services: services.lister(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        writer,
    })
}

struct EndpointSliceController {
    services: Lister<Service>,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    writer: SliceWriter,
}

impl Reconciler for EndpointSliceController {
    /// Brings the slices of a service where they belong.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let key = &key;
        let Some(service) = self.services.get_by_key(key) else {
            // Its slices are the garbage collector's.
            self.writer.forget(key);
            return Ok(Action::Done);
        };
        if service.is_being_deleted() {
            return Ok(Action::Done);
        }
        if let Some(wait) = self.writer.wait(key) {
            return Ok(Action::RequeueAfter(wait));
        }
        let service = service.decode()?;
        let Some(selector) = endpoints::selector(&service) else { return Ok(Action::Done) };
        let pods = pods_of(&self.pods, key.namespace(), selector)?;
        let existing = self.writer.slices_of(key)?;
        let families = Family::of_service(&service);
        let mut missing_node = None;
        for family in [Family::V4, Family::V6] {
            let existing: Vec<_> =
                existing.iter().filter(|slice| slice.address_type == family.as_str()).cloned().collect();
            let plan = if families.contains(&family) {
                let mut desired = Vec::new();
                for pod in &pods {
                    let node = self.node_of(pod)?;
                    if node.is_none() && !endpoints::publishes_not_ready(&service) {
                        missing_node = Some(pods::node_name(pod).unwrap_or_default().to_owned());
                        continue;
                    }
                    if let Some(endpoint) = endpoints::endpoint(pod, node.as_ref(), &service, family) {
                        desired.push((endpoints::ports(pod, &service), endpoint));
                    }
                }
                slices::plan(&service, family, &existing, desired)
            } else {
                Plan { delete: existing, ..Plan::default() }
            };
            self.writer.carry_out(key, plan).await?;
        }
        match missing_node {
            Some(name) => Err(SyncError::Invalid(format!("pods are on a node that is not there: {name:?}"))),
            None => Ok(Action::Done),
        }
    }
}

impl EndpointSliceController {
    fn node_of(&self, pod: &Pod) -> Result<Option<Node>, SyncError> {
        let Some(name) = pods::node_name(pod) else { return Ok(None) };
        Ok(self.nodes.get("", name).map(|node| node.decode()).transpose()?)
    }
}

/// The pods that can be behind a service.
pub(crate) fn pods_of(
    pods: &Lister<Pod>,
    namespace: &str,
    selector: &BTreeMap<String, String>,
) -> Result<Vec<Pod>, SyncError> {
    let all = pods.list_namespace(namespace);
    let selected = all.iter().filter(|pod| is_selected(pod, selector));
    let mut pods = selected.map(Object::decode).collect::<Result<Vec<_>, _>>()?;
    pods.retain(endpoints::counts);
    Ok(pods)
}

fn is_selected(pod: &Object<Pod>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| pod.label(key) == Some(value))
}

/// Has the services looked at that a pod is or was behind.
pub(crate) fn watch_pods(
    builder: &mut ControllerBuilder,
    services: &SharedInformer<Service>,
    pods: &SharedInformer<Pod>,
) {
    let (queue, selecting) = (builder.queue(), Selecting::new(services.lister(), Form::Labels));
    builder.watch(
        pods,
        on_each_labelling(move |pod| {
            for service in selecting.of(pod) {
                queue.add_after(service.key(), BATCH);
            }
        }),
    );
}
