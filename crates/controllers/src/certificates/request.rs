//! The contents of a certificate signing request.

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// The subject of a certificate request, and the number of subject alternative names of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CertificateRequest {
    pub(super) common_name: String,
    organizations: Vec<String>,
    dns: usize,
    addresses: usize,
    emails: usize,
    uris: usize,
}

impl CertificateRequest {
    /// Decodes a PEM request.
    pub(super) fn read(pem: &[u8]) -> Result<Self, &'static str> {
        let (_, pem) = parse_x509_pem(pem).map_err(|_| "the request is not PEM")?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST");
        }
        let parsed = X509CertificationRequest::from_der(&pem.contents);
        let (_, request) = parsed.map_err(|_| "the request cannot be parsed")?;
        let mut requested = Self::from_subject(&request.certification_request_info.subject);
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| requested.add(name));
            }
        }
        Ok(requested)
    }

    fn from_subject(subject: &X509Name<'_>) -> Self {
        let common_names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let organizations = subject.iter_organization();
        Self {
            common_name: common_names.last().unwrap_or_default().to_owned(),
            // An organization that is not text becomes empty, which the kubelet signers reject.
            organizations: organizations.map(|it| it.as_str().unwrap_or_default().to_owned()).collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(_) => self.dns += 1,
            GeneralName::IPAddress(_) => self.addresses += 1,
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }

    /// Checks a request against the rules of a signer.
    ///
    /// # Errors
    /// The reason why the signer rejects the request.
    pub(super) fn check(&self, signer: &str, usages: &[String]) -> Result<(), String> {
        match signer {
            KUBELET_CLIENT => self.check_kubelet_client(usages),
            KUBELET_SERVING => self.check_kubelet_serving(usages),
            CLIENT => check_client_usages(usages),
            _ => Ok(()),
        }
    }

    fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        let not_allowed = [
            (self.dns, "DNS subjectAltNames are not allowed"),
            (self.emails, "Email subjectAltNames are not allowed"),
            (self.addresses, "IP subjectAltNames are not allowed"),
            (self.uris, "URI subjectAltNames are not allowed"),
        ];
        reject_nonzero(&not_allowed)?;
        self.check_common_name()?;
        check_usages(usages, "client auth")
    }

    fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        if self.dns == 0 && self.addresses == 0 {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        let not_allowed = [
            (self.emails, "Email subjectAltNames are not allowed"),
            (self.uris, "URI subjectAltNames are not allowed"),
        ];
        reject_nonzero(&not_allowed)?;
        check_usages(usages, "server auth")?;
        self.check_common_name()
    }

    fn check_organization(&self) -> Result<(), String> {
        let is_nodes = self.organizations == ["system:nodes"];
        if is_nodes { Ok(()) } else { Err("subject organization is not system:nodes".to_owned()) }
    }

    fn check_common_name(&self) -> Result<(), String> {
        let is_node = self.common_name.starts_with("system:node:");
        let message = "subject common name does not begin with system:node:";
        if is_node { Ok(()) } else { Err(message.to_owned()) }
    }
}

fn reject_nonzero(counts: &[(usize, &str)]) -> Result<(), String> {
    match counts.iter().find(|(count, _)| *count > 0) {
        Some((_, message)) => Err((*message).to_owned()),
        None => Ok(()),
    }
}

/// Checks the usages of a kubelet's certificate: signatures, `purpose`, and optionally encipherment for RSA keys.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    given.insert("key encipherment");
    if given == all {
        return Ok(());
    }
    let mut wanted: Vec<_> = all.into_iter().collect();
    wanted.sort_unstable();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

fn check_client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    let has = usages.iter().any(|usage| usage == "client auth");
    if has { Ok(()) } else { Err("missing required usage for client certificate: client auth".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelet() -> CertificateRequest {
        CertificateRequest {
            common_name: "system:node:n1".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..CertificateRequest::default()
        }
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn kubelet_client_certificate_names_only_a_node() {
        let client = usages(&["digital signature", "client auth"]);
        let check =
            |requested: CertificateRequest, usages: &[String]| requested.check(KUBELET_CLIENT, usages);
        assert_eq!(check(kubelet(), &client), Ok(()));
        let rsa = usages(&["client auth", "key encipherment", "digital signature"]);
        assert_eq!(check(kubelet(), &rsa), Ok(()));
        let wrong = [
            CertificateRequest { common_name: "system:admin".to_owned(), ..kubelet() },
            CertificateRequest { organizations: usages(&["system:masters"]), ..kubelet() },
            CertificateRequest { organizations: usages(&["system:nodes", "system:masters"]), ..kubelet() },
            CertificateRequest { dns: 1, ..kubelet() },
            CertificateRequest { addresses: 1, ..kubelet() },
            CertificateRequest { emails: 1, ..kubelet() },
            CertificateRequest { uris: 1, ..kubelet() },
        ];
        for requested in wrong {
            assert!(requested.check(KUBELET_CLIENT, &client).is_err(), "{requested:?}");
        }
        for wrong in [&["client auth"][..], &["digital signature", "client auth", "server auth"]] {
            let message = "usages did not match [client auth digital signature key encipherment]";
            assert_eq!(check(kubelet(), &usages(wrong)), Err(message.to_owned()));
        }
    }

    #[test]
    fn kubelet_serving_certificate_needs_names_or_addresses() {
        let serving = usages(&["digital signature", "server auth"]);
        assert_eq!(CertificateRequest { dns: 1, ..kubelet() }.check(KUBELET_SERVING, &serving), Ok(()));
        assert_eq!(CertificateRequest { addresses: 1, ..kubelet() }.check(KUBELET_SERVING, &serving), Ok(()));
        assert!(kubelet().check(KUBELET_SERVING, &serving).is_err());
        assert!(
            CertificateRequest { dns: 1, uris: 1, ..kubelet() }.check(KUBELET_SERVING, &serving).is_err()
        );
    }

    #[test]
    fn client_certificate_is_for_client_auth_only() {
        let check = |list: &[&str]| CertificateRequest::default().check(CLIENT, &usages(list));
        assert_eq!(check(&["client auth"]), Ok(()));
        assert!(check(&["digital signature"]).is_err());
        assert_eq!(
            check(&["client auth", "server auth"]),
            Err("invalid usage for client certificate: server auth".to_owned())
        );
        assert_eq!(CertificateRequest::default().check(LEGACY, &[]), Ok(()));
    }

    #[test]
    fn rejects_malformed_requests() {
        for text in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(CertificateRequest::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
