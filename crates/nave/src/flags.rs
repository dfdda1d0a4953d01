//! The command line. Flags that have kube-apiserver's meaning have kube-apiserver's names.
//!
//! [`ServeFlags`] are the flags as typed. [`ServeFlags::validate`] checks each flag and their combinations and returns
//! a [`Config`]; later code does not check flags again.

mod address;
mod admission;
mod aggregation;
mod apis;
mod apiserver;
mod audit;
mod authentication;
mod authorization;
mod backends;
mod browsers;
mod caches;
mod command_line;
mod controller_options;
mod controllers;
mod egress;
mod election;
mod encryption;
mod etcd;
mod etcd_command;
mod etcd_endpoint;
mod flow_control;
mod kubelet;
mod lifecycle;
mod metrics;
mod objects;
mod peers;
mod signing;
mod store;
mod tls;
mod traces;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand};
use nave_apiserver::allocation::ServiceRanges;
use nave_apiserver::browsers::Browsers;
use nave_apiserver::connect::backends::BackendLimits;
use nave_apiserver::serving::TlsSettings;
use nave_apiserver::storage::WatchCacheSizes;
use nave_client::leader_election::LeaderElectionConfig;
use nave_webhook::EgressSelector;

use crate::logging::LogOptions;

pub(crate) use admission::Admission;
use admission::{AdmissionFlags, NAMESPACE_LIFECYCLE, NODE_RESTRICTION};
pub(crate) use aggregation::Aggregation;
use aggregation::AggregationFlags;
use apis::ApiFlags;
pub(crate) use apis::{Apis, FeatureGates};
use apiserver::ApiserverFlags;
use audit::AuditFlags;
use authentication::AuthenticationFlags;
pub(crate) use authentication::{
    Authentication, DelegatedAuthentication, Lookup, Oidc, Proxy, ServiceAccounts, TokenWebhook,
};
use authorization::AuthorizationFlags;
pub(crate) use authorization::{Authorization, Authorizers, DelegatedAuthorization};
use backends::BackendFlags;
use browsers::BrowserFlags;
use caches::CacheFlags;
pub(crate) use controllers::ControllersConfig;
use controllers::{ControllersFlags, controllers_help, known_controllers};
use egress::EgressFlags;
use election::ElectionFlags;
pub(crate) use encryption::EncryptionConfig;
use encryption::EncryptionFlags;
use etcd::EtcdFlags;
pub(crate) use etcd::{EngineConfig, StoreConfig};
use etcd_command::EtcdCommandFlags;
pub(crate) use etcd_command::EtcdConfig;
pub(crate) use etcd_endpoint::EtcdEndpoint;
use etcd_endpoint::EtcdEndpointFlags;
pub(crate) use flow_control::FlowControlConfig;
use flow_control::FlowControlFlags;
pub(crate) use kubelet::Kubelet;
use kubelet::KubeletFlags;
pub(crate) use lifecycle::Lifecycle;
use lifecycle::LifecycleFlags;
use metrics::MetricsFlags;
pub(crate) use objects::ObjectConfig;
use objects::ObjectFlags;
use peers::PeerFlags;
pub(crate) use peers::PeerSettings;
pub(crate) use signing::Signing;
use signing::SigningFlags;
use store::StoreFlags;
pub(crate) use store::{Location, StoreTask};
pub(crate) use tls::NamedPair;
use tls::TlsFlags;
use traces::TracingFlags;
pub(crate) use values::Controllers;
use values::{parse_bool, parse_count, parse_duration, parse_ports, parse_verbosity, whole};

const DATA_DIR: &str = "nave-data";
const GENERAL: &str = "General";
const SERVING: &str = "Serving";
const NETWORK: &str = "Cluster network";
const ETCD: &str = "Storage";

