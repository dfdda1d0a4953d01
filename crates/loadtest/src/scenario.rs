//! The scenarios, in the order in which they run: writes first, because reads need the written objects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::LoadError;
use crate::http::{Call, JSON, PROTOBUF, Pool, Target, scan_field};
use crate::load::{Limits, Meter, Sample, closed_loop};
use crate::objects::{PodShape, config_map, default_service_account, namespace, node_name};
use crate::process::Processes;
use crate::watchers::{Watchers, delays};
use crate::webhooks::{CONFIGURATIONS, LABEL, NAME, WebhookPair};

/// Sizes of the scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Number of pods to list.
    pub pods: u64,
    /// Number of these pods in the smaller namespace.
    pub few_pods: u64,
    /// Number of config maps to write.
    pub config_maps: u64,
    /// Number of concurrent watchers.
    pub watchers: usize,
    /// Number of watchers per HTTP/2 connection.
    pub per_connection: usize,
    /// Size in bytes of a pod's JSON as the server returns it.
    pub pod_bytes: usize,
    /// Number of HTTP/2 connections for requests.
    pub connections: usize,
    /// Maximum time of a scenario. Writes may take four times as long, because reads need their results.
    pub time: Duration,
}

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Creates pods, 64 in flight.
    CreatePods,
    /// 2,000 creates of pods with a mutating and a validating webhook, 64 in flight.
    CreateWithWebhooks,
    /// Creates config maps of 1 KB, 64 in flight.
    CreateConfigMaps,
    /// Lists with `limit=1`, 16 in flight.
    SmallRead,
    /// Lists all pods as JSON.
    ListJson,
    /// Lists the smaller namespace's pods as protobuf.
    ListProtobuf,
    /// Lists all pods in pages of 500. Each page is an operation.
    ListPages,
    /// Lists the 200 pods of a node, by field selector.
    ListByNode,
    /// Lists by a label that no pod has.
    ListByAbsentLabel,
    /// 2,000 creates without watchers; the baseline of the next scenario.
    CreateUnwatched,
    /// 2,000 creates while every watcher watches a node that gets no new pods.
    CreateWatchedElsewhere,
    /// 100 sequential creates while all watchers watch all pods. Each delivery is an operation.
    WatchFanOut,
}

/// A server and the objects that the scenarios create.
pub struct Session {
    target: Target,
    pool: Pool,
    processes: Processes,
    sizes: Sizes,
    shape: PodShape,
}

impl Scenario {
    /// All scenarios, in order. Pods are created first, so that the memory measured afterwards is only that of pods.
    pub const ALL: [Self; 12] = [
        Self::CreatePods,
        Self::CreateWithWebhooks,
        Self::CreateConfigMaps,
        Self::SmallRead,
        Self::ListJson,
        Self::ListProtobuf,
        Self::ListPages,
        Self::ListByNode,
        Self::ListByAbsentLabel,
        Self::CreateUnwatched,
        Self::CreateWatchedElsewhere,
        Self::WatchFanOut,
    ];

    /// Returns a title for display.
    pub fn title(self, sizes: &Sizes) -> String {
        let Sizes { pods, few_pods, watchers, .. } = sizes;
        match self {
            Self::CreateConfigMaps => "create ConfigMaps (1 KB), 64 in flight".into(),
            Self::CreatePods => "create pods, 64 in flight".into(),
            Self::CreateWithWebhooks => format!("{WRITES} creates of pods with a pair of webhooks"),
            Self::SmallRead => "small read (`limit=1`), 16 in flight".into(),
            Self::ListJson => format!("LIST {pods} pods, JSON"),
            Self::ListProtobuf => format!("LIST {few_pods} pods, protobuf"),
            Self::ListPages => format!("LIST page of 500 of {pods} pods"),
            Self::ListByNode => format!("LIST of {POD_PER_NODE} among {pods} by `spec.nodeName`"),
            Self::ListByAbsentLabel => format!("LIST by a label that no pod has, {pods} pods"),
            Self::CreateUnwatched => format!("{WRITES} creates, no watchers"),
            Self::CreateWatchedElsewhere => {
                format!("{WRITES} creates, {watchers} watchers by `spec.nodeName`")
            }
            Self::WatchFanOut => format!("{watchers} watchers of all pods, {FAN_OUT_WRITES} creates"),
        }
    }
}

impl Session {
    /// Creates the namespaces and determines the padding of the pods.
    pub async fn open(target: Target, processes: Processes, sizes: Sizes) -> Result<Self, LoadError> {
        let pool = target.pool(sizes.connections).await?;
        for name in [FEW, MANY] {
            create(&pool, &Call::post("/api/v1/namespaces", namespace(name))).await?;
            let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
            create(&pool, &Call::post(accounts, default_service_account())).await?;
        }
        let mut shape = PodShape { nodes: (sizes.pods / POD_PER_NODE).max(1), padding: 0 };
        let probe = pool.call(&Call::post(pods_path(FEW), shape.pod("probe", 0))).await?;
        pool.call(&Call::delete(format!("{}/probe?gracePeriodSeconds=0", pods_path(FEW)))).await?;
        shape.padding = sizes.pod_bytes.saturating_sub(probe.len());
        Ok(Self { target, pool, processes, sizes, shape })
    }

