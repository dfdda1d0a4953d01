//! The parts of events that are known when a request is received.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Uri};
use nave_audit::{Level, ObjectReference, Origin};
use nave_authz::Attributes;
use nave_machinery::{RequestedResource, limits};

use super::AUDIT_ID;
use crate::context::{Client, RequestContext};

/// Returns the id that the client has given the request, up to a limit, or a new one.
pub(crate) fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let id = if let Some(id) = given {
        HeaderValue::try_from(id.get(..MAX_AUDIT_ID).unwrap_or(id))
    } else {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        HeaderValue::from_str(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text))
    };
    id.unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns the attributes that a policy matches.
pub(super) fn for_policy<'a>(request: &Attributes<'a>) -> nave_audit::Request<'a> {
    let resource = RequestedResource {
        group: request.group,
        version: request.version,
        resource: request.resource,
        subresource: request.subresource,
        namespace: request.namespace,
        name: request.name,
    };
    nave_audit::Request {
        user: request.user,
        verb: request.verb,
        path: request.path,
        resource: request.is_resource_request().then_some(resource),
    }
}

/// Returns the object in the path.
pub(super) fn object(request: &Attributes<'_>) -> Option<ObjectReference> {
    request.is_resource_request().then(|| ObjectReference {
        resource: request.resource.to_owned(),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        api_group: request.group.to_owned(),
        api_version: request.version.to_owned(),
        subresource: request.subresource.to_owned(),
        ..ObjectReference::default()
    })
}

/// Returns the parts that all events of the request share.
pub(super) fn origin(
    context: &RequestContext,
    uri: &Uri,
    headers: &HeaderMap,
    level: Level,
    verb: &str,
) -> Origin {
    Origin {
        level,
        audit_id: context.audit_id.to_str().unwrap_or_default().to_owned(),
        request_uri: uri.path_and_query().map_or_else(String::new, ToString::to_string),
        verb: verb.to_owned(),
        user: context.known_user(),
        source_ips: source_ips(&context.client, headers),
        user_agent: user_agent(context.user_agent()),
        received: SystemTime::now().checked_sub(context.received.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn user_agent(agent: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(agent).into_owned();
    if text.len() > MAX_USER_AGENT {
        text = limits::clip(text, MAX_USER_AGENT);
        text.push_str("...TRUNCATED");
    }
    text
}

/// Returns the addresses of the client and of the proxies before it (upstream: `utilnet.SourceIPs`). Only the last one
/// is certain: the others come from headers.
fn source_ips(client: &Client, headers: &HeaderMap) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let forwarded = text("x-forwarded-for").split(',').take(MAX_PROXIES);
    let mut addresses: Vec<IpAddr> = forwarded.filter_map(|address| address.trim().parse().ok()).collect();
    if let Ok(address) = text("x-real-ip").parse()
        && !addresses.contains(&address)
    {
        addresses.push(address);
    }
    let peer = match client {
        Client::Remote(connection) => connection.as_ref().map(|connection| connection.peer.ip()),
        Client::Process(_) => Some(Ipv4Addr::LOCALHOST.into()),
    };
    if let Some(peer) = peer.map(|peer| peer.to_canonical()).filter(|peer| addresses.last() != Some(peer)) {
        addresses.push(peer);
    }
    addresses
}

/// Maximum length of an id from a client, in bytes.
const MAX_AUDIT_ID: usize = 1024;
/// Length at which user agents are truncated, in bytes, as upstream.
const MAX_USER_AGENT: usize = 1024;
/// Maximum number of addresses read from a header.
const MAX_PROXIES: usize = 64;
