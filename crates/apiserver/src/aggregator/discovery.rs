//! Reads the discovery documents of aggregated servers (upstream: `handler_discovery.go`).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use nave_machinery::backoff::Backoff;
use nave_machinery::user::UserInfo;

use super::api_service::{ApiService, Remote};
use super::directory::Directory;
use super::remote_discovery;
use super::schedule::Next;
use super::servers::{ServerError, Servers, aggregator_user};
use crate::openapi::remote::RemoteDocument;

/// Interval in which documents are read again.
const REFRESH: Duration = Duration::from_mins(1);
/// Pauses after a failure.
pub(super) const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(500), REFRESH);
/// Number of servers that are read at the same time.
pub(super) const WORKERS: usize = 4;

/// The resources of aggregated servers, by the name of the APIService.
#[derive(Default)]
pub(crate) struct RemoteResources(ArcSwap<imbl::OrdMap<String, Arc<VersionResources>>>);

/// The resources of a version, as its server described them last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VersionResources {
    /// A JSON array in the aggregated form.
    pub(crate) resources: String,
    /// True if the server did not answer the last time.
    pub(crate) is_stale: bool,
    /// The hash of its OpenAPI 3 document; `None` if it has none.
    pub(crate) openapi: Option<String>,
    /// Its part of the OpenAPI 2 document; `None` if it has none.
    pub(crate) openapi_v2: Option<Arc<RemoteDocument>>,
    etag: Option<HeaderValue>,
    openapi_v2_etag: Option<HeaderValue>,
}

/// Reads the documents.
pub(super) struct Refresher {
    pub(super) directory: Arc<Directory>,
    pub(super) servers: Arc<Servers>,
    pub(super) resources: Arc<RemoteResources>,
}

/// The reason why the resources are unknown.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("status code {0}")]
    Status(StatusCode),
    #[error("invalid discovery document: {0}")]
    Document(String),
}

impl RemoteResources {
    /// Returns the current state.
    pub(crate) fn load(&self) -> Arc<imbl::OrdMap<String, Arc<VersionResources>>> {
        self.0.load_full()
    }

    /// Keeps the resources of a version, without its documents if all documents would need more than `limit` bytes.
    fn set(&self, name: &str, resources: VersionResources, limit: usize) {
        if self.0.load().get(name).is_some_and(|known| **known == resources) {
            return;
        }
        let (without, resources) = (Arc::new(resources.without_openapi()), Arc::new(resources));
        let mut fits = Ok(());
        self.0.rcu(|all| {
            let others = all.iter().filter(|(other, _)| *other != name).map(|(_, other)| other.memory());
            let room = limit.saturating_sub(others.sum());
            let (kept, outcome) = match room {
                room if resources.memory() <= room => (Some(&resources), Ok(())),
                room if without.memory() <= room => {
                    (Some(&without), Err("its OpenAPI 2 document is ignored"))
                }
                _ => (None, Err("it is not in discovery")),
            };
            fits = outcome;
            match kept {
                Some(kept) => all.update(name.to_owned(), Arc::clone(kept)),
                None => all.without(name),
            }
        });
        if let Err(effect) = fits {
            let flag = "--max-aggregated-documents-bytes";
            tracing::warn!(api_service = name, effect, "documents of aggregated servers exceed {flag}");
        }
    }

    fn remove(&self, name: &str) {
        self.0.rcu(|all| all.without(name));
    }
}

impl VersionResources {
    fn new(resources: String, etag: Option<HeaderValue>) -> Self {
        Self { resources, is_stale: false, openapi: None, openapi_v2: None, etag, openapi_v2_etag: None }
    }

    /// Returns the resources of a version that was never read.
    pub(crate) fn unknown() -> Self {
        Self { is_stale: true, ..Self::new("[]".to_owned(), None) }
    }

    /// Returns the resources without the OpenAPI 2 document, which is read again the next time.
    fn without_openapi(&self) -> Self {
        Self { openapi_v2: None, openapi_v2_etag: None, ..self.clone() }
    }

    /// Returns the memory of the documents, in bytes.
    fn memory(&self) -> usize {
        let etags = [&self.etag, &self.openapi_v2_etag].into_iter().flatten().map(HeaderValue::len);
        let document = self.openapi_v2.as_ref().map_or(0, |document| document.memory);
        self.resources.len() + document + etags.sum::<usize>()
    }

    /// Returns the OpenAPI 2 document of a version without an OpenAPI 3 document, which this server converts.
    pub(crate) fn converted_openapi(&self) -> Option<&Arc<RemoteDocument>> {
        self.openapi_v2.as_ref().filter(|document| self.openapi.is_none() && !document.is_empty())
    }
}

impl Refresher {
    /// Reads the resources of an APIService's version. If the server does not answer, the known ones are kept and
    /// marked as stale.
    pub(super) async fn sync(&self, name: &str) -> Next {
        let service = self.directory.load().get(name).cloned();
        let Some((service, remote)) = service.as_ref().and_then(|it| Some((it, it.remote.as_ref()?))) else {
            self.resources.remove(name);
            return Next::OnChange;
        };
        let limit = self.servers.backends.limits.aggregated_documents;
        let known = self.resources.load().get(name).cloned();
        let known = known.map_or_else(VersionResources::unknown, |known| (*known).clone());
        match self.read(service, remote, &known).await {
            Ok(mut resources) => {
                // A server that fails only now keeps its documents; one without documents has none.
                let openapi = self.read_openapi(service, remote).await;
                resources.openapi = openapi.unwrap_or_else(|_| known.openapi.clone());
                let (document, etag) = match self.read_openapi_v2(service, remote, &known).await {
                    Ok(read) => read,
                    Err(error) => {
                        tracing::debug!(api_service = name, %error, "OpenAPI 2 of the server not read");
                        (known.openapi_v2, known.openapi_v2_etag)
                    }
                };
                (resources.openapi_v2, resources.openapi_v2_etag) = (document, etag);
                self.resources.set(name, resources, limit);
                Next::After(REFRESH)
            }
            Err(error) => {
                tracing::warn!(api_service = name, %error, "discovery of the aggregated server failed");
                self.resources.set(name, VersionResources { is_stale: true, ..known }, limit);
                Next::Retry
            }
        }
    }

