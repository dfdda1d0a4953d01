//! Connections to kubelets, pods and services: the client certificate and the CAs.

use std::sync::Arc;

use nave_apiserver::connect::backends::{Backends, KubeletTls, Kubelets};
use nave_webhook::{AddressPolicy, BackendDialer, BackendTls, ClientError, Roots, Tls};
use rustls_pki_types::CertificateDer;

use super::ServeError;
use super::certificates::{Certificates, client_identity, read_pair};
use super::client_cas::read_cas;
use crate::flags::{Config, FlagError};

/// The signer of kubelets' serving certificates.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The flags of the client certificate and its key.
const FLAGS: (&str, &str) = ("kubelet-client-certificate", "kubelet-client-key");

/// Creates the connections to backends, by default at most `connections` at a time.
pub(super) fn open(
    config: &Config,
    certificates: &Certificates,
    connections: usize,
) -> Result<Arc<Backends>, ServeError> {
    let kubelet = &config.kubelet;
    if !kubelet.verify {
        tracing::warn!(
            "the certificates of kubelets are not verified (--kubelet-insecure-skip-verify, or no \
             --kubelet-certificate-authority for kube-apiserver)"
        );
    }
    let kubelets = Kubelets {
        address_types: kubelet.address_types.clone(),
        port: kubelet.port,
        tls: Arc::new(KubeletTls::default()),
    };
    reload(config, certificates, &kubelets.tls)?;
    let mut limits = config.backends;
    let total = &mut limits.connections.total;
    if *total == 0 {
        *total = connections;
    }
    let policy = if kubelet.allow_local { AddressPolicy::Unicast } else { AddressPolicy::Remote };
    let dialer = BackendDialer { policy, timeout: kubelet.timeout, egress: config.egress.cluster.clone() };
    let unverified = Backends::unverified_tls().map_err(|error| unusable(&error))?;
    Ok(Arc::new(Backends::new(dialer, kubelets, Some(unverified)).with_limits(limits)))
}

/// Reads the client certificate and the CAs, for connections that are opened afterwards.
pub(super) fn reload(
    config: &Config,
    certificates: &Certificates,
    tls: &KubeletTls,
) -> Result<(), ServeError> {
    let kubelet = &config.kubelet;
    let pair = match &kubelet.client_pair {
        None => certificates.kubelet_client().cloned(),
        Some(files) => Some(read_pair(files, FLAGS)?),
    };
    let roots = match &kubelet.ca_file {
        _ if !kubelet.verify => Roots::Unchecked,
        Some(file) => Roots::Custom(read_cas("kubelet-certificate-authority", file)?),
        None => Roots::Custom(default_cas(config)?),
    };
    let flags = kubelet.client_pair.as_ref().map(|_| FLAGS);
    let with_identity = |roots| {
        let identity = pair.as_ref().map(|pair| client_identity(pair, flags)).transpose()?;
        let tls = Tls { roots, identity, server_name: None };
        BackendTls::new(tls).map_err(|error| ServeError::from(unusable(&error)))
    };
    tls.replace(with_identity(roots)?, with_identity(Roots::Unchecked)?);
    Ok(())
}

/// Returns the CAs that sign the serving certificates of kubelets.
fn default_cas(config: &Config) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    match config.signing.pair(KUBELET_SERVING) {
        Some((certificate, _)) => Ok(read_cas("cluster-signing-kubelet-serving-cert-file", certificate)?),
        None => Ok(Vec::new()),
    }
}

fn unusable(error: &ClientError) -> FlagError {
    FlagError::new("kubelet-client-certificate", error.to_string())
}
