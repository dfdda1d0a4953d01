//! The engine `etcd` over real servers: failover, restarts, TLS, large values, leases, compaction by several servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_store::etcd::{Etcd, Options, Progress, TlsFiles};
use nave_store::{Expect, Range, Store, StoreError, Txn, TxnOutcome};
use rustix::process::{Pid, Signal, kill_process};

fn options(servers: &[&str]) -> Options {
    let servers = servers.iter().map(|url| url.parse().unwrap()).collect();
    Options { servers, compaction_interval: None, ..Options::default() }
}

/// Returns the address of a port that no process listens on.
fn closed_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn put(store: &Etcd, key: &str, value: impl Into<bytes::Bytes>) -> u64 {
    match store.txn(Txn::put(key, value)).await.unwrap() {
        TxnOutcome::Committed { revision } => revision,
        TxnOutcome::Failed { .. } => panic!("without a precondition"),
    }
}

#[tokio::test]
async fn uses_a_member_that_works() {
    let server = EtcdProcess::start(&installed_etcd("3.5"));
    let store = Etcd::new(options(&[&closed_url(), &closed_url(), &server.url()]));
    let written = put(&store, "/registry/a", "1").await;
    assert_eq!(store.revision("/registry/a").await.unwrap(), Some(written));
    let mut watch = store.watch("/registry/", written).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
}

/// A stopped process keeps its connections, so that nothing fails on its own.
#[tokio::test]
async fn leaves_a_member_that_does_not_answer() {
    let members = EtcdProcess::start_cluster(&installed_etcd("3.5"), 3);
    let urls: Vec<String> = members.iter().map(EtcdProcess::url).collect();
    let store = Etcd::new(options(&urls.iter().map(String::as_str).collect::<Vec<_>>()));
    let first = put(&store, "/registry/a", "1").await;
    let mut watch = store.watch("/registry/", first).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
    signal(&members[0], Signal::STOP);
    let recovery = async {
        assert_eq!(store.revision("/registry/a").await.unwrap(), Some(first));
        let second = put(&store, "/registry/b", "2").await;
        // Progress may come before the end.
        while watch.next().await.unwrap().is_ok() {}
        let mut resumed = store.watch("/registry/", first + 1).await.unwrap();
        assert_eq!(resumed.next().await.unwrap().unwrap().revision, second);
    };
    tokio::time::timeout(Duration::from_secs(30), recovery).await.expect("another member serves in time");
    signal(&members[0], Signal::CONT);
}

fn signal(server: &EtcdProcess, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn reports_unavailable_members() {
    let store = Etcd::new(options(&[&closed_url()]));
    let write = store.txn(Txn::put("/registry/a", "1")).await.unwrap_err();
    assert!(matches!(write, StoreError::Unavailable(_)) && !write.is_outcome_unknown(), "{write}");
    assert!(matches!(store.current_revision().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.watch("/registry/", 1).await.err(), Some(StoreError::Unavailable(_))));
}

/// Writers run while the server is killed again and again. Every acknowledged write is there at the end, in order, and
/// nothing that failed with a known outcome is. (etcd 3.5.0 to 3.5.2 lose writes when they are killed under load: etcd
/// issue 13766.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_loses_no_acknowledged_write() {
    const WRITERS: usize = 8;
    let mut server = EtcdProcess::start(&installed_etcd("3.4"));
    let store = Arc::new(Etcd::new(options(&[&server.url()])));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stopped) = (Arc::clone(&store), stopped.clone());
            tokio::spawn(async move {
                let (mut acknowledged, mut unknown) = (BTreeMap::new(), 0);
                for turn in 0.. {
                    if *stopped.borrow() {
                        break;
                    }
                    let key = format!("/registry/{writer}/{turn}");
                    match store.txn(Txn::create(key.clone(), "x")).await {
                        Ok(TxnOutcome::Committed { revision }) => drop(acknowledged.insert(key, revision)),
                        Ok(TxnOutcome::Failed { current, .. }) => panic!("written twice: {current:?}"),
                        Err(error) if error.is_outcome_unknown() => unknown += 1,
                        Err(error) => {
                            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                            assert_eq!(store.get(&key, None).await.unwrap_or(None), None, "{error}");
                        }
                    }
                }
                (acknowledged, unknown)
            })
        })
        .collect();
    for _ in 0..4 {
        let before = loop {
            if let Ok(revision) = store.current_revision().await {
                break revision;
            }
        };
        while store.current_revision().await.is_ok_and(|revision| revision < before + 200) {}
        server.start_again();
    }
    stop.send_replace(true);
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), 0);
    for writer in writers {
        let (written, uncertain) = writer.await.unwrap();
        acknowledged.extend(written);
        unknown += uncertain;
    }
    assert!(acknowledged.len() > 200);
    let found = store.range(Range::all("/registry/")).await.unwrap();
    let found: BTreeMap<_, _> =
        found.items.into_iter().map(|kv| (kv.key.to_string(), kv.mod_revision)).collect();
    for (key, revision) in &acknowledged {
        assert_eq!(found.get(key), Some(revision), "{key}");
    }
    assert!(found.len() <= acknowledged.len() + unknown, "nothing else was written");
}

