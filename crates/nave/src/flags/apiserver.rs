//! The flags of `nave apiserver` and `kube-apiserver`: all of kube-apiserver's flags, with its defaults.
//!
//! Flags that nave obeys are those of [`ServeFlags`]. The other flags of kube-apiserver 1.36 are refused, or accepted
//! without effect and reported by [`ApiserverFlags::validate`]; `upstream.rs` lists both with the reasons. Flags without a counterpart in kube-apiserver keep their meaning:
//! `--data-dir` stores the objects in a folder instead of etcd, and `--controllers` runs controllers in the process.

mod upstream;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Config, Credentials, FlagError, ServeFlags};

/// The flags, as typed.
#[derive(Clone, Debug)]
pub(crate) struct ApiserverFlags {
    serve: ServeFlags,
    cert_dir: PathBuf,
    /// The flags on the command line that have no effect.
    without_effect: Vec<String>,
    /// The first flag on the command line that is refused.
    refused: Option<FlagError>,
    /// True if `--version` asks for the version.
    pub(super) version: bool,
}

impl ApiserverFlags {
    /// Sets the values of all flags, for `/flagz`.
    pub(super) fn set_values(&mut self, values: BTreeMap<String, String>) {
        self.serve.values = values;
    }

    /// Checks each flag and the combinations of flags.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(super) fn validate(mut self) -> Result<Config, FlagError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let serve = &mut self.serve;
        if serve.data_dir.is_none() && !serve.etcd.has_servers() {
            let why = "required; --data-dir stores the objects in a folder instead";
            return Err(FlagError::new("etcd-servers", why));
        }
        if serve.secure_port == 0 {
            return Err(FlagError::new("secure-port", "must be from 1 to 65535"));
        }
        serve.authentication.require_service_account_flags()?;
        serve.authorization.default_to_always_allow();
        if serve.bind_address.is_unspecified() && serve.advertise_address.is_none() {
            serve.advertise_address = Some(host_address(serve.bind_address)?);
        }
        serve.data_dir.get_or_insert_with(|| self.cert_dir.clone());
        let mut config = self.serve.validate_with(Credentials::SelfSigned)?;
        if config.serving_pair.is_none() {
            let file = |name| self.cert_dir.join(name);
            config.serving_pair = Some((file("apiserver.crt"), file("apiserver.key")));
            config.creates_serving_pair = true;
        }
        // As kube-apiserver, the server does not verify kubelets without a CA.
        config.kubelet.verify &= config.kubelet.ca_file.is_some();
        config.without_effect = self.without_effect;
        Ok(config)
    }
}

impl Args for ApiserverFlags {
    fn augment_args(command: Command) -> Command {
        let command = ServeFlags::augment_args(command)
            .mut_arg("bind_address", |arg| arg.default_value("0.0.0.0"))
            .mut_arg("allow_privileged", |arg| arg.default_value("false"))
            .mut_arg("controllers", |arg| arg.default_value("none"))
            .mut_arg("data_dir", |arg| arg.default_value(Resettable::Reset))
            .mut_arg("service_account_issuer", |arg| arg.default_value(Resettable::Reset))
            .mut_arg("service_cluster_ip_range", |arg| arg.default_value("10.0.0.0/24"));
        upstream::complete(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ApiserverFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            serve: ServeFlags::from_arg_matches(matches)?,
            cert_dir: matches.get_one::<String>(upstream::CERT_DIR).map(PathBuf::from).unwrap_or_default(),
            without_effect: upstream::given_without_effect(matches),
            refused: upstream::given_refused(matches),
            version: matches.get_one::<String>(upstream::VERSION).is_some_and(|value| value != "false"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Rewrites the arguments after the command for clap: in names of flags `_` stands for `-`, and an empty value stands
/// for an omitted flag.
pub(super) fn normalize(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut normalized: Vec<OsString> = Vec::new();
    for argument in arguments {
        let Some(flag) = argument.to_str().and_then(|text| text.strip_prefix("--")) else {
            let is_empty_value = argument.is_empty() && normalized.last().is_some_and(takes_text);
            if is_empty_value {
                normalized.pop();
            } else {
                normalized.push(argument);
            }
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let name = name.replace('_', "-");
        match value {
            Some("") if upstream::is_text(&name) => {}
            Some(value) => normalized.push(format!("--{name}={value}").into()),
            None => normalized.push(format!("--{name}").into()),
        }
    }
    normalized
}

/// Returns whether an argument is a flag whose value is the next argument and may be empty.
fn takes_text(argument: &OsString) -> bool {
    let name = argument.to_str().and_then(|text| text.strip_prefix("--"));
    name.is_some_and(|name| !name.contains('=') && upstream::is_text(name))
}

/// Returns the address of this host in the direction of the default route. Nothing is sent.
fn host_address(bind: IpAddr) -> Result<IpAddr, FlagError> {
    // Documentation addresses (RFC 5737, RFC 3849): any address beyond the local networks.
    let beyond = if bind.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let local = UdpSocket::bind(SocketAddr::new(bind, 0))
        .and_then(|socket| socket.connect(beyond).and_then(|()| socket.local_addr()));
    match local {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => Err(FlagError::new("advertise-address", "required, because the host has no default route")),
    }
}

#[cfg(test)]
mod tests;
