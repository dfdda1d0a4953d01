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
//! | [`health`] | health and metrics endpoints of `nave controllers` |
//!
//! Exit codes: 0 after a graceful shutdown, 1 if the server cannot start or shut down, 2 for an error in the flags or
//! their files, 130 if a second signal interrupts the shutdown.

mod controllers;
mod descriptors;
mod flags;
mod health;
mod kubeconfig;
mod logging;
mod output;
mod pki;
mod serve;
mod signals;
mod signing;
mod tokens;

use std::process::ExitCode;

use crate::{
    controllers::ControllersError,
    flags::{Cli, Task},
    serve::ServeError,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Maximum number of threads for blocking work, created on demand. They read the store and files, resolve names, and
/// run the executor's queues while its threads serve large requests. The limits of this work add up to less, so no work
/// waits for a thread.
const BLOCKING_THREADS: usize = 64;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let task = match cli.validate() {
        Ok(task) => task,
        Err(error) => return wrong_flag(&error),
    };
    logging::start(match &task {
        Task::Serve(config) => config.log_level,
        Task::Controllers(config) => config.log_level,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&ServeError::System(error)),
    };
    match task {
        Task::Serve(config) => match runtime.block_on(serve::serve(*config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(ServeError::Flag(error)) => wrong_flag(&error),
            Err(error) => failed(&error),
        },
        Task::Controllers(config) => match runtime.block_on(controllers::run(*config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(ControllersError::Flag(error)) => wrong_flag(&error),
            Err(error) => failed(&error),
        },
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn wrong_flag(error: &flags::FlagError) -> ExitCode {
    eprintln!("error: {error}\n\nFor more information, try 'nave --help'.");
    ExitCode::from(2)
}
