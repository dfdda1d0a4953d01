//! `nave-loadtest`: the same work against one API server or, side by side, two.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nave_loadtest::LoadError;
use nave_loadtest::growth::{self, Growth};
use nave_loadtest::http::Target;
use nave_loadtest::load::Sample;
use nave_loadtest::process::Processes;
use nave_loadtest::report::{Reference, Row, duration, recorded, table};
use nave_loadtest::scenario::{Scenario, Session, Sizes};
use nave_loadtest::soak::{self, Soak};
use nave_loadtest::spawn::ServerProcess;
use nave_loadtest::watchers::PER_CONNECTION;

/// Measures a Kubernetes API server, alone or side by side with another.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The kubeconfig of the server to measure.
    #[arg(long, value_name = "FILE", required_unless_present = "start")]
    kubeconfig: Option<PathBuf>,
    /// The processes of that server, for CPU and memory.
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "kubeconfig")]
    pid: Vec<u32>,
    /// Start this program on an empty folder and measure it, its start included.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubeconfig")]
    start: Option<PathBuf>,
    /// The kubeconfig of a server that does the same work for comparison.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The processes of that server (of kube-apiserver and of its etcd).
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "against")]
    against_pid: Vec<u32>,
    /// How many pods the lists go over.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(20..=500_000))]
    pods: u64,
    /// How many config maps to write.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=500_000))]
    config_maps: u64,
    /// How many watchers at once.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    watchers: u64,
    /// How many of them share an HTTP/2 connection: few where each is a client of its own.
    #[arg(long, default_value_t = PER_CONNECTION as u64, value_parser = clap::value_parser!(u64).range(1..=250))]
    watchers_per_connection: u64,
    /// The size of a pod's JSON as the server returns it.
    #[arg(long, default_value_t = 3_700, value_name = "BYTES")]
    pod_bytes: usize,
    /// HTTP/2 connections that requests are spread over.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    connections: u64,
    /// Do only these pieces of work (what they read must be there: lists need `create-pods`).
    #[arg(long, value_enum, value_name = "WORK", value_delimiter = ',')]
    only: Vec<Scenario>,
    /// What one piece of work takes at most (writes four times as long).
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    time: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the server under steady load for a long time, and see whether memory creeps, watches end or events get lost.
    Soak(SoakArguments),
    /// See how cost grows with objects and watchers, and what a restart takes.
    Growth(GrowthArguments),
}

#[derive(Args)]
struct GrowthArguments {
    /// The program to start, on an empty folder.
    #[arg(long, value_name = "PROGRAM")]
    start: PathBuf,
    /// Pods to list, fewest first.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000], value_parser = clap::value_parser!(u64).range(1..=500_000))]
    pods: Vec<u64>,
    /// Watchers that see every write.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 5_000])]
    watchers: Vec<usize>,
    /// Watchers that see none.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 5_000])]
    idle_watchers: Vec<usize>,
}

