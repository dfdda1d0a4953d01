//! The administrator's kubeconfig.

use std::{io, net::SocketAddr, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::pki::Pair;
use crate::pki::files::{self, Durability};

/// Writes a self-contained kubeconfig that only its owner can read. `ca` is the CA of the server's certificate (PEM).
pub(crate) fn write(path: &Path, server: SocketAddr, ca: &str, admin: &Pair) -> io::Result<()> {
    files::write_private(path, &text(server, ca, admin), Durability::Unsynced)
}

fn text(server: SocketAddr, ca: &str, admin: &Pair) -> String {
    let [ca, certificate, key] = [ca, &admin.certificate, &admin.key].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: nave
  cluster:
    server: https://{server}
    certificate-authority-data: {ca}
users:
- name: nave-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: nave
  context:
    cluster: nave
    user: nave-admin
current-context: nave
"
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn is_self_contained_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.kubeconfig");
        fs::write(&path, "what was there before").unwrap();
        let admin = Pair { certificate: "crt".into(), key: "key".into() };
        write(&path, "[::1]:6443".parse().unwrap(), "ca", &admin).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for line in [
            "    server: https://[::1]:6443",
            "    certificate-authority-data: Y2E=",
            "    client-certificate-data: Y3J0",
            "    client-key-data: a2V5",
            "current-context: nave",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
