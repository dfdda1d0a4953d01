//! The server's own keys and certificates, in `DIR/pki`.
//!
//! | file | content | valid for |
//! | --- | --- | --- |
//! | `ca.crt`, `ca.key` | the CA of the serving, kubelet client and admin certificates, and of client certificates | 10 years |
//! | `apiserver.crt`, `apiserver.key` | the serving certificate | 1 year |
//! | `apiserver-kubelet-client.crt`, `apiserver-kubelet-client.key` | the client certificate for kubelets, in `system:masters` | 1 year |
//! | `front-proxy-ca.crt`, `front-proxy-ca.key` | the CA of the next | 10 years |
//! | `front-proxy-client.crt`, `front-proxy-client.key` | the client certificate for aggregated servers | 1 year |
//! | `admin.crt`, `admin.key` | user `nave-admin` in `system:masters`, for `admin.kubeconfig` | 1 year |
//!
//! Existing files are reused. A certificate is reissued when two thirds of its validity are over, or when it no
//! longer matches (another CA, another serving address). A reissued CA keeps its key, so certificates signed before,
//! and clients that trust the old CA certificate, continue to work. Keys are created with mode 0600, and files are
//! replaced atomically. Only the CAs are synced to disk, because nothing can replace them.
//!
//! The front proxy has a CA of its own: whoever has a certificate of it can act as any user at aggregated servers.

mod certificate;
pub(crate) mod files;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nave_store::private_files;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};

use certificate::Facts;
use files::Durability;

const DAY: Duration = Duration::from_hours(24);
const CA_LIFETIME: Duration = DAY.saturating_mul(3650);
const LEAF_LIFETIME: Duration = DAY.saturating_mul(365);
/// DNS names of the server inside and outside the cluster.
const SERVING_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
const ADMIN: &str = "nave-admin";
/// The user as which kubelets see this server (kubeadm's name).
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
/// The common name of the client certificate for aggregated servers (kubeadm's name).
pub(crate) const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
const ADMIN_GROUP: &str = "system:masters";