    async fn read(
        &self,
        service: &ApiService,
        remote: &Remote,
        known: &VersionResources,
    ) -> Result<VersionResources, RefreshError> {
        let user = aggregator_user();
        let mut headers = accept(remote_discovery::AGGREGATED);
        if let Some(etag) = &known.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        let fetched = self.servers.fetch(remote, "/apis", &user, headers).await?;
        match fetched.status {
            StatusCode::NOT_MODIFIED if known.etag.is_some() => {
                return Ok(VersionResources { is_stale: false, ..known.clone() });
            }
            StatusCode::OK if remote_discovery::is_aggregated(&fetched.headers) => {
                let resources =
                    remote_discovery::from_aggregated(&fetched.body, &service.group, &service.version);
                let resources = resources.map_err(RefreshError::Document)?;
                return Ok(VersionResources::new(resources, fetched.headers.get(ETAG).cloned()));
            }
            status @ StatusCode::SERVICE_UNAVAILABLE => return Err(RefreshError::Status(status)),
            // A server without the aggregated form.
            _ => {}
        }
        let user = UserInfo { groups: Vec::new(), ..user };
        let fetched = self.servers.fetch(remote, &service.path(), &user, accept("application/json")).await?;
        if fetched.status != StatusCode::OK {
            return Err(RefreshError::Status(fetched.status));
        }
        let resources = remote_discovery::from_legacy(&fetched.body).map_err(RefreshError::Document)?;
        Ok(VersionResources::new(resources, None))
    }

    /// Reads the hash of the version's OpenAPI 3 document from the server's list of documents.
    async fn read_openapi(
        &self,
        service: &ApiService,
        remote: &Remote,
    ) -> Result<Option<String>, RefreshError> {
        let user = UserInfo { groups: Vec::new(), ..aggregator_user() };
        let fetched = self.servers.fetch(remote, "/openapi/v3", &user, accept("application/json")).await?;
        match fetched.status {
            StatusCode::OK => remote_discovery::openapi_hash(&fetched.body, &service.group, &service.version)
                .map_err(RefreshError::Document),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(RefreshError::Status(status)),
        }
    }
}

type Document = (Option<Arc<RemoteDocument>>, Option<HeaderValue>);

impl Refresher {
    /// Reads the version's part of the OpenAPI 2 document, with the ETag of the document.
    async fn read_openapi_v2(
        &self,
        service: &ApiService,
        remote: &Remote,
        known: &VersionResources,
    ) -> Result<Document, RefreshError> {
        let user = UserInfo { groups: Vec::new(), ..aggregator_user() };
        let mut headers = accept("application/json");
        if let Some(etag) = &known.openapi_v2_etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        let fetched = self.servers.fetch(remote, "/openapi/v2", &user, headers).await?;
        match fetched.status {
            StatusCode::NOT_MODIFIED => Ok((known.openapi_v2.clone(), known.openapi_v2_etag.clone())),
            StatusCode::OK => {
                let (body, path) = (fetched.body, service.path());
                // A large document takes too long for the threads that serve requests.
                let read = tokio::task::spawn_blocking(move || RemoteDocument::read(&body, &path));
                let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
                let document = Arc::new(read.map_err(RefreshError::Document)?);
                // The same document is not merged again.
                let known = known.openapi_v2.clone().filter(|known| *known == document);
                Ok((Some(known.unwrap_or(document)), fetched.headers.get(ETAG).cloned()))
            }
            StatusCode::NOT_FOUND => Ok((None, None)),
            status => Err(RefreshError::Status(status)),
        }
    }
}

fn accept(media_types: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(media_types))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(length: usize, document: Option<usize>) -> VersionResources {
        let document = document.map(|memory| Arc::new(RemoteDocument::with_memory(memory)));
        VersionResources { openapi_v2: document, ..VersionResources::new("x".repeat(length), None) }
    }

    #[test]
    fn documents_of_all_servers_have_one_limit() {
        let all = RemoteResources::default();
        let kept = |name: &str| {
            let found = all.load();
            found.get(name).map(|found| (found.resources.len(), found.openapi_v2.is_some()))
        };
        all.set("a", resources(100, Some(500)), 1000);
        all.set("b", resources(100, Some(400)), 1000);
        assert_eq!((kept("a"), kept("b")), (Some((100, true)), Some((100, false))), "b has no room");
        all.set("c", resources(400, None), 1000);
        assert_eq!(kept("c"), None);
        // A document that is replaced does not count.
        all.set("a", resources(100, Some(600)), 1000);
        assert_eq!(kept("a"), Some((100, true)));
        all.remove("a");
        all.set("b", resources(100, Some(900)), 1000);
        assert_eq!(kept("b"), Some((100, true)));
    }
}
