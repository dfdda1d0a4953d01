//! A metadata informer for each served resource, built-in or custom.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use nave_client::{
    Backoff, BackoffTimer, Deleted, EventHandler, Object, PartialObjectMetadata, Registration,
    SharedInformerFactory, redacted,
};
use nave_machinery::GroupVersionResource;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::collector::{self, Collector};
use super::graph::{Kind, Observed, Owner};
use super::uid::Uid;
use crate::discovery::{Discovered, Resource};

/// The interval of discovery, for resources that are not announced by a custom resource definition.
const INTERVAL: Duration = Duration::from_secs(30);
/// A definition is served some time after its creation, so discovery runs at short intervals for this long after a
/// change.
const UNSETTLED: Duration = Duration::from_secs(5);
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(500);

/// Resources whose changes announce that other resources are added or removed.
const ANNOUNCING: [(&str, &str); 2] =
    [("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")];
/// Resources that have no owners and no dependents.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// The informers, by resource.
pub(super) struct Monitors {
    client: kube::Client,
    informers: SharedInformerFactory,
    collector: Arc<Collector>,
    handlers: HashMap<GroupVersionResource, Registration>,
    announced: Arc<Notify>,
}

impl Monitors {
    /// Creates monitors without informers.
    pub(super) fn new(
        client: kube::Client,
        informers: SharedInformerFactory,
        collector: Arc<Collector>,
    ) -> Self {
        Self { client, informers, collector, handlers: HashMap::new(), announced: Arc::default() }
    }

    /// Retries discovery until it succeeds, then adds an informer for each resource.
    pub(super) async fn discover(&mut self) {
        let mut backoff = BackoffTimer::new(Backoff::REFLECTOR);
        while let Err(error) = self.refresh().await {
            tracing::warn!(%error, "discovery failed");
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Waits until the graph has all objects of the initial lists.
    pub(super) async fn synced(&self) {
        for handler in self.handlers.values() {
            handler.wait_for_sync().await;
        }
    }

    /// Keeps the informers in sync with the served resources.
    pub(super) async fn keep_up_to_date(&mut self) {
        let announced = Arc::clone(&self.announced);
        let mut restless_until = Instant::now();
        loop {
            let now = Instant::now();
            let next = now + if now < restless_until { UNSETTLED_INTERVAL } else { INTERVAL };
            tokio::select! {
                () = sleep_until(next) => {}
                () = announced.notified() => restless_until = Instant::now() + UNSETTLED,
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "discovery failed");
            }
        }
    }

    /// Discovers the served resources, and adds and removes informers accordingly.
    async fn refresh(&mut self) -> Result<(), kube::Error> {
        let answer = timeout(INTERVAL, Discovered::discover(&self.client)).await;
        let Ok(discovered) = answer else { return Ok(()) };
        let discovered = Arc::new(discovered.map_err(redacted)?);
        self.collector.set_discovered(Arc::clone(&discovered));
        let mut served = HashSet::new();
        for resource in discovered.preferred().filter(|resource| is_monitored(resource)) {
            let gvr = resource.resource();
            served.insert(gvr.clone());
            if !self.handlers.contains_key(&gvr) {
                let handler = self.handler(resource);
                let registration = self.informers.metadata_for_resource(&gvr).add_event_handler(handler);
                self.handlers.insert(gvr, registration);
            }
        }
        self.informers.start();
        let is_lost = |gvr: &GroupVersionResource| {
            let version = if gvr.group.is_empty() {
                gvr.version.clone()
            } else {
                format!("{}/{}", gvr.group, gvr.version)
            };
            !served.contains(gvr) && !discovered.failed.contains(&version)
        };
        let lost: Vec<_> = self.handlers.keys().filter(|gvr| is_lost(gvr)).cloned().collect();
        for gvr in lost {
            if let Some(handler) = self.handlers.remove(&gvr) {
                handler.remove();
            }
            self.informers.stop_informer(&gvr);
        }
        Ok(())
    }

    fn handler(&self, resource: &Resource) -> Handler {
        let announces = ANNOUNCING.contains(&(&resource.group, &resource.plural));
        Handler {
            kind: Arc::new(Kind { api_version: resource.api_version(), kind: resource.kind.clone() }),
            collector: Arc::clone(&self.collector),
            announced: announces.then(|| Arc::clone(&self.announced)),
        }
    }
}

fn is_monitored(resource: &Resource) -> bool {
    ["delete", "list", "watch"].iter().all(|verb| resource.serves(verb))
        && !IGNORED.contains(&(&resource.group, &resource.plural))
}

/// Updates the graph with the objects of one resource.
struct Handler {
    kind: Arc<Kind>,
    collector: Arc<Collector>,
    announced: Option<Arc<Notify>>,
}

impl Handler {
    fn observe(&self, object: &Object<PartialObjectMetadata>) {
        let owners: Vec<_> = object
            .owner_references()
            .map(|owner| Owner {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                blocking: owner.block_owner_deletion,
            })
            .collect();
        let observed = Observed {
            kind: &self.kind,
            namespace: object.namespace(),
            name: object.name(),
            uid: Uid::new(object.uid()),
            owners: &owners,
            deletion: collector::deletion(object.is_being_deleted(), object.finalizers()),
            cached: Some(object),
        };
        self.collector.change(|graph, work| graph.observe(&observed, work));
    }

    fn remove(&self, object: &Object<PartialObjectMetadata>) {
        let uid = Uid::new(object.uid());
        self.collector.change(|graph, work| graph.remove(&uid, work));
    }

    fn announce(&self) {
        if let Some(announced) = &self.announced {
            announced.notify_one();
        }
    }
}

impl EventHandler<PartialObjectMetadata> for Handler {
    fn on_add(&self, object: &Object<PartialObjectMetadata>, _: bool) {
        self.observe(object);
        self.announce();
    }

    fn on_update(&self, old: &Object<PartialObjectMetadata>, new: &Object<PartialObjectMetadata>) {
        if old.uid() != new.uid() {
            self.remove(old);
        }
        self.observe(new);
        self.announce();
    }

    fn on_delete(&self, deleted: &Deleted<PartialObjectMetadata>) {
        self.remove(deleted.object());
        self.announce();
    }
}
