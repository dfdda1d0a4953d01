//! Signs certificate requests from the API with CAs in files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_controllers::frame::CertificateSigner;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::flags::Signing;

/// Time by which the start of new certificates is backdated, for clients whose clock is behind.
const BACKDATE: Duration = Duration::from_mins(5);
/// Backdating does not shorten certificates with a lifetime below this.
const SHORT: Duration = Duration::from_hours(8);
/// Minimum lifetime that a request can set.
const SHORTEST: Duration = Duration::from_mins(10);

/// Signs with CAs in files. Reads the files for each signature, so that a new CA takes effect immediately.
#[derive(Clone, Debug)]
pub(crate) struct FileSigner(Signing);

/// The reasons why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
enum SigningError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("the CA or the request is invalid: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("the CA certificate cannot be parsed")]
    Authority,
    #[error("the CA certificate has expired")]
    Expired,
    #[error("the request cannot be parsed")]
    Request,
    #[error("unrecognized usage value: {0:?}")]
    Usage(String),
    #[error(
        "the subject has several attributes of one type, or the key's curve does not match the signature algorithm"
    )]
    Unfaithful,
}

impl FileSigner {
    pub(crate) fn new(signing: Signing) -> Self {
        Self(signing)
    }

    fn certificate(
        &self,
        (certificate, key): (&Path, &Path),
        request: &[u8],
        usages: &[String],
        expiration_seconds: Option<i32>,
        now: SystemTime,
    ) -> Result<Vec<u8>, SigningError> {
        let (ca, key) = (read(certificate)?, read(key)?);
        let request = std::str::from_utf8(request).map_err(|_| SigningError::Request)?;
        let mut signed = CertificateSigningRequestParams::from_pem(request)?;
        let params = &mut signed.params;
        (params.key_usages, params.extended_key_usages) = purposes(usages)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let lifetime = self.lifetime(expiration_seconds);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = now + if lifetime < SHORT { lifetime } else { lifetime.saturating_sub(BACKDATE) };
        let ca_end = end_of(&ca)?;
        if now >= ca_end {
            return Err(SigningError::Expired);
        }
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(BACKDATE);
        params.not_after = epoch + end.min(ca_end);
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&key)?)?;
        let certificate = signed.signed_by(&issuer)?;
        if !is_faithful(certificate.der(), request) {
            return Err(SigningError::Unfaithful);
        }
        Ok(certificate.pem().into_bytes())
    }

    /// Returns the lifetime of a certificate.
    fn lifetime(&self, expiration_seconds: Option<i32>) -> Duration {
        let Some(seconds) = expiration_seconds else { return self.0.duration };
        let wanted = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        wanted.max(SHORTEST).min(self.0.duration)
    }
}

impl CertificateSigner for FileSigner {
    fn sign(
        &self,
        signer: &str,
        request: &[u8],
        usages: &[String],
        expiration_seconds: Option<i32>,
    ) -> Option<Result<Vec<u8>, String>> {
        let pair = self.0.pair(signer)?;
        let signed = self.certificate(pair, request, usages, expiration_seconds, SystemTime::now());
        Some(signed.map_err(|error| error.to_string()))
    }
}

fn read(path: &Path) -> Result<String, SigningError> {
    std::fs::read_to_string(path).map_err(|error| SigningError::File { path: path.to_owned(), error })
}

/// Returns the end of a CA's validity as time since the Unix epoch.
fn end_of(ca: &str) -> Result<Duration, SigningError> {
    let (_, pem) = parse_x509_pem(ca.as_bytes()).map_err(|_| SigningError::Authority)?;
    let certificate = pem.parse_x509().map_err(|_| SigningError::Authority)?;
    let end = u64::try_from(certificate.validity().not_after.timestamp());
    end.map(Duration::from_secs).map_err(|_| SigningError::Expired)
}

/// Returns whether a certificate has exactly the subject and key of the request.
fn is_faithful(certificate: &[u8], request: &str) -> bool {
    let Ok((_, pem)) = parse_x509_pem(request.as_bytes()) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let asked = &request.certification_request_info;
    let attributes = |name: &x509_parser::x509::X509Name<'_>| {
        let all = name.iter_attributes();
        all.map(|it| (it.attr_type().to_id_string(), it.attr_value().data.to_vec())).collect::<Vec<_>>()
    };
    attributes(&asked.subject) == attributes(certificate.subject())
        && asked.subject_pki.raw == certificate.public_key().raw
}

