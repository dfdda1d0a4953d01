//! Decoding of certificate signing requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

/// The start of a PEM block.
const BEGIN: &[u8] = b"-----BEGIN";

/// Decodes a request from base64-encoded PEM to DER. Rejects several PEM blocks, because parsers disagree about which
/// block is the request.
///
/// # Errors
/// The text is not a PEM request.
pub fn der(request: &str) -> Result<Vec<u8>, String> {
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let bytes = STANDARD.decode(request).map_err(|_| not_pem())?;
    if bytes.windows(BEGIN.len()).filter(|window| *window == BEGIN).count() > 1 {
        return Err("must be a single PEM block".to_owned());
    }
    let (pem, _) = Pem::read(std::io::Cursor::new(&bytes)).map_err(|_| not_pem())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(not_pem());
    }
    Ok(pem.contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_one_block_of_the_right_type() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        let request = || block("CERTIFICATE REQUEST");
        for (text, fine) in [
            (request(), true),
            (format!("a comment\n{}more\n", request()), true),
            (block("CERTIFICATE"), false),
            (block("NEW CERTIFICATE REQUEST"), false),
            (format!("{}{}", request(), request()), false),
            (format!("{}{}", block("CERTIFICATE"), request()), false),
            // A parser that matches the label of the END line reads the second block.
            (format!("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END X-----\n{}", request()), false),
            ("nothing".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(der(&STANDARD.encode(&text)).is_ok(), fine, "{text}");
        }
        assert!(der("no base64").is_err());
    }
}