/// The reasons why the keys and certificates cannot be used or created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// A file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    /// The CA is incomplete.
    #[error("{}: {why}; move the folder away to create a new CA", .path.display())]
    Ca { path: PathBuf, why: String },
    /// Only one file of a certificate and its key exists.
    #[error("{}: {why}", .path.display())]
    Incomplete { path: PathBuf, why: &'static str },
    /// A certificate cannot be created.
    #[error("cannot create the certificate {name}: {error}")]
    Make { name: &'static str, error: rcgen::Error },
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The server's keys and certificates.
pub(crate) struct Pki {
    folder: PathBuf,
    /// The addresses that the serving certificate must contain.
    addresses: BTreeSet<IpAddr>,
    pub(crate) ca: Pair,
    pub(crate) serving: Pair,
    pub(crate) admin: Pair,
    pub(crate) kubelet_client: Pair,
    pub(crate) front_proxy: FrontProxy,
}

/// The certificates with which aggregated servers recognize this server.
#[derive(PartialEq, Eq)]
pub(crate) struct FrontProxy {
    pub(crate) ca: Pair,
    pub(crate) client: Pair,
}

impl Pki {
    /// Reads the folder and creates missing files.
    ///
    /// # Errors
    /// The CA in the folder is incomplete, or a file cannot be read or written.
    pub(crate) fn open(
        folder: PathBuf,
        addresses: BTreeSet<IpAddr>,
        now: SystemTime,
    ) -> Result<Self, PkiError> {
        private_files::create_folder(&folder).map_err(in_file(&folder))?;
        tighten_keys(&folder).map_err(in_file(&folder))?;
        let ca = ensure_ca(&folder, "ca", "nave-ca", now)?;
        let serving = ensure_serving(&folder, &ca, &addresses, now)?;
        let master = |name, user| ensure_client(&folder, name, (user, Some(ADMIN_GROUP)), &ca, now);
        let admin = master("admin", ADMIN)?;
        let kubelet_client = master("apiserver-kubelet-client", KUBELET_CLIENT)?;
        let front_proxy = FrontProxy::ensure(&folder, now)?;
        Ok(Self { folder, addresses, ca, serving, admin, kubelet_client, front_proxy })
    }

    /// Reissues the certificates that are due at `now`; returns whether any certificate was reissued.
    ///
    /// # Errors
    /// As [`Self::open`]. The current certificates then stay in use.
    pub(crate) fn renew(&mut self, now: SystemTime) -> Result<bool, PkiError> {
        let fresh = Self::open(self.folder.clone(), self.addresses.clone(), now)?;
        let changed = fresh.ca != self.ca
            || fresh.serving != self.serving
            || fresh.admin != self.admin
            || fresh.kubelet_client != self.kubelet_client
            || fresh.front_proxy != self.front_proxy;
        *self = fresh;
        Ok(changed)
    }
}

impl FrontProxy {
    fn ensure(folder: &Path, now: SystemTime) -> Result<Self, PkiError> {
        let ca = ensure_ca(folder, "front-proxy-ca", "nave-front-proxy-ca", now)?;
        let client = ensure_client(folder, FRONT_PROXY_CLIENT, (FRONT_PROXY_CLIENT, None), &ca, now)?;
        Ok(Self { ca, client })
    }
}

/// Creates a self-signed serving certificate and its key if neither file exists (upstream:
/// `MaybeDefaultWithSelfSignedCerts`).
///
/// # Errors
/// Only one of the files exists, or a file cannot be written.
pub(crate) fn ensure_self_signed(
    certificate: &Path,
    key: &Path,
    addresses: &BTreeSet<IpAddr>,
    now: SystemTime,
) -> Result<(), PkiError> {
    match (certificate.exists(), key.exists()) {
        (true, true) => return Ok(()),
        (false, false) => {}
        _ => {
            let why = "the certificate or its key is missing";
            return Err(PkiError::Incomplete { path: certificate.to_owned(), why });
        }
    }
    let folders = [certificate, key].into_iter().filter_map(Path::parent);
    for folder in folders.filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        private_files::create_folder(folder).map_err(in_file(folder))?;
    }
    let made = || {
        let pair = KeyPair::generate()?;
        let params = serving_params(addresses, now)?;
        Ok(Pair { certificate: params.self_signed(&pair)?.pem(), key: pair.serialize_pem() })
    };
    let pair = made().map_err(|error| PkiError::Make { name: "apiserver", error })?;
    files::write_private(key, &pair.key, Durability::Unsynced).map_err(in_file(key))?;
    files::write_public(certificate, &pair.certificate, Durability::Unsynced)
        .map_err(in_file(certificate))?;
    tracing::info!(certificate = %certificate.display(), "self-signed certificate created");
    Ok(())
}

fn serving_params(addresses: &BTreeSet<IpAddr>, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(SERVING_NAMES.map(str::to_owned))?;
    params.subject_alt_names.extend(addresses.iter().map(|address| rcgen::SanType::IpAddress(*address)));
    Ok(certificate::leaf(params, "nave", None, ExtendedKeyUsagePurpose::ServerAuth, now, LEAF_LIFETIME))
}

/// Sets mode 0600 on keys that other programs created or copied into the folder.
fn tighten_keys(folder: &Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "key") && path.is_file() {
            private_files::tighten_file(&path)?;
        }
    }
    Ok(())
}

