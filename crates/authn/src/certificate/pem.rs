//! PEM encoding of certificates.

use base64::{Engine, prelude::BASE64_STANDARD};

/// Characters per line (RFC 7468).
const LINE: usize = 64;

/// Encodes DER certificates as PEM, one after the other.
pub fn certificates_to_pem(certificates: impl IntoIterator<Item: AsRef<[u8]>>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64_STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(LINE) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    #[test]
    fn pem_round_trips() {
        let certificates: Vec<Vec<u8>> = (0..100).map(|length| vec![length; usize::from(length)]).collect();
        let text = certificates_to_pem(&certificates);
        let read = CertificateDer::pem_slice_iter(text.as_bytes()).map(|it| it.unwrap().to_vec());
        assert_eq!(read.collect::<Vec<_>>(), certificates);
        assert!(text.lines().all(|line| line.len() <= LINE));
    }
}