    /// Runs a scenario.
    pub async fn run(&self, scenario: Scenario) -> Result<Sample, LoadError> {
        let pods = ALL_PODS;
        match scenario {
            Scenario::CreateConfigMaps => self.create_config_maps().await,
            Scenario::CreatePods => {
                let (few, shape) = (self.sizes.few_pods, self.shape);
                let path = move |n| if n < few { pods_path(FEW) } else { pods_path(MANY) };
                self.create_pods(self.sizes.pods, "web", path, shape).await
            }
            Scenario::CreateWithWebhooks => self.create_with_webhooks("hooked").await,
            Scenario::SmallRead => self.read(16, 20_000, format!("{pods}?limit=1"), JSON).await,
            Scenario::ListJson => self.read(1, 20, pods.into(), JSON).await,
            Scenario::ListProtobuf => self.read(1, 200, pods_path(FEW), PROTOBUF).await,
            Scenario::ListPages => self.list_pages().await,
            Scenario::ListByNode => self.list_by_node().await,
            Scenario::ListByAbsentLabel => {
                self.read(1, 1_000, format!("{pods}?labelSelector=nobody%3Dbears"), JSON).await
            }
            Scenario::CreateUnwatched => self.create(WRITES, "alone").await,
            Scenario::CreateWatchedElsewhere => self.create_unseen(self.sizes.watchers, "elsewhere").await,
            Scenario::WatchFanOut => self.fan_out(self.sizes.watchers, "fan-out").await,
        }
    }

    /// Deletes the objects of the session but not its two namespaces. Without a controller the deletion of a namespace
    /// would not finish, and the next session would fail.
    pub async fn close(self) -> Result<(), LoadError> {
        for name in [FEW, MANY] {
            for resource in ["pods", "configmaps"] {
                let path = format!("/api/v1/namespaces/{name}/{resource}?gracePeriodSeconds=0");
                self.pool.call(&Call::delete(path)).await?;
            }
        }
        Ok(())
    }

    async fn create_config_maps(&self) -> Result<Sample, LoadError> {
        let limits = Limits { operations: self.sizes.config_maps, time: self.sizes.time * 4 };
        let call = |n: u64| {
            Call::post(format!("/api/v1/namespaces/{FEW}/configmaps"), config_map(&format!("config-{n:06}")))
        };
        closed_loop(&self.pool, &self.processes, 64, limits, call).await
    }

    async fn create_pods(
        &self,
        operations: u64,
        prefix: &str,
        path: impl Fn(u64) -> String + Send + Sync + 'static,
        shape: PodShape,
    ) -> Result<Sample, LoadError> {
        let limits = Limits { operations, time: self.sizes.time * 4 };
        let prefix = prefix.to_owned();
        let call = move |n: u64| Call::post(path(n), shape.pod(&format!("{prefix}-7d4b9c6f58-{n:06}"), n));
        closed_loop(&self.pool, &self.processes, 64, limits, call).await
    }

    /// Repeats a read after an uncounted warm-up read.
    async fn read(
        &self,
        in_flight: usize,
        operations: u64,
        path: String,
        accept: &'static str,
    ) -> Result<Sample, LoadError> {
        let call = Call::get(path).accept(accept);
        self.pool.lane(0).send(&call).await?.success().await?.drain().await?;
        let limits = Limits { operations, time: self.sizes.time };
        closed_loop(&self.pool, &self.processes, in_flight, limits, move |_| call.clone()).await
    }

    async fn list_by_node(&self) -> Result<Sample, LoadError> {
        let nodes = self.shape.nodes;
        let path = |n| format!("{ALL_PODS}?fieldSelector=spec.nodeName%3D{}", node_name(n));
        let (_, head) = self.pool.lane(0).send(&Call::get(path(0))).await?.success().await?.drain().await?;
        if !head.windows(7).any(|bytes| bytes == b"\"items\"") {
            return Err(LoadError::Unexpected(String::from_utf8_lossy(&head).into_owned()));
        }
        let limits = Limits { operations: 2_000, time: self.sizes.time };
        closed_loop(&self.pool, &self.processes, 1, limits, move |n| Call::get(path(n % nodes))).await
    }

