//! `nave-loadtest`: runs the same work against one API server or, for comparison, two.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nave_loadtest::LoadError;
use nave_loadtest::definitions::{self, Family};
use nave_loadtest::flood::{self, Flood};
use nave_loadtest::growth::{self, Growth};
use nave_loadtest::http::Target;
use nave_loadtest::load::Sample;
use nave_loadtest::process::Processes;
use nave_loadtest::report::{Reference, Row, duration, recorded, table};
use nave_loadtest::scenario::{Scenario, Session, Sizes};
use nave_loadtest::soak::{self, Soak};
use nave_loadtest::spawn::ServerProcess;
use nave_loadtest::watchers::PER_CONNECTION;

/// Measures a Kubernetes API server, optionally in comparison with another.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Kubeconfig of the server to measure.
    #[arg(long, value_name = "FILE", required_unless_present = "start")]
    kubeconfig: Option<PathBuf>,
    /// Process IDs of the server, for CPU and memory.
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "kubeconfig")]
    pid: Vec<u32>,
    /// Start this program on an empty folder and measure it, including its start.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubeconfig")]
    start: Option<PathBuf>,
    /// Kubeconfig of a server to compare with.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Process IDs of that server (of kube-apiserver and of its etcd).
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "against")]
    against_pid: Vec<u32>,
    /// Number of pods to list.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(20..=500_000))]
    pods: u64,
    /// Number of config maps to write.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=500_000))]
    config_maps: u64,
    /// Number of concurrent watchers.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    watchers: u64,
    /// Number of watchers per HTTP/2 connection. Low if each watcher represents a separate client.
    #[arg(long, default_value_t = PER_CONNECTION as u64, value_parser = clap::value_parser!(u64).range(1..=250))]
    watchers_per_connection: u64,
    /// Size in bytes of a pod's JSON as the server returns it.
    #[arg(long, default_value_t = 3_700, value_name = "BYTES")]
    pod_bytes: usize,
    /// Number of HTTP/2 connections for requests.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    connections: u64,
    /// Run only these scenarios (their data must exist: lists need `create-pods`).
    #[arg(long, value_enum, value_name = "WORK", value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Maximum time of a scenario (four times as long for writes).
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    time: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the server under steady load for a long time and check for memory growth, ended watches and lost events.
    Soak(SoakArguments),
    /// Measure how cost grows with objects and watchers, and the time of a restart.
    Growth(GrowthArguments),
    /// Measure many CustomResourceDefinitions.
    Definitions(DefinitionsArguments),
    /// Measure the system's requests while tenants flood the server with lists and creates.
    Flood(FloodArguments),
}

#[derive(Args)]
struct FloodArguments {
    /// Kubeconfig of the server.
    #[arg(long, value_name = "FILE", required_unless_present = "start")]
    kubeconfig: Option<PathBuf>,
    /// Start this program on an empty folder: with priority and fairness, then without.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubeconfig")]
    start: Option<PathBuf>,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Number of clients that list all objects.
    #[arg(long, default_value_t = 60)]
    list_clients: usize,
    /// Number of clients that create objects.
    #[arg(long, default_value_t = 60)]
    creators: usize,
    /// Number of objects to list, of 8 KB each.
    #[arg(long, default_value_t = 500)]
    objects: u64,
    /// Number of kubelets that renew their leases.
    #[arg(long, default_value_t = 20)]
    kubelets: usize,
}

#[derive(Args)]
struct DefinitionsArguments {
    /// Program to start on an empty folder.
    #[arg(long, value_name = "PROGRAM")]
    start: PathBuf,
    /// Measure only the 200 small definitions.
    #[arg(long)]
    small: bool,
}

#[derive(Args)]
struct GrowthArguments {
    /// Program to start on an empty folder.
    #[arg(long, value_name = "PROGRAM")]
    start: PathBuf,
    /// Numbers of pods to list, in ascending order.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000], value_parser = clap::value_parser!(u64).range(1..=500_000))]
    pods: Vec<u64>,
    /// Numbers of watchers that see every write.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 5_000])]
    watchers: Vec<usize>,
    /// Numbers of watchers that see no write.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 5_000])]
    idle_watchers: Vec<usize>,
}

