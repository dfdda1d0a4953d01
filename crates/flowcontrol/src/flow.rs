//! A flow schema in use.

use std::sync::{Arc, OnceLock};

use nave_machinery::user::UserInfo;
use prometheus::{Histogram, IntCounter};

use crate::controller::Request;
use crate::dealer::flow_hash;
use crate::level::Level;
use crate::matching::RequestAttributes;
use crate::metrics::FlowMetrics;
use crate::objects::{DistinguisherMethod, FlowSchemaSpec};

/// A flow schema and its priority level.
pub struct Flow {
    /// The name of the schema.
    pub name: Arc<str>,
    /// The uid of the schema; empty for one that is not stored.
    pub uid: Arc<str>,
    /// The uid of the level.
    pub level_uid: Arc<str>,
    pub(crate) spec: FlowSchemaSpec,
    pub(crate) level: Arc<Level>,
    pub(crate) metrics: Arc<FlowMetrics>,
    handles: OnceLock<Handles>,
}

/// The metrics of a flow. They exist from its first request on.
pub(crate) struct Handles {
    pub(crate) dispatched: IntCounter,
    pub(crate) waits: Histogram,
    pub(crate) executions: Histogram,
    pub(crate) watch_initializations: Histogram,
    pub(crate) seats: Histogram,
    pub(crate) queue_lengths: Histogram,
}

impl Flow {
    pub(crate) fn new(
        (name, uid): (&str, &str),
        spec: FlowSchemaSpec,
        level: Arc<Level>,
        level_uid: &str,
        metrics: Arc<FlowMetrics>,
    ) -> Self {
        let handles = OnceLock::new();
        Self {
            name: name.into(),
            uid: uid.into(),
            level_uid: level_uid.into(),
            spec,
            level,
            metrics,
            handles,
        }
    }

    /// Returns the name of the priority level.
    pub fn level_name(&self) -> &str {
        self.level.name()
    }

    /// Returns the maximum number of seats of a request in the level; 0 without one.
    pub fn max_seats(&self) -> u32 {
        self.level.max_seats()
    }

    /// Records the number of watches that a write of the flow concerns.
    pub fn observe_watch_count(&self, count: u32) {
        self.metrics.watch_count(self.level.name(), &self.name, count);
    }

    /// Returns what tells the flows of the schema apart: the user, the namespace or nothing.
    pub(crate) fn distinguisher<'r>(
        &self,
        user: &'r UserInfo,
        request: &'r dyn RequestAttributes,
    ) -> &'r str {
        match self.spec.distinguisher_method {
            None => "",
            Some(DistinguisherMethod::ByUser) => &user.name,
            Some(DistinguisherMethod::ByNamespace) => {
                request.resource().map_or("", |resource| resource.namespace)
            }
        }
    }

    pub(crate) fn hash(&self, request: &Request) -> u64 {
        flow_hash(&self.name, self.distinguisher(&request.user, &*request.attributes))
    }

    pub(crate) fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| self.metrics.handles(self.level.name(), &self.name))
    }
}