#[derive(Args)]
struct SoakArguments {
    /// The kubeconfig of the server.
    #[arg(long, value_name = "FILE", required_unless_present = "start")]
    kubeconfig: Option<PathBuf>,
    /// The processes of that server, for their memory.
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "kubeconfig")]
    pid: Vec<u32>,
    /// Start this program on an empty folder, without its controllers.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubeconfig")]
    start: Option<PathBuf>,
    /// For how long.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Writers at full speed.
    #[arg(long, default_value_t = 2)]
    writers: usize,
    /// Watchers that keep up.
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// Clients that list.
    #[arg(long, default_value_t = 50)]
    list_clients: usize,
    /// Watchers that do not keep up.
    #[arg(long, default_value_t = 5)]
    slow_readers: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: the other cores are the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nave-loadtest: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(Command::Soak(arguments)) = &arguments.command {
        return runtime.block_on(soaked(arguments));
    }
    let rows = match &arguments.command {
        Some(Command::Growth(arguments)) => runtime.block_on(grow(arguments)),
        _ => runtime.block_on(run(&arguments)),
    };
    match rows {
        Ok(rows) => {
            println!("\n{}", table(&rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nave-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<Vec<Row>, LoadError> {
    let sizes = arguments.sizes();
    let mut rows = Vec::new();
    let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
    let started = match &arguments.start {
        Some(program) => {
            rows.extend(start(program).await?);
            Some(ServerProcess::start(program, folder.path(), API_ALONE).await?)
        }
        None => None,
    };
    let (kubeconfig, processes) = match (&started, &arguments.kubeconfig) {
        (Some(server), _) => (server.kubeconfig(), Processes(vec![server.pid()])),
        (None, Some(file)) => (file.as_path(), Processes(arguments.pid.clone())),
        (None, None) => return Err(LoadError::Unexpected("no server to measure".into())),
    };
    let session = Session::open(Target::from_kubeconfig(kubeconfig)?, processes, sizes).await?;
    let other = match &arguments.against {
        Some(file) => {
            let processes = Processes(arguments.against_pid.clone());
            Some(Session::open(Target::from_kubeconfig(file)?, processes, sizes).await?)
        }
        None => None,
    };
    let only = &arguments.only;
    let work = Scenario::ALL.into_iter().filter(|work| only.is_empty() || only.contains(work));
    rows.extend(measure(&session, other.as_ref(), &sizes, work).await?);
    if started.is_none() {
        session.close().await?;
    }
    if let Some(other) = other {
        other.close().await?;
    }
    Ok(rows)
}

/// Runs the steady load and tells what is wrong.
async fn soaked(arguments: &SoakArguments) -> ExitCode {
    match soak(arguments).await {
        Ok(problems) if problems.is_empty() => {
            println!("memory is flat, no watch ended that was read, no event got lost");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            for problem in problems {
                println!("WRONG: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("nave-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(arguments: &SoakArguments) -> Result<Vec<String>, LoadError> {
    let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
    let started = match &arguments.start {
        Some(program) => Some(ServerProcess::start(program, folder.path(), API_ALONE).await?),
        None => None,
    };
    let (kubeconfig, processes) = match (&started, &arguments.kubeconfig) {
        (Some(server), _) => (server.kubeconfig(), Processes(vec![server.pid()])),
        (None, Some(file)) => (file.as_path(), Processes(arguments.pid.clone())),
        (None, None) => return Err(LoadError::Unexpected("no server to measure".into())),
    };
    let soak = Soak {
        time: Duration::from_secs(arguments.seconds),
        writers: arguments.writers,
        watchers: arguments.watchers,
        list_clients: arguments.list_clients,
        slow_readers: arguments.slow_readers,
    };
    soak::run(&Target::from_kubeconfig(kubeconfig)?, &processes, soak).await
}

async fn grow(arguments: &GrowthArguments) -> Result<Vec<Row>, LoadError> {
    let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
    let growth = Growth {
        pods: arguments.pods.clone(),
        watchers: arguments.watchers.clone(),
        idle_watchers: arguments.idle_watchers.clone(),
        sizes: Sizes {
            // Over so many the pods' nodes are spread; the rest plays no part.
            pods: 20_000,
            few_pods: 0,
            config_maps: 0,
            watchers: 0,
            per_connection: PER_CONNECTION,
            pod_bytes: 3_700,
            connections: 4,
            time: Duration::from_secs(20),
        },
    };
    growth::run(&arguments.start, folder.path(), &growth).await
}

/// Starts the program, and tells what its start took and what it weighs when it has come to rest.
async fn start(program: &Path) -> Result<[Row; 2], LoadError> {
    let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
    let server = ServerProcess::start(program, folder.path(), &[]).await?;
    tokio::time::sleep(REST).await;
    let rss = Processes(vec![server.pid()]).rss()?.unwrap_or_default();
    let title = "process start until /readyz is ok, empty store";
    Ok([
        Row::time(title, server.ready_in(), Duration::from_millis(100)),
        Row::memory("resident memory, idle, empty", rss, 25_000_000),
    ])
}

/// Does each piece of work on one server and then, if there is one, on the other.
async fn measure(
    session: &Session,
    other: Option<&Session>,
    sizes: &Sizes,
    work: impl Iterator<Item = Scenario>,
) -> Result<Vec<Row>, LoadError> {
    let (mut rows, mut unwatched) = (Vec::new(), None);
    for scenario in work {
        let title = scenario.title(sizes);
        let sample = session.run(scenario).await?;
        progress(&title, &sample);
        let reference = match other {
            Some(other) => {
                let theirs = other.run(scenario).await?;
                progress(&format!("{title}, the other server"), &theirs);
                Reference { rate: Some(theirs.rate()), cpu: theirs.cpu_per_operation() }
            }
            None => recorded(scenario),
        };
        if scenario == Scenario::CreateUnwatched {
            unwatched = sample.cpu_per_operation();
        }
        rows.push(Row::of(title, scenario, &sample, reference, unwatched));
        if let (Scenario::CreatePods, Some(rss)) = (scenario, sample.rss) {
            let title = format!("resident memory with {} pods", sizes.pods);
            rows.push(Row::memory(&title, rss, IDLE_ALLOWANCE + MEMORY_PER_POD * sizes.pods));
        }
    }
    Ok(rows)
}

fn progress(title: &str, sample: &Sample) {
    let cpu = sample.cpu_per_operation().map_or(String::new(), |cpu| format!(", {} CPU each", duration(cpu)));
    eprintln!("{title}: {} in {}{cpu}", sample.operations, duration(sample.elapsed));
}

impl Arguments {
    fn sizes(&self) -> Sizes {
        Sizes {
            pods: self.pods,
            few_pods: self.pods * 3 / 20,
            config_maps: self.config_maps,
            watchers: self.watchers as usize,
            per_connection: self.watchers_per_connection as usize,
            pod_bytes: self.pod_bytes,
            connections: self.connections as usize,
            time: Duration::from_secs(self.time),
        }
    }
}

/// The other server's processes run no controllers either, and ours would delete pods whose owner does not exist.
const API_ALONE: &[&str] = &["--controllers=none"];
/// A server that has just started still has work to do, and memory to give back.
const REST: Duration = Duration::from_secs(2);
/// 170 MB with 20,000 pods: what an idle server may have, and the rest for each pod.
const IDLE_ALLOWANCE: u64 = 25_000_000;
const MEMORY_PER_POD: u64 = 7_250;
