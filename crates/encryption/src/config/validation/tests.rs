use super::super::{ConfigError, EncryptionConfiguration};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn parse(rules: &str, reload: bool) -> Result<EncryptionConfiguration, ConfigError> {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    EncryptionConfiguration::parse(format!("{head}{rules}").as_bytes(), reload)
}

/// The errors of a real server of 1.36 for this file, except for the values of two entries without one provider.
#[test]
fn reports_all_errors_of_a_file() {
    let file = format!(
        r#"
resources:
- resources: []
  providers: []
- resources: [Secrets, '*', apiserveripinfo, events.events.k8s.io, deployments.extensions, secrets.*, secrets, secrets, '*.']
  providers:
  - {{}}
  - aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}
    aescbc: {{keys: [{{name: a, secret: {KEY}}}]}}
  - aesgcm: {{keys: []}}
  - aescbc: {{keys: [{{name: "", secret: ""}}, {{name: b, secret: "%%"}}, {{name: c, secret: YWJj}}]}}
  - secretbox: {{keys: [{{name: c, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}}]}}
  - kms: {{apiVersion: v2, name: "a:b", endpoint: "", timeout: 0s, cachesize: 3}}
  - kms: {{apiVersion: v3, name: "", endpoint: "tcp:///x"}}
  - kms: {{apiVersion: v2, name: "a:b", endpoint: "::"}}
  - identity: {{}}
"#
    );
    let ConfigError::Invalid(errors) = parse(&file, false).unwrap_err() else { panic!("field errors") };
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let all = r#"["Secrets","*","apiserveripinfo","events.events.k8s.io","deployments.extensions","secrets.*","secrets","secrets","*."]"#;
    let wanted = [
        "resources[0].resources: Required value: at least one resources[0].resources is required".to_owned(),
        "resources[0].providers: Required value: at least one resources[0].providers is required".to_owned(),
        format!("resources[1].resources: Invalid value: {all}: the same resource cannot be specified multiple times"),
        format!("resources[1].resources: Invalid value: {all}: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"),
        "resources[1].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters".to_owned(),
        "resources[1].resources[1]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources".to_owned(),
        "resources[1].resources[2]: Invalid value: \"apiserveripinfo\": resources which do not have REST API/s cannot be encrypted".to_owned(),
        "resources[1].resources[3]: Invalid value: \"events.events.k8s.io\": '*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file".to_owned(),
        "resources[1].resources[4]: Invalid value: \"deployments.extensions\": 'extensions' group has been removed and cannot be used for encryption".to_owned(),
        "resources[1].resources[5]: Invalid value: \"secrets.*\": encrypting the same resource across groups is not supported".to_owned(),
        "resources[1].providers[0]: Invalid value: {}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity".to_owned(),
        "resources[1].providers[1]: Invalid value: [\"AESGCM\",\"AESCBC\"]: more than one provider specified in a single element, should split into different list elements".to_owned(),
        "resources[1].providers[2].aesgcm.keys: Required value: at least one keys is required".to_owned(),
        "resources[1].providers[3].aescbc.keys[0].name: Required value: name is a mandatory field for a key".to_owned(),
        "resources[1].providers[3].aescbc.keys[0].secret: Required value: secret is a mandatory field for a key".to_owned(),
        "resources[1].providers[3].aescbc.keys[1].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded".to_owned(),
        "resources[1].providers[3].aescbc.keys[2].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 3, expected one of [16 24 32]".to_owned(),
        "resources[1].providers[4].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 24, expected one of [32]".to_owned(),
        "resources[1].providers[5].kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'".to_owned(),
        "resources[1].providers[5].kms.timeout: Invalid value: \"0s\": timeout should be a positive value".to_owned(),
        "resources[1].providers[5].kms.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms".to_owned(),
        "resources[1].providers[5].kms.cachesize: Invalid value: 3: cachesize is not supported in v2".to_owned(),
        "resources[1].providers[6].kms.name: Required value: name is a mandatory field for a provider".to_owned(),
        "resources[1].providers[6].kms.endpoint: Invalid value: \"tcp:///x\": unsupported scheme \"tcp\" for KMS provider, only unix is supported".to_owned(),
        "resources[1].providers[6].kms.apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported".to_owned(),
        "resources[1].providers[7].kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'".to_owned(),
        "resources[1].providers[7].kms.name: Invalid value: \"a:b\": duplicate KMS provider name a:b, names must be unique".to_owned(),
        "resources[1].providers[7].kms.endpoint: Invalid value: \"::\": invalid endpoint for kms provider, error: parse \"::\": missing protocol scheme".to_owned(),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn rejects_files_of_another_shape() {
    for (file, error) in [
        ("", "the file is empty"),
        ("apiVersion: v1\nkind: Secret\n", "\"Secret\" of \"v1\" is not an EncryptionConfiguration"),
        (
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nfoo: 1\n",
            "unknown field `foo`",
        ),
        (
            "apiVersion: apiserver.config.k8s.io/v2\nkind: EncryptionConfiguration\n",
            "is not an EncryptionConfiguration of apiserver.config.k8s.io/v1",
        ),
        (
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n",
            "resources: Required value: at least one resources is required",
        ),
        ("kind: EncryptionConfiguration\nkind: EncryptionConfiguration\n", "kind"),
        ("[[]]", "wrong type"),
        ("{", "line"),
    ] {
        let found = EncryptionConfiguration::parse(file.as_bytes(), false).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
}

#[test]
fn errors_and_debug_output_have_no_keys() {
    let rules = |value: &str| {
        format!(
            "resources:\n- resources: [secrets]\n  providers:\n  - aescbc: {{keys: [{{name: a, secret: {value}}}]}}\n"
        )
    };
    for value in ["[c3VwZXI]", "{a: c3VwZXI}", "123454321", "c3VwZXI"] {
        let error = parse(&rules(value), false).unwrap_err().to_string();
        assert!(!error.contains("c3VwZXI") && !error.contains("123454321"), "{error}");
    }
    let shown = format!("{:?}", parse(&rules(KEY), false).unwrap());
    assert!(shown.contains("\"a\"") && !shown.contains(KEY), "{shown}");
}

#[test]
fn reload_needs_unique_names_of_plugins() {
    let plugin = "- kms: {apiVersion: v1, name: a, endpoint: 'unix:///a'}";
    let rules = format!("resources:\n- resources: [secrets]\n  providers:\n  {plugin}\n  {plugin}\n");
    assert!(parse(&rules, false).is_ok());
    assert!(parse(&rules, true).unwrap_err().to_string().contains("duplicate KMS provider name a"));
}
