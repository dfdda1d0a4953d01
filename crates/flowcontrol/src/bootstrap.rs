//! The mandatory and suggested objects, and how they are kept (upstream: `apis/flowcontrol/bootstrap`,
//! `registry/flowcontrol/ensurer`).
//!
//! The annotation `apf.kubernetes.io/autoupdate-spec` says whether the server keeps the specification of an object. It is
//! always `true` for mandatory objects. A suggested object without the annotation is the server's until its
//! specification was changed once.

use nave_machinery::Value;
use serde_json::{Map, json};

use crate::allocation::Shares;
use crate::objects::{
    CATCH_ALL, DistinguisherMethod, EXEMPT, FlowSchemaSpec, LevelConfig, LevelReference, NamedSubject,
    NonResourceRule, PolicyRules, ResourceRule, Subject,
};
use crate::queues::Queuing;

/// The annotation of objects that the server keeps.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// An object that the server keeps.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The name.
    pub name: &'static str,
    /// True if the object always has this specification.
    pub mandatory: bool,
    /// The specification.
    pub spec: Value,
}

/// Returns the priority levels, in the order of their creation.
pub fn levels() -> Vec<Bootstrap> {
    let queued = |name, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "limitResponse": {"type": "Queue", "queuing": queuing},
            "lendablePercent": lendable,
        });
        Bootstrap { name, mandatory: false, spec: json!({"type": "Limited", "limited": limited}) }
    };
    let mandatory = |name, spec| Bootstrap { name, mandatory: true, spec };
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let catch_all =
        json!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0});
    vec![
        queued("system", 30, 33, 64, 6),
        queued("node-high", 40, 25, 64, 6),
        queued("leader-election", 10, 0, 16, 4),
        queued("workload-high", 40, 50, 128, 6),
        queued("workload-low", 100, 90, 128, 6),
        queued("global-default", 20, 50, 128, 6),
        mandatory(EXEMPT, json!({"type": "Exempt", "exempt": exempt})),
        mandatory(CATCH_ALL, json!({"type": "Limited", "limited": catch_all})),
    ]
}

