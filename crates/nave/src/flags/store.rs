//! The flags of `nave store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nave_store::etcd::{self, Address, TlsFiles};

use super::FlagError;

/// The exit codes, at the end of the help.
const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 invalid flags, 3 the store is in use by a server, \
                          4 the store is damaged or a copy differs.";

/// The flags of `nave store`, as typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct StoreFlags {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum StoreCommand {
    /// Print the engine, sizes, revisions, and the number of keys.
    #[command(after_help = EXIT_CODES)]
    Status {
        #[command(flatten)]
        location: LocationFlags,
    },
    /// Drop the history before a revision. Watches and lists from older revisions fail afterwards.
    #[command(after_help = EXIT_CODES)]
    Compact {
        /// The oldest revision that stays readable. The latest one by default.
        #[arg(long, value_name = "REVISION")]
        revision: Option<u64>,
        #[command(flatten)]
        location: LocationFlags,
    },
    /// Return free space to the file system: rewrite the file of the embedded store, or defragment the members of etcd
    /// one by one.
    #[command(after_help = EXIT_CODES)]
    Defrag {
        #[command(flatten)]
        location: LocationFlags,
    },
    /// Write a consistent copy to a new folder. From etcd it is the file snapshot.db, which 'etcdutl snapshot restore'
    /// reads.
    #[command(after_help = EXIT_CODES)]
    Snapshot {
        /// The folder of the copy; must not exist.
        folder: PathBuf,
        #[command(flatten)]
        location: LocationFlags,
    },
    /// Create a store in --data-dir from a snapshot of an embedded store: a folder, or the file that 'etcdctl snapshot
    /// save' got from nave. Refuses to replace an existing store.
    ///
    /// Keys and certificates are not in a snapshot. Copy the folder pki of the old data folder too; otherwise the server
    /// creates new ones, and no client and no service account token of the old server is accepted.
    #[command(after_help = EXIT_CODES)]
    Restore {
        /// The folder or file of the snapshot.
        #[arg(value_name = "PATH")]
        folder: PathBuf,
        /// Data folder of the server that will use the store.
        #[arg(long, value_name = "DIR", default_value = "nave-data")]
        data_dir: PathBuf,
    },
    /// Verify the checksums of the embedded store and read all rows. Prints a digest of the objects.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// Data folder of the server.
        #[arg(long, value_name = "DIR", default_value = "nave-data")]
        data_dir: PathBuf,
    },
    /// Copy the latest version of all objects between the embedded store and etcd, and verify the copy by a digest.
    ///
    /// The target must be empty. Stop all servers that write to the source: later writes are not copied. Revisions start
    /// again, so clients list again. Events live for one hour from now on. The addresses of running servers are not
    /// copied. Encrypted values are copied as they are.
    #[command(after_help = EXIT_CODES)]
    Migrate {
        /// The direction.
        #[arg(long, value_name = "TARGET", value_parser = ["etcd", "embedded"])]
        to: String,
        #[command(flatten)]
        location: LocationFlags,
    },
}

/// The place of a store, as typed.
#[derive(Args, Clone, Debug)]
struct LocationFlags {
    /// Data folder of the server, which has the embedded store.
    #[arg(long, value_name = "DIR", default_value = "nave-data")]
    data_dir: PathBuf,
    /// Servers of an etcd cluster, such as https://127.0.0.1:2379, separated by commas.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Prefix of all keys in etcd.
    #[arg(long, value_name = "PATH", default_value = "/registry")]
    etcd_prefix: String,
    /// CAs of the etcd servers' certificates (PEM). The system's CAs by default.
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Private key of --etcd-certfile (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
}

/// The checked command of `nave store`.
#[derive(Clone, Debug)]
pub(crate) enum StoreTask {
    /// Print sizes and revisions.
    Status(Location),
    /// Drop the history before a revision; before the latest one if it is `None`.
    Compact(Location, Option<u64>),
    /// Return free space.
    Defragment(Location),
    /// Copy to a new folder.
    Snapshot(Location, PathBuf),
    /// Copy a snapshot, the first folder, to the store folder.
    Restore(PathBuf, PathBuf),
    /// Verify the store in the folder.
    Check(PathBuf),
    /// Copy the first store to the second one.
    Migrate(Location, Location),
}

/// The place of a store.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// The folder of an embedded store.
    Folder(PathBuf),
    /// An etcd cluster.
    Etcd(etcd::Options),
}

impl StoreFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// An address or file is invalid, or the direction of a migration has no cluster.
    pub(super) fn validate(self) -> Result<StoreTask, FlagError> {
        Ok(match self.command {
            StoreCommand::Status { location } => StoreTask::Status(location.validate()?),
            StoreCommand::Compact { revision, location } => {
                StoreTask::Compact(location.validate()?, revision)
            }
            StoreCommand::Defrag { location } => StoreTask::Defragment(location.validate()?),
            StoreCommand::Snapshot { folder, location } => StoreTask::Snapshot(location.validate()?, folder),
            StoreCommand::Restore { folder, data_dir } => StoreTask::Restore(folder, data_dir.join(STORE)),
            StoreCommand::Check { data_dir } => StoreTask::Check(data_dir.join(STORE)),
            StoreCommand::Migrate { to, location } => {
                let folder = Location::Folder(location.data_dir.join(STORE));
                let etcd = location.validate()?;
                if matches!(etcd, Location::Folder(_)) {
                    return Err(FlagError::new("etcd-servers", "required by migrate"));
                }
                if to == "etcd" { StoreTask::Migrate(folder, etcd) } else { StoreTask::Migrate(etcd, folder) }
            }
        })
    }
}

impl LocationFlags {
    fn validate(self) -> Result<Location, FlagError> {
        if self.etcd_servers.is_empty() {
            return Ok(Location::Folder(self.data_dir.join(STORE)));
        }
        let parse = |url: &String| {
            url.parse::<Address>().map_err(|error| FlagError::new("etcd-servers", error.to_string()))
        };
        let servers: Result<Vec<_>, _> = self.etcd_servers.iter().map(parse).collect();
        let tls = TlsFiles { ca: self.etcd_cafile, identity: self.etcd_certfile.zip(self.etcd_keyfile) };
        tls.check().map_err(|why| FlagError::new("etcd-cafile, --etcd-certfile or --etcd-keyfile", why))?;
        Ok(Location::Etcd(etcd::Options {
            servers: servers?,
            tls,
            prefix: self.etcd_prefix,
            compaction_interval: None,
            ..etcd::Options::default()
        }))
    }
}

/// The folder of the store in a data folder.
const STORE: &str = "store";
