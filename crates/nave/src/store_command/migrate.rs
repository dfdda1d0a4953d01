//! Copies the objects of a store to an empty one.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use nave_store::{Expect, KeyValue, Store, StoreError, Txn};

use super::digest::{self, Digest, Pages, is_transient};
use super::{PREFIX, StoreCommandError};
use crate::flags::Location;

/// Copies the state of `source` at one revision to `target` and compares the digests.
pub(super) async fn copy(
    source: &dyn Store,
    target: &dyn Store,
    location: &Location,
) -> Result<Digest, StoreCommandError> {
    let existing = target.count(PREFIX).await?;
    if existing > 0 {
        return Err(StoreCommandError::NotEmpty(existing));
    }
    let has_other_prefix =
        matches!(location, Location::Etcd(options) if options.prefix.trim_matches('/') != "registry");
    let revision = source.current_revision().await?;
    let mut pages = Pages::new(Some(revision));
    while let Some(page) = pages.next(source).await? {
        if has_other_prefix && page.iter().any(|kv| kv.value.starts_with(ENCRYPTED)) {
            return Err(StoreCommandError::Encrypted);
        }
        let writes = page.into_iter().filter(|kv| !is_transient(&kv.key)).map(|kv| write(target, kv));
        stream::iter(writes).buffer_unordered(CONCURRENT_WRITES).try_collect::<Vec<()>>().await?;
    }
    let (source_digest, copy) = (digest::of(source, Some(revision)).await?, digest::of(target, None).await?);
    if copy == source_digest { Ok(copy) } else { Err(StoreCommandError::Differs { source_digest, copy }) }
}

async fn write(target: &dyn Store, kv: KeyValue) -> Result<(), StoreError> {
    let mut txn = Txn::put(kv.key, kv.value).expecting(Expect::Absent);
    if txn.key.starts_with(EVENTS) {
        txn = txn.with_ttl(EVENT_TTL);
    }
    // If the key exists, another writer uses the target. The digests differ unless it has written the same.
    target.txn(txn).await.map(drop)
}

const CONCURRENT_WRITES: usize = 64;
/// The start of encrypted values.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// The keys of events, the only objects that expire.
const EVENTS: &str = "/registry/events/";
/// Upstream's `--event-ttl`.
const EVENT_TTL: Duration = Duration::from_hours(1);
