//! The OpenAPI 2 document of this server and of aggregated servers.

use std::sync::Arc;

use nave_resources::Registry;
use parking_lot::Mutex;

use crate::openapi::remote::RemoteDocument;
use crate::openapi::{MergedV2, OpenApi};

/// The latest document with the parts that it was made from.
#[derive(Default)]
pub(super) struct MergedOpenApi(Mutex<Option<Made>>);

struct Made {
    registry: Arc<Registry>,
    others: Vec<Arc<RemoteDocument>>,
    document: Arc<MergedV2>,
}

impl MergedOpenApi {
    /// Returns whether the document of these parts exists.
    pub(super) fn is_made(&self, registry: &Arc<Registry>, others: &[Arc<RemoteDocument>]) -> bool {
        self.0.lock().as_ref().is_some_and(|made| made.is_of(registry, others))
    }

    /// Returns the document, which is made at the first request after a change.
    pub(super) fn get(
        &self,
        registry: &Arc<Registry>,
        own: &OpenApi,
        others: Vec<Arc<RemoteDocument>>,
    ) -> Arc<MergedV2> {
        let mut made = self.0.lock();
        if let Some(made) = &*made
            && made.is_of(registry, &others)
        {
            return Arc::clone(&made.document);
        }
        let document = Arc::new(own.merged_v2(&others));
        *made = Some(Made { registry: Arc::clone(registry), others, document: Arc::clone(&document) });
        document
    }
}

impl Made {
    fn is_of(&self, registry: &Arc<Registry>, others: &[Arc<RemoteDocument>]) -> bool {
        let same = |(one, other): (&Arc<RemoteDocument>, &Arc<RemoteDocument>)| Arc::ptr_eq(one, other);
        Arc::ptr_eq(&self.registry, registry)
            && self.others.len() == others.len()
            && self.others.iter().zip(others).all(same)
    }
}