/// A Kubernetes API server: one binary with an embedded store.
#[derive(Debug, Parser)]
#[command(name = "nave", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Kubernetes API (the default command).
    Serve(Box<ServeFlags>),
    /// Serve the Kubernetes API with kube-apiserver's flags and defaults. The name kube-apiserver of the program selects
    /// this command.
    Apiserver(Box<ApiserverFlags>),
    /// Serve etcd's API (version 3) over an embedded store, as a single member. The name etcd of the program selects this
    /// command.
    Etcd(Box<EtcdCommandFlags>),
    /// Run the controllers as a separate process against any cluster.
    Controllers(Box<ControllersFlags>),
    /// Inspect, compact, copy and migrate a store.
    Store(Box<StoreFlags>),
}

/// The work of the process.
#[derive(Debug)]
pub(crate) enum Task {
    /// Serve the API.
    Serve(Box<Config>),
    /// Run controllers.
    Controllers(Box<ControllersConfig>),
    /// Serve etcd's API.
    Etcd(Box<EtcdConfig>),
    /// Print the version of the API.
    Version,
    /// Work on a store.
    Store(Box<StoreTask>),
}

impl Cli {
    /// Sets the values of all flags of a server, for `/flagz`.
    fn with_values(mut self, values: BTreeMap<String, String>) -> Self {
        match &mut self.command {
            Some(Command::Serve(flags)) => flags.values = values,
            Some(Command::Apiserver(flags)) => flags.set_values(values),
            Some(Command::Etcd(_) | Command::Controllers(_) | Command::Store(_)) => {}
            None => self.serve.values = values,
        }
        self
    }

    /// Checks the flags of the command. The default command is `serve`.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(crate) fn validate(self) -> Result<Task, FlagError> {
        let serve = match self.command {
            Some(Command::Controllers(flags)) => {
                return Ok(Task::Controllers(Box::new(flags.validate()?)));
            }
            Some(Command::Etcd(flags)) => return Ok(Task::Etcd(Box::new(flags.validate()?))),
            Some(Command::Apiserver(flags)) if flags.version => return Ok(Task::Version),
            Some(Command::Apiserver(flags)) => return Ok(Task::Serve(Box::new(flags.validate()?))),
            Some(Command::Store(flags)) => return Ok(Task::Store(Box::new(flags.validate()?))),
            Some(Command::Serve(flags)) => *flags,
            None => self.serve,
        };
        Ok(Task::Serve(Box::new(serve.validate()?)))
    }
}

