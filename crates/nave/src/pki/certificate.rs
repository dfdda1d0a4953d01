//! The properties of existing certificates, and the parameters of new ones.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
};

/// Time by which the start of new certificates is backdated, for clients whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// The properties of a certificate that decide whether it can be reused.
pub(super) struct Facts {
    not_before: SystemTime,
    not_after: SystemTime,
    public_key: Vec<u8>,
    key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
    pub(super) names: BTreeSet<String>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Facts {
    /// Parses the first certificate of a PEM text; `None` if the text contains none.
    pub(super) fn read(pem: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let mut facts = Self {
            not_before: system_time(certificate.validity().not_before.timestamp())?,
            not_after: system_time(certificate.validity().not_after.timestamp())?,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            key_id: None,
            issuer_key_id: None,
            names: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.issuer_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    names.general_names.iter().for_each(|name| facts.add_name(name));
                }
                _ => {}
            }
        }
        Some(facts)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => {
                self.names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.addresses.extend(address);
            }
            _ => {}
        }
    }

    /// Returns whether the certificate must be reissued: two thirds of its validity have passed, or it is not valid
    /// yet.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        now < self.not_before || now >= self.not_before + lifetime * 2 / 3
    }

    /// Returns whether the key matches the certificate.
    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key == key.der_bytes()
    }

    /// Returns whether the certificate names the CA's key as its issuer.
    pub(super) fn is_signed_by(&self, ca: &str) -> bool {
        let ca_key_id = Self::read(ca).and_then(|ca| ca.key_id);
        ca_key_id.is_some() && ca_key_id == self.issuer_key_id
    }
}

/// Returns the parameters of a CA that signs only leaf certificates.
pub(super) fn ca_params(common_name: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(params, now, lifetime)
}

/// Returns the parameters of a leaf certificate with one usage.
pub(super) fn leaf(
    mut params: CertificateParams,
    common_name: &str,
    organization: Option<&str>,
    usage: ExtendedKeyUsagePurpose,
    now: SystemTime,
    lifetime: Duration,
) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    valid(params, now, lifetime)
}

fn valid(mut params: CertificateParams, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let epoch = date_time_ymd(1970, 1, 1);
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + (since_epoch + lifetime);
    params
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
}
