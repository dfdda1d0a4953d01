//! nave, the Kubernetes API server: flags, keys and certificates, and the wiring of all parts.
//!
//! | module | contents |
//! | --- | --- |
//! | [`flags`] | parses and validates the command line |
//! | [`pki`] | creates and renews the server's CA and certificates in the data folder |
//! | [`logging`] | log output, without request and response bodies |
//! | [`kubeconfig`] | writes the administrator's kubeconfig |
//! | [`serve`] | starts and stops the parts of the server in order |
//! | [`controllers`] | runs the controllers as a separate process |
//! | [`descriptors`] | raises the limit of open file descriptors |
//! | [`etcd_command`] | serves etcd's API over an embedded store |
//! | [`store_command`] | inspects, compacts, copies and migrates a store |
//! | [`health`] | health and metrics endpoints of `nave controllers` |
//!
//! Exit codes: 0 after a graceful shutdown, 1 if the server cannot start or shut down, 2 for an error in the flags or
//! their files, 130 if a second signal interrupts the shutdown.

mod controllers;
mod descriptors;
mod etcd_command;
mod flags;
mod health;
mod kubeconfig;
mod logging;
mod output;
mod pki;
mod plain_http;
mod serve;
mod signals;
mod signing;
mod store_command;
mod tokens;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nave_apiserver::version::KUBERNETES_VERSION;
use tokio::runtime::Runtime;

use crate::{
    controllers::ControllersError,
    flags::{Cli, Task},
    logging::LogOptions,
    serve::ServeError,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Maximum number of threads for blocking work, created on demand. They read the store and files, resolve names, and
/// run the executor's queues while its threads serve large requests. The limits of this work add up to less, so no work
/// waits for a thread.
const BLOCKING_THREADS: usize = 64;

/// Time after which an idle thread for blocking work ends. The threads take turns, so that each of them fills a cache of
/// the allocator: together up to 28 MB. A thread that ends gives its cache back. (Tokio's default is 10 s.)
const IDLE_THREADS: Duration = Duration::from_millis(500);

/// The number of tasks that a thread of the executor polls before it looks for new events of sockets and timers. Under a
/// flood there is always another task, and a heartbeat that has arrived waits for this many polls. A look costs less
/// than a microsecond, a poll of a list some hundred. (Tokio's default is 61.)
const EVENT_INTERVAL: u32 = 8;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let (task, warnings) = logging::collect(|| cli.validate());
    match task {
        Ok(Task::Version) => {
            let (major, minor, patch) = KUBERNETES_VERSION;
            output::print(&format!("Kubernetes v{major}.{minor}.{patch}\n"));
            ExitCode::SUCCESS
        }
        Ok(Task::Serve(config)) => run(config.log, &warnings, |runtime| {
            runtime.block_on(serve::serve(*config)).map_err(|error| match error {
                ServeError::Flag(error) => wrong_flag(&error),
                error => failed(&error),
            })
        }),
        Ok(Task::Controllers(config)) => run(LogOptions::text(config.log_level), &warnings, |runtime| {
            runtime.block_on(controllers::run(*config)).map_err(|error| match error {
                ControllersError::Flag(error) => wrong_flag(&error),
                error => failed(&error),
            })
        }),
        Ok(Task::Etcd(config)) => run(LogOptions::text(0), &warnings, |runtime| {
            runtime.block_on(etcd_command::run(*config)).map_err(|error| failed(&error))
        }),
        Ok(Task::Store(task)) => run(LogOptions::text(0), &warnings, |runtime| {
            runtime.block_on(store_command::run(*task)).map_err(|error| {
                failed(&error);
                error.exit_code()
            })
        }),
        Err(error) => {
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            wrong_flag(&error)
        }
    }
}

/// Starts logging and the executor, and runs the task. Logs the warnings about its flags first.
fn run(
    log: LogOptions,
    warnings: &[String],
    task: impl FnOnce(&Runtime) -> Result<(), ExitCode>,
) -> ExitCode {
    logging::start(log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(IDLE_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&ServeError::System(error)),
    };
    task(&runtime).err().unwrap_or(ExitCode::SUCCESS)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn wrong_flag(error: &flags::FlagError) -> ExitCode {
    let program = std::env::args_os().next();
    let program = program.as_deref().map(Path::new).and_then(Path::file_name).unwrap_or("nave".as_ref());
    eprintln!("error: {error}\n\nFor more information, try '{} --help'.", program.display());
    ExitCode::from(2)
}
