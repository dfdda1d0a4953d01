//! The impersonation stage: lets a request act as another user, with the headers `Impersonate-User`, `-Group`, `-Uid`
//! and `-Extra-…` (upstream: `endpoints/filters/impersonation`).
//!
//! The requester must be allowed to impersonate each attribute of the target user. Each attribute is authorized as an
//! object, in one of these modes, tried in order:
//!
//! | mode | verbs | resources in `authentication.k8s.io` |
//! | --- | --- | --- |
//! | `associated-node` | `impersonate:…`, and `impersonate-on:…:VERB` for the request itself | `nodes` `*`: the node of the pod that the token is bound to |
//! | `arbitrary-node` | the same | `nodes` by name |
//! | `serviceaccount` | the same | `serviceaccounts` in their namespace |
//! | `user-info` | the same | `users`, `uids`, `groups`, `userextras/KEY` |
//! | without a name | `impersonate`, for any request | `users` or `serviceaccounts`, and `groups`, both in the core group; `uids`, `userextras/KEY` |

pub(crate) mod metrics;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use nave_authn::{ANONYMOUS, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP, UserInfo, service_account};
use nave_authz::{Attributes, SYSTEM_MASTERS, forbidden};
use nave_machinery::{FieldPath, Status, names};
use percent_encoding::percent_decode_str;

use self::metrics::ImpersonationMetrics;
use crate::authorization::RequestAttributes;
use crate::context::RequestContext;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const ANY_PREFIX: &str = "impersonate-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";
const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
/// Keys of `extra` in service account tokens: the node of the token, and the claim that binds the token to the node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

/// Number of groups or of values of `extra` from which a constrained mode asks for all of them first.
const MANY: usize = 4;

/// The authorizers that decide who may impersonate whom.
pub struct Impersonation {
    /// The authorizers.
    pub(crate) authorization: nave_authz::Chain,
    /// The metrics of attempts.
    pub(crate) metrics: ImpersonationMetrics,
}

impl Impersonation {
    /// Replaces the user of a request with the user in its impersonation headers, if the requester may impersonate that
    /// user for this request. Removes the headers.
    ///
    /// # Errors
    /// 403 if an attribute may not be impersonated, 400 if the headers have attributes but no user name.
    pub(crate) async fn run(
        &self,
        context: &mut RequestContext,
        headers: &mut HeaderMap,
    ) -> Result<(), Status> {
        let Some(wanted) = wanted(headers)? else { return Ok(()) };
        let request = RequestAttributes::new(&context.info);
        let started = Instant::now();
        let applied = self.apply(&request.of_user(context.user()), wanted).await;
        let allowed = applied.as_ref().ok().map(|(_, constraint)| *constraint);
        self.metrics.attempted(allowed, started.elapsed());
        let (user, constraint) = applied?;
        remove(headers);
        tracing::debug!(user = context.user().name, impersonates = user.name, "impersonation");
        let user = Arc::new(user);
        if let Some(record) = &context.audit {
            record.impersonated(Arc::clone(&user), constraint);
        }
        context.impersonate(user);
        Ok(())
    }

    /// Returns the target user with all its groups, if the requester may impersonate that user, and the verb of the
    /// constrained mode that allowed it.
    async fn apply(
        &self,
        request: &Attributes<'_>,
        wanted: UserInfo,
    ) -> Result<(UserInfo, &'static str), Status> {
        let (mut user, constraint) = check(request, wanted, self).await?;
        complete_groups(&mut user);
        Ok((user, constraint))
    }

    /// Checks one part of an impersonation.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let started = Instant::now();
        let decision = self.authorization.authorize(attributes).await;
        self.metrics.authorized(attributes.verb, decision.is_ok(), started.elapsed());
        decision.map(drop)
    }
}

/// Parses the target user from the headers.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let mut user = UserInfo {
        name: first(headers, USER)?,
        uid: first(headers, UID)?,
        groups: headers.get_all(GROUP).iter().map(text).collect::<Result<_, _>>()?,
        extra: BTreeMap::new(),
    };
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            user.extra.entry(extra_key(key)).or_default().push(text(value)?);
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))))
}

