//! Connections to kubelets, pods and services: the client certificate and the CAs.

use std::path::Path;
use std::sync::Arc;

use nave_apiserver::connect::backends::{Backends, KubeletTls, Kubelets};
use nave_webhook::{AddressPolicy, BackendDialer, BackendTls, ClientError, Roots, Tls};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ServeError;
use super::certificates::Certificates;
use super::client_cas::read_cas;
use crate::flags::{Config, FlagError};
use crate::pki::Pair;

/// The signer of kubelets' serving certificates.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Creates the connections to backends. Half of the connections may be streams, because a stream takes another file
/// descriptor for its backend.
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
    let policy = if kubelet.allow_local { AddressPolicy::Unicast } else { AddressPolicy::Remote };
    let dialer = BackendDialer { policy, timeout: kubelet.timeout };
    let unverified = Backends::unverified_tls().map_err(|error| unusable(&error))?;
    Ok(Arc::new(Backends::new(dialer, kubelets, Some(unverified)).with_streams(connections.div_ceil(2))))
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
        Some((certificate, key)) => Some(Pair {
            certificate: read("kubelet-client-certificate", certificate)?,
            key: read("kubelet-client-key", key)?,
        }),
    };
    let roots = match &kubelet.ca_file {
        _ if !kubelet.verify => Roots::Unchecked,
        Some(file) => Roots::Custom(read_cas("kubelet-certificate-authority", file)?),
        None => Roots::Custom(default_cas(config)?),
    };
    let with_identity = |roots| {
        let identity = pair.as_ref().map(|pair| identity(config, pair)).transpose()?;
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

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(config: &Config, pair: &Pair) -> Result<Identity, FlagError> {
    let invalid = |flag, why: String| match &config.kubelet.client_pair {
        Some(_) => FlagError::new(flag, why),
        None => FlagError::new("data-dir", why),
    };
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| invalid("kubelet-client-certificate", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    Ok((chain, key.map_err(|error| invalid("kubelet-client-key", error.to_string()))?))
}

fn read(flag: &'static str, path: &Path) -> Result<String, FlagError> {
    std::fs::read_to_string(path).map_err(|error| FlagError::file(flag, path, error))
}

fn unusable(error: &ClientError) -> FlagError {
    FlagError::new("kubelet-client-certificate", error.to_string())
}