/// A watch that breaks says so, and a new one from the next revision has no gap.
#[tokio::test]
async fn broken_watch_can_be_resumed() {
    let mut server = EtcdProcess::start(&installed_etcd("3.4"));
    let store = Etcd::new(options(&[&server.url()]));
    let first = put(&store, "/registry/a", "1").await;
    let mut watch = store.watch("/registry/", first).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, first);
    server.start_again();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Unavailable(_)))));
    assert!(watch.next().await.is_none(), "an error is the last item");
    let second = put(&store, "/registry/a", "2").await;
    let mut watch = store.watch("/registry/", first + 1).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, second);
}

/// Values near the limit: ranges have several pages, and responses of watches are split.
#[tokio::test]
async fn large_values_are_paged_and_split() {
    let server = EtcdProcess::start(&installed_etcd("3.5"));
    let store = Etcd::new(options(&[&server.url()]));
    let value = vec![b'x'; 1 << 20];
    let mut revisions = Vec::new();
    for number in 0..24 {
        revisions.push(put(&store, &format!("/registry/{number:02}"), value.clone()).await);
    }
    let all = store.range(Range::all("/registry/")).await.unwrap();
    let listed: Vec<u64> = all.items.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!((listed, all.more, all.remaining), (revisions.clone(), false, Some(0)));
    let part = store.range(Range { limit: 7, ..Range::all("/registry/") }).await.unwrap();
    assert_eq!((part.items.len(), part.more, part.remaining), (7, true, Some(17)));
    let mut watch = store.watch("/registry/", revisions[0]).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < revisions.len() {
        let batch = watch.next().await.unwrap().unwrap();
        assert!(batch.events.iter().all(|event| event.kv.value == value));
        seen.extend(batch.events.iter().map(|event| event.kv.mod_revision));
        assert_eq!(seen.last(), Some(&batch.revision));
    }
    assert_eq!(seen, revisions);
    let too_large = store.txn(Txn::put("/registry/large", vec![0; 3 << 20])).await.unwrap_err();
    assert!(matches!(too_large, StoreError::TooLarge { .. }), "{too_large}");
}

/// Many watches are open at once; each sees its own prefix.
#[tokio::test]
async fn serves_hundreds_of_watches() {
    let server = EtcdProcess::start(&installed_etcd("3.5"));
    let store = Etcd::new(options(&[&server.url()]));
    let mut watches = Vec::new();
    for number in 0..350 {
        watches.push(store.watch(&format!("/registry/{number}/"), 0).await.unwrap());
    }
    for (number, watch) in watches.iter_mut().enumerate() {
        let written = put(&store, &format!("/registry/{number}/a"), "1").await;
        assert_eq!(watch.next().await.unwrap().unwrap().revision, written);
    }
}

