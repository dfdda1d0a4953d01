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

/// The subject of a request, and how many alternative names of each sort it has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requested {
    pub(super) common_name: String,
    organizations: Vec<String>,
    dns: usize,
    addresses: usize,
    emails: usize,
    uris: usize,
}

impl Requested {
    /// Reads a request in PEM.
    pub(super) fn read(pem: &[u8]) -> Result<Self, &'static str> {
        let (_, pem) = parse_x509_pem(pem).map_err(|_| "the request is not PEM")?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST");
        }
        let parsed = X509CertificationRequest::from_der(&pem.contents);
        let (_, request) = parsed.map_err(|_| "the request cannot be parsed")?;
        let mut requested = Self::of_subject(&request.certification_request_info.subject);
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| requested.add(name));
            }
        }
        Ok(requested)
    }

    fn of_subject(subject: &X509Name<'_>) -> Self {
        let common_names = subject.iter_common_name().filter_map(|name| name.as_str().ok());
        let organizations = subject.iter_organization();
        Self {
            common_name: common_names.last().unwrap_or_default().to_owned(),
            // One that is no text is not the one that is asked for either.
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

    /// Returns whether a signer is for this request.
    ///
    /// # Errors
    /// The reason why the signer refuses the request.
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
        refuse(&not_allowed)?;
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
        refuse(&not_allowed)?;
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

fn refuse(counted: &[(usize, &str)]) -> Result<(), String> {
    match counted.iter().find(|(count, _)| *count > 0) {
        Some((_, message)) => Err((*message).to_owned()),
        None => Ok(()),
    }
}

/// A kubelet's usages: for signatures and for what the certificate is for; encipherment is for RSA keys.
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

    fn kubelet() -> Requested {
        Requested {
            common_name: "system:node:n1".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Requested::default()
        }
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn a_kubelets_client_certificate_names_a_node_and_nothing_else() {
        let client = usages(&["digital signature", "client auth"]);
        let check = |requested: Requested, usages: &[String]| requested.check(KUBELET_CLIENT, usages);
        assert_eq!(check(kubelet(), &client), Ok(()));
        let rsa = usages(&["client auth", "key encipherment", "digital signature"]);
        assert_eq!(check(kubelet(), &rsa), Ok(()));
        let wrong = [
            Requested { common_name: "system:admin".to_owned(), ..kubelet() },
            Requested { organizations: usages(&["system:masters"]), ..kubelet() },
            Requested { organizations: usages(&["system:nodes", "system:masters"]), ..kubelet() },
            Requested { dns: 1, ..kubelet() },
            Requested { addresses: 1, ..kubelet() },
            Requested { emails: 1, ..kubelet() },
            Requested { uris: 1, ..kubelet() },
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
    fn a_kubelets_serving_certificate_has_names_or_addresses() {
        let serving = usages(&["digital signature", "server auth"]);
        assert_eq!(Requested { dns: 1, ..kubelet() }.check(KUBELET_SERVING, &serving), Ok(()));
        assert_eq!(Requested { addresses: 1, ..kubelet() }.check(KUBELET_SERVING, &serving), Ok(()));
        assert!(kubelet().check(KUBELET_SERVING, &serving).is_err());
        assert!(Requested { dns: 1, uris: 1, ..kubelet() }.check(KUBELET_SERVING, &serving).is_err());
    }

    #[test]
    fn clients_certificates_are_for_clients_only() {
        let check = |list: &[&str]| Requested::default().check(CLIENT, &usages(list));
        assert_eq!(check(&["client auth"]), Ok(()));
        assert!(check(&["digital signature"]).is_err());
        assert_eq!(
            check(&["client auth", "server auth"]),
            Err("invalid usage for client certificate: server auth".to_owned())
        );
        assert_eq!(Requested::default().check(LEGACY, &[]), Ok(()));
    }

    #[test]
    fn anything_else_than_a_request_is_refused() {
        for text in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(Requested::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
