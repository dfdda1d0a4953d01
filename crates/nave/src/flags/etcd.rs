//! The choice of the store: the embedded one, or etcd with `--etcd-servers`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nave_apiserver::storage::{StorageMediaType, StoreTimeouts};
use nave_machinery::GroupResource;
use nave_store::embedded;
use nave_store::etcd::{self, Address, TlsFiles};

use super::values::{parse_duration, whole};
use super::{ETCD, FlagError};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = ETCD)]
pub(super) struct EtcdFlags {
    /// Servers of an etcd cluster that stores the objects, such as https://127.0.0.1:2379, separated by commas. By
    /// default objects are stored in --data-dir.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// Other etcd servers for single resources: group/resource#URL;URL, such as /events#https://127.0.0.1:4002.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    etcd_servers_overrides: Vec<String>,
    /// Prefix of all keys in etcd.
    #[arg(long, value_name = "PATH", default_value = "/registry")]
    etcd_prefix: String,
    /// CAs of the etcd servers' certificates (PEM). The system's CAs by default.
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd (PEM).
    #[arg(long, value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// Private key of --etcd-certfile (PEM).
    #[arg(long, value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// Interval of compactions: old revisions are readable for this time or longer. 0 disables compactions.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration)]
    etcd_compaction_interval: Duration,
    /// 0 leaves the numbers of objects out of the metrics. Otherwise, they are counted when metrics are read.
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = parse_duration)]
    etcd_count_metric_poll_period: Duration,
    /// 0 leaves the size of the store out of the metrics. Otherwise, it is read when metrics are read.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    etcd_db_metric_poll_interval: Duration,
    /// Time after which events are deleted. 0 keeps them.
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = parse_duration)]
    event_ttl: Duration,
    /// Timeout of the health check of the store.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    etcd_healthcheck_timeout: Duration,
    /// Timeout of the readiness check of the store.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    etcd_readycheck_timeout: Duration,
    /// Time for which a lease of etcd is used for further objects with the same time to live, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = whole(1..=u32::MAX))]
    lease_reuse_duration_seconds: u32,
    /// Time to wait for the store and the watch caches at start.
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = parse_duration)]
    storage_initialization_timeout: Duration,
    /// Form in which built-in objects are stored: application/vnd.kubernetes.protobuf or application/json, also selected by
    /// an empty value. Both are read.
    #[arg(long, value_name = "TYPE", default_value = PROTOBUF, value_parser = [PROTOBUF, JSON, ""], hide_possible_values = true)]
    storage_media_type: String,
    /// Version of etcd's API; only etcd3 exists.
    #[arg(long, value_name = "NAME", value_parser = ["", "etcd3"], default_value = "", hide_default_value = true)]
    storage_backend: String,
}

/// The stores of the server.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) engine: EngineConfig,
    /// Other stores for single resources.
    pub(crate) overrides: HashMap<GroupResource, etcd::Options>,
    /// Prefix of all keys in etcd, which encryption authenticates.
    pub(crate) prefix: String,
    pub(crate) media_type: StorageMediaType,
    /// Time after which events are deleted; zero keeps them.
    pub(crate) event_ttl: Duration,
    pub(crate) timeouts: StoreTimeouts,
}

/// The store of most resources.
#[derive(Clone, Debug)]
pub(crate) enum EngineConfig {
    /// In the data folder.
    Embedded(embedded::Options),
    /// An etcd cluster.
    Etcd(etcd::Options),
}

