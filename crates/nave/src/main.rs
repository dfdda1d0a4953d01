//! nave, the Kubernetes API server: flags, keys and certificates, wiring.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`flags`] | the command line, and what is wrong with it |
//! | [`pki`] | the server's own CA and certificates in the data folder, renewed before they expire |
//! | [`logging`] | what is logged, and what never is |
//! | [`kubeconfig`] | the file with which the administrator connects |
//! | [`serve`] | starts everything in order, and stops it in order |
//! | [`controllers`] | the controllers as a process of their own |
//! | [`descriptors`] | the process' limit of open file descriptors |
//! | [`health`] | what that process tells probes and scrapers |
//!
//! Exit codes: 0 after a shutdown that was asked for, 1 if the server could not start or not end in order, 2 for a
//! mistake in the flags or the files they name, 130 if a second signal cut the shutdown short.

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

use clap::Parser;

use crate::{
    controllers::ControllersError,
    flags::{Cli, Task},
    serve::ServeError,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads for what blocks, made when they are needed: reads of the store and of files, names looked up, and the
/// executor's queues while its threads serve large requests. All of these are bounded by less, so that none waits for a
/// thread.
const BLOCKING_THREADS: usize = 64;

fn main() -> ExitCode {
    let task = match Cli::parse().validate() {
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
