//! X.509 certificates of version 1, as `openssl x509 -req` makes them without extensions. Go accepts them; webpki refuses
//! every certificate whose version is not 3.
//!
//! They have no extensions: no usage, no alternative names. So they serve as client certificates, and as certificates of
//! servers that are not verified.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, Error, InconsistentKeys};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

/// As [`rustls::crypto::verify_tls12_signature`], also for certificates of version 1.
///
/// # Errors
/// The certificate cannot be read, or the signature is not of its key.
pub fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(parsed) = read(certificate) else {
        return crypto::verify_tls12_signature(message, certificate, signature, supported);
    };
    let of_scheme = supported.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
    let algorithms = of_scheme.flat_map(|(_, algorithms)| algorithms.iter().copied());
    verify(algorithms, parsed.public_key(), None, message, signature.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// As [`rustls::crypto::verify_tls13_signature`], also for certificates of version 1.
///
/// # Errors
/// The certificate cannot be read, or the signature is not of its key.
pub fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    supported: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    match read(certificate) {
        Some(parsed) => {
            let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
            verify_tls13_signature_with_raw_key(message, &key, signature, supported)
        }
        None => crypto::verify_tls13_signature(message, certificate, signature, supported),
    }
}

/// As [`CertifiedKey::from_der`], also for certificates of version 1.
///
/// # Errors
/// The key has an unknown type, or it is not the certificate's.
pub fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let expected = chain.first().and_then(read).map(|parsed| parsed.public_key().raw.to_vec());
    let Some(expected) = expected else { return CertifiedKey::from_der(chain, key, provider) };
    let key = provider.key_provider.load_private_key(key)?;
    match key.public_key() {
        Some(public) if *public != *expected => Err(InconsistentKeys::KeyMismatch.into()),
        _ => Ok(CertifiedKey::new(chain, key)),
    }
}

/// Verifies a client certificate of version 1: one of the authorities signed it, and it is valid now. Returns `None` for
/// certificates of other versions.
pub fn verify_client(
    certificate: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    supported: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Option<Result<(), Error>> {
    let parsed = read(certificate)?;
    Some(verify_parsed(certificate, &parsed, authorities, supported, now))
}

fn verify_parsed(
    certificate: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    authorities: &[CertificateDer<'_>],
    supported: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<(), Error> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if seconds > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let algorithm = signature_algorithm(certificate).ok_or(CertificateError::BadEncoding)?;
    let mut outcome = Err(CertificateError::UnknownIssuer.into());
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else { continue };
        if authority.subject().as_raw() != parsed.issuer().as_raw() || !signs_clients(&authority) {
            continue;
        }
        let (key, signed) = (authority.public_key(), parsed.tbs_certificate.as_ref());
        let algorithms = supported.all.iter().copied();
        outcome = verify(algorithms, key, Some(algorithm), signed, &parsed.signature_value.data);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Returns the certificate if its version is 1. One with extensions, which that version does not have, is left to webpki,
/// which refuses it: its restrictions would not be evaluated here.
fn read<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    (parsed.version() == X509Version::V1 && parsed.extensions().is_empty()).then_some(parsed)
}

/// Returns whether a certificate may sign client certificates. Authorities of version 1 have no restrictions. Constraints
/// of names are not evaluated, so an authority that has them signs none here.
fn signs_clients(authority: &X509Certificate<'_>) -> bool {
    if authority.version() == X509Version::V1 && authority.extensions().is_empty() {
        return true;
    }
    let for_clients = match authority.extended_key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.client_auth || usage.value.any),
        Err(_) => false,
    };
    let signs = match authority.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    authority.is_ca() && for_clients && signs && matches!(authority.name_constraints(), Ok(None))
}

/// Verifies a signature with the first algorithm that fits the key and, if given, the identifier of the signature's
/// algorithm.
fn verify(
    algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
    key: &SubjectPublicKeyInfo<'_>,
    signature_algorithm: Option<&[u8]>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let key_algorithm = contents(key.raw).and_then(contents).ok_or(CertificateError::BadEncoding)?;
    for algorithm in algorithms {
        let fits = *algorithm.public_key_alg_id() == *key_algorithm
            && signature_algorithm.is_none_or(|identifier| *algorithm.signature_alg_id() == *identifier);
        if fits && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok() {
            return Ok(());
        }
    }
    Err(CertificateError::BadSignature.into())
}

