//! An authorizer with a list of permissions.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Authorizer, Chain, Metrics, NamedAuthorizer, Verdict};

/// Creates an authorizer that allows the listed permissions: `verb resource name` or `verb resource/subresource`.
pub(crate) fn allowing(rights: &[&'static str]) -> Chain {
    let authorizer = NamedAuthorizer {
        kind: "T",
        name: "t".into(),
        authorizer: Arc::new(Rights(rights.to_vec())),
        resolver: None,
    };
    Chain::new(vec![authorizer], Metrics::new(&prometheus::Registry::new()).unwrap())
}

struct Rights(Vec<&'static str>);

#[async_trait]
impl Authorizer for Rights {
    async fn authorize(&self, attributes: &nave_authz::Attributes<'_>) -> Verdict {
        // Yields, as a real authorizer may.
        tokio::task::yield_now().await;
        let nave_authz::Attributes { verb, resource, subresource, name, .. } = attributes;
        let requested = [format!("{verb} {resource} {name}"), format!("{verb} {resource}/{subresource}")];
        if self.0.iter().any(|right| requested.iter().any(|form| form == right)) {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
    }
}