/// Converts API usages to the usages in certificates.
fn purposes(usages: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), SigningError> {
    let (mut keys, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match purpose(usage).ok_or_else(|| SigningError::Usage(usage.clone()))? {
            Purpose::Key(purpose) if !keys.contains(&purpose) => keys.push(purpose),
            Purpose::Extended(purpose) if !extended.contains(&purpose) => extended.push(purpose),
            Purpose::Key(_) | Purpose::Extended(_) => {}
        }
    }
    Ok((keys, extended))
}

enum Purpose {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn purpose(usage: &str) -> Option<Purpose> {
    let key = match usage {
        "signing" | "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "content commitment" => Some(KeyUsagePurpose::ContentCommitment),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        "key agreement" => Some(KeyUsagePurpose::KeyAgreement),
        "data encipherment" => Some(KeyUsagePurpose::DataEncipherment),
        "cert sign" => Some(KeyUsagePurpose::KeyCertSign),
        "crl sign" => Some(KeyUsagePurpose::CrlSign),
        "encipher only" => Some(KeyUsagePurpose::EncipherOnly),
        "decipher only" => Some(KeyUsagePurpose::DecipherOnly),
        _ => None,
    };
    let other = |oid: &[u64]| ExtendedKeyUsagePurpose::Other(oid.to_vec());
    let extended = || {
        Some(match usage {
            "any" => ExtendedKeyUsagePurpose::Any,
            "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
            "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
            "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
            "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
            "ipsec end system" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
            "ipsec tunnel" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
            "ipsec user" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
            "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
            "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
            "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
            "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
            _ => return None,
        })
    };
    key.map(Purpose::Key).or_else(|| extended().map(Purpose::Extended))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType};

    use super::*;

    struct Authority {
        _folder: tempfile::TempDir,
        signer: FileSigner,
    }

    fn authority(days: u64) -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + (now + Duration::from_hours(24 * days));
        let [certificate, key_file] = ["ca.crt", "ca.key"].map(|name| folder.path().join(name));
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let duration = Duration::from_hours(24 * 365);
        let signer = FileSigner::new(Signing::with_one(&certificate, &key_file, duration));
        Authority { _folder: folder, signer }
    }

    fn request(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params =
            CertificateParams::new(names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        change(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn sign(
        authority: &Authority,
        request: &str,
        usages: &[&str],
        seconds: Option<i32>,
    ) -> Result<Vec<u8>, String> {
        let usages: Vec<_> = usages.iter().map(|usage| (*usage).to_owned()).collect();
        authority.signer.sign("kubernetes.io/kubelet-serving", request.as_bytes(), &usages, seconds).unwrap()
    }

    #[test]
    fn certificate_has_requested_subject_names_and_usages() {
        let authority = authority(3650);
        let asked = request(&["n1.example"], |params| {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
        let signed = sign(&authority, &asked, &["digital signature", "server auth"], Some(3600)).unwrap();
        let (_, pem) = parse_x509_pem(&signed).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert!(is_faithful(&pem.contents, &asked));
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        let extended = certificate.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && !extended.value.client_auth);
        let validity = certificate.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3900);
    }

    #[test]
    fn lifetime_is_limited_by_the_ca_and_a_minimum() {
        let authority = authority(1);
        let seconds = |asked| {
            let signed = sign(&authority, &request(&["n1"], |_| {}), &["server auth"], asked).unwrap();
            let (_, pem) = parse_x509_pem(&signed).unwrap();
            let validity = pem.parse_x509().unwrap().validity().clone();
            validity.not_after.timestamp() - validity.not_before.timestamp()
        };
        assert_eq!(seconds(Some(1)), 900);
        assert!((86_400 - 10..=86_400 + 310).contains(&seconds(None)));
    }

    #[test]
    fn rejects_requests_that_cannot_be_signed() {
        let authority = authority(10);
        assert!(sign(&authority, "no PEM", &["server auth"], None).is_err());
        assert!(sign(&authority, &request(&["n1"], |_| {}), &["flying"], None).is_err());
        let twice = request(&["n1"], |params| {
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "system:masters");
        });
        assert!(sign(&authority, &twice, &["server auth"], None).is_err(), "a group would be dropped");
        let none = authority.signer.sign("example.com/own", b"", &[], None);
        assert!(none.is_none());
    }
}