/// Returns the target user if the requester may impersonate that user, and the verb of the mode that allowed it; empty
/// for the mode without a name. If all modes refuse, returns the error of the first applicable mode.
async fn check(
    request: &Attributes<'_>,
    mut wanted: UserInfo,
    authorization: &Impersonation,
) -> Result<(UserInfo, &'static str), Status> {
    let mut refused = None;
    for mode in Mode::all(request.user, &wanted) {
        match mode.check(request, &wanted, authorization).await {
            Ok(()) => {
                if mode != Mode::ServiceAccount && mode != Mode::UserInfo {
                    wanted.groups.push(NODES_GROUP.to_owned());
                }
                return Ok((wanted, mode.names().1));
            }
            Err(status) => refused = refused.or(Some(status)),
        }
    }
    let part = Attributes { verb: "impersonate", version: "v1", ..Attributes::for_user(request.user) };
    match authorize_parts(
        named(part, &wanted),
        Attributes { resource: "groups", ..part },
        &wanted,
        false,
        authorization,
    )
    .await
    {
        Ok(()) => Ok((wanted, "")),
        Err(status) => Err(refused.unwrap_or(status)),
    }
}

/// A mode of constrained impersonation: applies to one kind of user, for certain requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
}

impl Mode {
    /// Returns the applicable modes. Names of nodes and service accounts are never treated as ordinary users.
    fn all(who: &UserInfo, wanted: &UserInfo) -> Vec<Self> {
        let only_named = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        if let Some(node) = node_name(&wanted.name) {
            let own = service_account::split_user_name(&who.name).is_some()
                && who.extra.get(NODE_NAME).is_some_and(|named| *named == [node]);
            let modes = [(own, Self::AssociatedNode), (true, Self::ArbitraryNode)];
            return modes.into_iter().filter(|(fits, _)| only_named && *fits).map(|(_, mode)| mode).collect();
        }
        if service_account::split_user_name(&wanted.name).is_some() {
            return if only_named { vec![Self::ServiceAccount] } else { Vec::new() };
        }
        vec![Self::UserInfo]
    }

    /// Returns the name of the mode, and its verb for the target user.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::AssociatedNode => ("associated-node", "impersonate:associated-node"),
            Self::ArbitraryNode => ("arbitrary-node", "impersonate:arbitrary-node"),
            Self::ServiceAccount => ("serviceaccount", "impersonate:serviceaccount"),
            Self::UserInfo => ("user-info", "impersonate:user-info"),
        }
    }

    async fn check(
        self,
        request: &Attributes<'_>,
        wanted: &UserInfo,
        authorization: &Impersonation,
    ) -> Result<(), Status> {
        let (name, verb) = self.names();
        // Tells the authorizer that the workload runs on a node, but not on which node.
        let mut workload = request.user.clone();
        let keys = std::mem::take(&mut workload.extra).into_keys().collect();
        workload.extra = BTreeMap::from([(NODE_KEYS.to_owned(), keys)]);
        let who = if self == Self::AssociatedNode { &workload } else { request.user };
        let on = format!("impersonate-on:{name}:{}", request.verb);
        authorization.authorize(&Attributes { verb: &on, user: who, ..*request }).await?;
        let part =
            Attributes { verb, group: AUTHENTICATION_GROUP, version: "v1", ..Attributes::for_user(who) };
        let node = node_name(&wanted.name).unwrap_or_default();
        let first = match self {
            Self::AssociatedNode => Attributes { resource: "nodes", name: "*", ..part },
            Self::ArbitraryNode => Attributes { resource: "nodes", name: node, ..part },
            Self::ServiceAccount | Self::UserInfo => named(part, wanted),
        };
        authorize_parts(first, Attributes { resource: "groups", ..part }, wanted, true, authorization).await
    }
}

/// Returns the attributes that authorize the user name.
fn named<'a>(part: Attributes<'a>, wanted: &'a UserInfo) -> Attributes<'a> {
    match service_account::split_user_name(&wanted.name) {
        Some((namespace, name)) => Attributes { resource: "serviceaccounts", namespace, name, ..part },
        None => Attributes { resource: "users", name: &wanted.name, ..part },
    }
}

/// Returns the node in the user name of a kubelet; `None` for other users.
fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| names::is_dns1123_subdomain(name).is_empty())
}

