//! The discovery document at `/apis` with the resources of peers.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use nave_codec::json;
use nave_machinery::GroupVersion;
use nave_resources::discovery;
use parking_lot::Mutex;

use super::Peers;
use super::directory::Peer;
use super::exclusions::Excluded;
use super::merge::merge;
use crate::aggregated_discovery::Document;
use crate::aggregator::remote_discovery::{self, Group};
use crate::raw_response;

/// The latest document with the states that it was made from.
#[derive(Default)]
pub(super) struct MergedDiscovery(Mutex<Option<Made>>);

struct Made {
    own: HeaderValue,
    known: Arc<Vec<Arc<Peer>>>,
    excluded: Arc<Excluded>,
    document: Document,
}

impl MergedDiscovery {
    /// Returns whether the document of the current states exists.
    pub(super) fn is_made(&self, peers: &Peers, own: &Document) -> bool {
        let (known, excluded) = (peers.known.load_full(), peers.exclusions.load());
        self.0.lock().as_ref().is_some_and(|made| made.is_of(own, &known, &excluded))
    }

    /// Returns the document, which is made at the first request after a change.
    pub(super) fn get(&self, peers: &Peers, own: Document) -> Document {
        let (known, excluded) = (peers.known.load_full(), peers.exclusions.load());
        if known.is_empty() {
            return own;
        }
        let mut made = self.0.lock();
        if let Some(made) = &*made
            && made.is_of(&own, &known, &excluded)
        {
            peers.metrics.cache_hits.inc();
            return made.document.clone();
        }
        peers.metrics.cache_misses.inc();
        let merged = merged(&own, &peers.id, &known, &excluded);
        let document = match merged {
            Ok(Some(groups)) => encode(&groups),
            Ok(None) => own.clone(),
            Err(error) => {
                tracing::warn!(error, "the resources of peers are not in discovery: too many groups");
                own.clone()
            }
        };
        *made = Some(Made { own: own.etag, known, excluded, document: document.clone() });
        document
    }
}

impl Made {
    fn is_of(&self, own: &Document, known: &Arc<Vec<Arc<Peer>>>, excluded: &Arc<Excluded>) -> bool {
        self.own == own.etag && Arc::ptr_eq(&self.known, known) && Arc::ptr_eq(&self.excluded, excluded)
    }
}

/// Returns the groups of all servers, merged in the order of their identities; `None` if those of this server are all.
fn merged(
    own: &Document,
    id: &str,
    known: &[Arc<Peer>],
    excluded: &Excluded,
) -> Result<Option<Vec<Group>>, String> {
    let own = remote_discovery::groups(&own.json)?;
    let others: Vec<_> = known.iter().map(|peer| without(&peer.documents.groups, excluded)).collect();
    let place = known.iter().take_while(|peer| *peer.id < *id).count();
    let mut lists: Vec<&[Group]> = others.iter().map(AsRef::as_ref).collect();
    lists.insert(place, &own);
    Ok(merge(&lists, place))
}

/// Returns the groups without the excluded versions.
fn without<'g>(groups: &'g [Group], excluded: &Excluded) -> Cow<'g, [Group]> {
    let is_excluded = |group: &Group, version: &str| {
        let group = group.metadata.name.clone();
        excluded.contains_key(&GroupVersion { group, version: version.to_owned() })
    };
    let has_excluded =
        |group: &Group| group.versions.iter().any(|version| is_excluded(group, &version.version));
    if !groups.iter().any(has_excluded) {
        return Cow::Borrowed(groups);
    }
    let mut kept = groups.to_vec();
    for (group, original) in kept.iter_mut().zip(groups) {
        group.versions.retain(|version| !is_excluded(original, &version.version));
    }
    kept.retain(|group| !group.versions.is_empty());
    Cow::Owned(kept)
}

fn encode(groups: &[Group]) -> Document {
    let parts: Vec<Vec<u8>> = groups.iter().map(json::encode).collect();
    let json = Bytes::from(discovery::aggregated(parts.iter().map(AsRef::as_ref)));
    Document { etag: raw_response::etag(&json), json }
}

#[cfg(test)]
mod tests {
    use nave_resources::Registry;
    use serde_json::{Value, json};

    use super::*;
    use crate::aggregated_discovery::AggregatedDiscovery;

    #[test]
    fn the_form_of_this_server_survives() {
        let registry = Arc::new(Registry::builtin(nave_schema::builtin()));
        let own = AggregatedDiscovery::new(&registry);
        let parsed = remote_discovery::groups(&own.named().json).unwrap();
        let value = |document: &Document| serde_json::from_slice::<Value>(&document.json).unwrap();
        assert_eq!(value(&encode(&parsed)), value(own.named()));
    }

    #[test]
    fn excluded_versions_of_peers_are_left_out() {
        let items = json!({"items": [
            {"metadata": {"name": "a.example"}, "versions": [{"version": "v1"}, {"version": "v2"}]},
            {"metadata": {"name": "b.example"}, "versions": [{"version": "v1"}]},
        ]});
        let groups = remote_discovery::groups(items.to_string().as_bytes()).unwrap();
        let version = |group: &str| GroupVersion { group: group.to_owned(), version: "v1".to_owned() };
        let names = |excluded: &[&str]| -> Vec<(String, usize)> {
            let excluded = excluded.iter().map(|group| (version(group), None)).collect();
            let kept = without(&groups, &excluded);
            kept.iter().map(|group| (group.metadata.name.clone(), group.versions.len())).collect()
        };
        let pairs = |pairs: &[(&str, usize)]| -> Vec<(String, usize)> {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        assert_eq!(names(&["c.example"]), pairs(&[("a.example", 2), ("b.example", 1)]));
        assert_eq!(names(&["a.example", "b.example"]), pairs(&[("a.example", 1)]));
    }
}
