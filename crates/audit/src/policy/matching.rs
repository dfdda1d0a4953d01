//! Matches requests against rules.

use nave_machinery::RequestedResource;
use nave_machinery::user::UserInfo;

use super::{GroupResources, RuleFile};

/// The attributes of a request that rules match. The user is the authenticated one, even if the request impersonates
/// another user.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The authenticated user.
    pub user: &'a UserInfo,
    /// The verb: of the API for a resource, the HTTP method in lower case for another path.
    pub verb: &'a str,
    /// The path.
    pub path: &'a str,
    /// The resource; `None` for another path.
    pub resource: Option<RequestedResource<'a>>,
}

impl RuleFile {
    pub(super) fn matches(&self, request: &Request<'_>) -> bool {
        let user = request.user;
        if !(is_listed(&self.users, &user.name) && is_listed(&self.verbs, request.verb)) {
            return false;
        }
        if !self.user_groups.is_empty() && !user.groups.iter().any(|group| self.user_groups.contains(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.resource.is_some_and(|resource| self.matches_resource(&resource));
        }
        if !self.non_resource_urls.is_empty() {
            let urls = &self.non_resource_urls;
            return request.resource.is_none() && urls.iter().any(|url| url_matches(url, request.path));
        }
        true
    }

    fn matches_resource(&self, resource: &RequestedResource<'_>) -> bool {
        is_listed(&self.namespaces, resource.namespace)
            && (self.resources.is_empty() || self.resources.iter().any(|listed| listed.matches(resource)))
    }
}

impl GroupResources {
    fn matches(&self, wanted: &RequestedResource<'_>) -> bool {
        if self.group != wanted.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        is_listed(&self.resource_names, wanted.name)
            && self.resources.iter().any(|listed| resource_matches(listed, wanted))
    }
}

/// Matches a resource against `*`, `pods`, `pods/log`, `*/scale` or `pods/*`. As upstream, the last one matches `pods`
/// too.
fn resource_matches(listed: &str, wanted: &RequestedResource<'_>) -> bool {
    if listed == "*" {
        return true;
    }
    let Some((resource, subresource)) = listed.split_once('/') else {
        return wanted.subresource.is_empty() && listed == wanted.resource;
    };
    match (resource, subresource) {
        ("*", subresource) if !wanted.subresource.is_empty() && subresource == wanted.subresource => true,
        (resource, "*") => resource == wanted.resource,
        (resource, subresource) => {
            !wanted.subresource.is_empty() && resource == wanted.resource && subresource == wanted.subresource
        }
    }
}

fn url_matches(listed: &str, path: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => listed == path,
    }
}

/// Returns whether a list contains a name. An empty list contains all.
fn is_listed(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|listed| listed == name)
}