/// Authorizes the user name, then each other attribute. `group` is the template for group attributes. Constrained modes
/// allow fewer attributes than the mode without a name, so that a right to impersonate some users is never a right to
/// everything.
async fn authorize_parts(
    user: Attributes<'_>,
    group: Attributes<'_>,
    wanted: &UserInfo,
    is_constrained: bool,
    authorization: &Impersonation,
) -> Result<(), Status> {
    authorization.authorize(&user).await?;
    let part = Attributes { group: AUTHENTICATION_GROUP, ..group };
    if !wanted.uid.is_empty() {
        authorization.authorize(&Attributes { resource: "uids", name: &wanted.uid, ..part }).await?;
    }
    if is_constrained {
        check_groups(&group, &wanted.groups)?;
    }
    let all_groups = Attributes { name: "*", ..group };
    let may_all =
        is_constrained && wanted.groups.len() >= MANY && authorization.authorize(&all_groups).await.is_ok();
    for name in wanted.groups.iter().filter(|_| !may_all) {
        authorization.authorize(&Attributes { name, ..group }).await?;
    }
    let extra = Attributes { resource: "userextras", ..part };
    if is_constrained {
        check_extra(&extra, &wanted.extra)?;
    }
    let values: usize = wanted.extra.values().map(Vec::len).sum();
    let all_extra = Attributes { subresource: "*", name: "*", ..extra };
    if is_constrained && values >= MANY && authorization.authorize(&all_extra).await.is_ok() {
        return Ok(());
    }
    for (key, values) in &wanted.extra {
        for value in values {
            authorization.authorize(&Attributes { subresource: key, name: value, ..extra }).await?;
        }
    }
    Ok(())
}

/// Refuses groups that no constrained mode may impersonate. Members of `system:masters` may do everything.
fn check_groups(part: &Attributes<'_>, groups: &[String]) -> Result<(), Status> {
    if groups.iter().any(String::is_empty) {
        return Err(forbidden(part, "impersonating the empty string group is not allowed"));
    }
    if groups.iter().any(|group| group == SYSTEM_MASTERS) {
        let part = Attributes { name: SYSTEM_MASTERS, ..*part };
        return Err(forbidden(&part, "impersonating the system:masters group is not allowed"));
    }
    Ok(())
}

/// Refuses keys and values of `extra` that no constrained mode may impersonate.
fn check_extra(part: &Attributes<'_>, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
    let path = FieldPath::new("extra").child("key");
    for (key, values) in extra {
        let invalid = names::validate_domain_prefixed_path(key, &path);
        let why = if key.is_empty() {
            "impersonating the empty string key in extra is not allowed".to_owned()
        } else if !invalid.is_empty() {
            let errors: Vec<String> = invalid.iter().map(ToString::to_string).collect();
            let errors =
                if let [one] = errors.as_slice() { one.clone() } else { format!("[{}]", errors.join(", ")) };
            format!("impersonating an invalid key in extra is not allowed: {errors}")
        } else if *key != key.to_lowercase() {
            format!("impersonating a non-lowercase key in extra is not allowed: {key:?}")
        } else if values.iter().any(String::is_empty) {
            "impersonating the empty string value in extra is not allowed".to_owned()
        } else {
            continue;
        };
        return Err(forbidden(part, &why));
    }
    Ok(())
}

/// Adds implied groups: the default groups of a service account if no groups were requested, and `system:authenticated`
/// or `system:unauthenticated`.
fn complete_groups(user: &mut UserInfo) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account::split_user_name(&user.name)
    {
        user.groups = service_account::groups(namespace);
    }
    let (implied, decided): (_, &[&str]) = if user.name == ANONYMOUS {
        (UNAUTHENTICATED_GROUP, &[UNAUTHENTICATED_GROUP])
    } else {
        (AUTHENTICATED_GROUP, &[AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP])
    };
    if !user.groups.iter().any(|group| decided.contains(&group.as_str())) {
        user.groups.push(implied.to_owned());
    }
}

fn remove(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(ANY_PREFIX)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn first(headers: &HeaderMap, name: &str) -> Result<String, Status> {
    headers.get(name).map_or(Ok(String::new()), text)
}

fn text(value: &HeaderValue) -> Result<String, Status> {
    let text = String::from_utf8(value.as_bytes().to_vec());
    text.map_err(|_| Status::bad_request("an Impersonate header is not UTF-8"))
}

/// Decodes a key of `extra`. Clients percent-encode characters that are invalid in header names. Keys with invalid
/// encodings are not decoded.
fn extra_key(name: &str) -> String {
    percent_decode_str(name).decode_utf8().map_or_else(|_| name.to_owned(), Cow::into_owned)
}

/// Formats a user in Go's syntax, as in upstream's error message.
fn go_syntax(user: &UserInfo) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let mut text = format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:", user.name, user.uid);
    text += &if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    text += ", Extra:map[string][]string";
    if user.extra.is_empty() {
        text += "(nil)";
    } else {
        let entries: Vec<_> =
            user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "{{{}}}", entries.join(", "));
    }
    text + "}"
}

#[cfg(test)]
mod tests;