fn ensure_ca(
    folder: &Path,
    name: &'static str,
    common_name: &str,
    now: SystemTime,
) -> Result<Pair, PkiError> {
    let path = folder.join(format!("{name}.crt"));
    let broken = |why: String| PkiError::Ca { path: path.clone(), why };
    let key = match (read(&path)?, read(&folder.join(format!("{name}.key")))?) {
        (None, None) => None,
        (Some(_), None) => return Err(broken(format!("the key file {name}.key is missing"))),
        (None, Some(_)) => {
            return Err(broken(format!("the certificate is missing, but its key file {name}.key exists")));
        }
        (Some(certificate), Some(key)) => {
            let facts =
                Facts::read(&certificate).ok_or_else(|| broken("not a PEM certificate".to_owned()))?;
            let key_pair = KeyPair::from_pem(&key)
                .map_err(|_| broken(format!("the key file {name}.key cannot be parsed")))?;
            if !facts.belongs_to(&key_pair) {
                return Err(broken(format!("{name}.key does not match the certificate")));
            }
            if !facts.is_due(now) {
                return Ok(Pair { certificate, key });
            }
            Some(key_pair)
        }
    };
    make(folder, name, Durability::Synced, key, |key| {
        certificate::ca_params(common_name, now, CA_LIFETIME).self_signed(key)
    })
}

fn ensure_serving(
    folder: &Path,
    ca: &Pair,
    addresses: &BTreeSet<IpAddr>,
    now: SystemTime,
) -> Result<Pair, PkiError> {
    let serves = |facts: &Facts| {
        SERVING_NAMES.iter().all(|name| facts.names.contains(*name)) && addresses.is_subset(&facts.addresses)
    };
    ensure_leaf(folder, "apiserver", ca, now, serves, || serving_params(addresses, now))
}

/// Returns the client certificate of a user, who may be in a group.
fn ensure_client(
    folder: &Path,
    name: &'static str,
    (user, group): (&str, Option<&str>),
    ca: &Pair,
    now: SystemTime,
) -> Result<Pair, PkiError> {
    ensure_leaf(
        folder,
        name,
        ca,
        now,
        |_| true,
        || {
            let (params, usage) = (CertificateParams::default(), ExtendedKeyUsagePurpose::ClientAuth);
            Ok(certificate::leaf(params, user, group, usage, now, LEAF_LIFETIME))
        },
    )
}

/// Returns the certificate in the folder if it matches, or creates a new one. Keeps no copy of the old certificate,
/// because no other file depends on it.
fn ensure_leaf(
    folder: &Path,
    name: &'static str,
    ca: &Pair,
    now: SystemTime,
    fits: impl Fn(&Facts) -> bool,
    params: impl Fn() -> Result<CertificateParams, rcgen::Error>,
) -> Result<Pair, PkiError> {
    let found = read(&folder.join(format!("{name}.crt")))?.zip(read(&folder.join(format!("{name}.key")))?);
    if let Some((certificate, key)) = found {
        let holds =
            Facts::read(&certificate).zip(KeyPair::from_pem(&key).ok()).is_some_and(|(facts, key)| {
                facts.belongs_to(&key)
                    && facts.is_signed_by(&ca.certificate)
                    && !facts.is_due(now)
                    && fits(&facts)
            });
        if holds {
            return Ok(Pair { certificate, key });
        }
    }
    make(folder, name, Durability::Unsynced, None, |key| {
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
        params()?.signed_by(key, &issuer)
    })
}

/// Creates and writes a certificate, and a key if none exists.
fn make(
    folder: &Path,
    name: &'static str,
    durability: Durability,
    key: Option<KeyPair>,
    sign: impl FnOnce(&KeyPair) -> Result<rcgen::Certificate, rcgen::Error>,
) -> Result<Pair, PkiError> {
    let made = || {
        let key = key.map_or_else(KeyPair::generate, Ok)?;
        Ok(Pair { certificate: sign(&key)?.pem(), key: key.serialize_pem() })
    };
    let pair = made().map_err(|error| PkiError::Make { name, error })?;
    let (key_path, certificate_path) =
        (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
    files::write_private(&key_path, &pair.key, durability).map_err(in_file(&key_path))?;
    files::write_public(&certificate_path, &pair.certificate, durability)
        .map_err(in_file(&certificate_path))?;
    tracing::info!(certificate = %certificate_path.display(), "certificate created");
    Ok(pair)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_file(path)(error)),
    }
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> PkiError + use<> {
    let path = path.to_owned();
    move |error| PkiError::File { path, error }
}

#[cfg(test)]
mod tests;
