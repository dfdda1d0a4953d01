//! The service account tokens that a kubelet may request (upstream: feature `ServiceAccountNodeAudienceRestriction`).
//!
//! A token is bound to a pod on the kubelet's node. A volume of the pod must name the token's audience: a projected
//! token, or an inline or claimed CSI volume whose `CSIDriver` requests tokens. Other audiences require the verb
//! `request-serviceaccounts-token-audience`.

use std::sync::Arc;

use nave_authz::{Chain, Decision};
use nave_machinery::{Object, Status, Value, meta};
use nave_resources::pod;

use super::Write;
use crate::Lister;

/// The in-tree volume types that are migrated to CSI, with the driver's name (upstream: `csi-translation-lib`).
const MIGRATED_VOLUMES: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

/// The verb for audiences that no volume names.
const AUDIENCE_VERB: &str = "request-serviceaccounts-token-audience";

/// Checks the audiences of tokens against claims, the volumes behind them, and their drivers.
pub(super) struct Audiences {
    pub(super) claims: Arc<dyn Lister>,
    pub(super) volumes: Arc<dyn Lister>,
    pub(super) drivers: Arc<dyn Lister>,
    pub(super) authorizer: Chain,
}

impl Audiences {
    /// Checks the audience of a token request for a pod on the node.
    ///
    /// # Errors
    /// No volume of the pod names the audience, and the kubelet lacks the verb.
    pub(super) async fn check(&self, write: &Write<'_>, pod: &Object) -> Result<(), Status> {
        let audiences = meta::value_at(write.object, &["spec", "audiences"]).and_then(Value::as_array);
        let audience = match audiences.map_or(&[][..], Vec::as_slice) {
            [] => "",
            [audience] => audience.as_str().unwrap_or_default(),
            _ => return Err(write.forbidden("node may only request 0 or 1 audiences")),
        };
        match self.names_audience(pod.as_value(), audience) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => {
                return Err(write.forbidden(&format!("error validating audience {audience:?}: {why}")));
            }
        }
        let user = write.attributes.user;
        let asked = nave_authz::Attributes {
            verb: AUDIENCE_VERB,
            namespace: write.attributes.namespace,
            version: "v1",
            resource: audience,
            name: write.attributes.name,
            ..nave_authz::Attributes::for_user(user)
        };
        if self.authorizer.decide(&asked).await.decision == Decision::Allow {
            return Ok(());
        }
        Err(write.forbidden(&format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            user.name
        )))
    }

    /// Returns whether a volume of the pod names the audience.
    ///
    /// # Errors
    /// No volume names the audience, and the claim, volume or driver of a volume cannot be read.
    fn names_audience(&self, pod: &Value, audience: &str) -> Result<bool, String> {
        let mut missing = Vec::new();
        for volume in pod::volumes(pod) {
            if projected_audiences(volume).any(|named| named == audience) {
                return Ok(true);
            }
            match self.driver_names(pod, volume, audience) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(why) => missing.push(why),
            }
        }
        match missing.as_slice() {
            [] => Ok(false),
            [why] => Err(why.clone()),
            _ => Err(format!("[{}]", missing.join(", "))),
        }
    }

    fn driver_names(&self, pod: &Value, volume: &Value, audience: &str) -> Result<bool, String> {
        let claim =
            if meta::value_at(volume, &["ephemeral", "volumeClaimTemplate"]).is_some_and(Value::is_object) {
                Some(format!("{}-{}", meta::name(pod), text(volume, &["name"])))
            } else {
                meta::str_at(volume, &["persistentVolumeClaim", "claimName"]).map(str::to_owned)
            };
        let driver = match claim {
            Some(claim) => self.driver_of_claim(meta::namespace(pod), &claim)?,
            None => driver_of(volume).to_owned(),
        };
        if driver.is_empty() {
            return Ok(false);
        }
        let found = self.drivers.get("", &driver).map_err(|status| status.message)?;
        let found = found.ok_or_else(|| format!("csidriver.storage.k8s.io {driver:?} not found"))?;
        let requests = found.list_at(&["spec", "tokenRequests"]);
        Ok(requests.iter().any(|request| text(request, &["audience"]) == audience))
    }

    /// Returns the CSI driver of the volume bound to a claim; empty if the volume has no CSI driver.
    fn driver_of_claim(&self, namespace: &str, name: &str) -> Result<String, String> {
        let claim = self.claims.get(namespace, name).map_err(|status| status.message)?;
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let name = claim.str_at(&["spec", "volumeName"]).unwrap_or_default();
        let volume = self.volumes.get("", name).map_err(|status| status.message)?;
        let volume = volume.ok_or_else(|| format!("persistentvolume {name:?} not found"))?;
        Ok(driver_of(volume.get("spec").unwrap_or(&Value::Null)).to_owned())
    }
}

/// The audiences of a volume's projected tokens. An empty string means the API server's audience.
fn projected_audiences(volume: &Value) -> impl Iterator<Item = &str> {
    let sources = meta::value_at(volume, &["projected", "sources"]).and_then(Value::as_array);
    let tokens = sources.into_iter().flatten().filter_map(|source| source.get("serviceAccountToken"));
    tokens.filter(|token| token.is_object()).map(|token| text(token, &["audience"]))
}

/// Returns the CSI driver of a volume source; empty if it has no CSI driver.
fn driver_of(source: &Value) -> &str {
    let is_set = |kind: &str| source.get(kind).is_some_and(Value::is_object);
    let migrated = || MIGRATED_VOLUMES.iter().find(|(kind, _)| is_set(kind)).map(|(_, driver)| *driver);
    meta::str_at(source, &["csi", "driver"]).or_else(migrated).unwrap_or_default()
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    meta::str_at(object, path).unwrap_or_default()
}