impl EtcdFlags {
    /// Returns whether the objects are stored in an etcd cluster.
    pub(super) fn has_servers(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    /// Returns the names of the metrics whose interval is 0.
    pub(super) fn metrics_without_interval(&self) -> Vec<String> {
        let counts = (self.etcd_count_metric_poll_period, &OBJECT_COUNTS[..]);
        let sizes = (self.etcd_db_metric_poll_interval, &STORE_SIZES[..]);
        let disabled = [counts, sizes].into_iter().filter(|(interval, _)| interval.is_zero());
        disabled.flat_map(|(_, names)| names).map(|name| (*name).to_owned()).collect()
    }

    /// Validates the flags.
    ///
    /// # Errors
    /// An address is invalid, or a flag has no effect without another one.
    pub(super) fn validate(self) -> Result<StoreConfig, FlagError> {
        let identity = match (self.etcd_certfile, self.etcd_keyfile) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(FlagError::new("etcd-keyfile", "required with --etcd-certfile")),
            (None, Some(_)) => return Err(FlagError::new("etcd-certfile", "required with --etcd-keyfile")),
        };
        let interval = Some(self.etcd_compaction_interval).filter(|interval| !interval.is_zero());
        let cluster = |servers| etcd::Options {
            servers,
            tls: TlsFiles { ca: self.etcd_cafile.clone(), identity: identity.clone() },
            prefix: self.etcd_prefix.clone(),
            compaction_interval: interval,
            lease_reuse: Duration::from_secs(self.lease_reuse_duration_seconds.into()),
            ..etcd::Options::default()
        };
        let servers = addresses("etcd-servers", &self.etcd_servers)?;
        let mut overrides = HashMap::new();
        for text in &self.etcd_servers_overrides {
            let (resource, servers) = parse_override(text)?;
            overrides.insert(resource, cluster(servers));
        }
        if servers.is_empty() && !overrides.is_empty() {
            return Err(FlagError::new("etcd-servers-overrides", "--etcd-servers is required"));
        }
        let engine = if servers.is_empty() {
            let mut options = embedded::Options::default();
            options.history =
                options.history.zip(interval).map(|(history, time)| embedded::History { time, ..history });
            EngineConfig::Embedded(options)
        } else {
            let options = cluster(servers);
            options
                .tls
                .check()
                .map_err(|why| FlagError::new("etcd-cafile, --etcd-certfile or --etcd-keyfile", why))?;
            EngineConfig::Etcd(options)
        };
        Ok(StoreConfig {
            engine,
            overrides,
            prefix: self.etcd_prefix,
            media_type: if self.storage_media_type == PROTOBUF {
                StorageMediaType::Protobuf
            } else {
                StorageMediaType::Json
            },
            event_ttl: self.event_ttl,
            timeouts: StoreTimeouts {
                health: self.etcd_healthcheck_timeout,
                readiness: self.etcd_readycheck_timeout,
                initialization: self.storage_initialization_timeout,
            },
        })
    }
}

/// The metrics of `--etcd-count-metric-poll-period`.
const OBJECT_COUNTS: [&str; 2] = ["apiserver_storage_objects", "apiserver_resource_objects"];
/// The metric of `--etcd-db-metric-poll-interval`.
const STORE_SIZES: [&str; 1] = ["apiserver_storage_size_bytes"];

/// The media types of `--storage-media-type`.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";

/// Parses `group/resource#URL;URL`. The core group is empty.
fn parse_override(text: &str) -> Result<(GroupResource, Vec<Address>), FlagError> {
    let flag = "etcd-servers-overrides";
    let wrong = || FlagError::new(flag, format!("{text:?} is not group/resource#URL;URL"));
    let (name, servers) = text.split_once('#').ok_or_else(wrong)?;
    let (group, resource) = name.split_once('/').ok_or_else(wrong)?;
    let servers: Vec<String> = servers.split(';').map(str::to_owned).collect();
    if resource.is_empty() || resource.contains('/') {
        return Err(wrong());
    }
    let resource = GroupResource { group: group.to_owned(), resource: resource.to_owned() };
    Ok((resource, addresses(flag, &servers)?))
}

fn addresses(flag: &'static str, urls: &[String]) -> Result<Vec<Address>, FlagError> {
    let parsed = urls.iter().map(|url| url.parse().map_err(|error| FlagError::new(flag, format!("{error}"))));
    parsed.collect()
}
