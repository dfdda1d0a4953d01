//! Publishes the server's CA certificate in a config map of each namespace (upstream: `rootcacertpublisher`).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ObjectMeta, PostParams};
use nave_client::{Action, Lister, ObjectName};

use crate::api;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The config map. Pods mount it together with their token.
const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
/// The annotation that describes the config map.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "The certificate authority by which pods know the API server's certificate.",
);

pub(crate) const ROOT_CA_PUBLISHER: Descriptor = Descriptor {
    name: "root-ca-certificate-publisher-controller",
    alias: "root-ca-cert-publisher",
    service_account: "root-ca-cert-publisher",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, namespaces) = context.controller_for::<Namespace>("root_ca_cert_publisher");
    let maps = builder.informer::<ConfigMap>();
    builder.enqueue_mapped(&maps, |map| (map.name() == NAME).then(|| ObjectName::new("", map.namespace())));
    builder.run(Publisher {
        client: context.client.clone(),
        root_ca: context.root_ca.clone(),
        namespaces: namespaces.lister(),
        maps: maps.lister(),
    })
}

struct Publisher {
    client: kube::Client,
    /// The CA certificate in PEM. If `None`, nothing is published.
    root_ca: Option<Arc<str>>,
    namespaces: Lister<Namespace>,
    maps: Lister<ConfigMap>,
}

impl Reconciler for Publisher {
    /// Creates or corrects the config map of a namespace.
    async fn sync(&self, namespace: ObjectName) -> Result<Action, SyncError> {
        let lives =
            self.namespaces.get_by_key(&namespace).is_some_and(|namespace| !namespace.is_being_deleted());
        let Some(root_ca) = self.root_ca.as_deref().filter(|_| lives) else { return Ok(Action::Done) };
        let maps = Api::namespaced(self.client.clone(), namespace.name());
        let Some(found) = self.maps.get(namespace.name(), NAME) else {
            api::ignore_already_exists(maps.create(&PostParams::default(), &desired(root_ca)).await)?;
            return Ok(Action::Done);
        };
        let mut map = found.decode()?;
        if correct(&mut map, root_ca) {
            maps.replace(NAME, &PostParams::default(), &map).await?;
        }
        Ok(Action::Done)
    }
}

fn desired(root_ca: &str) -> ConfigMap {
    let mut map = ConfigMap {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    correct(&mut map, root_ca);
    map
}

/// Sets the map's data and annotation; returns whether anything changed.
fn correct(map: &mut ConfigMap, root_ca: &str) -> bool {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let annotations = map.metadata.annotations.get_or_insert_default();
    let described = annotations.get(DESCRIPTION.0).is_some_and(|text| text == DESCRIPTION.1);
    if described && map.data.as_ref() == Some(&data) {
        return false;
    }
    annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    map.data = Some(data);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrects_a_modified_map() {
        let mut map = desired("CERTIFICATE");
        assert!(!correct(&mut map, "CERTIFICATE"));
        assert!(correct(&mut map, "ANOTHER"));
        map.data.as_mut().unwrap().insert("more".to_owned(), "x".to_owned());
        assert!(correct(&mut map, "ANOTHER"));
        assert_eq!(map.data.unwrap(), BTreeMap::from([("ca.crt".to_owned(), "ANOTHER".to_owned())]));
        assert_eq!(map.metadata.annotations.unwrap().len(), 1);
    }
}
