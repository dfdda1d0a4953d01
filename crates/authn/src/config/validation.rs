//! Validation of `AuthenticationConfiguration` (upstream: `apis/apiserver/validation`).

use nave_cel::{Expression, Type, Variable};
use nave_machinery::{FieldError, FieldPath};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    AnonymousConfig, AuthenticationConfiguration, ClaimMappings, ClaimRule, IssuerConfig, JwtConfig,
    PrefixedClaim, UserRule,
};
use crate::oidc::expression::{CLAIMS, claims, user};

/// The maximum number of issuers in a file.
const MAX_ISSUERS: usize = 64;

/// The reasons why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not YAML with the fields of this kind.
    #[error("{0}")]
    Unreadable(String),
    /// The file has another kind or version.
    #[error("{kind:?} of {api_version:?} is not an AuthenticationConfiguration of apiserver.config.k8s.io")]
    Kind {
        /// The `apiVersion` of the file.
        api_version: String,
        /// The `kind` of the file.
        kind: String,
    },
    /// Fields have invalid values.
    #[error("{}", .0.iter().map(message).collect::<Vec<_>>().join(", "))]
    Invalid(Vec<FieldError>),
}

fn message(error: &FieldError) -> String {
    format!("{}: {}", error.field, error.body())
}

pub(super) fn validate(config: &AuthenticationConfiguration, disallowed: &[String]) -> Vec<FieldError> {
    let root = FieldPath::new("jwt");
    let mut errors = Vec::new();
    if config.jwt.len() > MAX_ISSUERS {
        errors.push(FieldError::too_many(&root, config.jwt.len(), MAX_ISSUERS));
    }
    for (at, jwt) in config.jwt.iter().enumerate() {
        let (path, before) = (root.index(at), &config.jwt[..at]);
        validate_jwt(jwt, &path, &mut errors);
        let url = path.child("issuer").child("url");
        if before.iter().any(|other| other.issuer.url == jwt.issuer.url) {
            errors.push(FieldError::duplicate(&url, jwt.issuer.url.as_str()));
        }
        if disallowed.contains(&jwt.issuer.url) {
            let why = format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" "));
            errors.push(FieldError::invalid(&url, jwt.issuer.url.as_str(), why));
        }
        let discovery = jwt.issuer.discovery_url.as_deref().unwrap_or_default();
        let taken = |other: &JwtConfig| other.issuer.discovery_url.as_deref() == Some(discovery);
        if !discovery.is_empty() && before.iter().any(taken) {
            let path = path.child("issuer").child("discoveryURL");
            errors.push(FieldError::duplicate(&path, discovery));
        }
    }
    if let Some(anonymous) = &config.anonymous {
        validate_anonymous(anonymous, &FieldPath::new("anonymous"), &mut errors);
    }
    errors
}

fn validate_anonymous(anonymous: &AnonymousConfig, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !anonymous.enabled && !anonymous.conditions.is_empty() {
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid(path, "conditions", why));
    }
    for (at, condition) in anonymous.conditions.iter().enumerate() {
        if !condition.path.starts_with('/') {
            let path = path.child("conditions").index(at).child("path");
            errors.push(FieldError::invalid(&path, condition.path.as_str(), "must be an absolute path"));
        }
    }
}

fn validate_jwt(jwt: &JwtConfig, path: &FieldPath, errors: &mut Vec<FieldError>) {
    validate_issuer(&jwt.issuer, &path.child("issuer"), errors);
    let rules = path.child("claimValidationRules");
    for (at, rule) in jwt.claim_validation_rules.iter().enumerate() {
        validate_claim_rule(rule, &jwt.claim_validation_rules[..at], &rules.index(at), errors);
    }
    validate_mappings(&jwt.claim_mappings, &path.child("claimMappings"), errors);
    validate_email(jwt, path, errors);
    let rules = path.child("userValidationRules");
    for (at, rule) in jwt.user_validation_rules.iter().enumerate() {
        let path = rules.index(at).child("expression");
        let twice = |other: &UserRule| other.expression == rule.expression;
        if jwt.user_validation_rules[..at].iter().any(twice) {
            errors.push(FieldError::duplicate(&path, rule.expression.as_str()));
        }
        check_expression(&rule.expression, &user(), &Type::Bool, &path, errors);
    }
}

