//! Pods whose references are read when their node makes a request. Most versions of a pod are replaced before, and
//! reading one costs as much as a tenth of its write.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::graph::{Graph, Kind};
use super::references::PodView;

/// Maximum number of deferred pods of a node. A kubelet runs 110 pods by default.
const MAX_PODS: usize = 250;

/// The JSON of pods that are not read yet, by node and by their key in the store.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    nodes: HashMap<Arc<str>, HashMap<Arc<str>, Bytes>>,
}

impl Graph {
    /// Adds or replaces a pod on a node. Its references are read at the next check for the node. The key ends with the
    /// namespace and the name.
    pub fn defer_pod(&mut self, key: &Arc<str>, node: &str, json: Bytes) {
        let pods = match self.deferred.nodes.get_mut(node) {
            Some(pods) => pods,
            None => self.deferred.nodes.entry(node.into()).or_default(),
        };
        pods.insert(Arc::clone(key), json);
        if pods.len() >= MAX_PODS {
            self.read_deferred(node);
        }
    }

    /// Removes a pod, deferred or not.
    pub fn remove_pod(&mut self, key: &str, node: &str) {
        if let Some(pods) = self.deferred.nodes.get_mut(node) {
            pods.remove(key);
            if pods.is_empty() {
                self.deferred.nodes.remove(node);
            }
        }
        let (namespace, name) = split(key);
        self.remove(Kind::Pod, namespace, name);
    }

    /// Removes all deferred pods.
    pub fn clear_deferred(&mut self) {
        self.deferred.nodes.clear();
    }

    /// Returns whether the node has pods whose references are not read.
    pub(super) fn has_deferred(&self, node: &str) -> bool {
        self.deferred.nodes.contains_key(node)
    }

    /// Reads the references of the node's deferred pods. A pod that cannot be decoded has none.
    pub(super) fn read_deferred(&mut self, node: &str) {
        for (key, json) in self.deferred.nodes.remove(node).into_iter().flatten() {
            let (namespace, name) = split(&key);
            match serde_json::from_slice::<PodView<'_>>(&json) {
                Ok(pod) => pod.enter(self, namespace, name),
                Err(error) => {
                    tracing::error!(key = %key, %error, "pod cannot be decoded; its kubelet gets no access to the objects it refers to");
                    self.remove(Kind::Pod, namespace, name);
                }
            }
        }
    }
}

/// Returns the namespace and the name at the end of a key.
fn split(key: &str) -> (&str, &str) {
    let (rest, name) = key.rsplit_once('/').unwrap_or(("", key));
    (rest.rsplit_once('/').map_or(rest, |(_, namespace)| namespace), name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Arc<str> {
        format!("/registry/pods/a/{name}").into()
    }

    fn pod(node: &str, secret: &str) -> Bytes {
        let pod = json!({"spec": {"nodeName": node, "imagePullSecrets": [{"name": secret}]}});
        pod.to_string().into()
    }

    #[test]
    fn references_are_read_for_the_node_that_asks() {
        let mut graph = Graph::default();
        graph.defer_pod(&key("p"), "n", pod("n", "old"));
        graph.defer_pod(&key("p"), "n", pod("n", "s"));
        graph.defer_pod(&key("q"), "m", pod("m", "t"));
        assert!(graph.is_empty() && graph.has_deferred("n"));
        graph.read_deferred("n");
        assert!(graph.is_related(Kind::Secret, "a", "s", "n") && graph.is_related(Kind::Pod, "a", "p", "n"));
        assert!(!graph.is_related(Kind::Secret, "a", "old", "n"));
        assert!(!graph.has_deferred("n") && graph.has_deferred("m"));

        // A newer version replaces what was read.
        graph.defer_pod(&key("p"), "n", pod("n", "new"));
        graph.read_deferred("n");
        assert!(
            graph.is_related(Kind::Secret, "a", "new", "n") && !graph.is_related(Kind::Secret, "a", "s", "n")
        );
    }

    #[test]
    fn removed_pods_are_not_read() {
        let mut graph = Graph::default();
        graph.defer_pod(&key("p"), "n", pod("n", "s"));
        graph.remove_pod(&key("p"), "n");
        assert!(!graph.has_deferred("n"));
        graph.defer_pod(&key("p"), "n", pod("n", "s"));
        graph.read_deferred("n");
        graph.remove_pod(&key("p"), "n");
        assert!(graph.is_empty());
        graph.defer_pod(&key("p"), "n", "{".into());
        graph.read_deferred("n");
        assert!(graph.is_empty() && !graph.has_deferred("n"));
        graph.defer_pod(&key("p"), "n", pod("n", "s"));
        graph.clear_deferred();
        assert!(!graph.has_deferred("n"));
    }

    #[test]
    fn a_node_with_many_pods_does_not_defer_all() {
        let mut graph = Graph::default();
        for at in 0..=2 * MAX_PODS {
            graph.defer_pod(&key(&at.to_string()), "n", pod("n", "s"));
        }
        assert_eq!(graph.known(Kind::Pod).len(), 2 * MAX_PODS);
        assert!(graph.has_deferred("n"));
    }
}