/// The flags of `nave serve`, as typed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeFlags {
    /// Folder for all data of the server: objects, keys, certificates and admin.kubeconfig. Created if missing.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, help_heading = GENERAL)]
    data_dir: Option<PathBuf>,
    #[arg(long, value_name = "LIST", default_value = "*", allow_hyphen_values = true, help_heading = GENERAL,
          default_value_if("authorization_kubeconfig", ArgPredicate::IsPresent, "none"),
          help = controllers_help(", 'none' runs none"))]
    controllers: String,
    /// Time limit of a request. Watches and other long-running requests are exempt.
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = parse_duration, help_heading = GENERAL)]
    request_timeout: Duration,
    /// Minimum duration of a watch without timeoutSeconds, in seconds. The maximum is twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = whole(0..=u32::MAX), help_heading = GENERAL)]
    min_request_timeout: u32,
    /// Call webhooks and aggregated servers in services at a ready endpoint instead of the cluster IP.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = GENERAL)]
    enable_aggregator_routing: bool,
    #[command(flatten)]
    objects: ObjectFlags,
    #[command(flatten)]
    metrics: MetricsFlags,
    #[command(flatten)]
    lifecycle: LifecycleFlags,
    #[command(flatten)]
    election: ElectionFlags,
    /// Form of the log: text, or json with one object per line.
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"], help_heading = GENERAL)]
    logging_format: String,
    /// Log level, 0 (quiet) to 10 (everything).
    #[arg(short, long = "v", value_name = "LEVEL", default_value_t = 0, value_parser = parse_verbosity, help_heading = GENERAL)]
    verbosity: u8,

    /// Address to listen on. 0.0.0.0 or :: listens on all addresses.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", help_heading = SERVING)]
    bind_address: IpAddr,
    /// Port to listen on. 0 selects a free port and prints it.
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = whole(0..=u16::MAX), help_heading = SERVING)]
    secure_port: u16,
    /// Address at which clients reach the server, if it is not --bind-address. The certificate and admin.kubeconfig
    /// contain it. If --bind-address is 0.0.0.0 or ::, the default is the loopback address, or as kube-apiserver the
    /// machine's address in its network.
    #[arg(long, value_name = "IP", help_heading = SERVING)]
    advertise_address: Option<IpAddr>,
    /// Host name or address of the server in the documents /api and /openid/v1/jwks, perhaps with a port, if it is not
    /// --advertise-address.
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true, help_heading = SERVING)]
    external_hostname: String,
    /// Let other processes listen on the same address and port (SO_REUSEPORT).
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = SERVING)]
    permit_port_sharing: bool,
    #[command(flatten)]
    tls: TlsFlags,
    /// Limit of open connections per client address, or per /64 network for IPv6. Clients behind a proxy count as one
    /// client. 0 means half of the connections that the limit of file descriptors allows.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_count, help_heading = SERVING)]
    max_connections_per_address: usize,

    #[command(flatten)]
    authentication: AuthenticationFlags,
    #[command(flatten)]
    authorization: AuthorizationFlags,
    #[command(flatten)]
    admission: AdmissionFlags,

    /// Range of cluster IPs. For dual stack, an IPv4 and an IPv6 range separated by a comma.
    #[arg(long, value_name = "CIDRS", default_value = "10.0.0.0/16", help_heading = NETWORK)]
    service_cluster_ip_range: ServiceRanges,
    /// Range of node ports.
    #[arg(long, value_name = "RANGE", default_value = "30000-32767", value_parser = parse_ports, help_heading = NETWORK)]
    service_node_port_range: RangeInclusive<u16>,
    /// Node port of the service kubernetes. 0 means none.
    #[arg(long, value_name = "PORT", default_value_t = 0, value_parser = whole(0..=u16::MAX), help_heading = NETWORK)]
    kubernetes_service_node_port: u16,

    #[command(flatten)]
    apis: ApiFlags,
    #[command(flatten)]
    etcd: EtcdFlags,
    #[command(flatten)]
    etcd_endpoint: EtcdEndpointFlags,
    #[command(flatten)]
    encryption: EncryptionFlags,
    #[command(flatten)]
    caches: CacheFlags,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    tracing: TracingFlags,
    #[command(flatten)]
    browsers: BrowserFlags,
    #[command(flatten)]
    flow_control: FlowControlFlags,
    #[command(flatten)]
    signing: SigningFlags,
    #[command(flatten)]
    kubelet: KubeletFlags,
    #[command(flatten)]
    aggregation: AggregationFlags,
    #[command(flatten)]
    peers: PeerFlags,
    #[command(flatten)]
    backends: BackendFlags,
    #[command(flatten)]
    egress: EgressFlags,
    /// All flags with their values.
    #[arg(skip)]
    values: BTreeMap<String, String>,
}