#[derive(Args)]
struct SoakArguments {
    /// Kubeconfig of the server.
    #[arg(long, value_name = "FILE", required_unless_present = "start")]
    kubeconfig: Option<PathBuf>,
    /// Process IDs of the server, for its memory.
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "kubeconfig")]
    pid: Vec<u32>,
    /// Start this program on an empty folder, without its controllers.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "kubeconfig")]
    start: Option<PathBuf>,
    /// Duration of the load.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Number of writers at full speed.
    #[arg(long, default_value_t = 2)]
    writers: usize,
    /// Number of fast watchers.
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// Number of clients that send lists.
    #[arg(long, default_value_t = 50)]
    list_clients: usize,
    /// Number of slow watchers.
    #[arg(long, default_value_t = 5)]
    slow_readers: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread leaves the other cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nave-loadtest: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(Command::Soak(arguments)) = &arguments.command {
        return runtime.block_on(run_soak(arguments));
    }
    let rows = match &arguments.command {
        Some(Command::Growth(arguments)) => runtime.block_on(grow(arguments)),
        Some(Command::Definitions(arguments)) => runtime.block_on(define(arguments)),
        Some(Command::Flood(arguments)) => runtime.block_on(flood(arguments)),
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
            Some(ServerProcess::start(program, folder.path(), NO_CONTROLLERS).await?)
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

/// Runs the steady load and prints the problems found.
async fn run_soak(arguments: &SoakArguments) -> ExitCode {
    match soak(arguments).await {
        Ok(problems) if problems.is_empty() => {
            println!("memory is stable, no active watch ended, no event was lost");
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
        Some(program) => Some(ServerProcess::start(program, folder.path(), NO_CONTROLLERS).await?),
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
            // Only the number of nodes for the pods depends on this.
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

async fn define(arguments: &DefinitionsArguments) -> Result<Vec<Row>, LoadError> {
    let families: &[Family] =
        if arguments.small { &[Family::SMALL] } else { &[Family::SMALL, Family::LARGE] };
    let mut rows = Vec::new();
    for family in families {
        let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
        rows.extend(definitions::run(&arguments.start, folder.path(), *family).await?);
    }
    Ok(rows)
}

async fn flood(arguments: &FloodArguments) -> Result<Vec<Row>, LoadError> {
    let sizes = Flood {
        time: Duration::from_secs(arguments.seconds),
        list_clients: arguments.list_clients,
        creators: arguments.creators,
        objects: arguments.objects,
        kubelets: arguments.kubelets,
    };
    let Some(program) = &arguments.start else {
        let file = arguments.kubeconfig.as_deref();
        let file = file.ok_or_else(|| LoadError::Unexpected("no server to measure".into()))?;
        return flood::run(&Target::from_kubeconfig(file)?, &Processes::default(), sizes).await;
    };
    let mut rows = Vec::new();
    for (name, is_fair) in [("", "true"), ("without priority and fairness: ", "false")] {
        let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
        let fair = format!("--enable-priority-and-fairness={is_fair}");
        let flags = [NO_CONTROLLERS, &[fair.as_str()]].concat();
        let server = ServerProcess::start(program, folder.path(), &flags).await?;
        let target = Target::from_kubeconfig(server.kubeconfig())?;
        let measured = flood::run(&target, &Processes(vec![server.pid()]), sizes).await?;
        rows.extend(measured.into_iter().map(|row| Row { work: format!("{name}{}", row.work), ..row }));
    }
    Ok(rows)
}

/// Starts the program and measures its start and its idle memory, with its controllers and without them.
async fn start(program: &Path) -> Result<[Row; 3], LoadError> {
    let (ready_in, with_controllers) = start_with(program, &[]).await?;
    let (_, alone) = start_with(program, NO_CONTROLLERS).await?;
    let title = "process start until /readyz is ok, empty store";
    Ok([
        Row::time(title, ready_in, Duration::from_millis(100)),
        Row::memory("resident memory, idle, empty", alone, IDLE_ALLOWANCE),
        Row::size("the same, with all controllers of the default configuration", with_controllers),
    ])
}

/// Starts the program in a new folder. Returns the time until it was ready, and its idle memory.
async fn start_with(program: &Path, arguments: &[&str]) -> Result<(Duration, u64), LoadError> {
    let folder = tempfile::tempdir().map_err(|e| LoadError::File(std::env::temp_dir(), e))?;
    let server = ServerProcess::start(program, folder.path(), arguments).await?;
    tokio::time::sleep(SETTLE_PAUSE).await;
    Ok((server.ready_in(), Processes(vec![server.pid()]).rss()?.unwrap_or_default()))
}

/// Runs each scenario on one server and then on the other server, if any.
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
        rows.push(Row::for_scenario(title, scenario, &sample, reference, unwatched));
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

/// Disables controllers, because they would delete pods whose owner does not exist. The other server has no controllers
/// either.
const NO_CONTROLLERS: &[&str] = &["--controllers=none"];
/// Pause before measuring idle memory, because a server continues to work and release memory after its start.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);
/// Memory limit: an allowance for the idle server plus an amount per pod, 170 MB with 20,000 pods.
const IDLE_ALLOWANCE: u64 = 25_000_000;
const MEMORY_PER_POD: u64 = 7_250;