/// Returns the flow schemas, in the order of their creation.
pub fn schemas() -> Vec<Bootstrap> {
    let user = |name| json!({"kind": "User", "user": {"name": name}});
    let group = |name| json!({"kind": "Group", "group": {"name": name}});
    let accounts =
        json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}});
    let everyone = || json!([group(UNAUTHENTICATED), group(AUTHENTICATED)]);
    let everything = |subjects: Value| {
        json!([{
            "subjects": subjects,
            "resourceRules": [resources(&["*"], &["*"], &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let schema = |name, level: &str, precedence: u32, method: Option<&str>, rules: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
        });
        if let Some(method) = method {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        Bootstrap { name, mandatory: matches!(name, EXEMPT | CATCH_ALL), spec }
    };
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let node_resources = [
        resources(&["*"], &[""], &["nodes", "nodes/status"], true),
        resources(&["*"], &["coordination.k8s.io"], &["leases"], false),
    ];
    let election = json!([{
        "subjects": [manager, scheduler, accounts],
        "resourceRules": [resources(&["get", "create", "update"], &["coordination.k8s.io"], &["leases"], false)],
    }]);
    let probes = json!([{
        "subjects": everyone(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    let node_high = json!([{"subjects": [group("system:nodes")], "resourceRules": node_resources}]);
    let nodes = everything(json!([group("system:nodes")]));
    vec![
        schema("system-nodes", "system", 500, by_user, nodes),
        schema("system-node-high", "node-high", 400, by_user, node_high),
        schema("probes", EXEMPT, 2, None, probes),
        schema("system-leader-election", "leader-election", 100, by_user, election),
        schema("kube-controller-manager", "workload-high", 800, by_namespace, everything(json!([manager]))),
        schema("kube-scheduler", "workload-high", 800, by_namespace, everything(json!([scheduler]))),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            everything(json!([accounts])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9_000,
            by_user,
            everything(json!([group("system:serviceaccounts")])),
        ),
        schema("global-default", "global-default", 9_900, by_user, everything(everyone())),
        schema(EXEMPT, EXEMPT, 1, None, everything(json!([group("system:masters")]))),
        schema(CATCH_ALL, CATCH_ALL, 10_000, by_user, everything(everyone())),
    ]
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

impl Bootstrap {
    /// Returns the object to create.
    pub fn object(&self, kind: &str) -> Value {
        let annotations = json!({AUTO_UPDATE: "true"});
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": self.name, "annotations": annotations},
            "spec": self.spec,
        })
    }

    /// Returns the stored object with the changes that the server makes; `None` without changes.
    pub fn revised(&self, stored: &Value) -> Option<Value> {
        let keeps = self.mandatory || auto_updates(stored).unwrap_or_else(|| generation(stored) == 1);
        let is_annotated = auto_updates(stored) == Some(keeps);
        let is_current = !keeps || self.has_spec(stored.get("spec"));
        if is_annotated && is_current {
            return None;
        }
        let mut revised = stored.clone();
        if !is_current {
            revised["spec"] = self.spec.clone();
        }
        if !is_annotated {
            let metadata = revised.get_mut("metadata").and_then(Value::as_object_mut)?;
            let annotations = metadata.entry("annotations").or_insert_with(|| Map::new().into());
            annotations.as_object_mut()?.insert(AUTO_UPDATE.to_owned(), keeps.to_string().into());
        }
        Some(revised)
    }

    /// Returns whether a specification is that of the object. Administrators may change the shares of the exempt level.
    fn has_spec(&self, spec: Option<&Value>) -> bool {
        let Some(spec) = spec else { return false };
        if self.name == EXEMPT && self.spec.get("exempt").is_some() {
            return spec.get("type") == self.spec.get("type") && spec.get("exempt").is_some();
        }
        *spec == self.spec
    }
}

/// Returns whether a stored object that is not among the server's is one that an earlier version kept, so that it is to
/// be deleted.
pub fn is_unwanted(stored: &Value) -> bool {
    auto_updates(stored) == Some(true)
}

/// Returns the value of the annotation by the rules of Go's `strconv.ParseBool`; `None` if it is missing or invalid.
fn auto_updates(object: &Value) -> Option<bool> {
    match object.get("metadata")?.get("annotations")?.get(AUTO_UPDATE)?.as_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn generation(object: &Value) -> i64 {
    object.get("metadata").and_then(|metadata| metadata.get("generation")?.as_i64()).unwrap_or(0)
}

/// The configuration of the exempt level while it is not stored.
pub(crate) const EXEMPT_LEVEL: LevelConfig = LevelConfig {
    queuing: Queuing::Exempt,
    shares: Shares { nominal: 0, lendable_percent: 0, borrowing_percent: None },
};

/// The configuration of the level for all other requests while it is not stored.
pub(crate) const CATCH_ALL_LEVEL: LevelConfig = LevelConfig {
    queuing: Queuing::Reject,
    shares: Shares { nominal: 5, lendable_percent: 0, borrowing_percent: None },
};

/// Returns the exempt schema, for use while it is not stored.
pub(crate) fn exempt_schema() -> FlowSchemaSpec {
    mandatory_schema(EXEMPT, 1, None, &["system:masters"])
}

/// Returns the schema for all other requests, for use while it is not stored.
pub(crate) fn catch_all_schema() -> FlowSchemaSpec {
    mandatory_schema(CATCH_ALL, 10_000, Some(DistinguisherMethod::ByUser), &[UNAUTHENTICATED, AUTHENTICATED])
}

fn mandatory_schema(
    level: &str,
    matching_precedence: i32,
    distinguisher_method: Option<DistinguisherMethod>,
    groups: &[&str],
) -> FlowSchemaSpec {
    let all = || vec!["*".to_owned()];
    let group = |name: &&str| Subject::Group { group: NamedSubject { name: (*name).to_owned() } };
    let resource_rule = ResourceRule {
        verbs: all(),
        api_groups: all(),
        resources: all(),
        cluster_scope: true,
        namespaces: all(),
    };
    let rule = PolicyRules {
        subjects: groups.iter().map(group).collect(),
        resource_rules: vec![resource_rule],
        non_resource_rules: vec![NonResourceRule { verbs: all(), non_resource_urls: all() }],
    };
    FlowSchemaSpec {
        priority_level_configuration: LevelReference { name: level.to_owned() },
        matching_precedence,
        distinguisher_method,
        rules: vec![rule],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::PriorityLevelSpec;

    fn stored(spec: &Value, annotation: Option<&str>, generation: i64) -> Value {
        let annotations = annotation.map_or(json!({}), |value| json!({AUTO_UPDATE: value}));
        json!({"metadata": {"generation": generation, "annotations": annotations}, "spec": spec})
    }

    #[test]
    fn all_objects_can_be_used() {
        let names: Vec<_> = levels().iter().map(|level| level.name).collect();
        for level in levels() {
            let spec: PriorityLevelSpec = serde_json::from_value(level.spec.clone()).unwrap();
            let config = spec.config(level.name).unwrap();
            match level.name {
                EXEMPT => assert_eq!(config, EXEMPT_LEVEL),
                CATCH_ALL => assert_eq!(config, CATCH_ALL_LEVEL),
                _ => assert!(matches!(config.queuing, Queuing::Queue { .. })),
            }
        }
        for schema in schemas() {
            let spec: FlowSchemaSpec = serde_json::from_value(schema.spec.clone()).unwrap();
            assert!(names.contains(&&*spec.priority_level_configuration.name), "{}", schema.name);
            let own = match schema.name {
                EXEMPT => exempt_schema(),
                CATCH_ALL => catch_all_schema(),
                _ => continue,
            };
            assert_eq!(format!("{own:?}"), format!("{spec:?}"));
        }
    }

    #[test]
    fn changed_objects_are_restored_by_upstreams_rules() {
        let level = |name| levels().into_iter().find(|level| level.name == name).unwrap();
        let (mandatory, suggested) = (level(CATCH_ALL), level("system"));
        let other = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1}});
        let annotation = |object: &Value| object["metadata"]["annotations"][AUTO_UPDATE].clone();
        for (bootstrap, annotated, generation, restored, value) in [
            (&mandatory, Some("true"), 3, true, "true"),
            (&mandatory, Some("false"), 3, true, "true"),
            (&mandatory, None, 3, true, "true"),
            (&suggested, Some("true"), 3, true, "true"),
            (&suggested, None, 1, true, "true"),
            (&suggested, Some("maybe"), 1, true, "true"),
            (&suggested, None, 2, false, "false"),
        ] {
            let revised = bootstrap.revised(&stored(&other, annotated, generation)).unwrap();
            let spec = if restored { &bootstrap.spec } else { &other };
            assert_eq!((&revised["spec"], annotation(&revised)), (spec, json!(value)), "{annotated:?}");
            assert_eq!(bootstrap.revised(&revised), None);
        }
        // An administrator has taken over the object.
        assert_eq!(suggested.revised(&stored(&other, Some("false"), 1)), None);
        assert_eq!(suggested.revised(&stored(&suggested.spec, Some("T"), 1)), None);
        // The shares of the exempt level may be changed.
        let exempt =
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 9, "lendablePercent": 1}});
        assert_eq!(level(EXEMPT).revised(&stored(&exempt, Some("true"), 2)), None);
        let without_annotations = json!({"metadata": {"generation": 1}, "spec": suggested.spec});
        assert_eq!(annotation(&suggested.revised(&without_annotations).unwrap()), "true");
    }

    #[test]
    fn only_objects_that_the_server_kept_are_unwanted() {
        for (annotation, unwanted) in
            [(Some("true"), true), (Some("false"), false), (Some("x"), false), (None, false)]
        {
            assert_eq!(is_unwanted(&stored(&json!({}), annotation, 1)), unwanted, "{annotation:?}");
        }
    }
}
