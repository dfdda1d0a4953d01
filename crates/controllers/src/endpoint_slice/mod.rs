//! Endpoint slices of services with a selector, with at most 100 endpoints each (upstream: `endpointslice`).
//!
//! A sync compares the endpoints of a service's pods with the endpoints in its slices ([`slices::plan`]) and writes the
//! difference. It waits until the cache shows the slices that the last sync wrote ([`pending`]).

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
use crate::selectors::{SelectorForm, SelectorIndex};

/// Label of a slice: the name of its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label of a slice: the controller that manages it.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of the slices of a headless service.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Labels of slices that the service's labels do not override.
const OWN_LABELS: [&str; 3] = [SERVICE_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL];
/// The value of the label that marks this controller's slices.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The time during which pod changes are batched into one sync. Starting many pods of a service costs few syncs.
const BATCH: Duration = Duration::from_millis(50);

pub(crate) const ENDPOINT_SLICE: Descriptor = Descriptor {
    name: "endpointslice-controller",
    alias: "endpointslice",
    service_account: "endpointslice-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-service-endpoint-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, services) = context.controller_for::<Service>("endpoint_slice");
    let pods = builder.informer::<Pod>();
    let (nodes, slices) = (builder.informer::<Node>(), builder.informer::<EndpointSlice>());
    watch_pods(&mut builder, &services, &pods);
    let writer = SliceWriter::new(context.client.clone(), &slices, MANAGER);
    builder.add_handler(&slices, writer.handler(builder.queue()));
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
    /// Updates the slices of a service.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let key = &key;
        let Some(service) = self.services.get_by_key(key) else {
            // The garbage collector deletes the slices.
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
            self.writer.apply(key, plan).await?;
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

/// The eligible pods that a selector matches.
pub(crate) fn pods_of(
    pods: &Lister<Pod>,
    namespace: &str,
    selector: &BTreeMap<String, String>,
) -> Result<Vec<Pod>, SyncError> {
    let all = pods.list_namespace(namespace);
    let selected = all.iter().filter(|pod| is_selected(pod, selector));
    let mut pods = selected.map(Object::decode).collect::<Result<Vec<_>, _>>()?;
    pods.retain(endpoints::is_eligible);
    Ok(pods)
}

fn is_selected(pod: &Object<Pod>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| pod.label(key) == Some(value))
}

/// Enqueues the services that select a pod now or selected it before the change.
pub(crate) fn watch_pods(
    builder: &mut ControllerBuilder,
    services: &SharedInformer<Service>,
    pods: &SharedInformer<Pod>,
) {
    let (queue, index) = (builder.queue(), SelectorIndex::new(services.lister(), SelectorForm::Labels));
    builder.add_handler(
        pods,
        on_each_labelling(move |pod| {
            for service in index.selecting(pod) {
                queue.add_after(service.key(), BATCH);
            }
        }),
    );
}
