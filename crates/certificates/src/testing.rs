//! Makes certificates of version 1.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed step fails the test")]

use rcgen::{KeyPair, SigningKey as _};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, FromDer as _};

/// Rewrites a certificate as one of version 1, without extensions, signed by `signer`.
pub fn version_one(certificate: &CertificateDer<'_>, signer: &KeyPair) -> CertificateDer<'static> {
    let (_, whole) = Any::from_der(certificate).unwrap();
    let (after_signed, signed) = Any::from_der(whole.data).unwrap();
    let (_, algorithm) = Any::from_der(after_signed).unwrap();
    let mut fields = Vec::new();
    let mut rest = signed.data;
    while !rest.is_empty() {
        let (after, field) = Any::from_der(rest).unwrap();
        // The version and the extensions have tags of their own; all other fields have universal tags.
        if field.class() == Class::Universal {
            fields.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    let signed = element(SEQUENCE, &fields);
    let signature = [vec![0], signer.sign(&signed).unwrap()].concat();
    let parts = [signed, element(SEQUENCE, algorithm.data), element(BIT_STRING, &signature)];
    CertificateDer::from(element(SEQUENCE, &parts.concat()))
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Encodes an element of DER of at most 64 KiB.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let len = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &len, contents].concat()
}
