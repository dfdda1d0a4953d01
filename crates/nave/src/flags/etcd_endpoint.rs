//! The flags of the endpoint at which the embedded store speaks etcd's API.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use nave_store::etcd_server::ServerTls;

use super::{ETCD, FlagError};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = ETCD)]
pub(super) struct EtcdEndpointFlags {
    /// Address at which the embedded store speaks etcd's API, for etcdctl, backups and other API servers. Off by default.
    /// Clients can read and change everything, and need a certificate of --etcd-listen-client-ca-file.
    #[arg(id = "etcd_listen_address", long = "etcd-listen-address", value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Certificate of --etcd-listen-address (PEM). A changed file is used for new connections.
    #[arg(id = "etcd_listen_cert_file", long = "etcd-listen-cert-file", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Private key of --etcd-listen-cert-file (PEM).
    #[arg(id = "etcd_listen_key_file", long = "etcd-listen-key-file", value_name = "FILE")]
    key: Option<PathBuf>,
    /// CAs of the certificates of etcd clients (PEM).
    #[arg(id = "etcd_listen_client_ca_file", long = "etcd-listen-client-ca-file", value_name = "FILE")]
    client_ca: Option<PathBuf>,
}

/// The endpoint of etcd's API.
#[derive(Clone, Debug)]
pub(crate) struct EtcdEndpoint {
    /// The address to listen on.
    pub(crate) address: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

impl EtcdEndpoint {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn tls(&self) -> Result<ServerTls, FlagError> {
        ServerTls::new(self.certificate.clone(), self.key.clone(), Some(self.client_ca.clone())).map_err(
            |why| {
                FlagError::new(
                    "etcd-listen-cert-file, --etcd-listen-key-file or --etcd-listen-client-ca-file",
                    why,
                )
            },
        )
    }
}

impl EtcdEndpointFlags {
    /// Validates the flags. `has_servers` tells that the store is an etcd cluster.
    ///
    /// # Errors
    /// A flag is missing, has no effect, or its file cannot be used.
    pub(super) fn validate(self, has_servers: bool) -> Result<Option<EtcdEndpoint>, FlagError> {
        let files = [
            ("etcd-listen-cert-file", self.certificate),
            ("etcd-listen-key-file", self.key),
            ("etcd-listen-client-ca-file", self.client_ca),
        ];
        let Some(address) = self.address else {
            return match files.iter().find(|(_, file)| file.is_some()) {
                Some((name, _)) => Err(FlagError::new(name, "has no effect without --etcd-listen-address")),
                None => Ok(None),
            };
        };
        if has_servers {
            let why = "only for the embedded store; with --etcd-servers, clients use the cluster";
            return Err(FlagError::new("etcd-listen-address", why));
        }
        let [certificate, key, client_ca] = files.map(|(name, file)| {
            file.ok_or_else(|| FlagError::new(name, "required with --etcd-listen-address"))
        });
        let endpoint = EtcdEndpoint { address, certificate: certificate?, key: key?, client_ca: client_ca? };
        endpoint.tls()?;
        Ok(Some(endpoint))
    }
}
