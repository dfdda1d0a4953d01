//! The servers and the etcd of a history, and the faults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nave_loadtest::http::{Call, Target};
use nave_store::contract::{EtcdProcess, Random};
use nave_tests::{Server, eventually_within, pause, resume};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::client::{MAPS, revision_of};
use super::record::{LENGTH, Record};

/// Numbers of processes.
pub(super) struct Shape {
    pub(super) servers: usize,
    /// The etcd to use instead of the embedded store.
    pub(super) etcd: Option<PathBuf>,
    /// Number of members of etcd.
    pub(super) members: usize,
}

/// The servers, with the etcd that they use.
pub(super) struct Cluster {
    servers: Vec<Server>,
    members: Vec<EtcdProcess>,
    targets: Arc<Targets>,
}

/// The addresses of the servers, which change at restarts.
pub(super) struct Targets(RwLock<Vec<(u64, Target)>>);

/// A fault that ends by itself.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillServer(usize),
    StopServer(usize),
    KillMember(usize),
    StopMember(usize),
}

/// Number of faults in a history.
const FAULTS: u64 = 3;
/// Time within which a server serves again without a restart.
const RECOVERY: Duration = Duration::from_secs(30);

impl Cluster {
    pub(super) async fn start(shape: Shape) -> Self {
        let members = match &shape.etcd {
            Some(binary) if shape.members > 1 => EtcdProcess::start_cluster(binary, shape.members),
            Some(binary) => vec![EtcdProcess::start(binary)],
            None => Vec::new(),
        };
        let mut servers = Vec::new();
        for number in 0..shape.servers {
            // Each server prefers another member.
            let mut urls: Vec<String> = members.iter().map(EtcdProcess::url).collect();
            let first = number % urls.len().max(1);
            urls.rotate_left(first);
            let (etcd, bind) = (
                format!("--etcd-servers={}", urls.join(",")),
                format!("--bind-address=127.0.0.{}", number + 1),
            );
            let mut flags = vec!["--controllers=none", "--disable-admission-plugins=ServiceAccount", &bind];
            if !urls.is_empty() {
                flags.push(&etcd);
            }
            servers.push(Server::start_with(&flags).await);
        }
        let targets = servers.iter().map(|server| (0, server.target())).collect();
        Self { servers, members, targets: Arc::new(Targets(RwLock::new(targets))) }
    }

    pub(super) fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// Returns the current resource version, once the store answers again after the last fault.
    pub(super) async fn revision(&self) -> u64 {
        let pool = self.servers[0].target().pool(1).await.unwrap();
        let mut revision = None;
        eventually_within(RECOVERY, "the server lists again", async || {
            let list = pool.call(&Call::get(MAPS)).await.ok();
            let list = list.and_then(|list| serde_json::from_slice::<Value>(&list).ok());
            revision = list.and_then(|list| revision_of(&list));
            revision.is_some()
        })
        .await;
        revision.unwrap()
    }

    /// Causes random faults while the clients of a history send requests.
    pub(super) async fn disturb(&mut self, record: &Record, random: &mut Random) {
        for number in 1..=FAULTS {
            let at = LENGTH * number / (FAULTS + 1);
            record.wait_for(|answered| answered.iter().sum::<u64>() >= at).await;
            let fault = match number {
                // Each history of the embedded store has a kill.
                1 if self.members.is_empty() => Fault::KillServer(0),
                _ => self.choose(random),
            };
            println!("  {fault:?}");
            let duration = Duration::from_millis(random.within(50, 1500));
            match fault {
                Fault::KillServer(server) => {
                    self.servers[server].kill9();
                    self.servers[server].restart().await;
                    self.targets.replace(server, self.servers[server].target());
                }
                Fault::StopServer(server) => {
                    let pid = self.servers[server].pid();
                    pause(pid);
                    tokio::time::sleep(duration).await;
                    resume(pid);
                }
                Fault::KillMember(member) => {
                    self.members[member].kill();
                    self.serve_without_a_member(record).await;
                    self.members[member].start_again();
                }
                Fault::StopMember(member) => {
                    let pid = self.members[member].id();
                    pause(pid);
                    self.serve_without_a_member(record).await;
                    tokio::time::sleep(duration).await;
                    resume(pid);
                }
            }
        }
    }

    fn choose(&self, random: &mut Random) -> Fault {
        let (servers, members) = (self.servers.len() as u64, self.members.len() as u64);
        let (server, member) = (random.below(servers) as usize, random.below(members.max(1)) as usize);
        match random.below(if members == 0 { 2 } else { 4 }) {
            0 => Fault::KillServer(server),
            1 => Fault::StopServer(server),
            2 => Fault::KillMember(member),
            _ => Fault::StopMember(member),
        }
    }

    /// Waits until all servers serve without one of several members of etcd.
    async fn serve_without_a_member(&self, record: &Record) {
        if self.members.len() < 2 {
            return;
        }
        for server in &self.servers {
            let target = server.target();
            eventually_within(RECOVERY, "the server writes without a member", async || {
                let Ok(pool) = target.pool(1).await else { return false };
                let name = format!("without-a-member-{}", record.tick());
                pool.call(&Call::post(MAPS, map(&name, &json!({})))).await.is_ok()
            })
            .await;
        }
    }

    /// Creates the last object of a history at each server, and returns the last resource version. All servers must
    /// serve again.
    pub(super) async fn end_history(&self, record: &Record) -> u64 {
        let mut last = 0;
        for number in 0..self.servers.len() {
            eventually_within(RECOVERY, "the server writes again", async || {
                let Ok(pool) = self.targets.get(number).1.pool(1).await else { return false };
                let labels = json!({"history": record.label()});
                let body = map(&format!("end-{}-{}", record.label(), record.tick()), &labels);
                let Ok(created) = pool.call(&Call::post(MAPS, body)).await else { return false };
                last = revision_of(&serde_json::from_slice(&created).unwrap()).unwrap();
                true
            })
            .await;
        }
        last
    }
}

fn map(name: &str, labels: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}).to_string()
}

impl Targets {
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Returns a server's address and the number of its starts.
    pub(super) fn get(&self, server: usize) -> (u64, Target) {
        self.0.read()[server].clone()
    }

    fn replace(&self, server: usize, target: Target) {
        let mut targets = self.0.write();
        let start = targets[server].0 + 1;
        targets[server] = (start, target);
    }
}
