//! A flood of tenants, and the latencies of the system's requests meanwhile: kubelets renew their leases, a leader
//! renews its own, and a prober checks the health.
//!
//! The flood runs on a thread of its own, so that reading its lists does not delay the measured requests. Its requests
//! may be rejected; a rejected request of the system is counted and makes the goal unmet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::http::StatusCode;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::LoadError;
use crate::http::{Call, Connection, Method, Target, scan_field};
use crate::load::{Meter, Sample};
use crate::process::Processes;
use crate::report::Row;

/// The sizes of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Duration of the measurement without the flood and of that with it.
    pub time: Duration,
    /// Clients that list all objects without a pause.
    pub list_clients: usize,
    /// Clients that create objects without a pause.
    pub creators: usize,
    /// Objects to list, of 8 KB each.
    pub objects: u64,
    /// Kubelets.
    pub kubelets: usize,
}

/// The requests of the system of one kind.
struct Measured {
    sample: Sample,
    rejected: u64,
}

/// Requests of the flood.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    rejected: AtomicU64,
}

/// The flood, on its own thread.
struct Running {
    stop: Arc<AtomicBool>,
    lists: Arc<Counts>,
    creates: Arc<Counts>,
    thread: thread::JoinHandle<Result<(), LoadError>>,
}

/// A client of the system that repeats a request.
#[derive(Clone)]
struct SystemClient {
    user: String,
    group: &'static str,
    /// The collection and the name of the lease that it renews; `None` to check the health.
    lease: Option<(&'static str, String)>,
}

/// Measures the system's requests without a flood, then with it.
///
/// # Errors
/// The server fails a request that is neither rejected nor part of the flood.
pub async fn run(target: &Target, processes: &Processes, flood: Flood) -> Result<Vec<Row>, LoadError> {
    prepare(target, flood).await?;
    let mut rows = Vec::new();
    for (kind, measured) in system(target, processes, flood).await? {
        rows.push(row(&format!("{kind}, alone"), &measured));
    }
    let meter = Meter::start(processes)?;
    let running = Running::start(target, flood);
    tokio::time::sleep(WARM_UP).await;
    let measured = system(target, processes, flood).await;
    let sample = meter.stop(0, 0, Vec::new())?;
    let (lists, creates) = running.end()?;
    for (kind, measured) in measured? {
        rows.push(row(&format!("{kind}, flooded"), &measured));
    }
    for (kind, counts) in [("lists", &lists), ("creates", &creates)] {
        let (answered, rejected) =
            (counts.answered.load(Ordering::Relaxed), counts.rejected.load(Ordering::Relaxed));
        let sample = Sample { operations: answered, elapsed: sample.elapsed, ..Sample::default() };
        let work = format!("{kind} of the flood ({rejected} rejected)");
        rows.push(Row { work, rate: Row::plain(String::new(), &sample).rate, ..Row::default() });
    }
    Ok(rows)
}

fn row(kind: &str, measured: &Measured) -> Row {
    let work = format!("{kind} ({} rejected)", measured.rejected);
    let is_met = measured.rejected == 0 && measured.sample.percentile(0.99) <= GOAL;
    let met = if is_met { "yes" } else { "NO" };
    let goal = format!("none rejected, p99 <= {}", crate::report::duration(GOAL));
    Row { goal, met: met.to_owned(), ..Row::plain(work, &measured.sample) }
}

/// Creates the objects to list, the rights of the tenants, and the leases.
async fn prepare(target: &Target, flood: Flood) -> Result<(), LoadError> {
    let pool = target.pool(1).await?;
    let create = async |path: &str, body: String| match pool.call(&Call::post(path, body)).await {
        Ok(_) | Err(LoadError::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    };
    create("/api/v1/namespaces", format!(r#"{{"metadata":{{"name":"{NAMESPACE}"}}}}"#)).await?;
    let rules = r#"[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list","create"]}]"#;
    let role = format!(r#"{{"metadata":{{"name":"{GROUP}"}},"rules":{rules}}}"#);
    create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await?;
    let binding = format!(
        r#"{{"metadata":{{"name":"{GROUP}"}},"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"{GROUP}"}},"subjects":[{{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"{GROUP}"}}]}}"#
    );
    create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await?;
    let text = "x".repeat(8_000);
    for number in 0..flood.objects {
        let body = format!(r#"{{"metadata":{{"name":"object-{number}"}},"data":{{"text":"{text}"}}}}"#);
        create(&maps(), body).await?;
    }
    create("/api/v1/namespaces", r#"{"metadata":{"name":"kube-node-lease"}}"#.to_owned()).await?;
    for client in clients(flood).iter().flat_map(|(_, clients, _)| clients) {
        if let Some((collection, name)) = &client.lease {
            create(collection, lease(name, "", 0)).await?;
        }
    }
    Ok(())
}

/// Returns the kinds of the system's clients, with the pause between two requests of a client.
fn clients(flood: Flood) -> [(&'static str, Vec<SystemClient>, Duration); 3] {
    let kubelet = |number: usize| {
        let name = format!("flood-{number}");
        let user = format!("system:node:{name}");
        SystemClient { user, group: "system:nodes", lease: Some((NODE_LEASES, name)) }
    };
    let leader = SystemClient {
        user: MANAGER.to_owned(),
        group: AUTHENTICATED,
        lease: Some((SYSTEM_LEASES, "kube-controller-manager".to_owned())),
    };
    let prober = SystemClient { user: "prober".to_owned(), group: AUTHENTICATED, lease: None };
    [
        ("heartbeats of kubelets", (0..flood.kubelets).map(kubelet).collect(), Duration::from_millis(500)),
        ("leader election", vec![leader], Duration::from_millis(100)),
        ("health checks", vec![prober], Duration::from_millis(100)),
    ]
}

/// Makes the requests of the system for the time of a measurement.
async fn system(
    target: &Target,
    processes: &Processes,
    flood: Flood,
) -> Result<Vec<(&'static str, Measured)>, LoadError> {
    let end = Instant::now() + flood.time;
    let mut kinds = Vec::new();
    for (kind, clients, pause) in clients(flood) {
        let mut tasks = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            let connection = target.connect_http2().await?;
            // Spreads the requests of the clients over the pause.
            let offset = pause.mul_f64(number as f64 / clients.len() as f64);
            tasks.spawn(client.clone().repeat(connection, end, offset, pause));
        }
        kinds.push((kind, tasks, Meter::start(processes)?));
    }
    let mut measured = Vec::new();
    for (kind, mut tasks, meter) in kinds {
        let (mut latencies, mut rejected) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (times, refused) = done.map_err(|error| LoadError::Unexpected(error.to_string()))??;
            latencies.extend(times);
            rejected += refused;
        }
        let mut sample = meter.stop(latencies.len() as u64, 0, latencies)?;
        // The CPU is that of all requests.
        sample.cpu = None;
        measured.push((kind, Measured { sample, rejected }));
    }
    Ok(measured)
}

impl SystemClient {
    /// Repeats the request until the end. Returns the latencies, and the number of rejected requests.
    async fn repeat(
        self,
        mut connection: Connection,
        end: Instant,
        offset: Duration,
        pause: Duration,
    ) -> Result<(Vec<Duration>, u64), LoadError> {
        let (mut latencies, mut rejected) = (Vec::new(), 0);
        let mut version = self.read_version(&mut connection).await?;
        tokio::time::sleep(offset).await;
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 1.. {
            ticks.tick().await;
            if Instant::now() >= end {
                break;
            }
            let call = self.call(&version, round);
            let sent = Instant::now();
            let response = connection.send(&call).await?;
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                rejected += 1;
                response.read_all().await?;
                continue;
            }
            let body = response.success().await?.read_all().await?;
            latencies.push(sent.elapsed());
            if let Some(new) = scan_field(&body, "resourceVersion") {
                new.clone_into(&mut version);
            }
        }
        Ok((latencies, rejected))
    }

    fn call(&self, version: &str, round: usize) -> Call {
        let call = match &self.lease {
            None => Call::get("/healthz").accept("text/plain"),
            Some((collection, name)) => {
                let body = Bytes::from(lease(name, version, round));
                let path = format!("{collection}/{name}");
                Call::new(Method::PUT, path, Some(crate::http::JSON), body)
            }
        };
        call.as_user(&self.user, self.group)
    }

    /// Returns the current version of the lease, which the administrator reads.
    async fn read_version(&self, connection: &mut Connection) -> Result<String, LoadError> {
        let Some((collection, name)) = &self.lease else { return Ok(String::new()) };
        let call = Call::get(format!("{collection}/{name}"));
        let body = connection.send(&call).await?.success().await?.read_all().await?;
        Ok(scan_field(&body, "resourceVersion").unwrap_or_default().to_owned())
    }
}

impl Running {
    fn start(target: &Target, flood: Flood) -> Self {
        let (stop, lists, creates) = (Arc::default(), Arc::default(), Arc::default());
        let thread = thread::spawn({
            let (target, stop) = (target.clone(), Arc::clone(&stop));
            let (lists, creates) = (Arc::clone(&lists), Arc::clone(&creates));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(LoadError::Broken)?;
                runtime.block_on(flood_until(&target, flood, &stop, &lists, &creates))
            }
        });
        Self { stop, lists, creates, thread }
    }

    /// Ends the flood and returns the numbers of its lists and creates.
    fn end(self) -> Result<(Arc<Counts>, Arc<Counts>), LoadError> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| LoadError::Unexpected("the flood panicked".to_owned()))?;
        ended.map(|()| (self.lists, self.creates))
    }
}

async fn flood_until(
    target: &Target,
    flood: Flood,
    stop: &Arc<AtomicBool>,
    lists: &Arc<Counts>,
    creates: &Arc<Counts>,
) -> Result<(), LoadError> {
    let mut tasks = JoinSet::new();
    for _ in 0..flood.list_clients {
        let connection = target.connect_http2().await?;
        let list = |_| Call::get(maps()).as_user("flood-lists", GROUP);
        tasks.spawn(hammer(connection, Arc::clone(stop), Arc::clone(lists), list));
    }
    for client in 0..flood.creators {
        let connection = target.connect_http2().await?;
        let create = move |number| {
            let name = format!("created-{}-{client}-{number}", std::process::id());
            let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"b"}}}}"#);
            Call::post("/api/v1/namespaces/default/configmaps", body).as_user("flood-creates", GROUP)
        };
        tasks.spawn(hammer(connection, Arc::clone(stop), Arc::clone(creates), create));
    }
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(POLL).await;
    }
    tasks.shutdown().await;
    Ok(())
}

/// Repeats calls without a pause. A connection that the server closes ends the client.
async fn hammer(
    mut connection: Connection,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    call: impl Fn(u64) -> Call + Send + 'static,
) {
    for number in 0.. {
        let Ok(response) = connection.send(&call(number)).await else { return };
        let is_rejected = response.status() == StatusCode::TOO_MANY_REQUESTS;
        if response.drain().await.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
        let counter = if is_rejected { &counts.rejected } else { &counts.answered };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn lease(name: &str, version: &str, round: usize) -> String {
    format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}","resourceVersion":"{version}"}},"spec":{{"holderIdentity":"{name}","leaseTransitions":{round}}}}}"#
    )
}

const NAMESPACE: &str = "loadtest-flood";
/// The group of the tenants, and the name of their role.
const GROUP: &str = "loadtest-flood-tenants";
const AUTHENTICATED: &str = "system:authenticated";
const MANAGER: &str = "system:kube-controller-manager";
const NODE_LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const SYSTEM_LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Maximum 99th percentile of the system's latencies.
const GOAL: Duration = Duration::from_millis(50);
/// Time between the start of the flood and the measurement.
const WARM_UP: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
