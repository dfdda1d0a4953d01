//! The API as a client sees it, over real connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{EtcdServer, Listener, Options, ServerTls};
use crate::Store;
use crate::embedded::{self, Embedded, MAX_WRITES, maintenance};
use crate::etcd::TlsFiles;
use crate::etcdserverpb as m;
use crate::grpc::{CallError, Code, Connection, MessageSender, MessageStream, Status};

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    folder: TempDir,
    connection: Connection,
}

impl Fixture {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = serve(folder.path(), None).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let connection = Connection::open(TokioIo::new(stream), format!("http://{address}")).await.unwrap();
        Self { folder, connection }
    }

    async fn call<Out: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Out, Status> {
        self.connection.call(&format!("/etcdserverpb.{method}"), request).await.map_err(|error| match error {
            CallError::Status(status) => status,
            other => panic!("{other}"),
        })
    }

    async fn put(&self, key: &'static str, value: &'static str) -> i64 {
        let request = m::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        revision(self.call::<m::PutResponse>("KV/Put", &request).await.unwrap().header)
    }

    async fn range(&self, request: m::RangeRequest) -> Result<m::RangeResponse, Status> {
        self.call("KV/Range", &request).await
    }

    async fn watch(&self, create: m::WatchCreateRequest) -> (MessageSender, MessageStream) {
        let request = m::WatchRequest { request: Some(m::WatchRequestUnion::Create(create)) };
        self.connection.open_stream("/etcdserverpb.Watch/Watch", &[], &request).await.unwrap()
    }
}

pub(super) async fn serve(folder: &Path, tls: Option<ServerTls>) -> SocketAddr {
    let options = embedded::Options { history: None, ..Default::default() };
    let store = Arc::new(Embedded::open(folder, &options).unwrap());
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), tls).await.unwrap();
    let address = listener.local_address().unwrap();
    let server = EtcdServer::new(store, Options::new(folder.to_owned()));
    tokio::spawn(async move { match server.serve(listener).await {} });
    address
}

fn revision(header: Option<m::ResponseHeader>) -> i64 {
    header.unwrap().revision
}

pub(super) async fn next(messages: &mut MessageStream) -> m::WatchResponse {
    tokio::time::timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap()
}