/// Markers for progress are visible neither in a watch nor in a range.
#[tokio::test]
async fn markers_are_invisible() {
    let server = EtcdProcess::start(&installed_etcd("3.4"));
    let store = Etcd::new(Options { progress: Progress::Markers, ..options(&[&server.url()]) });
    let mut watch = store.watch("/registry/pods/", 0).await.unwrap();
    for turn in 0..3 {
        let written = put(&store, "/registry/pods/a", format!("{turn}")).await;
        store.request_progress("/registry/pods/").await.unwrap();
        let mut seen = Vec::new();
        let progress = loop {
            let batch = watch.next().await.unwrap().unwrap();
            seen.extend(batch.events.into_iter().map(|event| event.kv.mod_revision));
            if batch.revision > written {
                break batch.revision;
            }
        };
        assert_eq!((seen, progress), (vec![written], written + 1));
        assert_eq!(store.count("/registry/pods/").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn keys_with_the_same_time_to_live_share_a_lease() {
    let server = EtcdProcess::start(&installed_etcd("3.5"));
    let store = Etcd::new(options(&[&server.url()]));
    for number in 0..50 {
        let ttl = Duration::from_hours(1);
        store.txn(Txn::create(format!("/registry/events/{number}"), "x").with_ttl(ttl)).await.unwrap();
    }
    assert_eq!(leases(&server), 1);
    store.txn(Txn::create("/registry/other", "x").with_ttl(Duration::from_hours(2))).await.unwrap();
    assert_eq!(leases(&server), 2);
}

/// Two engines compact each interval once, with the clock of kube-apiserver.
#[tokio::test]
async fn engines_share_the_compaction() {
    let server = EtcdProcess::start(&installed_etcd("3.5"));
    let interval = Duration::from_millis(300);
    let engine = || Etcd::new(Options { compaction_interval: Some(interval), ..options(&[&server.url()]) });
    let (one, _two) = (engine(), engine());
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    let mut written = Vec::new();
    while one.compacted_revision().await.unwrap() < 5 {
        assert!(tokio::time::Instant::now() < deadline, "nothing is compacted");
        written.push(put(&one, "/registry/a", "x").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let clock = one.get("compact_rev_key", None).await.unwrap().unwrap();
    let compacted: u64 = std::str::from_utf8(&clock.value).unwrap().parse().unwrap();
    assert!(compacted <= *written.last().unwrap());
    let old = one.get("/registry/a", Some(1)).await.unwrap_err();
    assert!(matches!(old, StoreError::Compacted { compacted } if compacted >= 5), "{old}");
}

/// The prefix of the cluster's keys is not visible to the server.
#[tokio::test]
async fn prefix_is_replaced() {
    let server = EtcdProcess::start(&installed_etcd("3.4"));
    let tenant = Etcd::new(Options { prefix: "/tenant/a".to_owned(), ..options(&[&server.url()]) });
    let plain = Etcd::new(options(&[&server.url()]));
    let mut watch = tenant.watch("/registry/pods/", 0).await.unwrap();
    let written = put(&tenant, "/registry/pods/x", "1").await;
    assert_eq!(plain.revision("/tenant/a/pods/x").await.unwrap(), Some(written));
    assert_eq!(&*watch.next().await.unwrap().unwrap().events[0].kv.key, "/registry/pods/x");
    assert_eq!(&*tenant.range(Range::all("/registry/")).await.unwrap().items[0].key, "/registry/pods/x");
    let stale = tenant.txn(Txn::delete("/registry/pods/x").expecting(Expect::Absent)).await.unwrap();
    assert!(matches!(stale, TxnOutcome::Failed { current: Some(kv), .. } if &*kv.key == "/registry/pods/x"));
}

#[tokio::test]
async fn checks_certificates_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let files = |name: &str| {
        let path = |end: &str| folder.path().join(format!("{name}.{end}"));
        (path("crt"), path("key"))
    };
    let authority = Authority::new(folder.path());
    authority.issue("server", "127.0.0.1");
    authority.issue("client", "kube-apiserver-etcd-client");
    let ((certificate, key), ca) = (files("server"), folder.path().join("ca.crt"));
    let flags = [
        format!("--cert-file={}", certificate.display()),
        format!("--key-file={}", key.display()),
        format!("--trusted-ca-file={}", ca.display()),
        "--client-cert-auth".to_owned(),
    ];
    let server = EtcdProcess::start_with("https", &installed_etcd("3.5"), &flags);
    let identified = TlsFiles { ca: Some(ca.clone()), identity: Some(files("client")) };
    identified.check().unwrap();
    let store = Etcd::new(Options { tls: identified, ..options(&[&server.url()]) });
    let written = put(&store, "/registry/a", "1").await;
    let mut watch = store.watch("/registry/", written).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, written);
    for (tls, why) in [
        (TlsFiles { ca: Some(ca), identity: None }, "without a client certificate"),
        (TlsFiles { ca: None, identity: Some(files("client")) }, "without the CA"),
    ] {
        let store = Etcd::new(Options { tls, ..options(&[&server.url()]) });
        assert!(matches!(store.current_revision().await, Err(StoreError::Unavailable(_))), "{why}");
    }
    let missing = TlsFiles { ca: Some(folder.path().join("none")), identity: None };
    assert!(missing.check().unwrap_err().contains("none"));
}

/// A CA for tests.
struct Authority<'a> {
    folder: &'a Path,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Path) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(parameters, key) }
    }

    fn issue(&self, name: &str, subject: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new([subject.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Returns the number of leases in a server, from its metrics.
fn leases(server: &EtcdProcess) -> u64 {
    use std::io::{Read, Write};
    let address = server.url().replace("http://", "");
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with("etcd_debugging_lease_granted_total ")).unwrap();
    line.split(' ').next_back().unwrap().parse().unwrap()
}
