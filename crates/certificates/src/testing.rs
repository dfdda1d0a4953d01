//! Makes certificates of version 1.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed step fails the test")]

use rcgen::{KeyPair, SigningKey as _};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer as _, Tag};

/// Rewrites a certificate as one of version 1, without extensions, signed by `signer`.
pub fn version_one(certificate: &CertificateDer<'_>, signer: &KeyPair) -> CertificateDer<'static> {
    // The version and the extensions have tags of their own; all other fields have universal tags.
    rewrite(certificate, signer, |field| field.class() == Class::Universal)
}

/// As [`version_one`], with the extensions, which this version must not have.
pub fn version_one_with_extensions(
    certificate: &CertificateDer<'_>,
    signer: &KeyPair,
) -> CertificateDer<'static> {
    rewrite(certificate, signer, |field| field.class() == Class::Universal || field.tag() == EXTENSIONS)
}

fn rewrite(
    certificate: &CertificateDer<'_>,
    signer: &KeyPair,
    is_kept: impl Fn(&Any<'_>) -> bool,
) -> CertificateDer<'static> {
    let (_, whole) = Any::from_der(certificate).unwrap();
    let (after_signed, signed) = Any::from_der(whole.data).unwrap();
    let (_, algorithm) = Any::from_der(after_signed).unwrap();
    let mut fields = Vec::new();
    let mut rest = signed.data;
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).unwrap();
        if is_kept(&field) {
            fields.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    let signed = element(SEQUENCE, &fields);
    let signature = [vec![0], signer.sign(&signed).unwrap()].concat();
    let parts = [signed, element(SEQUENCE, algorithm.data), element(BIT_STRING, &signature)];
    CertificateDer::from(element(SEQUENCE, &parts.concat()))
}

const EXTENSIONS: Tag = Tag(3);
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Encodes an element of DER of at most 64 KiB.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let len = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &len, contents].concat()
}
