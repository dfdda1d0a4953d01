//! `AuthenticationConfiguration`, the file of `--authentication-config`: which issuers of JSON web tokens are believed,
//! what their claims mean, and where nobody in particular is let in.

mod flags;
mod validation;

use serde::Deserialize;

use crate::Anonymous;

pub use flags::OidcFlags;
pub use validation::ConfigError;

/// The versions of the file that are read; they do not differ in what is read of them.
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// The issuers of tokens.
    #[serde(default)]
    pub jwt: Vec<JwtConfig>,
    #[serde(default)]
    anonymous: Option<AnonymousConfig>,
}

/// Whether requests without a credential are taken.
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

/// One issuer of tokens, and what its tokens mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfig {
    /// The issuer.
    pub issuer: IssuerConfig,
    /// What must hold of a token's claims.
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    /// How claims become a user.
    pub claim_mappings: ClaimMappings,
    /// What must hold of the user.
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

/// Who signs tokens, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerConfig {
    /// The claim `iss`; where the provider's configuration is found, if nothing else is said.
    pub url: String,
    /// Where the provider's configuration is found.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// Who may have signed the provider's certificate (PEM); without it those the system trusts.
    #[serde(default)]
    pub certificate_authority: String,
    /// Whom tokens must be for.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// `MatchAny` where there are several audiences.
    #[serde(default)]
    pub audience_match_policy: String,
    /// Not supported.
    #[serde(default)]
    pub egress_selector_type: String,
}

/// What must hold of claims: that one has a value, or an expression.
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

/// How claims become a user.
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

/// A claim with something put before it, or an expression.
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

/// What an expression adds to a user's `extra`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

/// What must hold of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct UserRule {
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

impl AuthenticationConfiguration {
    /// Reads a file's text, YAML or JSON. `disallowed` are issuers that the server itself has.
    ///
    /// # Errors
    /// It is not of this kind, or does not make sense.
    pub fn parse(text: &str, disallowed: &[String]) -> Result<Self, ConfigError> {
        let found: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
        if !VERSIONS.contains(&found.api_version.as_str()) || found.kind != "AuthenticationConfiguration" {
            return Err(ConfigError::Kind { api_version: found.api_version, kind: found.kind });
        }
        let errors = validation::validate(&found, disallowed);
        if errors.is_empty() { Ok(found) } else { Err(ConfigError::Invalid(errors)) }
    }

    /// What it says about requests without a credential, if it says something.
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
