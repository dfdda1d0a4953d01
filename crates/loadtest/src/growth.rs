//! Measures how cost grows: lists with the number of objects, events with the number of matching watchers, writes with
//! the number of other watchers, memory and restarts with the amount of data.
//!
//! Starts the server under test on an empty folder, because the test restarts the server.

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

/// Configuration of the growth test.
#[derive(Debug, Clone)]
pub struct Growth {
    /// Numbers of pods to list, in ascending order.
    pub pods: Vec<u64>,
    /// Numbers of watchers that see every write.
    pub watchers: Vec<usize>,
    /// Numbers of watchers that see no write.
    pub idle_watchers: Vec<usize>,
    /// All other sizes.
    pub sizes: Sizes,
}

/// Starts `program` with its data in `folder` and measures it as the data grows.
pub async fn run(program: &Path, folder: &Path, growth: &Growth) -> Result<Vec<Row>, LoadError> {
    let server = ServerProcess::start(program, folder, NO_CONTROLLERS).await?;
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
    let server = ServerProcess::start(program, folder, NO_CONTROLLERS).await?;
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
    tokio::time::sleep(SETTLE_PAUSE).await;
    let rss = Processes(vec![server.pid()]).rss()?.unwrap_or_default();
    Ok(Row { work, rss: megabytes(rss), ..Row::default() })
}

fn restart(bytes: u64, took: Duration) -> Row {
    let rate = bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    Row {
        work: format!("restart until /readyz is ok, {} on disk", megabytes(bytes)),
        rate: format!("{rate:.0} MB/s"),
        p50: duration(took),
        goal: format!(">= {MIN_READ_RATE:.0} MB/s"),
        met: if rate >= MIN_READ_RATE { "yes" } else { "NO" }.into(),
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

/// Disables controllers, because they would delete pods whose owner does not exist.
const NO_CONTROLLERS: &[&str] = &["--controllers=none"];
/// Pause before measuring memory, because the server continues to release memory after writes.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);
/// Minimum rate at which the server reads the store at its start, in MB/s.
const MIN_READ_RATE: f64 = 200.0;
