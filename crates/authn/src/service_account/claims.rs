//! The claims of service account tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use nave_machinery::time::Timestamp;
use nave_machinery::{Value, meta};
use serde::{Deserialize, Serialize};

use crate::AuthnError;
use crate::jwt::Claims;

/// The tolerated clock difference, in seconds.
pub(super) const LEEWAY: f64 = 60.0;

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The object's uid; empty if it did not exist when the token was issued.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Reference {
    /// Creates a reference to this object.
    pub fn to(object: &Value) -> Self {
        Self { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
    }
}

/// The object, besides the account, that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BoundObject {
    /// The token is not bound to an object.
    #[default]
    None,
    /// A pod, and the node on which it runs. The node is informational.
    Pod(Reference, Option<Reference>),
    /// A secret.
    Secret(Reference),
    /// A node.
    Node(Reference),
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Private {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    #[serde(default)]
    pub(super) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

impl Private {
    pub(super) const NAME: &str = "kubernetes.io";

    pub(super) fn from_claims(claims: &Claims) -> Option<Self> {
        serde_json::from_value(claims.get(Self::NAME)?.clone()).ok()
    }
}

/// Checks the times of a token.
pub(super) fn check_times(claims: &Claims, now: f64) -> Result<(), AuthnError> {
    let refused = |why: &str| Err(super::refused(why));
    // A token with a time that is not a number is invalid.
    for name in ["exp", "nbf", "iat"] {
        if claims.get(name).is_some() && claims.time(name).is_none() {
            return refused(
                "service account token claims could not be validated due to unexpected validation error",
            );
        }
    }
    if claims.time("nbf").is_some_and(|nbf| now + LEEWAY < nbf) {
        return refused("service account token is not valid yet");
    }
    if claims.time("exp").is_some_and(|exp| now - LEEWAY > exp) {
        return refused("service account token has expired");
    }
    if claims.time("iat").is_some_and(|iat| now + LEEWAY < iat) {
        return refused("service account token is issued in the future");
    }
    Ok(())
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Parses a time in object metadata to seconds since 1970.
pub(super) fn seconds(text: &str) -> Option<f64> {
    Timestamp::parse(text).map(|time| time.unix_seconds() as f64)
}
