//! The objects a cluster cannot do without: the system's namespaces, the `kubernetes` service, the roles and bindings
//! without which only `system:masters` could do anything, and what extension servers are told of authentication.

mod rbac;

use std::net::Ipv4Addr;

use futures_util::try_join;
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupVersionResource, Status, Value};
use serde_json::json;

use crate::cluster_authentication::{self, ClusterAuthentication};
use crate::endpoints::view::View;
use crate::endpoints::write::{self, Target};
use crate::endpoints::{Resources, decode};

/// The system's namespaces.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// The user as which the server itself acts (upstream: `user.APIServerUser`).
pub fn server_user() -> UserInfo {
    UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..UserInfo::default()
    }
}

/// What the bootstrap objects are made from.
pub struct Bootstrap {
    /// The address of the `kubernetes` service.
    pub service_address: Ipv4Addr,
    /// The port behind it.
    pub secure_port: u16,
    /// What extension servers are told of authentication.
    pub cluster_authentication: ClusterAuthentication,
}

impl Bootstrap {
    /// Makes those objects that are not there.
    ///
    /// # Errors
    /// What kept an object from being stored.
    pub async fn run(&self, resources: &Resources) -> Result<(), Status> {
        let user = &server_user();
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            create(resources, user, "namespaces", "", namespace).await?;
        }
        create(resources, user, "services", "default", self.service()).await?;
        let told = async {
            match cluster_authentication::publish(resources, &self.cluster_authentication).await {
                // Another server over the same store is at it; it is seen to later.
                Err(status) if status.code == 409 => Ok(()),
                outcome => outcome,
            }
        };
        try_join!(rbac::run(resources, user), told).map(drop)
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": self.service_address.to_string(),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.secure_port}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        })
    }
}

/// Creates an object unless there is one of its name.
async fn create(
    resources: &Resources,
    user: &UserInfo,
    resource: &str,
    namespace: &str,
    object: Value,
) -> Result<(), Status> {
    let Some(endpoint) = resources.endpoint(&GroupVersionResource::new("", "v1", resource)) else {
        return Ok(());
    };
    let name = nave_machinery::meta::name(&object).to_owned();
    let storage = endpoint.storage()?;
    if storage.find(namespace, &name).is_some() {
        return Ok(());
    }
    let admission = resources.admission();
    let target = Target { endpoint, view: View::Object, namespace, name: "", user, admission };
    let body = decode::Body { object, lax: Vec::new() };
    let (object, _) = target.typed(body, nave_machinery::options::FieldValidation::Ignore)?;
    let stored = match write::create_object(&target, object, false).await {
        Err(status) if status.code == 409 => return Ok(()),
        outcome => outcome?,
    };
    // The next object may need this one: namespaces come before what is in them.
    let revision = nave_machinery::meta::resource_version(&stored).parse().unwrap_or(0);
    storage.wait_until(revision).await
}
