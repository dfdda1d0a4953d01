//! Requests in another user's name: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…` (upstream:
//! `endpoints/filters/impersonation`).
//!
//! Who asks must be allowed to `impersonate` each part of the user asked for, as if it were an object:
//!
//! | part | resource | name |
//! | --- | --- | --- |
//! | user | `users` | the name |
//! | user that is a service account | `serviceaccounts`, in its namespace | the account's name |
//! | group | `groups` | the group |
//! | uid | `uids.authentication.k8s.io` | the uid |
//! | extra | `userextras.authentication.k8s.io`, with the key as subresource | each value |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use nave_authn::{
    ANONYMOUS, AUTHENTICATED_GROUP, Identity, UNAUTHENTICATED_GROUP, UserInfo, service_account,
};
use nave_authz::Attributes;
use nave_machinery::Status;
use percent_encoding::percent_decode_str;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const ANY_PREFIX: &str = "impersonate-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// The identity that a request is to be served for: the one asked for, if `identity` may take it, or its own. The
/// headers are removed.
///
/// # Errors
/// 403 for a part that may not be impersonated, 400 where parts come without a user.
pub async fn apply(
    identity: Identity,
    headers: &mut HeaderMap,
    authorization: &nave_authz::Chain,
) -> Result<Identity, Status> {
    let Some(mut wanted) = wanted(headers)? else { return Ok(identity) };
    check(&identity.user, &wanted, authorization).await?;
    remove(headers);
    complete_groups(&mut wanted);
    tracing::debug!(user = identity.user.name, impersonates = wanted.name, "a request in another's name");
    Ok(Identity { user: wanted.into(), audiences: identity.audiences })
}

/// The user that headers ask for.
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

async fn check(who: &UserInfo, wanted: &UserInfo, authorization: &nave_authz::Chain) -> Result<(), Status> {
    let part = Attributes { verb: "impersonate", version: "v1", ..Attributes::of(who) };
    let user = match service_account::split_user_name(&wanted.name) {
        Some((namespace, name)) => Attributes { resource: "serviceaccounts", namespace, name, ..part },
        None => Attributes { resource: "users", name: &wanted.name, ..part },
    };
    authorization.authorize(&user).await?;
    for group in &wanted.groups {
        authorization.authorize(&Attributes { resource: "groups", name: group, ..part }).await?;
    }
    let part = Attributes { group: AUTHENTICATION_GROUP, ..part };
    for (key, values) in &wanted.extra {
        for value in values {
            let extra = Attributes { resource: "userextras", subresource: key, name: value, ..part };
            authorization.authorize(&extra).await?;
        }
    }
    if !wanted.uid.is_empty() {
        authorization.authorize(&Attributes { resource: "uids", name: &wanted.uid, ..part }).await?;
    }
    Ok(())
}

/// Groups that a user is in without being said to be: a service account's own, where none were asked for, and the
/// one of all users, known or not.
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

/// Keys have characters that names of headers cannot have; clients write them percent-encoded. What is not validly
/// encoded stands for itself.
fn extra_key(name: &str) -> String {
    percent_decode_str(name).decode_utf8().map_or_else(|_| name.to_owned(), Cow::into_owned)
}

/// A user as upstream's message has it: in Go's syntax.
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
