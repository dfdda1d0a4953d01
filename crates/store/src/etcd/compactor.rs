//! Compacts the cluster's history at an interval, with kube-apiserver's protocol, so that any number of servers of both
//! kinds compact once per interval (kube-apiserver: `storage/etcd3/compact.go`).
//!
//! The version of the key `compact_rev_key` is a clock, and its value is the compacted revision. In each interval one
//! server increments the clock from the value that all have seen, and compacts the revision that it has seen an interval
//! before. The others see that the clock has moved on.

use std::time::Duration;

use bytes::Bytes;

use super::endpoints::Effect;
use super::{Client, TXN, malformed, revision_of};
use crate::StoreError;
use crate::etcdserverpb as m;

/// The state that a server has seen in its last turn.
#[derive(Default)]
struct Seen {
    clock: i64,
    revision: u64,
}

/// Compacts at an interval until it is dropped.
pub(super) async fn run(client: &Client, interval: Duration) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(interval).await;
        match turn(client, &seen).await {
            Ok(next) => seen = next,
            Err(error) => tracing::warn!(%error, "compaction of etcd failed"),
        }
    }
}

async fn turn(client: &Client, seen: &Seen) -> Result<Seen, StoreError> {
    let key = Bytes::from_static(b"compact_rev_key");
    let is_mine = m::Compare {
        target: m::CompareTarget::Version.into(),
        key: key.clone(),
        target_union: Some(m::TargetUnion::Version(seen.clock)),
        ..m::Compare::default()
    };
    let tick =
        m::PutRequest { key: key.clone(), value: seen.revision.to_string().into(), ..Default::default() };
    let read = m::RangeRequest { key, ..m::RangeRequest::default() };
    let request = m::TxnRequest {
        compare: vec![is_mine],
        success: vec![m::RequestOp { request: Some(m::Request::Put(tick)) }],
        failure: vec![m::RequestOp { request: Some(m::Request::Range(read)) }],
    };
    let answer: m::TxnResponse = client.endpoints.call(TXN, &request, Effect::Write).await?;
    let revision = revision_of(answer.header);
    if !answer.succeeded {
        let read = answer.responses.into_iter().next().and_then(|response| response.response);
        let Some(m::Response::Range(m::RangeResponse { kvs, .. })) = read else {
            return Err(malformed("a failed transaction without the key"));
        };
        return Ok(Seen { clock: kvs.first().map_or(0, |kv| kv.version), revision });
    }
    // A server that starts has seen no revision yet.
    if seen.revision != 0 {
        match client.compact(seen.revision).await {
            Ok(()) => tracing::debug!(revision = seen.revision, "etcd compacted"),
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => tracing::warn!(%error, "compaction of etcd failed"),
        }
    }
    Ok(Seen { clock: seen.clock + 1, revision })
}