fn validate_issuer(issuer: &IssuerConfig, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check_url(&issuer.url, &path.child("url"), errors);
    if let Some(discovery) = issuer.discovery_url.as_deref().filter(|url| !url.is_empty()) {
        let path = path.child("discoveryURL");
        check_url(discovery, &path, errors);
        if discovery.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            let why = "discoveryURL must be different from URL";
            errors.push(FieldError::invalid(&path, discovery, why));
        }
    }
    let audiences = path.child("audiences");
    if issuer.audiences.is_empty() {
        errors.push(FieldError::required(&audiences, "at least one jwt[*].issuer.audiences is required"));
    }
    for (at, audience) in issuer.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(&audiences.index(at), "audience can't be empty"));
        } else if issuer.audiences[..at].contains(audience) {
            errors.push(FieldError::duplicate(&audiences.index(at), audience.as_str()));
        }
    }
    let policy = path.child("audienceMatchPolicy");
    match (issuer.audiences.len(), issuer.audience_match_policy.as_str()) {
        (0 | 1, "") | (_, "MatchAny") => {}
        (0 | 1, other) => {
            let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
            errors.push(FieldError::invalid(&policy, other, why));
        }
        (_, other) => {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            errors.push(FieldError::invalid(&policy, other, why));
        }
    }
    let pem = issuer.certificate_authority.as_bytes();
    let found = CertificateDer::pem_slice_iter(pem).next();
    if !pem.is_empty() && !matches!(found, Some(Ok(_))) {
        let why = "no certificate in PEM form";
        errors.push(FieldError::invalid(&path.child("certificateAuthority"), "<omitted>", why));
    }
    if !issuer.egress_selector_type.is_empty() {
        let why = "egress selectors are not supported";
        errors.push(FieldError::forbidden(&path.child("egressSelectorType"), why));
    }
}

fn check_url(url: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if url.is_empty() {
        errors.push(FieldError::required(path, "URL is required"));
        return;
    }
    let why = match url.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() != Some("https") => "URL scheme must be https",
        Ok(uri) if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) => {
            "URL must not contain a username or password"
        }
        Ok(uri) if uri.query().is_some() => "URL must not contain a query",
        Ok(_) if url.contains('#') => "URL must not contain a fragment",
        Ok(_) => return,
        Err(_) => "not a URL",
    };
    errors.push(FieldError::invalid(path, url, why));
}

fn validate_claim_rule(
    rule: &ClaimRule,
    before: &[ClaimRule],
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let ClaimRule { claim, required_value, expression, message } = rule;
    match (claim.is_empty(), expression.is_empty()) {
        (true, true) => errors.push(FieldError::required(path, "claim or expression is required")),
        (false, false) => {
            errors.push(FieldError::invalid(path, claim.as_str(), "claim and expression can't both be set"));
        }
        (false, true) => {
            if !message.is_empty() {
                let why = "message can't be set when claim is set";
                errors.push(FieldError::invalid(&path.child("message"), message.as_str(), why));
            }
            if before.iter().any(|other| other.claim == *claim) {
                errors.push(FieldError::duplicate(&path.child("claim"), claim.as_str()));
            }
        }
        (true, false) => {
            if !required_value.is_empty() {
                let why = "requiredValue can't be set when expression is set";
                errors.push(FieldError::invalid(&path.child("requiredValue"), required_value.as_str(), why));
            }
            let path = path.child("expression");
            if before.iter().any(|other| other.expression == *expression) {
                errors.push(FieldError::duplicate(&path, expression.as_str()));
            }
            check_expression(expression, &claims(), &Type::Bool, &path, errors);
        }
    }
}

