//! `nave store`: status, upkeep and copies of a store. The embedded store must not be in use by a server.

mod digest;
mod migrate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::{io, panic, thread};

use nave_store::embedded::{self, maintenance};
use nave_store::{Defragmentation, Embedded, Etcd, Store, StoreError};

use crate::flags::{Location, StoreTask};
use crate::output;
use digest::Digest;

/// The prefix of all keys.
const PREFIX: &str = "/registry/";

/// The reasons why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreCommandError {
    /// The operation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's file is damaged.
    #[error("the store in {} is damaged: {why}", .folder.display())]
    Damaged { folder: PathBuf, why: String },
    /// The target of a copy has objects.
    #[error("the target is not empty: it has {0} keys")]
    NotEmpty(u64),
    /// Encrypted values authenticate their keys, which the copy would change.
    #[error("values are encrypted, so they can only be copied to the prefix /registry")]
    Encrypted,
    /// The copy differs from the source.
    #[error("the copy differs from the source: {copy}, expected {source_digest}")]
    Differs { source_digest: Digest, copy: Digest },
}

impl StoreCommandError {
    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Store(StoreError::Locked { .. }) => 3.into(),
            Self::Damaged { .. } | Self::Differs { .. } => 4.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a command and prints its result.
///
/// # Errors
/// [`StoreCommandError`].
pub(crate) async fn run(task: StoreTask) -> Result<(), StoreCommandError> {
    hide_panics_of_offline_work();
    let lines = match task {
        StoreTask::Status(location) => status(&*open(&location).await?).await?,
        StoreTask::Compact(location, revision) => compact(&*open(&location).await?, revision).await?,
        StoreTask::Defragment(Location::Folder(folder)) => {
            let rewritten = offline(&folder, maintenance::defragment).await?;
            format!("size {} bytes, {} before\n", rewritten.after, rewritten.before)
        }
        StoreTask::Defragment(location) => match open(&location).await?.defragment().await? {
            Defragmentation::NotNeeded => "nothing to do\n".to_owned(),
            Defragmentation::Reclaimed(bytes) => format!("reclaimed {bytes} bytes\n"),
        },
        StoreTask::Snapshot(location, to) => {
            if to.exists() {
                let why = format!("{} exists", to.display());
                return Err(StoreError::from(io::Error::new(io::ErrorKind::AlreadyExists, why)).into());
            }
            let store = open(&location).await?;
            store.snapshot(&to).await?;
            format!("snapshot of revision {} in {}\n", store.current_revision().await?, to.display())
        }
        StoreTask::Restore(from, to) => {
            let target = to.clone();
            offline(&from, move |from| maintenance::restore(from, &target)).await?;
            let store = open(&Location::Folder(to.clone())).await?;
            format!("{} in {}\n", digest::of(&*store, None).await?, to.display())
        }
        StoreTask::Check(folder) => {
            offline(&folder, maintenance::check).await?;
            let store = open(&Location::Folder(folder)).await?;
            format!("no damage found\n{}\n", digest::of(&*store, None).await?)
        }
        StoreTask::Migrate(from, to) => {
            let source = open(&from).await?;
            // An unavailable source must not leave an empty target.
            source.current_revision().await?;
            let copy = migrate::copy(&*source, &*create(&to).await?, &to).await?;
            format!("copied and verified: {copy}\n")
        }
    };
    output::print(&lines);
    Ok(())
}

async fn status(store: &dyn Store) -> Result<String, StoreCommandError> {
    let status = store.status().await?;
    Ok(format!(
        "engine    {}\nrevision  {}\ncompacted {}\nkeys      {}\nsize      {} bytes\nin use    {} bytes\nalarm     {}\n",
        status.engine,
        status.revision,
        store.compacted_revision().await?,
        store.count(PREFIX).await?,
        status.size_on_disk,
        status.size_in_use,
        if status.no_space { "no space" } else { "none" },
    ))
}

async fn compact(store: &dyn Store, revision: Option<u64>) -> Result<String, StoreCommandError> {
    let revision = match revision {
        Some(revision) => revision,
        None => store.current_revision().await?,
    };
    match store.compact(revision).await {
        Ok(()) => Ok(format!("history starts at revision {revision}\n")),
        Err(StoreError::Compacted { compacted }) => {
            Ok(format!("history starts at revision {compacted} already\n"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens an existing store.
async fn open(location: &Location) -> Result<Arc<dyn Store>, StoreCommandError> {
    match location {
        Location::Folder(folder) if !maintenance::exists(folder) => {
            let why = format!("{} has no store", folder.display());
            Err(StoreError::from(io::Error::new(io::ErrorKind::NotFound, why)).into())
        }
        location => create(location).await,
    }
}

/// Opens a store; creates an embedded one if it does not exist.
async fn create(location: &Location) -> Result<Arc<dyn Store>, StoreCommandError> {
    match location {
        Location::Folder(folder) => {
            // A command drops no history on its own.
            let options = embedded::Options { history: None, ..embedded::Options::default() };
            Ok(Arc::new(offline(folder, move |folder| Embedded::open(folder, &options)).await?))
        }
        Location::Etcd(options) => Ok(Arc::new(Etcd::new(options.clone()))),
    }
}

/// Suppresses the messages of panics in work on a folder, which would hide the error.
fn hide_panics_of_offline_work() {
    let shows = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name() != Some(OFFLINE) {
            shows(panic);
        }
    }));
}

/// The name of the threads that work on a folder.
const OFFLINE: &str = "store-offline";

/// Runs blocking work on a folder in a thread of its own. The engine panics for some damaged files.
async fn offline<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreCommandError> {
    let path = folder.to_owned();
    let damaged = |why: String| StoreCommandError::Damaged { folder: folder.to_owned(), why };
    let worker = thread::Builder::new().name(OFFLINE.to_owned()).spawn(move || work(&path));
    let worker = worker.map_err(StoreError::from)?;
    let done = tokio::task::spawn_blocking(move || worker.join()).await;
    match done.map_err(|error| StoreError::from(io::Error::other(error)))? {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(StoreError::Corrupt(why))) => Err(damaged(why.to_string())),
        Ok(Err(StoreError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
            Err(damaged(error.to_string()))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(damaged("its pages cannot be read; restore it from a snapshot".to_owned())),
    }
}
