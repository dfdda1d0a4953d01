//! How cost grows: a list with the objects there are, an event with the watchers that see it, a write with the
//! watchers that do not, memory and a restart with the data.
//!
//! The server under test is started here, on an empty folder, as it has to be started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::LoadError;
use crate::http::Target;
use crate::load::Sample;
use crate::process::Processes;
use crate::report::{Row, duration, megabytes};
use crate::scenario::{Scenario, Session, Sizes};
use crate::spawn::ServerProcess;

/// What to grow.
#[derive(Debug, Clone)]
pub struct Growth {
    /// Pods to list, fewest first.
    pub pods: Vec<u64>,
    /// Watchers that see every write.
    pub watchers: Vec<usize>,
    /// Watchers that see none.
    pub idle_watchers: Vec<usize>,
    /// Everything else.
    pub sizes: Sizes,
}

/// Starts `program` with its data in `folder`, and measures it as it is given more.
pub async fn run(program: &Path, folder: &Path, growth: &Growth) -> Result<Vec<Row>, LoadError> {
    let server = ServerProcess::start(program, folder, API_ALONE).await?;
    let session = open(&server, growth.sizes).await?;
    let mut rows = Vec::new();
    let mut there = 0;
    for &pods in &growth.pods {
        session.create(pods.saturating_sub(there), &format!("of-{pods}")).await?;
        there = there.max(pods);
        rows.push(weight(&server, format!("resident memory with {pods} pods")).await?);
        let sample = session.run(Scenario::ListJson).await?;
        note(&mut rows, format!("LIST {pods} pods, JSON"), &sample);
    }
    for &watchers in &growth.watchers {
        let sample = session.fan_out(watchers, &format!("seen-by-{watchers}")).await?;
        note(&mut rows, format!("{watchers} watchers of all pods, 100 creates"), &sample);
    }
    for &watchers in &growth.idle_watchers {
        let sample = session.create_unseen(watchers, &format!("unseen-by-{watchers}")).await?;
        note(&mut rows, format!("2,000 creates, {watchers} watchers by `spec.nodeName`"), &sample);
    }
    drop(session);
    server.terminate(Duration::from_mins(1)).await?;
    let bytes = size_of_folder(&folder.join("data/store"))?;
    let server = ServerProcess::start(program, folder, API_ALONE).await?;
    rows.push(restart(bytes, server.ready_in()));
    rows.push(weight(&server, "resident memory after the restart".into()).await?);
    let sample = open(&server, growth.sizes).await?.run(Scenario::ListJson).await?;
    note(&mut rows, "LIST of all pods, JSON, after the restart".into(), &sample);
    Ok(rows)
}

async fn open(server: &ServerProcess, sizes: Sizes) -> Result<Session, LoadError> {
    let target = Target::from_kubeconfig(server.kubeconfig())?;
    Session::open(target, Processes(vec![server.pid()]), sizes).await
}

fn note(rows: &mut Vec<Row>, work: String, sample: &Sample) {
    eprintln!("{work}: {} in {}", sample.operations, duration(sample.elapsed));
    rows.push(Row::plain(work, sample));
}

async fn weight(server: &ServerProcess, work: String) -> Result<Row, LoadError> {
    tokio::time::sleep(REST).await;
    let rss = Processes(vec![server.pid()]).rss()?.unwrap_or_default();
    Ok(Row { work, rss: megabytes(rss), ..Row::default() })
}

fn restart(bytes: u64, took: Duration) -> Row {
    let rate = bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    Row {
        work: format!("restart until /readyz is ok, {} on disk", megabytes(bytes)),
        rate: format!("{rate:.0} MB/s"),
        p50: duration(took),
        bar: format!(">= {LEAST_READ:.0} MB/s"),
        met: if rate >= LEAST_READ { "yes" } else { "NO" }.into(),
        ..Row::default()
    }
}

fn size_of_folder(folder: &Path) -> Result<u64, LoadError> {
    let failed = |error| LoadError::File(PathBuf::from(folder), error);
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(bytes)
}

/// Controllers would delete pods whose owner does not exist.
const API_ALONE: &[&str] = &["--controllers=none"];
/// A server that has just written still has memory to give back.
const REST: Duration = Duration::from_secs(2);
/// Megabytes of the store that a start gets through in a second, at least.
const LEAST_READ: f64 = 200.0;
