use serde_json::json;

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn enabled(config: &PluginConfig, name: &str) -> bool {
    config.is_enabled(PLUGINS.iter().find(|entry| entry.name == name).unwrap())
}

#[test]
fn flags_override_default_plugins() {
    let config = PluginConfig::new(&names(&["NodeRestriction"]), &names(&["PodSecurity"])).unwrap();
    for (name, expected) in
        [("NodeRestriction", true), ("PodSecurity", false), ("Priority", true), ("AlwaysDeny", false)]
    {
        assert_eq!(enabled(&config, name), expected, "{name}");
    }
    let unknown = PluginConfig::new(&[], &names(&["Nope"])).unwrap_err().to_string();
    assert!(unknown.starts_with(r#""Nope" is not an admission plugin"#), "{unknown}");
    assert!(unknown.contains("AlwaysAdmit, AlwaysDeny, AlwaysPullImages"), "{unknown}");
    assert!(PluginConfig::new(&names(&["Priority"]), &names(&["Priority"])).is_err());
}

#[test]
fn plugin_names_are_unique() {
    let names: std::collections::BTreeSet<_> = PLUGINS.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), PLUGINS.len());
}

#[test]
fn reads_configurations_inline_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("limits.yaml", "limits: 3");
    write(
        "admission.yaml",
        "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  path: limits.yaml
- name: PodSecurity
  configuration: {defaults: {enforce: baseline}}
- name: PodSecurity
  configuration: {}
- name: ResourceQuota
",
    );
    let config = PluginConfig::default().with_file(&folder.path().join("admission.yaml")).unwrap();
    let read = |name| config.read::<Value>(name).unwrap().map(|(content, _)| content);
    assert_eq!(read("EventRateLimit"), Some(json!({"limits": 3})));
    assert_eq!(read("PodSecurity"), Some(json!({"defaults": {"enforce": "baseline"}})));
    assert_eq!(read("ResourceQuota"), None);
    write("legacy.yaml", "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b}");
    let config = PluginConfig::default().with_file(&folder.path().join("legacy.yaml")).unwrap();
    assert!(config.read::<Value>("PodNodeSelector").unwrap().is_some());
}

#[test]
fn rejects_other_kinds_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        PluginConfig::default().with_file(&path).is_err()
    };
    assert!(PluginConfig::default().with_file(&path).is_err(), "no file");
    assert!(refused("kind: Other\napiVersion: v1"));
    assert!(refused("{}"));
    assert!(refused("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: 3"));
    assert!(refused(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: A, path: none}]"
    ));
}

#[test]
fn static_configurations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admission.yaml");
    let given = |static_folder: &str| {
        let text = format!(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionPolicy
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ValidatingAdmissionPolicyConfiguration
    staticManifestsDir: {static_folder:?}
"
        );
        std::fs::write(&path, text).unwrap();
        PluginConfig::default().with_file(&path).map(drop)
    };
    let error = given("/etc/policies").unwrap_err().to_string();
    assert!(error.contains("plugin ValidatingAdmissionPolicy: staticManifestsDir requires"), "{error}");
    given("").unwrap();
}
