//! The flags of the CAs that sign certificates, with kube-controller-manager's names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{FlagError, parse_duration};

const SIGNING: &str = "Certificate signing";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "the names of flags")]
pub(super) struct SigningFlags {
    /// Certificate (PEM) of the CA for all of Kubernetes' signers.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that CA.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_key_file: Option<PathBuf>,
    /// Maximum validity of signed certificates. Requests may ask for less.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = parse_duration, help_heading = SIGNING)]
    cluster_signing_duration: Duration,
    /// Certificate (PEM) of the CA for kubernetes.io/kubelet-serving.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that CA.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// Certificate (PEM) of the CA for kubernetes.io/kube-apiserver-client-kubelet.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that CA.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// Certificate (PEM) of the CA for kubernetes.io/kube-apiserver-client.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that CA.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// Certificate (PEM) of the CA for kubernetes.io/legacy-unknown.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that CA.
    #[arg(long, value_name = "FILE", help_heading = SIGNING)]
    cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
}

/// The CAs that sign certificates.
#[derive(Clone, Debug)]
pub(crate) struct Signing {
    /// The certificate and key files of each signer.
    pairs: Vec<(&'static str, PathBuf, PathBuf)>,
    /// The maximum validity of certificates.
    pub(crate) duration: Duration,
}

const SIGNERS: [&str; 4] = [
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/legacy-unknown",
];

impl SigningFlags {
    /// Checks the flags. `default` is the CA to use if the flags set no CA.
    ///
    /// # Errors
    /// A certificate lacks its key, a key lacks its certificate, or a CA for all signers is combined with a CA for one
    /// signer.
    pub(super) fn validate(self, default: Option<(PathBuf, PathBuf)>) -> Result<Signing, FlagError> {
        let general =
            pair("cluster-signing-cert-file", self.cluster_signing_cert_file, self.cluster_signing_key_file)?;
        let of_signers = [
            (
                "cluster-signing-kubelet-serving-cert-file",
                self.cluster_signing_kubelet_serving_cert_file,
                self.cluster_signing_kubelet_serving_key_file,
            ),
            (
                "cluster-signing-kubelet-client-cert-file",
                self.cluster_signing_kubelet_client_cert_file,
                self.cluster_signing_kubelet_client_key_file,
            ),
            (
                "cluster-signing-kube-apiserver-client-cert-file",
                self.cluster_signing_kube_apiserver_client_cert_file,
                self.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                "cluster-signing-legacy-unknown-cert-file",
                self.cluster_signing_legacy_unknown_cert_file,
                self.cluster_signing_legacy_unknown_key_file,
            ),
        ];
        let mut pairs = Vec::new();
        for (signer, (flag, certificate, key)) in SIGNERS.into_iter().zip(of_signers) {
            if let Some((certificate, key)) = pair(flag, certificate, key)? {
                pairs.push((signer, certificate, key));
            }
        }
        match general {
            Some(_) if !pairs.is_empty() => {
                let why = "cannot be combined with the CA of a single signer";
                return Err(FlagError::new("cluster-signing-cert-file", why));
            }
            Some((certificate, key)) => {
                return Ok(Signing::with_one(&certificate, &key, self.cluster_signing_duration));
            }
            None => {}
        }
        match default.filter(|_| pairs.is_empty()) {
            Some((certificate, key)) => {
                Ok(Signing::with_one(&certificate, &key, self.cluster_signing_duration))
            }
            None => Ok(Signing { pairs, duration: self.cluster_signing_duration }),
        }
    }
}

fn pair(
    flag: &'static str,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, FlagError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(_), None) => Err(FlagError::new(flag, "requires the key file of the CA")),
        (None, Some(_)) => Err(FlagError::new(flag, "requires the certificate file of the CA")),
    }
}

impl Signing {
    /// Uses one CA for all of Kubernetes' signers.
    pub(crate) fn with_one(certificate: &Path, key: &Path, duration: Duration) -> Self {
        let pairs = SIGNERS.map(|signer| (signer, certificate.to_owned(), key.to_owned()));
        Self { pairs: pairs.into(), duration }
    }

    /// Returns the certificate and key files of a signer.
    pub(crate) fn pair(&self, signer: &str) -> Option<(&Path, &Path)> {
        let (_, certificate, key) = self.pairs.iter().find(|(name, _, _)| *name == signer)?;
        Some((certificate, key))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: SigningFlags,
    }

    fn signing(flags: &[&str]) -> Result<Signing, String> {
        let line = ["nave"].into_iter().chain(flags.iter().copied());
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        let default = Some((PathBuf::from("ca.crt"), PathBuf::from("ca.key")));
        line.flags.validate(default).map_err(|error| error.to_string())
    }

    #[test]
    fn own_ca_signs_by_default() {
        let certificate = |flags: &[&str], signer: &str| {
            let signing = signing(flags).unwrap();
            signing.pair(signer).map(|(certificate, _)| certificate.display().to_string())
        };
        let (client, serving) = ("kubernetes.io/kube-apiserver-client", "kubernetes.io/kubelet-serving");
        assert_eq!(certificate(&[], client).as_deref(), Some("ca.crt"));
        assert_eq!(certificate(&[], "example.com/own"), None);
        let all = ["--cluster-signing-cert-file=a", "--cluster-signing-key-file=b"];
        assert_eq!(certificate(&all, client).as_deref(), Some("a"));
        let one =
            ["--cluster-signing-kubelet-serving-cert-file=a", "--cluster-signing-kubelet-serving-key-file=b"];
        assert_eq!(certificate(&one, serving).as_deref(), Some("a"));
        assert_eq!(certificate(&one, client), None);
    }

    #[test]
    fn rejects_incomplete_and_contradictory_pairs() {
        assert!(signing(&["--cluster-signing-cert-file=a"]).is_err());
        assert!(signing(&["--cluster-signing-kubelet-client-key-file=a"]).is_err());
        let both = [
            "--cluster-signing-cert-file=a",
            "--cluster-signing-key-file=b",
            "--cluster-signing-kubelet-client-cert-file=a",
            "--cluster-signing-kubelet-client-key-file=b",
        ];
        assert!(signing(&both).is_err());
    }
}
