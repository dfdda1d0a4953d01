//! `AuthenticationConfiguration`, the file of `--authentication-config`: the trusted JWT issuers, the mapping of
//! their claims to users, and the paths that allow anonymous requests.

mod flags;
mod validation;

use serde::Deserialize;

use crate::Anonymous;

pub use flags::OidcFlags;
pub use validation::ConfigError;

/// The supported versions of the file. The fields are the same in all of them.
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// The trusted JWT issuers.
    #[serde(default)]
    pub jwt: Vec<JwtConfig>,
    #[serde(default)]
    anonymous: Option<AnonymousConfig>,
}

/// The handling of requests without a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousConfig {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<AnonymousCondition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousCondition {
    path: String,
}

/// One issuer, and the meaning of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfig {
    /// The issuer.
    pub issuer: IssuerConfig,
    /// Rules for the token's claims.
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    /// The mapping of claims to a user.
    pub claim_mappings: ClaimMappings,
    /// Rules for the resulting user.
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

/// The issuer of tokens, and their audiences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerConfig {
    /// The claim `iss`, and the base of the discovery URL unless `discovery_url` is set.
    pub url: String,
    /// The URL of the provider's discovery document.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// The CA bundle for the provider's TLS certificate, in PEM. If it is empty, the system's CAs are trusted.
    #[serde(default)]
    pub certificate_authority: String,
    /// The accepted audiences.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Must be `MatchAny` if there are several audiences.
    #[serde(default)]
    pub audience_match_policy: String,
    /// Not supported.
    #[serde(default)]
    pub egress_selector_type: String,
}

/// A rule for claims: a required value of a claim, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClaimRule {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub required_value: String,
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

/// The mapping of claims to a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClaimMappings {
    #[serde(default)]
    pub username: PrefixedClaim,
    #[serde(default)]
    pub groups: PrefixedClaim,
    #[serde(default)]
    pub uid: ClaimOrExpression,
    #[serde(default)]
    pub extra: Vec<ExtraMapping>,
}

/// A claim with a prefix, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PrefixedClaim {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub prefix: Option<String>,
    #[serde(default)]
    pub expression: String,
}

/// A claim, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClaimOrExpression {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub expression: String,
}

/// An expression for one key of the user's `extra`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

/// A rule for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct UserRule {
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

impl AuthenticationConfiguration {
    /// Parses and validates a YAML or JSON file. `disallowed` are the server's own issuers, which the file may not use.
    ///
    /// # Errors
    /// The file has another kind or shape, or is invalid.
    pub fn parse(text: &str, disallowed: &[String]) -> Result<Self, ConfigError> {
        let found: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
        if !VERSIONS.contains(&found.api_version.as_str()) || found.kind != "AuthenticationConfiguration" {
            return Err(ConfigError::Kind { api_version: found.api_version, kind: found.kind });
        }
        let errors = validation::validate(&found, disallowed);
        if errors.is_empty() { Ok(found) } else { Err(ConfigError::Invalid(errors)) }
    }

    /// The rule for anonymous requests, if the file contains it.
    pub fn anonymous(&self) -> Option<Anonymous> {
        let AnonymousConfig { enabled, conditions } = self.anonymous.as_ref()?;
        Some(match (enabled, conditions.is_empty()) {
            (false, _) => Anonymous::Refused,
            (true, true) => Anonymous::Everywhere,
            (true, false) => {
                Anonymous::On(conditions.iter().map(|condition| condition.path.clone()).collect())
            }
        })
    }
}

#[cfg(test)]
mod tests;