/// The checked configuration of `nave serve`.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent settings")]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) controllers: Controllers,
    pub(crate) flow_control: FlowControlConfig,
    pub(crate) request_timeout: Duration,
    pub(crate) min_request_timeout: Duration,
    pub(crate) lifecycle: Lifecycle,
    /// The leader election of the controllers; `None` if leader election is disabled.
    pub(crate) election: Option<LeaderElectionConfig>,
    pub(crate) log: LogOptions,
    pub(crate) listen: SocketAddr,
    /// The address at which clients reach the server.
    pub(crate) advertise: IpAddr,
    /// The serving certificate and key from the flags; `None` if the server creates them.
    pub(crate) serving_pair: Option<(PathBuf, PathBuf)>,
    /// The certificates for single server names.
    pub(crate) named_pairs: Vec<NamedPair>,
    pub(crate) http2_streams: u32,
    /// The protocols and cipher suites of TLS.
    pub(crate) tls: TlsSettings,
    /// All flags with their values, for `/flagz`.
    pub(crate) flag_values: BTreeMap<String, String>,
    /// 0 derives the limit from the limit of file descriptors.
    pub(crate) connections_per_address: usize,
    pub(crate) authentication: Authentication,
    pub(crate) authorization: Authorization,
    /// The admission plugins.
    pub(crate) admission: Admission,
    pub(crate) service_ranges: ServiceRanges,
    pub(crate) node_ports: RangeInclusive<u16>,
    /// The node port of the service `kubernetes`.
    pub(crate) kubernetes_node_port: Option<u16>,
    /// The host in documents for clients, perhaps with a port; empty for the advertised address.
    pub(crate) external_host: String,
    /// True if other processes may listen on the same port.
    pub(crate) shares_port: bool,
    pub(crate) objects: ObjectConfig,
    /// The names of the metrics that are not served.
    pub(crate) disabled_metrics: BTreeSet<String>,
    /// True if webhooks in services are called at their endpoints.
    pub(crate) endpoint_routing: bool,
    /// The audit policy and backends, if requests are recorded.
    pub(crate) audit: Option<nave_audit::Options>,
    /// The collector of traces and the rate of traced requests, if requests are traced.
    pub(crate) tracing: Option<nave_telemetry::Config>,
    /// The CORS and HSTS settings for browsers.
    pub(crate) browsers: Browsers,
    /// True if the console is served.
    pub(crate) console: bool,
    pub(crate) watch_caches: WatchCacheSizes,
    /// The selected APIs and features.
    pub(crate) apis: Apis,
    /// The endpoint at which the embedded store speaks etcd's API.
    pub(crate) etcd_endpoint: Option<EtcdEndpoint>,
    /// The stores of objects.
    pub(crate) store: StoreConfig,
    /// Encryption at rest.
    pub(crate) encryption: EncryptionConfig,
    /// The authorities that sign certificates.
    pub(crate) signing: Signing,
    /// Connections to kubelets, pods and services.
    pub(crate) kubelet: Kubelet,
    /// Aggregated servers.
    pub(crate) aggregation: Aggregation,
    /// The other API servers of the cluster.
    pub(crate) peers: PeerSettings,
    /// The ways to nodes, webhooks and etcd.
    pub(crate) egress: EgressSelector,
    /// The limits of connections to backends. A total of 0 stands for half of all connections.
    pub(crate) backends: BackendLimits,
    /// The origin of keys and certificates without a flag.
    pub(crate) credentials: Credentials,
    /// True if the files of `serving_pair` are created when they do not exist.
    pub(crate) creates_serving_pair: bool,
    /// The flags on the command line that have no effect.
    pub(crate) without_effect: Vec<String>,
}

impl Config {
    /// Returns whether other API servers may use the same store. An embedded store is shared over etcd's API only.
    pub(crate) fn has_shared_store(&self) -> bool {
        matches!(self.store.engine, EngineConfig::Etcd(_)) || self.etcd_endpoint.is_some()
    }
}

/// The origin of keys and certificates that no flag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A CA of the server in its data folder. It issues the serving certificate, the administrator's and that for
    /// kubelets, and clients with its certificates are accepted.
    OwnAuthority,
    /// As kube-apiserver: a self-signed serving certificate, and nothing else.
    SelfSigned,
}

/// An invalid flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {why}")]
pub(crate) struct FlagError {
    pub(crate) flag: &'static str,
    pub(crate) why: String,
}

impl FlagError {
    pub(crate) fn new(flag: &'static str, why: impl Into<String>) -> Self {
        Self { flag, why: why.into() }
    }

    /// Creates an error about a flag's file.
    pub(crate) fn file(flag: &'static str, file: &Path, why: impl std::fmt::Display) -> Self {
        Self { flag, why: format!("{}: {why}", file.display()) }
    }
}

