//! The pieces of work, in the order in which they are run: writes first, as the reads need what they leave behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::LoadError;
use crate::http::{Call, JSON, PROTOBUF, Pool, Target, scan_field};
use crate::load::{Limits, Meter, Sample, closed_loop};
use crate::objects::{PodShape, config_map, default_service_account, namespace, node_name};
use crate::process::Processes;
use crate::watchers::{Watchers, delays};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Pods that the lists go over.
    pub pods: u64,
    /// Those of them in the smaller namespace.
    pub few_pods: u64,
    /// Config maps to write.
    pub config_maps: u64,
    /// Watchers at once.
    pub watchers: usize,
    /// Watchers that share an HTTP/2 connection.
    pub per_connection: usize,
    /// Bytes of a pod's JSON as the server returns it.
    pub pod_bytes: usize,
    /// HTTP/2 connections that requests are spread over.
    pub connections: usize,
    /// What one piece of work takes at most; writes may take four times as long, as the reads need their result.
    pub time: Duration,
}

/// One piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Pods, 64 in flight.
    CreatePods,
    /// Config maps of 1 KB, 64 in flight.
    CreateConfigMaps,
    /// A list with `limit=1`, 16 in flight.
    SmallRead,
    /// All pods as JSON.
    ListJson,
    /// The smaller namespace's pods as protobuf.
    ListProtobuf,
    /// All pods, in pages of 500; a page is an operation.
    ListPages,
    /// The 200 pods of a node, by field selector.
    ListByNode,
    /// The pods that bear a label that none bears.
    ListByAbsentLabel,
    /// 2,000 writes with nobody watching: what the next is held against.
    CreateUnwatched,
    /// 2,000 writes while every watcher watches a node that none of them is for.
    CreateWatchedElsewhere,
    /// 100 writes, one after the other, while everybody watches all pods; a delivery is an operation.
    WatchFanOut,
}

/// A server with the objects that the pieces of work leave behind.
pub struct Session {
    target: Target,
    pool: Pool,
    processes: Processes,
    sizes: Sizes,
    shape: PodShape,
}

impl Scenario {
    /// All of them, in order. The pods come first, so that the memory that is then measured is theirs alone.
    pub const ALL: [Self; 11] = [
        Self::CreatePods,
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

    /// What it is, for a person.
    pub fn title(self, sizes: &Sizes) -> String {
        let Sizes { pods, few_pods, watchers, .. } = sizes;
        match self {
            Self::CreateConfigMaps => "create ConfigMaps (1 KB), 64 in flight".into(),
            Self::CreatePods => "create pods, 64 in flight".into(),
            Self::SmallRead => "small read (`limit=1`), 16 in flight".into(),
            Self::ListJson => format!("LIST {pods} pods, JSON"),
            Self::ListProtobuf => format!("LIST {few_pods} pods, protobuf"),
            Self::ListPages => format!("LIST page of 500 of {pods} pods"),
            Self::ListByNode => format!("LIST of {POD_PER_NODE} among {pods} by `spec.nodeName`"),
            Self::ListByAbsentLabel => format!("LIST by a label that nothing bears, {pods} pods"),
            Self::CreateUnwatched => format!("{WRITES} creates, no watchers"),
            Self::CreateWatchedElsewhere => {
                format!("{WRITES} creates, {watchers} watchers by `spec.nodeName`")
            }
            Self::WatchFanOut => format!("{watchers} watchers of all pods, {FAN_OUT_WRITES} creates"),
        }
    }
}

impl Session {
    /// Makes the namespaces, and finds out by how much pods must be padded to come to the size wanted.
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

    /// Does one piece of work.
    pub async fn run(&self, scenario: Scenario) -> Result<Sample, LoadError> {
        let pods = ALL_PODS;
        match scenario {
            Scenario::CreateConfigMaps => self.create_config_maps().await,
            Scenario::CreatePods => {
                let (few, shape) = (self.sizes.few_pods, self.shape);
                let path = move |n| if n < few { pods_path(FEW) } else { pods_path(MANY) };
                self.create_pods(self.sizes.pods, "web", path, shape).await
            }
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

    /// Deletes what the session wrote, but for its two namespaces: where no controller ends their deletion, they
    /// would refuse the next session.
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

    /// The same read again and again, after one that is not counted.
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

    /// Walks over all pods, page by page, and starts again at the end.
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

    /// Creates so many pods whose names begin with `prefix`, 64 in flight.
    pub async fn create(&self, pods: u64, prefix: &str) -> Result<Sample, LoadError> {
        self.create_pods(pods, prefix, |_| pods_path(MANY), self.shape).await
    }

    /// 2,000 creates while `watchers` watch nodes that none of the pods is for.
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

    /// 100 creates, one after the other, while `watchers` watch all pods; a delivery is an operation.
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

/// Creates what may be there already.
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
/// The namespaces; the config maps are in the first.
const FEW: &str = "loadtest-few";
const MANY: &str = "loadtest-many";
const POD_PER_NODE: u64 = 200;
const WRITES: u64 = 2_000;
const FAN_OUT_WRITES: u64 = 100;