/// Returns the identifier of the algorithm that signed a certificate, without its tag and length.
fn signature_algorithm<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let (after_signed, _) = Any::from_der(contents(certificate)?).ok()?;
    contents(after_signed)
}

/// Returns the contents of the first element of a DER encoding.
fn contents(der: &[u8]) -> Option<&[u8]> {
    Some(Any::from_der(der).ok()?.1.data)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;
    use crate::testing::{version_one, version_one_with_extensions};

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn issuer(change: impl FnOnce(&mut CertificateParams)) -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        change(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(issuer: &Issuer) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "client");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn check(client: &CertificateDer<'_>, issuers: &[&Issuer], year: u64) -> Option<Result<(), Error>> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let authorities: Vec<_> = issuers.iter().map(|issuer| issuer.der().clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        verify_client(client, &authorities, &algorithms, now)
    }

    #[test]
    fn a_key_must_be_that_of_its_certificate() {
        let (own, other) = (issuer(|_| {}), issuer(|_| {}));
        let key = |issuer: &Issuer| PrivateKeyDer::try_from(issuer.key().serialize_der()).unwrap();
        let provider = aws_lc_rs::default_provider();
        for certificate in [own.der().clone(), version_one(own.der(), own.key())] {
            assert!(certified_key(vec![certificate.clone()], key(&own), &provider).is_ok());
            let wrong = certified_key(vec![certificate], key(&other), &provider);
            assert_eq!(wrong.map(drop), Err(InconsistentKeys::KeyMismatch.into()));
        }
    }

    #[test]
    fn checks_issuer_validity_and_signature() {
        let [own, same_name] = [issuer(|_| {}), issuer(|_| {})];
        let other = issuer(|params| params.distinguished_name.push(DnType::CommonName, "other"));
        let usual = client(&own);
        let old = version_one(&usual, own.key());
        assert_eq!(check(&usual, &[&own], 2030), None, "version 3 is for webpki");
        assert_eq!(check(&old, &[&other, &same_name, &own], 2030), Some(Ok(())));
        let unknown = Error::from(CertificateError::UnknownIssuer);
        assert_eq!(check(&old, &[&other], 2030), Some(Err(unknown)));
        assert_eq!(check(&old, &[&same_name], 2030), Some(Err(CertificateError::BadSignature.into())));
        assert_eq!(check(&old, &[&own], 2041), Some(Err(CertificateError::Expired.into())));
        assert_eq!(check(&old, &[&own], 2019), Some(Err(CertificateError::NotValidYet.into())));
        let forged = version_one(&usual, same_name.key());
        assert_eq!(check(&forged, &[&own], 2030), Some(Err(CertificateError::BadSignature.into())));
    }

    #[test]
    fn extensions_of_version_one_are_not_ignored() {
        let own = issuer(|_| {});
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = params.signed_by(&KeyPair::generate().unwrap(), &own).unwrap();
        let old = version_one_with_extensions(server.der(), own.key());
        assert_eq!(check(&old, &[&own], 2030), None, "for webpki, which refuses it");
        assert_eq!(check(&version_one(server.der(), own.key()), &[&own], 2030), Some(Ok(())));
    }

    #[test]
    fn an_issuer_must_be_an_authority_for_clients() {
        let servers = issuer(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let leaf = issuer(|params| params.is_ca = IsCa::ExplicitNoCa);
        let signs_lists_only = issuer(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
        let constrained = issuer(|params| {
            let permitted_subtrees = vec![GeneralSubtree::DnsName("a.test".to_owned())];
            let constraints = NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() };
            params.name_constraints = Some(constraints);
        });
        for wrong in [servers, leaf, signs_lists_only, constrained] {
            let old = version_one(&client(&wrong), wrong.key());
            assert_eq!(check(&old, &[&wrong], 2030), Some(Err(CertificateError::UnknownIssuer.into())));
        }
    }
}
