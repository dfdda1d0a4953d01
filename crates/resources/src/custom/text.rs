//! The text of a definition, from which schemas are compiled when they are needed.

use std::sync::Arc;

use nave_machinery::Value;
use nave_machinery::packed::Packed;
use parking_lot::RwLock;

use crate::read;

/// The compressed JSON of a definition. All its versions share it, with the watch cache of definitions.
#[derive(Debug)]
pub struct DefinitionText(RwLock<Arc<Packed>>);

impl DefinitionText {
    /// Creates the text from the JSON of a definition.
    pub fn new(json: Arc<Packed>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(json)))
    }

    /// Replaces the JSON by that of a newer definition with the same `spec`, so that the old one can be dropped.
    pub fn replace(&self, json: Arc<Packed>) {
        let old = std::mem::replace(&mut *self.0.write(), json);
        // Dropped after the lock is released.
        drop(old);
    }

    /// Returns `openAPIV3Schema` of a version; `None` if the version has no schema.
    pub(super) fn schema(&self, version: &str) -> Option<Value> {
        let json = Arc::clone(&*self.0.read());
        let mut definition: Value = serde_json::from_slice(&json.unpack()).ok()?;
        let versions = definition.get_mut("spec")?.get_mut("versions")?.as_array_mut()?;
        let version = versions.iter_mut().find(|spec| read::text(spec, "name") == version)?;
        version.get_mut("schema")?.get_mut("openAPIV3Schema").map(Value::take)
    }
}