    /// Lists all pods page by page and starts again at the end.
    async fn list_pages(&self) -> Result<Sample, LoadError> {
        let (mut bytes, mut latencies) = (0, Vec::new());
        let mut connection = self.pool.lane(0);
        let first = format!("{ALL_PODS}?limit=500");
        let mut path = first.clone();
        let meter = Meter::start(&self.processes)?;
        while latencies.len() < 1_000 && meter.started().elapsed() < self.sizes.time {
            let sent = Instant::now();
            let (length, head) = connection.send(&Call::get(path)).await?.success().await?.drain().await?;
            latencies.push(sent.elapsed());
            bytes += length;
            path = match scan_field(&head, "continue") {
                Some(token) if !token.is_empty() => format!("{first}&continue={token}"),
                _ => first.clone(),
            };
        }
        meter.stop(latencies.len() as u64, bytes, latencies)
    }

    /// Creates pods with the name prefix `prefix`, 64 in flight.
    pub async fn create(&self, pods: u64, prefix: &str) -> Result<Sample, LoadError> {
        self.create_pods(pods, prefix, |_| pods_path(MANY), self.shape).await
    }

    /// Makes 2,000 creates that a mutating and a validating webhook admit.
    async fn create_with_webhooks(&self, prefix: &str) -> Result<Sample, LoadError> {
        let webhooks = WebhookPair::start().await?;
        for (path, kind) in CONFIGURATIONS {
            create(&self.pool, &Call::post(path, webhooks.configuration(kind, MANY))).await?;
        }
        let probe = Call::post(format!("{}?dryRun=All", pods_path(MANY)), self.shape.pod("probe", 0));
        let end = Instant::now() + self.sizes.time;
        while scan_field(&self.pool.call(&probe).await?, LABEL).is_none() {
            if Instant::now() > end {
                return Err(LoadError::Unexpected("the webhooks are not called".into()));
            }
        }
        let sample = self.create(WRITES, prefix).await;
        for (path, _) in CONFIGURATIONS {
            self.pool.call(&Call::delete(format!("{path}/{NAME}"))).await?;
        }
        sample
    }

    /// Makes 2,000 creates while `watchers` watch nodes that get no new pods.
    pub async fn create_unseen(&self, watchers: usize, prefix: &str) -> Result<Sample, LoadError> {
        let from = self.resource_version().await?;
        let watch = |n: usize| {
            let node = format!("spec.nodeName%3Didle-{n:05}");
            format!("{ALL_PODS}?watch=true&resourceVersion={from}&fieldSelector={node}")
        };
        let watchers =
            Watchers::open(&self.target, watchers, self.sizes.per_connection, usize::MAX, watch).await?;
        let sample = self.create(WRITES, prefix).await?;
        let seen: usize = watchers.close().await?.iter().map(|seen| seen.arrivals.len()).sum();
        if seen > 0 {
            return Err(LoadError::Unexpected(format!("{seen} events reached watchers of other nodes")));
        }
        Ok(sample)
    }

    /// Makes 100 sequential creates while `watchers` watch all pods. Each delivery is an operation.
    pub async fn fan_out(&self, watchers: usize, prefix: &str) -> Result<Sample, LoadError> {
        let from = self.resource_version().await?;
        let watch = |_| format!("{ALL_PODS}?watch=true&resourceVersion={from}");
        let expected = FAN_OUT_WRITES as usize;
        let open = Watchers::open(&self.target, watchers, self.sizes.per_connection, expected, watch).await?;
        let meter = Meter::start(&self.processes)?;
        let mut sent = Vec::new();
        for number in 0..FAN_OUT_WRITES {
            let pod = self.shape.pod(&format!("{prefix}-{number:03}"), number);
            sent.push(Instant::now());
            self.pool.call(&Call::post(pods_path(MANY), pod)).await?;
        }
        let seen = open.finish(self.sizes.time * 4).await?;
        let delays = delays(&seen, &sent);
        if delays.len() < expected * watchers {
            return Err(LoadError::Unexpected(format!("watches ended after {} deliveries", delays.len())));
        }
        meter.stop(delays.len() as u64, seen.iter().map(|s| s.bytes).sum(), delays)
    }

    async fn resource_version(&self) -> Result<Arc<str>, LoadError> {
        let list = self.pool.call(&Call::get(format!("{ALL_PODS}?limit=1"))).await?;
        let version = scan_field(&list, "resourceVersion").map(Arc::from);
        version.ok_or_else(|| LoadError::Unexpected("a list without resourceVersion".into()))
    }
}

/// Creates an object that may already exist.
async fn create(pool: &Pool, call: &Call) -> Result<(), LoadError> {
    match pool.call(call).await {
        Ok(_) | Err(LoadError::Refused { status: 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn pods_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

const ALL_PODS: &str = "/api/v1/pods";
/// The namespaces; the first contains the config maps.
const FEW: &str = "loadtest-few";
const MANY: &str = "loadtest-many";
const POD_PER_NODE: u64 = 200;
const WRITES: u64 = 2_000;
const FAN_OUT_WRITES: u64 = 100;
