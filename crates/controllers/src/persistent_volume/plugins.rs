//! Names and messages of upstream's volume plugins, which are not built in. Contains the CSI drivers that replace
//! these plugins, and the messages for classes and volumes that need a plugin.

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::selectors::label;

/// Annotation: the provisioner that created a volume.
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation: the CSI driver that a volume was migrated to.
pub(super) const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";

/// Former in-tree plugins and the CSI drivers that replaced them.
const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The name prefix of in-tree volume plugins.
const BUILT_IN: &str = "kubernetes.io/";

/// The provisioner of a storage class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Provisioner<'a> {
    /// An external provisioner with this name.
    External(&'a str),
    /// No provisioner exists. Contains the message.
    Missing(String),
}

/// Finds the provisioner by name.
pub(super) fn provisioner(name: &str) -> Provisioner<'_> {
    if let Some((_, driver)) = MIGRATED.iter().find(|(plugin, _)| *plugin == name) {
        Provisioner::External(driver)
    } else if name.starts_with(BUILT_IN) {
        Provisioner::Missing(format!("no volume plugin matched name: {name}"))
    } else {
        Provisioner::External(name)
    }
}

/// Returns a message that explains why a volume's storage is not deleted. `None` if an external deleter deletes it.
pub(super) fn deletion_failure(volume: &PersistentVolume) -> Option<String> {
    let annotation = |key| label(volume.metadata.annotations.as_ref(), key);
    if let Some(provisioner) = annotation(PROVISIONED_BY).filter(|name| !name.is_empty()) {
        let is_external = !provisioner.starts_with(BUILT_IN);
        let is_migrated = MIGRATED.iter().any(|(plugin, _)| *plugin == provisioner);
        return (!is_external && !is_migrated)
            .then(|| format!("no volume plugin matched name: {provisioner}"));
    }
    let spec = volume.spec.as_ref();
    if annotation(MIGRATED_TO).is_some() || spec.is_some_and(|spec| spec.csi.is_some()) {
        return None;
    }
    if let Some(path) = spec.and_then(|spec| spec.host_path.as_ref()) {
        return Some(format!("host_path deleter only supports /tmp/.+ but received provided {}", path.path));
    }
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"
    ))
}