impl ServeFlags {
    /// Checks each flag and the combinations of flags.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(crate) fn validate(self) -> Result<Config, FlagError> {
        self.validate_with(Credentials::OwnAuthority)
    }

    fn validate_with(self, credentials: Credentials) -> Result<Config, FlagError> {
        if self.request_timeout.is_zero() {
            return Err(FlagError::new("request-timeout", "must be more than 0"));
        }
        if self.advertise_address.is_some_and(|address| address.is_unspecified()) {
            return Err(FlagError::new(
                "advertise-address",
                "clients cannot connect to an unspecified address",
            ));
        }
        let kubernetes_node_port = Some(self.kubernetes_service_node_port).filter(|port| *port != 0);
        if kubernetes_node_port.is_some_and(|port| !self.service_node_port_range.contains(&port)) {
            let why = "is not in --service-node-port-range";
            return Err(FlagError::new("kubernetes-service-node-port", why));
        }
        let mut disabled_metrics = self.metrics.validate()?;
        disabled_metrics.extend(self.etcd.metrics_without_interval());
        let egress = self.egress.validate()?;
        let mut audit = self.audit.validate()?;
        if let Some(webhook) = audit.as_mut().and_then(|audit| audit.webhook.as_mut()) {
            webhook.egress = egress.control_plane.clone();
        }
        let tls = self.tls.validate()?;
        let aggregation = self.aggregation.validate()?;
        let peers = self.peers.validate(&aggregation)?;
        let controllers = known_controllers(&self.controllers)?;
        let data_dir = self.data_dir.unwrap_or_else(|| DATA_DIR.into());
        let pki = data_dir.join("pki");
        let owns_authority = credentials == Credentials::OwnAuthority;
        let own_authority = owns_authority.then(|| (pki.join("ca.crt"), pki.join("ca.key")));
        // kube-apiserver does not enable the plugin by default.
        let enabled: &[&str] = if owns_authority { &[NODE_RESTRICTION] } else { &[] };
        let authorization = self.authorization.validate()?;
        // The namespaces are those of the server that authorizes requests. It deletes the content of one that goes.
        let disabled: &[&str] = if authorization.is_delegated() { &[NAMESPACE_LIFECYCLE] } else { &[] };
        Ok(Config {
            data_dir,
            controllers,
            flow_control: self.flow_control.validate()?,
            request_timeout: self.request_timeout,
            min_request_timeout: Duration::from_secs(self.min_request_timeout.into()),
            lifecycle: self.lifecycle.validate()?,
            election: self.election.validate()?,
            log: LogOptions { level: self.verbosity, is_json: self.logging_format == "json" },
            listen: SocketAddr::new(self.bind_address, self.secure_port),
            advertise: self.advertise_address.unwrap_or_else(|| {
                address::advertised(self.bind_address, credentials == Credentials::SelfSigned)
            }),
            serving_pair: tls.pair,
            named_pairs: tls.named,
            http2_streams: tls.http2_streams,
            tls: tls.settings,
            flag_values: self.values,
            connections_per_address: self.max_connections_per_address,
            authentication: self.authentication.validate()?,
            authorization,
            admission: self.admission.validate(enabled, disabled)?,
            service_ranges: self.service_cluster_ip_range,
            node_ports: self.service_node_port_range,
            kubernetes_node_port,
            external_host: self.external_hostname,
            shares_port: self.permit_port_sharing,
            objects: self.objects.config(),
            disabled_metrics,
            endpoint_routing: self.enable_aggregator_routing,
            audit,
            egress,
            tracing: self.tracing.validate()?,
            browsers: self.browsers.validate()?,
            console: self.browsers.console,
            watch_caches: self.caches.sizes(),
            apis: self.apis.validate()?,
            etcd_endpoint: self.etcd_endpoint.validate(self.etcd.has_servers())?,
            store: self.etcd.validate()?,
            encryption: self.encryption.validate()?,
            signing: self.signing.validate(own_authority)?,
            kubelet: self.kubelet.validate()?,
            aggregation,
            peers,
            backends: self.backends.validate()?,
            credentials,
            creates_serving_pair: false,
            without_effect: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use nave_apiserver::inflight::InflightLimits;

    use super::values::parse_controllers;
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let all = ["nave"].iter().chain(arguments);
        let cli = Cli::read(all).map_err(|error| error.to_string())?;
        match cli.validate().map_err(|error| error.to_string())? {
            Task::Serve(config) => Ok(*config),
            _ => Err("not of serve".to_owned()),
        }
    }

    #[test]
    fn command_line_definition_is_valid() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn defaults_are_a_local_server() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 6443)));
        assert_eq!(config.data_dir, Path::new("nave-data"));
        assert_eq!(config.service_ranges.first(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(config.request_timeout, Duration::from_mins(1));
        let InflightLimits { read_only, mutating } = config.flow_control.inflight;
        assert_eq!((config.flow_control.priority_and_fairness, read_only, mutating), (true, 400, 200));
        assert_eq!(config.authentication.anonymous, None);
    }

    #[test]
    fn accepts_explicit_serve_command() {
        assert_eq!(config(&["serve", "--secure-port", "0"]).unwrap().listen.port(), 0);
        assert_eq!(config(&["--secure-port=1"]).unwrap().listen.port(), 1);
        assert_eq!(
            config(&["--controllers", "-deployment"]).unwrap().controllers,
            parse_controllers("-deployment").unwrap()
        );
        assert_eq!(config(&["--anonymous-auth=false"]).unwrap().authentication.anonymous, Some(false));
        assert_eq!(config(&["--anonymous-auth"]).unwrap().authentication.anonymous, Some(true));
    }

    #[test]
    fn advertises_a_reachable_address() {
        let advertised = |arguments: &[&str]| config(arguments).unwrap().advertise.to_string();
        assert_eq!(advertised(&["--bind-address=0.0.0.0"]), "127.0.0.1");
        assert_eq!(advertised(&["--bind-address=::"]), "::1");
        assert_eq!(advertised(&["--bind-address=192.0.2.1"]), "192.0.2.1");
        assert_eq!(advertised(&["--bind-address=0.0.0.0", "--advertise-address=192.0.2.7"]), "192.0.2.7");
    }

    #[test]
    fn error_names_the_flag() {
        for (arguments, flag) in [
            (&["--etcd-servers=localhost:2379"][..], "--etcd-servers"),
            (&["--etcd-servers=http://a", "--etcd-certfile=a"], "--etcd-keyfile"),
            (&["--etcd-servers=http://a", "--etcd-cafile=/no/such/file"], "/no/such/file"),
            (
                &["--etcd-servers=http://a", "--etcd-servers-overrides=events#http://b"],
                "group/resource#URL;URL",
            ),
            (&["--etcd-servers-overrides=/events#http://b"], "--etcd-servers is required"),
            (&["--etcd-listen-address=127.0.0.1:1"], "--etcd-listen-cert-file"),
            (
                &["--etcd-listen-address=127.0.0.1:1", "--etcd-servers=http://a"],
                "only for the embedded store",
            ),
            (&["--etcd-listen-key-file=a"], "--etcd-listen-address"),
            (&["--tls-cert-file=a.crt"], "--tls-private-key-file"),
            (&["--tls-private-key-file=a.key"], "--tls-cert-file"),
            (&["--request-timeout=0s"], "--request-timeout"),
            (&["--request-timeout=60"], "--request-timeout"),
            (&["--request-timeout=-1s"], "must not be negative"),
            (&["--v=-1"], "from 0 (quiet) to 10"),
            (&["--v=11"], "from 0 (quiet) to 10"),
            (&["--max-requests-inflight=-1"], "whole number from 0"),
            (&["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"], "--max-requests-inflight"),
            (&["--max-connections-per-address=99999999999"], "whole number from 0"),
            (&["--default-watch-cache-size=-1"], "whole number from 0"),
            (&["--advertise-address=0.0.0.0"], "--advertise-address"),
            (&["--secure-port=70000"], "--secure-port"),
            (&["--cors-allowed-origins=good\\.com"], "--cors-allowed-origins"),
            (&["--cors-allowed-origins=^a$,"], "--cors-allowed-origins"),
            (&["--strict-transport-security-directives=max-age"], "--strict-transport-security-directives"),
            (&["--bind-address=localhost"], "--bind-address"),
            (&["--service-cluster-ip-range=10.0.0.1"], "--service-cluster-ip-range"),
            (&["--service-node-port-range=2-1"], "--service-node-port-range"),
            (&["--kubernetes-service-node-port=80"], "--kubernetes-service-node-port"),
            (&["--disabled-metrics=a b"], "--disabled-metrics"),
            (&["--show-hidden-metrics-for-version=1.34"], "1.35"),
            (&["--delete-collection-workers=0"], "--delete-collection-workers"),
            (&["--controllers=*,,b"], "--controllers"),
            (&["--service-account-issuer=a", "--service-account-issuer=a"], "--service-account-issuer"),
            (&["--service-account-issuer=:"], "--service-account-issuer"),
            (&["--service-account-max-token-expiration=10m"], "--service-account-max-token-expiration"),
            (&["--service-account-jwks-uri=http://a"], "--service-account-jwks-uri"),
            (&["--service-account-key-file=a"], "--service-account-signing-key-file"),
            (&["--oidc-issuer-url=https://a"], "--oidc-client-id"),
            (
                &["--oidc-issuer-url=https://a", "--oidc-client-id=a", "--oidc-signing-algs=none"],
                "--oidc-signing-algs",
            ),
            (
                &["--oidc-issuer-url=https://a", "--oidc-client-id=a", "--oidc-required-claim=b"],
                "--oidc-required-claim",
            ),
            (
                &["--oidc-issuer-url=https://a", "--oidc-client-id=a", "--authentication-config=b"],
                "--authentication-config",
            ),
            (&["--authentication-token-webhook-version=v2"], "--authentication-token-webhook-version"),
            (&["--requestheader-username-headers=a b"], "--requestheader-username-headers"),
            (&["--watch-cache-sizes=pods"], "--watch-cache-sizes"),
            (&["--kubelet-client-certificate=a"], "--kubelet-client-key"),
            (&["--kubelet-client-key=a"], "--kubelet-client-certificate"),
            (&["--proxy-client-cert-file=a"], "--proxy-client-key-file"),
            (&["--proxy-client-key-file=a"], "--proxy-client-cert-file"),
            (&["--peer-ca-file=a"], "--proxy-client-cert-file: required with --peer-ca-file"),
            (&["--peer-advertise-port=0"], "--peer-advertise-port"),
            (&["--peer-advertise-ip=host"], "--peer-advertise-ip"),
            (&["--kubelet-certificate-authority="], "--kubelet-certificate-authority"),
            (
                &["--kubelet-certificate-authority=a", "--kubelet-insecure-skip-verify"],
                "--kubelet-insecure-skip-verify",
            ),
            (&["--kubelet-timeout=0s"], "--kubelet-timeout"),
            (&["--stream-idle-timeout=0s"], "--stream-idle-timeout"),
            (&["--max-backend-connections=-1"], "whole number from 0"),
            (
                &["--authentication-kubeconfig=a", "--authentication-token-webhook-config-file=b"],
                "cannot be used with",
            ),
            (&["--controllers=*,-no-such-controller"], "no-such-controller"),
            (&["--no-such-flag"], "--no-such-flag"),
        ] {
            let error = config(arguments).unwrap_err();
            assert!(error.contains(flag), "{arguments:?}: {error}");
        }
    }
}