fn all() -> m::RangeRequest {
    m::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

fn keys(response: &m::RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

#[tokio::test]
async fn ranges_are_limited_sorted_and_filtered() {
    let etcd = Fixture::start().await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4")] {
        etcd.put(key, value).await;
    }
    let sorted = |order: m::SortOrder, target: m::SortTarget| m::RangeRequest {
        sort_order: order.into(),
        sort_target: target.into(),
        ..all()
    };
    for (request, expected, more) in [
        (all(), vec!["a", "b", "c"], false),
        (m::RangeRequest { limit: 2, ..all() }, vec!["a", "b"], true),
        (m::RangeRequest { limit: 3, ..all() }, vec!["a", "b", "c"], false),
        (m::RangeRequest { key: "b".into(), range_end: "c".into(), ..Default::default() }, vec!["b"], false),
        (m::RangeRequest { key: "b".into(), ..Default::default() }, vec!["b"], false),
        (m::RangeRequest { revision: 3, ..all() }, vec!["a", "b"], false),
        (m::RangeRequest { count_only: true, ..all() }, vec![], false),
        (sorted(m::SortOrder::Descend, m::SortTarget::Key), vec!["c", "b", "a"], false),
        (sorted(m::SortOrder::Ascend, m::SortTarget::Value), vec!["b", "c", "a"], false),
        (sorted(m::SortOrder::None, m::SortTarget::Mod), vec!["b", "c", "a"], false),
        (sorted(m::SortOrder::Descend, m::SortTarget::Version), vec!["a", "b", "c"], false),
        (
            m::RangeRequest { limit: 1, ..sorted(m::SortOrder::Descend, m::SortTarget::Create) },
            vec!["c"],
            true,
        ),
        (m::RangeRequest { min_mod_revision: 4, ..all() }, vec!["a", "c"], false),
        (m::RangeRequest { max_create_revision: 2, ..all() }, vec!["a"], false),
    ] {
        let response = etcd.range(request.clone()).await.unwrap();
        assert_eq!((keys(&response), response.more), (expected, more), "{request:?}");
    }
    let counted = etcd.range(m::RangeRequest { limit: 1, keys_only: true, ..all() }).await.unwrap();
    assert_eq!((counted.count, counted.kvs[0].value.len()), (3, 0));
    let a = &etcd.range(all()).await.unwrap().kvs[0];
    assert_eq!((a.create_revision, a.mod_revision, a.version), (2, 5, 2));
}

#[tokio::test]
async fn errors_are_those_of_etcd() {
    let etcd = Fixture::start().await;
    for value in ["1", "2", "3"] {
        etcd.put("a", value).await;
    }
    etcd.call::<m::CompactionResponse>("KV/Compact", &m::CompactionRequest { revision: 3 }).await.unwrap();
    let read = |revision| m::RangeRequest { revision, ..all() };
    for (request, code, message) in [
        (read(2), Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (read(99), Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        (m::RangeRequest::default(), Code::InvalidArgument, "etcdserver: key is not provided"),
        (
            m::RangeRequest { sort_order: 9, ..all() },
            Code::InvalidArgument,
            "etcdserver: invalid sort option",
        ),
    ] {
        let status = etcd.range(request).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
    for (request, code, message) in [
        (
            m::PutRequest { key: "a".into(), lease: 9, ..Default::default() },
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            m::PutRequest { key: "b".into(), ignore_value: true, ..Default::default() },
            Code::InvalidArgument,
            "etcdserver: key not found",
        ),
        (
            m::PutRequest { key: "b".into(), value: vec![0; 4 << 20].into(), ..Default::default() },
            Code::ResourceExhausted,
            "grpc: received message larger than max (4194312 vs. 2097152)",
        ),
    ] {
        let status = etcd.call::<m::PutResponse>("KV/Put", &request).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
    let status = etcd.call::<m::PutResponse>("Auth/Authenticate", &m::StatusRequest {}).await.unwrap_err();
    assert_eq!(status.message, "etcdserver: authentication is not enabled");
    let status = etcd.call::<m::PutResponse>("KV/Unknown", &m::StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code, Code::Unimplemented);
}

#[tokio::test]
async fn transactions_compare_all_targets_and_nest() {
    use m::CompareResult::{Equal, Greater, Less, NotEqual};
    use m::CompareTarget::{Create, Lease, Mod, Value, Version};
    let etcd = Fixture::start().await;
    etcd.put("a", "1").await;
    etcd.put("a", "2").await;
    let value = |value: &'static str| m::TargetUnion::Value(value.into());
    for (key, target, result, union, expected) in [
        ("a", Version, Equal, m::TargetUnion::Version(2), true),
        ("a", Version, Less, m::TargetUnion::Version(2), false),
        ("a", Create, Equal, m::TargetUnion::CreateRevision(2), true),
        ("a", Mod, Greater, m::TargetUnion::ModRevision(2), true),
        ("a", Value, Equal, value("2"), true),
        ("a", Value, NotEqual, value("2"), false),
        ("a", Lease, Equal, m::TargetUnion::Lease(0), true),
        ("absent", Version, Equal, m::TargetUnion::Version(0), true),
        ("absent", Create, Equal, m::TargetUnion::CreateRevision(0), true),
        ("absent", Value, NotEqual, value("2"), false),
    ] {
        let compare = m::Compare {
            key: key.into(),
            target: target.into(),
            result: result.into(),
            target_union: Some(union),
            range_end: Bytes::new(),
        };
        let request = m::TxnRequest { compare: vec![compare], ..Default::default() };
        let response: m::TxnResponse = etcd.call("KV/Txn", &request).await.unwrap();
        assert_eq!(response.succeeded, expected, "{request:?}");
    }
    let put = m::PutRequest { key: "b".into(), value: "1".into(), prev_kv: true, ..Default::default() };
    let delete = m::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
    let nested = m::TxnRequest {
        success: vec![
            m::RequestOp { request: Some(m::Request::DeleteRange(delete)) },
            m::RequestOp { request: Some(m::Request::Range(all())) },
        ],
        ..Default::default()
    };
    let request = m::TxnRequest {
        success: vec![
            m::RequestOp { request: Some(m::Request::Put(put)) },
            m::RequestOp { request: Some(m::Request::Txn(nested)) },
        ],
        ..Default::default()
    };
    let response: m::TxnResponse = etcd.call("KV/Txn", &request).await.unwrap();
    assert_eq!(revision(response.header), 4);
    let Some(m::Response::Txn(nested)) = &response.responses[1].response else { panic!("{response:?}") };
    let Some(m::Response::DeleteRange(deleted)) = &nested.responses[0].response else { panic!("{nested:?}") };
    assert_eq!((deleted.deleted, &*deleted.prev_kvs[0].value), (1, &b"2"[..]));
    let Some(m::Response::Range(found)) = &nested.responses[1].response else { panic!("{nested:?}") };
    assert_eq!(keys(found), ["b"]);
}

#[tokio::test]
async fn watches_share_a_stream() {
    let etcd = Fixture::start().await;
    etcd.put("a/1", "1").await;
    let create = m::WatchCreateRequest {
        key: "a/".into(),
        range_end: "a0".into(),
        start_revision: 2,
        prev_kv: true,
        ..Default::default()
    };
    let (sender, mut messages) = etcd.watch(create.clone()).await;
    let created = next(&mut messages).await;
    assert!(created.created && created.watch_id == 0);
    assert_eq!(next(&mut messages).await.events.len(), 1);
    let without_puts = m::WatchCreateRequest {
        start_revision: 0,
        watch_id: 7,
        filters: vec![m::FilterType::Noput.into()],
        ..create.clone()
    };
    let request = |create| m::WatchRequest { request: Some(m::WatchRequestUnion::Create(create)) };
    sender.send(&request(without_puts.clone())).await;
    assert_eq!(next(&mut messages).await.watch_id, 7);
    sender.send(&request(without_puts)).await;
    let refused = next(&mut messages).await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1, "{refused:?}");
    etcd.put("b", "other").await;
    etcd.put("a/1", "2").await;
    let put = next(&mut messages).await;
    assert_eq!((put.watch_id, &*put.events[0].prev_kv.as_ref().unwrap().value), (0, &b"1"[..]));
    let delete = m::DeleteRangeRequest { key: "a/1".into(), ..Default::default() };
    etcd.call::<m::DeleteRangeResponse>("KV/DeleteRange", &delete).await.unwrap();
    let mut seen = [next(&mut messages).await, next(&mut messages).await];
    seen.sort_by_key(|response| response.watch_id);
    assert_eq!(seen.each_ref().map(|response| response.watch_id), [0, 7]);
    for response in &seen {
        assert_eq!(response.events[0].kind(), m::StoredEventType::Delete);
        assert_eq!(&*response.events[0].prev_kv.as_ref().unwrap().value, b"2");
    }
    let last = etcd.put("b", "again").await;
    let progress = m::WatchRequestUnion::Progress(m::WatchProgressRequest {});
    sender.send(&m::WatchRequest { request: Some(progress) }).await;
    let report = next(&mut messages).await;
    assert_eq!((report.watch_id, revision(report.header)), (-1, last));
    let cancel = m::WatchRequestUnion::Cancel(m::WatchCancelRequest { watch_id: 7 });
    sender.send(&m::WatchRequest { request: Some(cancel) }).await;
    let canceled = next(&mut messages).await;
    assert!(canceled.canceled && canceled.watch_id == 7);
    etcd.call::<m::CompactionResponse>("KV/Compact", &m::CompactionRequest { revision: last }).await.unwrap();
    sender.send(&request(create)).await;
    assert!(next(&mut messages).await.created);
    let compacted = next(&mut messages).await;
    assert!(compacted.canceled, "{compacted:?}");
    assert_eq!(compacted.compact_revision, last);
    assert_eq!(compacted.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
}

#[tokio::test]
async fn leases_are_granted_renewed_and_revoked() {
    let etcd = Fixture::start().await;
    let grant = m::LeaseGrantRequest { ttl: 100, id: 5 };
    let granted: m::LeaseGrantResponse = etcd.call("Lease/LeaseGrant", &grant).await.unwrap();
    assert_eq!((granted.id, granted.ttl), (5, 100));
    let status = etcd.call::<m::LeaseGrantResponse>("Lease/LeaseGrant", &grant).await.unwrap_err();
    assert_eq!(status.message, "etcdserver: lease already exists");
    let put = m::PutRequest { key: "a".into(), lease: 5, ..Default::default() };
    etcd.call::<m::PutResponse>("KV/Put", &put).await.unwrap();
    let ask = m::LeaseTimeToLiveRequest { id: 5, keys: true };
    let state: m::LeaseTimeToLiveResponse = etcd.call("Lease/LeaseTimeToLive", &ask).await.unwrap();
    assert_eq!((state.granted_ttl, state.keys), (100, vec![Bytes::from("a")]));
    let keep_alive = |id| m::LeaseKeepAliveRequest { id };
    let path = "/etcdserverpb.Lease/LeaseKeepAlive";
    let (sender, mut messages) = etcd.connection.open_stream(path, &[], &keep_alive(5)).await.unwrap();
    let renewed: m::LeaseKeepAliveResponse = messages.next().await.unwrap().unwrap();
    assert_eq!((renewed.id, renewed.ttl), (5, 100));
    sender.send(&keep_alive(6)).await;
    let renewed: m::LeaseKeepAliveResponse = messages.next().await.unwrap().unwrap();
    assert_eq!((renewed.id, renewed.ttl), (6, 0));
    let listed: m::LeaseLeasesResponse =
        etcd.call("Lease/LeaseLeases", &m::LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(listed.leases, [m::LeaseStatus { id: 5 }]);
    let revoke = m::LeaseRevokeRequest { id: 5 };
    etcd.call::<m::LeaseRevokeResponse>("Lease/LeaseRevoke", &revoke).await.unwrap();
    assert_eq!(etcd.range(all()).await.unwrap().count, 0);
    let status = etcd.call::<m::LeaseRevokeResponse>("Lease/LeaseRevoke", &revoke).await.unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
    let state: m::LeaseTimeToLiveResponse = etcd.call("Lease/LeaseTimeToLive", &ask).await.unwrap();
    assert_eq!(state.ttl, -1);
}

#[tokio::test]
async fn snapshots_are_verified_and_restored() {
    let etcd = Fixture::start().await;
    etcd.put("a", "1").await;
    let path = "/etcdserverpb.Maintenance/Snapshot";
    let mut parts = etcd.connection.call_for_stream(path, &m::SnapshotRequest {}).await.unwrap();
    let (mut snapshot, mut remaining) = (Vec::new(), u64::MAX);
    while let Some(part) = parts.next::<m::SnapshotResponse>().await.unwrap() {
        snapshot.extend_from_slice(&part.blob);
        remaining = part.remaining_bytes;
    }
    // etcdctl recognizes the checksum by the size.
    assert_eq!((snapshot.len() % 512, remaining), (32, 0));
    let file = etcd.folder.path().join("backup.db");
    std::fs::write(&file, &snapshot).unwrap();
    let restored = etcd.folder.path().join("restored");
    maintenance::restore(&file, &restored).unwrap();
    let store = Embedded::open(&restored, &embedded::Options::default()).unwrap();
    assert_eq!(store.get("a", None).await.unwrap().unwrap().value, "1");
    drop(store);
    assert!(maintenance::restore(&file, &restored).is_err(), "replaces no store");
    snapshot[1000] ^= 1;
    std::fs::write(&file, &snapshot).unwrap();
    let other = etcd.folder.path().join("other");
    assert!(maintenance::restore(&file, &other).unwrap_err().to_string().contains("checksum"));
    assert!(!maintenance::exists(&other));
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(at(&format!("{name}.crt")), params.self_signed(&key).unwrap().pem()).unwrap();
        rcgen::Issuer::new(params, key)
    };
    let issue = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str| {
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(at(&format!("{name}.crt")), params.signed_by(&key, issuer).unwrap().pem()).unwrap();
        std::fs::write(at(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (at(&format!("{name}.crt")), at(&format!("{name}.key")))
    };
    let (ca, stranger) = (authority("ca"), authority("stranger"));
    let issue_old = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str| {
        let (certificate, key) = issue(issuer, name);
        let usual = CertificateDer::from_pem_file(&certificate).unwrap();
        let old = nave_certificates::testing::version_one(&usual, issuer.key());
        std::fs::write(&certificate, pem(&old)).unwrap();
        (certificate, key)
    };
    let (certificate, key) = issue(&ca, "server");
    let tls = ServerTls::new(certificate, key, Some(at("ca.crt"))).unwrap();
    let address = serve(&at("store"), Some(tls)).await;
    for (identity, is_served) in [
        (Some(issue(&ca, "client")), true),
        (Some(issue_old(&ca, "version-1")), true),
        (None, false),
        (Some(issue(&stranger, "other")), false),
        (Some(issue_old(&stranger, "other-version-1")), false),
    ] {
        let files = TlsFiles { ca: Some(at("ca.crt")), identity };
        let options = crate::etcd::Options {
            servers: vec![format!("https://localhost:{}", address.port()).parse().unwrap()],
            tls: files,
            ..Default::default()
        };
        let status = crate::Etcd::new(options).status().await;
        assert_eq!(status.is_ok(), is_served, "{status:?}");
    }
}

/// Encodes a certificate as PEM.
fn pem(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn hashes_are_those_of_the_keys_at_a_revision() {
    let (one, other) = (Fixture::start().await, Fixture::start().await);
    for etcd in [&one, &other] {
        etcd.put("a", "1").await;
        etcd.put("b", "2").await;
    }
    let hash = async |etcd: &Fixture, revision| {
        let request = m::HashKvRequest { revision };
        etcd.call::<m::HashKvResponse>("Maintenance/HashKV", &request).await.unwrap().hash
    };
    let before = hash(&one, 0).await;
    assert_eq!(hash(&other, 0).await, before);
    let revision = other.put("b", "3").await;
    assert_ne!(hash(&other, 0).await, before);
    assert_eq!(hash(&other, revision - 1).await, before);
    let all: m::HashResponse = one.call("Maintenance/Hash", &m::HashRequest {}).await.unwrap();
    assert_eq!(all.hash, before);
    let request = m::HashKvRequest { revision: revision + 1 };
    let future = other.call::<m::HashKvResponse>("Maintenance/HashKV", &request).await.unwrap_err();
    assert_eq!(future.code, Code::OutOfRange, "{future:?}");
}

/// Writes wait for a deletion of a range, so it deletes a bounded number of keys, all at one revision.
#[tokio::test]
async fn deletions_of_ranges_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path(), &embedded::Options::default()).unwrap());
    let write = |keys: std::ops::Range<usize>| {
        store.transact(move |transaction| {
            for key in keys.clone() {
                transaction.put(&format!("/{key:05}"), "v".into(), 0);
            }
            Ok(Ok::<_, std::convert::Infallible>(()))
        })
    };
    write(0..MAX_WRITES).await.unwrap().unwrap();
    write(MAX_WRITES..MAX_WRITES + 1).await.unwrap().unwrap();
    let etcd = EtcdServer::new(Arc::clone(&store), Options::new(folder.path().to_owned())).0;
    let delete = |key: String, prev_kv| {
        let request = m::DeleteRangeRequest { key: key.into(), range_end: "0".into(), prev_kv };
        m::RequestOp { request: Some(m::Request::DeleteRange(request)) }
    };
    let txn = async |success| etcd.txn(m::TxnRequest { success, ..Default::default() }).await;
    let put = m::PutRequest { key: "a".into(), ..Default::default() };
    let put = m::RequestOp { request: Some(m::Request::Put(put)) };
    let one = || "/00001".to_owned();
    for operations in [
        vec![delete("/".to_owned(), false)],
        vec![delete(one(), true)],
        vec![delete(one(), false), put.clone()],
        vec![put, delete(one(), false)],
    ] {
        let refused = txn(operations).await.unwrap_err();
        assert_eq!(refused.message, "etcdserver: request is too large");
    }
    assert_eq!(store.current_revision().await.unwrap(), 3, "nothing is written");
    let deleted = txn(vec![delete(one(), false)]).await.unwrap();
    assert_eq!(revision(deleted.header), 4);
    assert_eq!((store.count("/").await.unwrap(), store.current_revision().await.unwrap()), (1, 4));
}

/// Writes wait for transactions, so one transaction reads a bounded number of keys. Its own writes count too.
#[tokio::test]
async fn ranges_of_transactions_are_bounded() {
    let etcd = Fixture::start().await;
    let operation = |request| m::RequestOp { request: Some(request) };
    let put = |number: usize| {
        let key = format!("{number:05}").into();
        operation(m::Request::Put(m::PutRequest { key, value: "v".into(), ..Default::default() }))
    };
    let txn = async |success: Vec<m::RequestOp>| {
        let request = m::TxnRequest { success, ..Default::default() };
        etcd.call::<m::TxnResponse>("KV/Txn", &request).await
    };
    for first in (0..10_000).step_by(125) {
        txn((first..first + 125).map(put).collect()).await.unwrap();
    }
    let range = |request| operation(m::Request::Range(request));
    let read = async |operations| {
        let responses = txn(operations).await?.responses;
        let Some(m::Response::Range(found)) = responses.last().unwrap().response.clone() else { panic!() };
        Ok::<_, Status>((found.kvs.len(), found.count))
    };
    assert_eq!(read(vec![range(all())]).await, Ok((10_000, 10_000)));
    let limited = || range(m::RangeRequest { limit: 3, ..all() });
    assert_eq!(read(vec![put(10_000), limited()]).await, Ok((3, 10_001)));
    let counted = range(m::RangeRequest { count_only: true, ..all() });
    assert_eq!(read(vec![put(10_001), put(0), counted]).await, Ok((0, 10_002)));
    for operations in [vec![range(all())], vec![put(10_002), range(all())]] {
        assert_eq!(read(operations).await.unwrap_err().code, Code::InvalidArgument);
    }
    assert_eq!(etcd.range(all()).await.unwrap().kvs.len(), 10_002, "other reads have no limit");
}
