//! Non-resource paths: discovery, OpenAPI, version, health, metrics.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, header};
use nave_authn::service_account::discovery::{CONFIGURATION_PATH, Discovery, JWKS_PATH};
use nave_codec::negotiate::Transform;
use nave_flowcontrol::Controller;
use nave_machinery::Status;
use nave_resources::{Registry, discovery};
use prometheus::{GaugeVec, Opts};
use serde::Serialize;
use serde_json::json;

use crate::aggregator::Aggregator;
use crate::aggregator::directory::GroupVersions;
use crate::body::ResponseBody;
use crate::catalog::Catalog;
use crate::console::Console;
use crate::context::RequestContext;
use crate::endpoints::response::{EndpointResponse, ObjectResponse};
use crate::health::Health;
use crate::introspection::ApiCache;
use crate::metrics::Metrics;
use crate::negotiation::{self, Encodings, Negotiation, Offer};
use crate::openapi::remote_v3;
use crate::peers::Peers;
use crate::raw_response;
use crate::request_info::{CONSOLE_STREAM, RequestInfo};
use crate::storage::Storages;
use crate::version::KUBERNETES_VERSION;
use crate::zpages::ZPages;

/// Serves the documents of a server.
pub struct Documents {
    /// The health checks.
    pub health: Health,
    /// `/statusz` and `/flagz`.
    pub zpages: ZPages,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The address at which clients reach the server, `host:port`.
    pub address: String,
    /// Priority and fairness, for its dumps; `None` without it.
    pub flow_control: Option<Arc<Controller>>,
    /// Token discovery (OIDC); `None` if the issuer is not a URL.
    pub token_discovery: Option<Discovery>,
    /// The other API servers of the cluster, whose resources are in discovery; `None` to leave them out.
    pub(crate) peers: Option<Arc<Peers>>,
    /// The console; `None` if it is switched off.
    pub(crate) console: Option<Arc<Console>>,
}

impl Documents {
    /// Returns the size of a document that must be generated for the request; 0 if it exists already or is small.
    pub(crate) fn size(
        &self,
        catalog: &Catalog,
        aggregator: &Aggregator,
        info: &RequestInfo,
        headers: &HeaderMap,
    ) -> usize {
        if info.path == "/apis"
            && let Some(peers) = &self.peers
            && peers.must_merge(&aggregator.discovery(catalog))
        {
            return usize::MAX;
        }
        if info.path == "/openapi/v2" && aggregator.must_merge_openapi_v2(catalog) {
            return usize::MAX;
        }
        if aggregator.converted_openapi(&info.path).is_some() {
            return usize::MAX;
        }
        let path = info.path.strip_prefix("/openapi/");
        path.map_or(0, |path| catalog.openapi().size(path.trim_end_matches('/'), headers))
    }

    /// Serves a request for a non-resource path.
    ///
    /// # Errors
    /// 405 for a mutating method, except on unknown paths.
    pub async fn serve(
        &self,
        context: &RequestContext,
        catalog: &Catalog,
        aggregator: &Aggregator,
        headers: &HeaderMap,
    ) -> Result<EndpointResponse, Status> {
        let outcome = self.document(context, catalog, aggregator, headers).await?;
        let is_unknown = matches!(&outcome, EndpointResponse::Http(response) if response.status() == StatusCode::NOT_FOUND);
        if is_unknown || matches!(context.info.method, Method::GET | Method::HEAD) {
            return Ok(outcome);
        }
        Err(Status::method_not_allowed_here())
    }

