//! The `--oidc-…` flags, the legacy way to configure one issuer.

use std::collections::BTreeMap;

use super::{
    AuthenticationConfiguration, ClaimMappings, ClaimRule, ConfigError, IssuerConfig, JwtConfig,
    PrefixedClaim, validation,
};

/// The values of the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcFlags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// `--oidc-username-claim`
    pub username_claim: String,
    /// `--oidc-username-prefix`
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// The content of `--oidc-ca-file`; empty without this flag.
    pub ca: String,
    /// `--oidc-required-claim`
    pub required_claims: BTreeMap<String, String>,
}

impl OidcFlags {
    /// Converts the flags to a configuration. By default, user names have the issuer URL as a prefix, unless the claim
    /// is `email`. The prefix `-` means no prefix.
    ///
    /// # Errors
    /// The flags are invalid.
    pub fn into_config(self, disallowed: &[String]) -> Result<AuthenticationConfiguration, ConfigError> {
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _ if self.username_claim == "email" => String::new(),
            _ => format!("{}#", self.issuer_url),
        };
        let groups = self.groups_claim.map(|claim| PrefixedClaim {
            claim,
            prefix: Some(self.groups_prefix),
            expression: String::new(),
        });
        let required = self.required_claims.into_iter().map(|(claim, required_value)| ClaimRule {
            claim,
            required_value,
            ..ClaimRule::default()
        });
        let config = AuthenticationConfiguration {
            jwt: vec![JwtConfig {
                issuer: IssuerConfig {
                    url: self.issuer_url,
                    certificate_authority: self.ca,
                    audiences: vec![self.client_id],
                    ..IssuerConfig::default()
                },
                claim_validation_rules: required.collect(),
                claim_mappings: ClaimMappings {
                    username: PrefixedClaim {
                        claim: self.username_claim,
                        prefix: Some(prefix),
                        expression: String::new(),
                    },
                    groups: groups.unwrap_or_default(),
                    ..ClaimMappings::default()
                },
                user_validation_rules: Vec::new(),
            }],
            ..AuthenticationConfiguration::default()
        };
        let errors = validation::validate(&config, disallowed);
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(errors)) }
    }
}
