//! The flags of TLS and HTTP/2.

use std::path::PathBuf;

use clap::Args;
use nave_apiserver::serving::TlsSettings;

use super::values::{parse_bool, whole};
use super::{FlagError, SERVING};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = SERVING)]
pub(super) struct TlsFlags {
    /// Serving certificate with its chain (PEM). The server creates one by default.
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Private key of --tls-cert-file (PEM).
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<PathBuf>,
    /// Certificate and key (PEM) for clients that ask for one of these server names: CERT,KEY or CERT,KEY:NAME,NAME. A
    /// name may begin with "*.". Without names, those in the certificate. Repeatable.
    #[arg(long, value_name = "FILES", value_parser = parse_named_pair)]
    tls_sni_cert_key: Vec<NamedPair>,
    /// Oldest accepted version of TLS: VersionTLS12 or VersionTLS13. Older versions stand for VersionTLS12.
    #[arg(long, value_name = "VERSION", value_parser = ["", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"],
          default_value = "", hide_default_value = true)]
    tls_min_version: String,
    /// Cipher suites of TLS 1.2 by their IANA names. Suites that the server lacks are left out. Those of TLS 1.3 cannot
    /// be chosen.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// Key exchange groups by their numbers, such as 29 (X25519) or 4588 (X25519MLKEM768). Groups that the server lacks
    /// are left out.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = whole(0..=u16::MAX))]
    tls_curve_preferences: Vec<u16>,
    /// Serve HTTP/1.1 only.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    disable_http2_serving: bool,
    /// Limit of concurrent requests per HTTP/2 connection. 0 means the default of 250.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=u32::MAX))]
    http2_max_streams_per_connection: u32,
}

/// The files of a certificate for single server names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The server names; empty for those in the certificate.
    pub(crate) names: Vec<String>,
}

/// Parses `CERT,KEY[:NAME,NAME]`.
fn parse_named_pair(text: &str) -> Result<NamedPair, &'static str> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    match files.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [certificate, key] if !certificate.is_empty() && !key.is_empty() => Ok(NamedPair {
            certificate: certificate.into(),
            key: key.into(),
            names: names.map(str::to_owned).collect(),
        }),
        _ => Err("must be CERTIFICATE,KEY or CERTIFICATE,KEY:NAME,NAME"),
    }
}

/// The checked flags.
#[derive(Clone, Debug)]
pub(crate) struct TlsConfig {
    /// The serving certificate and key; `None` if the server creates them.
    pub(crate) pair: Option<(PathBuf, PathBuf)>,
    /// The certificates for single server names.
    pub(crate) named: Vec<NamedPair>,
    pub(crate) settings: TlsSettings,
    /// Concurrent requests per HTTP/2 connection; 0 for the default.
    pub(crate) http2_streams: u32,
}

impl TlsFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// A certificate lacks its key, a key lacks its certificate, a cipher suite does not exist, or no key exchange group
    /// is left.
    pub(super) fn validate(self) -> Result<TlsConfig, FlagError> {
        let pair = match (self.tls_cert_file, self.tls_private_key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(FlagError::new("tls-private-key-file", "required with --tls-cert-file"));
            }
            (None, Some(_)) => {
                return Err(FlagError::new("tls-cert-file", "required with --tls-private-key-file"));
            }
        };
        let available = TlsSettings::available_suites();
        for name in &self.tls_cipher_suites {
            // Go accepts two of its own names, without the hash function.
            let is_known = available.contains(&name.as_str()) || OTHER_SUITES.contains(&name.as_str());
            if !is_known {
                let why = format!("{name:?} is not a cipher suite; the server has: {}", available.join(", "));
                return Err(FlagError::new("tls-cipher-suites", why));
            }
        }
        let suites = self.tls_cipher_suites.into_iter().map(|name| match name.as_str() {
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
                name + "_SHA256"
            }
            _ => name,
        });
        let suites: Vec<String> = suites.collect();
        let groups = self.tls_curve_preferences;
        let available = TlsSettings::available_groups();
        if !groups.is_empty() && !groups.iter().any(|group| available.contains(group)) {
            let available: Vec<String> = available.iter().map(u16::to_string).collect();
            let why = format!("the server has none of these groups, but {}", available.join(", "));
            return Err(FlagError::new("tls-curve-preferences", why));
        }
        let settings = TlsSettings {
            requires_tls13: self.tls_min_version == "VersionTLS13",
            cipher_suites: (!suites.is_empty()).then_some(suites),
            key_exchange_groups: (!groups.is_empty()).then_some(groups),
            offers_http2: !self.disable_http2_serving,
        };
        let (named, http2_streams) = (self.tls_sni_cert_key, self.http2_max_streams_per_connection);
        Ok(TlsConfig { pair, named, settings, http2_streams })
    }
}

/// Cipher suites that kube-apiserver accepts and the server does not have: those of TLS 1.3, which cannot be chosen, and
/// weak ones.
const OTHER_SUITES: [&str; 20] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: TlsFlags,
    }

    fn settings(flags: &[&str]) -> Result<TlsSettings, String> {
        let line = Line::try_parse_from(["nave"].iter().chain(flags)).map_err(|error| error.to_string())?;
        line.flags.validate().map(|tls| tls.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_named_certificates() {
        let pair = |names: &[&str]| NamedPair {
            certificate: "a.crt".into(),
            key: "a.key".into(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(parse_named_pair("a.crt,a.key"), Ok(pair(&[])));
        assert_eq!(parse_named_pair("a.crt, a.key:*.x.test,y.test,"), Ok(pair(&["*.x.test", "y.test"])));
        for wrong in ["", "a.crt", "a.crt,", ",a.key", "a,b,c", "a.crt:x.test"] {
            assert!(parse_named_pair(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_versions_and_cipher_suites() {
        assert!(!settings(&[]).unwrap().requires_tls13);
        assert!(!settings(&["--tls-min-version=VersionTLS10"]).unwrap().requires_tls13);
        assert!(settings(&["--tls-min-version=VersionTLS13"]).unwrap().requires_tls13);
        assert!(!settings(&["--disable-http2-serving"]).unwrap().offers_http2);
        let suites = "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_RSA_WITH_AES_128_CBC_SHA";
        let suites = settings(&[suites]).unwrap().cipher_suites.unwrap();
        assert_eq!(suites[0], "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256");
        assert!(TlsSettings::available_suites().contains(&suites[0].as_str()));
        let groups = settings(&["--tls-curve-preferences=29,25"]).unwrap().key_exchange_groups;
        assert_eq!(groups, Some(vec![29, 25]));
        for wrong in [
            "--tls-min-version=1.2",
            "--tls-cipher-suites=AES",
            "--tls-cert-file=a",
            "--tls-curve-preferences=25",
            "--tls-curve-preferences=X25519",
        ] {
            assert!(settings(&[wrong]).is_err(), "{wrong}");
        }
    }
}