    async fn document(
        &self,
        context: &RequestContext,
        catalog: &Catalog,
        aggregator: &Aggregator,
        headers: &HeaderMap,
    ) -> Result<EndpointResponse, Status> {
        let RequestContext { info, negotiation, .. } = context;
        if let Some(health) = self.health.answer(&info.path, &info.query).await {
            return Ok(raw_response::text(health.code, health.text).into());
        }
        // Selects the document by the authorized path. As upstream, some paths also accept a trailing slash.
        let path = info.path.strip_prefix('/').unwrap_or(&info.path);
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [""] => raw_response::indented_json(
                &json!({"paths": self.paths(&aggregator.services().groups(catalog.registry()))}),
            )
            .map(EndpointResponse::from),
            ["version"] | ["version", ""] => {
                negotiation::check_only(headers, "application/json")?;
                raw_response::indented_json(&VersionInfo::of_server()).map(EndpointResponse::from)
            }
            ["statusz"] => self.zpages.statusz(headers).map(EndpointResponse::from),
            ["flagz"] => self.zpages.flagz(headers).map(EndpointResponse::from),
            ["metrics", "slis"] => {
                let text = self.health.metrics().map_err(Status::internal)?;
                Ok(raw_response::bytes(StatusCode::OK, METRICS_TYPE, text).into())
            }
            ["metrics"] => self.metrics(catalog.storages()).await.map(EndpointResponse::from),
            ["console", "stream"] => match &self.console {
                Some(console) => console.stream(&context.user().name).map(EndpointResponse::from),
                None => Ok(raw_response::page_not_found().into()),
            },
            ["console", "audit"] => Ok(match &self.console {
                Some(console) => console.audit(),
                None => raw_response::page_not_found(),
            }
            .into()),
            ["debug", "api_cache"] => {
                Ok(raw_response::json(&ApiCache::collect(catalog.storages()).await).into())
            }
            ["debug", "api_priority_and_fairness", dump] => Ok(self.dump(dump, info).into()),
            [".well-known", "openid-configuration"]
            | [".well-known", "openid-configuration", ""]
            | ["openid", "v1", "jwks"]
            | ["openid", "v1", "jwks", ""] => {
                let path = format!("/{}", path.trim_end_matches('/'));
                self.token_discovery(&path, headers).await.map(EndpointResponse::from)
            }
            ["openapi", "v3"] if aggregator.services().has_remotes() => {
                Ok(catalog.openapi().answer_index(&aggregator.openapi(), headers).into())
            }
            ["openapi", rest @ ..] => {
                if let Some(document) = aggregator.converted_openapi(&info.path) {
                    return Ok(remote_v3::serve(&document, &info.path, headers).into());
                }
                let merged = if rest == ["v2"] { aggregator.openapi_v2(catalog) } else { None };
                let answer = match merged {
                    Some(merged) => merged.answer(catalog.openapi(), headers),
                    None => catalog.openapi().answer(rest, info, headers),
                };
                answer.map(EndpointResponse::from)
            }
            ["api" | "apis", parts_of_group @ .., ""] if !parts_of_group.contains(&"") => {
                self.discovery(catalog, aggregator, &parts[..parts.len() - 1], headers, negotiation)
            }
            ["api" | "apis", ..] => self.discovery(catalog, aggregator, &parts, headers, negotiation),
            _ => Ok(raw_response::page_not_found().into()),
        }
    }

    /// Returns a dump of the queues of priority and fairness.
    fn dump(&self, name: &str, info: &RequestInfo) -> Response<ResponseBody> {
        let Some(controller) = &self.flow_control else { return raw_response::page_not_found() };
        let details = info.query.get("includeRequestDetails").is_some_and(|value| !value.is_empty());
        let text = match name {
            "dump_priority_levels" => controller.dump_priority_levels(),
            "dump_queues" => controller.dump_queues(),
            "dump_requests" => controller.dump_requests(details),
            _ => return raw_response::page_not_found(),
        };
        raw_response::text(StatusCode::OK, text)
    }

    fn discovery(
        &self,
        catalog: &Catalog,
        aggregator: &Aggregator,
        parts: &[&str],
        headers: &HeaderMap,
        negotiation: &Negotiation,
    ) -> Result<EndpointResponse, Status> {
        let registry = catalog.registry();
        let offer = match parts {
            ["apis", group, version] => match registry.group(group) {
                Some(served) if !served.versions.iter().any(|served| served == version) => {
                    return nothing_at(registry, parts);
                }
                None => return nothing_at(registry, parts),
                Some(served) if served.is_custom() => Offer::Group,
                Some(_) => Offer::Discovery,
            },
            ["apis", ..] => Offer::Group,
            _ => Offer::Discovery,
        };
        let accepted = negotiation.choose(offer, Encodings::All)?;
        let groups = || aggregator.services().groups(registry);
        let aggregated =
            |document: &_| raw_response::aggregated_discovery(document, headers.get(header::IF_NONE_MATCH));
        let document = match parts {
            ["api"] if accepted.transform.is_some() => {
                return Ok(aggregated(catalog.discovery().core()).into());
            }
            ["apis"] if accepted.transform.is_some() => {
                let own = aggregator.discovery(catalog);
                let is_local = matches!(accepted.transform, Some(Transform::Discovery { local: true, .. }));
                let document = match &self.peers {
                    Some(peers) if is_local => {
                        peers.count_own_discovery();
                        own
                    }
                    Some(peers) => peers.discovery(own),
                    None => own,
                };
                return Ok(aggregated(&document).into());
            }
            ["api"] => Some(ObjectResponse::ordered(200, discovery::api_versions(registry, &self.address))),
            ["apis"] => {
                let groups = groups().into_iter().filter(|group| !group.name.is_empty());
                let groups = groups.map(|group| (group.name, group.versions));
                Some(ObjectResponse::ordered(200, discovery::api_group_list(groups)))
            }
            ["api", version] => resource_list(registry, "", version),
            ["apis", group] if !group.is_empty() => {
                let group = groups().into_iter().find(|found| found.name == *group);
                let group = group.map(|group| discovery::api_group(group.name, &group.versions));
                group.map(|group| ObjectResponse::ordered(200, group))
            }
            ["apis", group, version] if !group.is_empty() => resource_list(registry, group, version),
            _ => None,
        };
        document.map(EndpointResponse::from).map_or_else(|| nothing_at(registry, parts), Ok)
    }

    /// Serves the documents for verifying service account tokens. Clients may cache them for an hour.
    async fn token_discovery(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<ResponseBody>, Status> {
        let Some(discovery) = &self.token_discovery else { return Ok(raw_response::page_not_found()) };
        let (media_type, document) = if path == CONFIGURATION_PATH {
            ("application/json", discovery.configuration().await)
        } else {
            ("application/jwk-set+json", discovery.key_set().await)
        };
        negotiation::check_only(headers, media_type)?;
        let mut response = raw_response::bytes(StatusCode::OK, media_type, document.to_string());
        raw_response::set_header(&mut response, header::CACHE_CONTROL, "public, max-age=3600");
        Ok(response)
    }

    async fn metrics(&self, storages: &Storages) -> Result<Response<ResponseBody>, Status> {
        for (number, status) in storages.stores().statuses().await.iter().enumerate() {
            if let Some(status) = status {
                self.metrics.set_storage_status(status, number);
            }
        }
        let text = self.metrics.render().map_err(Status::internal)?;
        Ok(raw_response::bytes(StatusCode::OK, METRICS_TYPE, text))
    }

    /// Returns the served paths, sorted.
    fn paths(&self, groups: &[GroupVersions]) -> Vec<String> {
        let mut paths =
            vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
        for group in groups.iter().filter(|group| !group.name.is_empty()) {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
        }
        if self.token_discovery.is_some() {
            paths.extend([CONFIGURATION_PATH, JWKS_PATH].map(str::to_owned));
        }
        if self.console.is_some() {
            paths.extend(["/console/", "/console/audit", CONSOLE_STREAM].map(str::to_owned));
        }
        paths.extend(self.health.paths());
        paths.extend(
            [
                "/debug/api_cache",
                "/flagz",
                "/metrics",
                "/metrics/slis",
                "/openapi/v2",
                "/openapi/v3",
                "/statusz",
                "/version",
            ]
            .map(str::to_owned),
        );
        paths.sort();
        paths
    }
}

