use super::*;

const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example
    discoveryURL: https://issuer.example/discovery
    audiences: [one, two]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.nbf <= 86400', message: too long}
  claimMappings:
    username: {expression: 'claims.email_verified ? claims.email : claims.sub'}
    groups: {claim: groups, prefix: 'x:'}
    uid: {claim: sub}
    extra:
    - {key: example.com/tenant, valueExpression: claims.tenant}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
anonymous:
  enabled: true
  conditions:
  - {path: /livez}
"#;

fn parse(text: &str) -> Result<AuthenticationConfiguration, String> {
    let disallowed = ["https://kubernetes.default.svc".to_owned()];
    AuthenticationConfiguration::parse(text, &disallowed).map_err(|error| error.to_string())
}

#[test]
fn parses_a_full_file() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.anonymous(), Some(Anonymous::On(vec!["/livez".into()])));
    assert_eq!(config.jwt[0].claim_mappings.groups.prefix.as_deref(), Some("x:"));
    for version in ["v1beta1", "v1alpha1"] {
        assert!(parse(&GOOD.replace("k8s.io/v1", &format!("k8s.io/{version}"))).is_ok());
    }
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    for (anonymous, rule) in [
        ("", None),
        ("anonymous: {enabled: false}", Some(Anonymous::Refused)),
        ("anonymous: {enabled: true}", Some(Anonymous::Everywhere)),
    ] {
        assert_eq!(parse(&format!("{head}{anonymous}")).unwrap().anonymous(), rule);
    }
}

#[test]
fn reports_each_invalid_field() {
    for (good, bad, why) in [
        ("k8s.io/v1", "k8s.io/v2", "not an AuthenticationConfiguration"),
        ("kind: Auth", "kind: Other", "not an AuthenticationConfiguration"),
        ("uid: {claim: sub}", "uid: {claims: sub}", "claims"),
        (
            "https://issuer.example\n",
            "http://issuer.example\n",
            "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https",
        ),
        (
            "https://issuer.example\n",
            "https://a:b@issuer.example\n",
            "must not contain a username or password",
        ),
        ("https://issuer.example\n", "https://issuer.example?a\n", "must not contain a query"),
        (
            "https://issuer.example\n",
            "https://kubernetes.default.svc\n",
            "must not overlap with disallowed issuers",
        ),
        ("issuer.example/discovery", "issuer.example/", "discoveryURL must be different from URL"),
        ("[one, two]", "[]", "jwt[0].issuer.audiences: Required value"),
        ("[one, two]", "[one, one]", "jwt[0].issuer.audiences[1]: Duplicate value"),
        ("MatchAny", "MatchAll", "must be MatchAny for multiple audiences"),
        ("    audiences", "    certificateAuthority: x\n    audiences", "no certificate in PEM form"),
        ("{claim: hd, requiredValue: example.com}", "{}", "jwt[0].claimValidationRules[0]: Required value"),
        ("{claim: hd,", "{claim: hd, message: x,", "message can't be set when claim is set"),
        ("claims.exp - claims.nbf", "claims.exp -", "compilation failed"),
        (
            "claims.exp - claims.nbf <= 86400",
            "claims.verified",
            "jwt[0].claimValidationRules[1].expression: Invalid value: \"claims.verified\": must evaluate to bool but got dyn",
        ),
        ("claims.tenant", "claims.tenant.foo()", "undeclared reference to 'foo'"),
        (
            "!user.username.startsWith('system:')",
            "!user.name.startsWith('system:')",
            "undefined field 'name'",
        ),
        ("!user.username.startsWith('system:')", "user.username", "must evaluate to bool but got string"),
        ("claims.tenant", "user.username", "undeclared reference to 'user'"),
        ("!user.username", "!claims.username", "undeclared reference to 'claims'"),
        (
            "claims.email_verified ? claims.email : claims.sub",
            "claims.email",
            "claims.email_verified must be used",
        ),
        ("{claim: groups, prefix: 'x:'}", "{claim: groups}", "prefix is required when claim is set"),
        (
            "{claim: groups, prefix: 'x:'}",
            "{prefix: 'x:'}",
            "non-nil prefix is only allowed when claim is set",
        ),
        ("{claim: sub}", "{claim: sub, expression: claims.sub}", "claim and expression can't both be set"),
        ("example.com/tenant", "tenant", "must be a domain-prefixed path"),
        ("example.com/tenant", "apps.k8s.io/tenant", "reserved for Kubernetes use"),
        ("enabled: true", "enabled: false", "enabled should be set to true when conditions are defined"),
        ("path: /livez", "path: livez", "anonymous.conditions[0].path: Invalid value: \"livez\""),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let error = parse(&GOOD.replace(good, bad)).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
    let (head, issuer) = GOOD.split_once("jwt:\n").unwrap();
    let (issuer, tail) = issuer.split_once("anonymous:").unwrap();
    let error = parse(&format!("{head}jwt:\n{issuer}{issuer}anonymous:{tail}")).unwrap_err();
    assert!(error.contains("jwt[1].issuer.url: Duplicate value"), "{error}");
}

#[test]
fn converts_flags_to_a_configuration() {
    let flags = OidcFlags {
        issuer_url: "https://issuer.example".into(),
        client_id: "me".into(),
        username_claim: "sub".into(),
        ..OidcFlags::default()
    };
    let prefix =
        |flags: OidcFlags| flags.into_config(&[]).unwrap().jwt[0].claim_mappings.username.prefix.clone();
    assert_eq!(prefix(flags.clone()).as_deref(), Some("https://issuer.example#"));
    assert_eq!(prefix(OidcFlags { username_claim: "email".into(), ..flags.clone() }).as_deref(), Some(""));
    assert_eq!(prefix(OidcFlags { username_prefix: Some("-".into()), ..flags.clone() }).as_deref(), Some(""));
    assert_eq!(
        prefix(OidcFlags { username_prefix: Some("o:".into()), ..flags.clone() }).as_deref(),
        Some("o:")
    );
    let wrong = OidcFlags { issuer_url: "http://issuer.example".into(), ..flags };
    assert!(wrong.into_config(&[]).unwrap_err().to_string().contains("URL scheme must be https"));
}