fn validate_mappings(mappings: &ClaimMappings, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let username = &mappings.username;
    if username.claim.is_empty() && username.expression.is_empty() {
        let why = "claim or expression is required";
        errors.push(FieldError::required(&path.child("username"), why));
    }
    validate_prefixed(username, &path.child("username"), errors);
    validate_prefixed(&mappings.groups, &path.child("groups"), errors);
    let uid = path.child("uid");
    if !mappings.uid.claim.is_empty() && !mappings.uid.expression.is_empty() {
        errors.push(FieldError::invalid(&uid, "", "claim and expression can't both be set"));
    }
    if !mappings.uid.expression.is_empty() {
        check_claims(&mappings.uid.expression, &uid.child("expression"), errors);
    }
    for (at, extra) in mappings.extra.iter().enumerate() {
        let (path, key) = (path.child("extra").index(at), extra.key.as_str());
        let domain = key.split_once('/').filter(|(domain, path)| domain.contains('.') && !path.is_empty());
        if domain.is_none() || key != key.to_lowercase() {
            let why = "must be a domain-prefixed path in lower case (such as acme.io/foo)";
            errors.push(FieldError::invalid(&path.child("key"), key, why));
        }
        let reserved = |name: &str| {
            domain.is_some_and(|(domain, _)| domain == name || domain.ends_with(&format!(".{name}")))
        };
        if reserved("k8s.io") || reserved("kubernetes.io") {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(FieldError::invalid(&path.child("key"), key, why));
        }
        if mappings.extra[..at].iter().any(|other| other.key == extra.key) {
            errors.push(FieldError::duplicate(&path.child("key"), key));
        }
        check_claims(&extra.value_expression, &path.child("valueExpression"), errors);
    }
}

fn validate_prefixed(mapping: &PrefixedClaim, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let PrefixedClaim { claim, prefix, expression } = mapping;
    if !expression.is_empty() {
        if !claim.is_empty() {
            errors.push(FieldError::invalid(path, "", "claim and expression can't both be set"));
        }
        if prefix.is_some() {
            let why = "prefix can't be set when expression is set";
            errors.push(FieldError::invalid(
                &path.child("prefix"),
                prefix.as_deref().unwrap_or_default(),
                why,
            ));
        }
        check_claims(expression, &path.child("expression"), errors);
    } else if !claim.is_empty() && prefix.is_none() {
        let why =
            "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
        errors.push(FieldError::required(&path.child("prefix"), why));
    } else if claim.is_empty() && prefix.is_some() {
        let why = "non-nil prefix is only allowed when claim is set";
        errors.push(FieldError::invalid(path, prefix.as_deref().unwrap_or_default(), why));
    }
}

/// Checks that a configuration whose user name expression reads the claim `email` also reads `email_verified`.
fn validate_email(jwt: &JwtConfig, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let ClaimMappings { username, extra, .. } = &jwt.claim_mappings;
    let reads = |expression: &str, claim| {
        let compiled = Expression::compile(expression, &claims(), &Type::Dyn);
        compiled.is_ok_and(|compiled| compiled.reads(CLAIMS, claim))
    };
    if !reads(&username.expression, "email") {
        return;
    }
    let all = std::iter::once(&username.expression)
        .chain(extra.iter().map(|extra| &extra.value_expression))
        .chain(jwt.claim_validation_rules.iter().map(|rule| &rule.expression));
    if !all.into_iter().any(|expression| reads(expression, "email_verified")) {
        let path = path.child("claimMappings").child("username").child("expression");
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        errors.push(FieldError::invalid(&path, username.expression.as_str(), why));
    }
}

/// Checks an expression over claims. Claim values have dynamic types.
fn check_claims(text: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    check_expression(text, &claims(), &Type::Dyn, path, errors);
}

fn check_expression(
    text: &str,
    variable: &Variable,
    result: &Type,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if text.is_empty() {
        return errors.push(FieldError::required(path, "expression is required"));
    }
    if let Err(why) = Expression::compile(text, variable, result) {
        errors.push(FieldError::invalid(path, text, why.to_string()));
    }
}
