//! The objects to write: pods as a Deployment's controller creates them, bound to a node, and config maps.

use bytes::Bytes;

/// Generates pods that have a given size when the server returns them.
#[derive(Debug, Clone, Copy)]
pub struct PodShape {
    /// Number of nodes over which the pods are spread evenly.
    pub nodes: u64,
    /// Length in bytes of an annotation that pads the pod to its size.
    pub padding: usize,
}

impl PodShape {
    /// Returns the JSON of the pod with this number.
    pub fn pod(&self, name: &str, number: u64) -> Bytes {
        let node = node_name(number % self.nodes.max(1));
        let padding = "x".repeat(self.padding);
        Bytes::from(
            POD.replace("@NAME@", name)
                .replace("@NODE@", &node)
                .replace("@OWNER@", &owner_uid(number))
                .replace("@PADDING@", &padding),
        )
    }
}

/// Returns the name of the node with this number.
pub fn node_name(number: u64) -> String {
    format!("node-{number:05}")
}

/// Returns the JSON of a config map with 1 KB of data.
pub fn config_map(name: &str) -> Bytes {
    let value = "v".repeat(1000);
    Bytes::from(format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"key":"{value}"}}}}"#
    ))
}

/// Returns the JSON of a namespace.
pub fn namespace(name: &str) -> Bytes {
    Bytes::from(format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#))
}

/// Returns the JSON of a namespace's default service account. Pods need it, and no controller creates it here.
pub fn default_service_account() -> Bytes {
    Bytes::from_static(br#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#)
}

fn owner_uid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{:012x}", number / 10)
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"@NAME@","labels":{"app":"web","app.kubernetes.io/name":"web","app.kubernetes.io/part-of":"shop","pod-template-hash":"7d4b9c6f58","tier":"frontend"},"annotations":{"prometheus.io/port":"9090","prometheus.io/scrape":"true","loadtest/padding":"@PADDING@"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f58","uid":"@OWNER@","controller":true,"blockOwnerDeletion":true}]},"spec":{"nodeName":"@NODE@","serviceAccountName":"default","automountServiceAccountToken":false,"containers":[{"name":"web","image":"registry.example/shop/web:1.27.3","imagePullPolicy":"IfNotPresent","args":["--listen=:8080","--metrics=:9090"],"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"metrics","containerPort":9090,"protocol":"TCP"}],"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"POD_NAMESPACE","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}},{"name":"LOG_LEVEL","value":"info"}],"resources":{"limits":{"cpu":"500m","memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"livenessProbe":{"httpGet":{"path":"/healthz","port":"http","scheme":"HTTP"},"initialDelaySeconds":5,"periodSeconds":10},"readinessProbe":{"httpGet":{"path":"/readyz","port":"http","scheme":"HTTP"},"periodSeconds":5},"volumeMounts":[{"name":"config","mountPath":"/etc/web","readOnly":true},{"name":"cache","mountPath":"/var/cache/web"}],"securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"runAsNonRoot":true}}],"volumes":[{"name":"config","configMap":{"name":"web-config","defaultMode":420}},{"name":"cache","emptyDir":{}}],"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","schedulerName":"default-scheduler"}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_of_the_requested_size() {
        let shape = PodShape { nodes: 100, padding: 10 };
        let pod = shape.pod("web-1", 201);
        let value: serde_json::Value = serde_json::from_slice(&pod).unwrap();
        assert_eq!(value["metadata"]["name"], "web-1");
        assert_eq!(value["spec"]["nodeName"], "node-00001");
        let larger = PodShape { nodes: 100, padding: 110 }.pod("web-1", 201);
        assert_eq!(larger.len(), pod.len() + 100);
        let map: serde_json::Value = serde_json::from_slice(&config_map("c")).unwrap();
        assert_eq!(map["data"]["key"].as_str().map(str::len), Some(1000));
        assert!(serde_json::from_slice::<serde_json::Value>(&namespace("n")).is_ok());
        assert!(serde_json::from_slice::<serde_json::Value>(&default_service_account()).is_ok());
    }
}
