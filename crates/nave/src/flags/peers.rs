//! The flags of a server among the other API servers of its cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::FlagError;
use super::aggregation::Aggregation;
use super::values::whole;

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Other API servers of the cluster")]
pub(super) struct PeerFlags {
    /// CA bundle (PEM) of the serving certificates of other API servers, which must be valid for the name
    /// kubernetes.default.svc. With it, requests for resources that only a server of another version has are passed on
    /// to that server, with the certificate of --proxy-client-cert-file, and discovery has these resources.
    #[arg(long, value_name = "FILE")]
    peer_ca_file: Option<PathBuf>,
    /// Address at which other API servers reach this one, if it is not --advertise-address. Needs --peer-advertise-port.
    #[arg(long, value_name = "IP")]
    peer_advertise_ip: Option<IpAddr>,
    /// Port at which other API servers reach this one. Needs --peer-advertise-ip.
    #[arg(long, value_name = "PORT", value_parser = whole(1..=u16::MAX))]
    peer_advertise_port: Option<u16>,
    /// Name of this host, from which the identity of the server is derived, for servers that share a host. nave's own
    /// flag.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    hostname_override: String,
}

/// The checked flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerSettings {
    /// The CAs of the serving certificates of other API servers.
    pub(crate) ca_file: Option<PathBuf>,
    /// The address for other API servers, if it is not the advertised one.
    pub(crate) advertise: Option<SocketAddr>,
    /// The name of the host; `None` for that of the system.
    pub(crate) hostname: Option<String>,
}

impl PeerFlags {
    /// Checks the flags. As upstream, an address without a port, or a port without an address, has no effect.
    ///
    /// # Errors
    /// There is no client certificate for other API servers.
    pub(super) fn validate(self, aggregation: &Aggregation) -> Result<PeerSettings, FlagError> {
        let ca_file = self.peer_ca_file.filter(|file| !file.as_os_str().is_empty());
        if ca_file.is_some() && aggregation.client_pair.is_none() {
            return Err(FlagError::new("proxy-client-cert-file", "required with --peer-ca-file"));
        }
        let advertise = self.peer_advertise_ip.zip(self.peer_advertise_port).map(SocketAddr::from);
        let hostname = Some(self.hostname_override).filter(|name| !name.is_empty());
        Ok(PeerSettings { ca_file, advertise, hostname })
    }
}
