//! The store of one resource whose values are encrypted in another store.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use nave_machinery::GroupResource;
use nave_store::{
    Defragmentation, EventKind, KeyValue, Op, Range, RangeResult, Store, StoreError, StoreStatus, Txn,
    TxnOutcome, WatchBatch, WatchStream,
};

use crate::providers::{Decrypted, ENCRYPTED, Object, Providers};
use crate::{Encryption, TransformError};

/// A store of one resource. Values are encrypted in the inner store.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    values: Values,
}

/// Encrypts and decrypts the values of a resource.
#[derive(Clone)]
struct Values {
    encryption: Encryption,
    resource: GroupResource,
    /// The resource in metrics.
    label: Arc<str>,
}

impl EncryptedStore {
    /// Creates a store of `resource` over `inner`.
    pub(crate) fn new(encryption: Encryption, resource: &GroupResource, inner: Arc<dyn Store>) -> Self {
        let label = resource.to_string().into();
        Self { inner, values: Values { encryption, resource: resource.clone(), label } }
    }
}

impl Values {
    fn encrypt(&self, key: &str, op: &mut Op) -> Result<(), StoreError> {
        let Op::Put { value, .. } = op else { return Ok(()) };
        let Some(providers) = self.providers() else { return Ok(()) };
        let stored_key = self.encryption.stored_key(key);
        let encrypted = providers.encrypt(self.object(&stored_key), std::mem::take(value));
        *value = encrypted.map_err(|error| failed(&error))?;
        Ok(())
    }

    fn providers(&self) -> Option<Arc<Providers>> {
        self.encryption.providers(&self.resource)
    }

    /// Returns the plain value of a stored version.
    async fn decrypt(
        &self,
        providers: Option<&Providers>,
        kv: &KeyValue,
    ) -> Result<Decrypted, TransformError> {
        match providers {
            Some(providers) => {
                let stored_key = self.encryption.stored_key(&kv.key);
                providers.decrypt(self.object(&stored_key), &kv.value).await
            }
            None if kv.value.starts_with(ENCRYPTED) => Err(TransformError::Encrypted),
            None => Ok(Decrypted { value: kv.value.clone(), is_stale: false }),
        }
    }

    async fn read(&self, kv: Option<KeyValue>) -> Result<Option<KeyValue>, StoreError> {
        let Some(mut kv) = kv else { return Ok(None) };
        let decrypted = self.decrypt(self.providers().as_deref(), &kv).await;
        kv.value = decrypted.map_err(|error| failed(&error))?.value;
        Ok(Some(kv))
    }

    /// Decrypts several versions in place. The error names the key.
    async fn read_all(&self, versions: impl Iterator<Item = &mut KeyValue>) -> Result<(), StoreError> {
        let providers = self.providers();
        for kv in versions {
            let decrypted = self.decrypt(providers.as_deref(), kv).await.map_err(|error| {
                let key = self.encryption.stored_key(&kv.key);
                failed(&format!("unable to transform key {key:?}: {error}"))
            })?;
            kv.value = decrypted.value;
        }
        Ok(())
    }

    async fn read_batch(&self, mut batch: WatchBatch) -> Result<WatchBatch, StoreError> {
        let puts = batch.events.iter_mut().filter(|event| event.kind == EventKind::Put);
        self.read_all(puts.map(|event| &mut event.kv)).await?;
        Ok(batch)
    }

    fn object<'a>(&'a self, key: &'a str) -> Object<'a> {
        Object { resource: &self.label, key, metrics: self.encryption.metrics() }
    }
}

fn failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Transform(error.to_string().into())
}

#[async_trait]
impl Store for EncryptedStore {
    async fn txn(&self, mut txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.values.encrypt(&txn.key, &mut txn.op)?;
        Ok(match self.inner.txn(txn).await? {
            TxnOutcome::Failed { current, revision } => {
                TxnOutcome::Failed { current: self.values.read(current).await?, revision }
            }
            committed @ TxnOutcome::Committed { .. } => committed,
        })
    }

    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        self.values.read(self.inner.get(key, revision).await?).await
    }

    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.inner.revision(key).await
    }

    async fn is_stale(&self, key: &str) -> Result<bool, StoreError> {
        let Some(providers) = self.values.providers().filter(|providers| providers.can_encrypt()) else {
            return Ok(false);
        };
        let Some(kv) = self.inner.get(key, None).await? else { return Ok(false) };
        Ok(self.values.decrypt(Some(&providers), &kv).await.map_err(|error| failed(&error))?.is_stale)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let mut found = self.inner.range(range).await?;
        self.values.read_all(found.items.iter_mut()).await?;
        Ok(found)
    }

    async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        self.inner.count(prefix).await
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        self.inner.compacted_revision().await
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        let open = Some((self.values.clone(), self.inner.watch(prefix, from_revision).await?));
        // An error is the last item.
        Ok(Box::pin(stream::unfold(open, async |open| {
            let (values, mut batches) = open?;
            let batch = match batches.next().await? {
                // Boxed, because a watch mostly waits and would keep room for this.
                Ok(batch) => Box::pin(values.read_batch(batch)).await,
                Err(error) => Err(error),
            };
            let open = batch.is_ok().then_some((values, batches));
            Some((batch, open))
        })))
    }

    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        self.inner.request_progress(prefix).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        self.inner.defragment().await
    }

    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        self.inner.snapshot(to).await
    }
}