/// Returns `kubernetes_build_info`, whose labels are those of `/version`.
pub(crate) fn build_info() -> Result<GaugeVec, prometheus::Error> {
    let version = serde_json::to_value(VersionInfo::of_server()).unwrap_or_default();
    let labels = [
        ("major", "major"),
        ("minor", "minor"),
        ("git_version", "gitVersion"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("build_date", "buildDate"),
        ("go_version", "goVersion"),
        ("compiler", "compiler"),
        ("platform", "platform"),
    ];
    let names = labels.map(|(name, _)| name);
    let values = labels.map(|(_, field)| version[field].as_str().unwrap_or_default());
    let info = GaugeVec::new(Opts::new("kubernetes_build_info", "The version of the API."), &names)?;
    info.with_label_values(&values).set(1.0);
    Ok(info)
}

/// Returns `version_info`, with the versions that `/version` has too.
pub(crate) fn version_info() -> Result<GaugeVec, prometheus::Error> {
    let (major, minor, patch) = KUBERNETES_VERSION;
    let (binary, emulation) = (format!("{major}.{minor}.{patch}"), format!("{major}.{minor}"));
    // Components one minor version older are compatible.
    let least = minor.parse::<u32>().unwrap_or_default().saturating_sub(1);
    let least = format!("{major}.{least}");
    let names = ["binary", "component", "emulation", "min_compat"];
    let info = GaugeVec::new(Opts::new("version_info", "The versions of the server."), &names)?;
    info.with_label_values(&[binary.as_str(), "kube", &emulation, &least]).set(1.0);
    Ok(info)
}

/// The media type of metrics.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns the response for an unknown path: as upstream, a `Status` below a served group, otherwise plain text.
fn nothing_at(registry: &Registry, parts: &[&str]) -> Result<EndpointResponse, Status> {
    let is_served = match parts {
        ["api", _, ..] => true,
        ["apis", group, _, ..] => {
            registry.group(group).is_some_and(|group| !group.name.is_empty() && !group.is_custom())
        }
        _ => false,
    };
    if is_served { Err(Status::no_such_path()) } else { Ok(raw_response::page_not_found().into()) }
}

/// Returns the resource list at `/api/<version>` or `/apis/<group>/<version>`; `None` if the version is not served.
fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<ObjectResponse> {
    let group = registry.group(group)?;
    let is_served = group.versions.iter().any(|served| served == version);
    is_served.then(|| ObjectResponse::ordered(200, discovery::api_resource_list(group, version)))
}

/// The document at `/version`, with the fields in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionInfo {
    major: &'static str,
    minor: &'static str,
    emulation_major: &'static str,
    emulation_minor: &'static str,
    min_compatibility_major: &'static str,
    min_compatibility_minor: &'static str,
    git_version: String,
    git_commit: &'static str,
    git_tree_state: &'static str,
    build_date: &'static str,
    go_version: &'static str,
    compiler: &'static str,
    platform: String,
}

impl VersionInfo {
    fn of_server() -> Self {
        let (major, minor, patch) = KUBERNETES_VERSION;
        Self {
            major,
            minor,
            emulation_major: major,
            emulation_minor: minor,
            min_compatibility_major: major,
            min_compatibility_minor: "35",
            git_version: format!("v{major}.{minor}.{patch}+nave.{}", env!("CARGO_PKG_VERSION")),
            git_commit: "",
            git_tree_state: "clean",
            build_date: "1970-01-01T00:00:00Z",
            go_version: "",
            compiler: "rustc",
            platform: format!("{}/{}", std::env::consts::OS, platform_arch()),
        }
    }
}

/// Returns Go's name of the architecture.
fn platform_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
