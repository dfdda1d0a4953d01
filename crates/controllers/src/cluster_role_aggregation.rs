//! Aggregated cluster roles: their rules are the union of the rules of the roles that they select (upstream:
//! `clusterroleaggregation`).

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use nave_client::{Action, ApplyOptions, Lister, Object, ObjectName, apply};
use nave_machinery::selector::LabelSelector;

use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::selectors;

/// The field manager of aggregated rules.
const FIELD_MANAGER: &str = "clusterrole-aggregation-controller";

pub(crate) const CLUSTER_ROLE_AGGREGATION: Descriptor = Descriptor {
    name: "clusterrole-aggregation-controller",
    alias: "clusterrole-aggregation",
    service_account: "clusterrole-aggregation-controller",
    on_by_default: true,
    workers: Workers::fixed(5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("ClusterRoleAggregator");
    let roles = builder.informer::<ClusterRole>();
    let all = roles.lister();
    // A change to any role may affect every aggregated role; few roles are aggregated.
    builder.enqueue_mapped(&roles, move |_| {
        all.list().into_iter().filter(is_aggregated).map(|role| role.key()).collect::<Vec<_>>()
    });
    builder.run(Aggregation { client: context.client.clone(), roles: roles.lister() })
}

/// Returns whether a role is aggregated. Reading the JSON avoids decoding hundreds of roles on each event.
fn is_aggregated(role: &Object<ClusterRole>) -> bool {
    memchr::memmem::find(role.json(), b"\"aggregationRule\"").is_some()
}

struct Aggregation {
    client: kube::Client,
    roles: Lister<ClusterRole>,
}

impl Reconciler for Aggregation {
    /// Sets an aggregated role's rules to the rules of the roles that it selects.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(found) = self.roles.get_by_key(&key) else { return Ok(Action::Done) };
        let role = found.decode()?;
        let Some(selectors) = selectors_of(&role)? else { return Ok(Action::Done) };
        let mut selected = self.roles.list();
        selected.retain(|other| {
            other.name() != key.name() && selectors.iter().any(|it| other.is_selected_by(it))
        });
        selected.sort_by(|a, b| a.name().cmp(b.name()));
        let rules = union_of_rules(&selected.iter().map(Object::decode).collect::<Result<Vec<_>, _>>()?);
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Action::Done);
        }
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        apply(&roles, &configuration(key.name(), rules), &ApplyOptions::new(FIELD_MANAGER).force()).await?;
        Ok(Action::Done)
    }
}

/// The label selectors of an aggregated role.
fn selectors_of(role: &ClusterRole) -> Result<Option<Vec<LabelSelector>>, SyncError> {
    let Some(rule) = &role.aggregation_rule else { return Ok(None) };
    rule.cluster_role_selectors.iter().flatten().map(selectors::parse).collect::<Result<_, _>>().map(Some)
}

/// The apply configuration of a role. An empty list of rules is omitted.
fn configuration(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ClusterRole { metadata, rules: (!rules.is_empty()).then_some(rules), aggregation_rule: None }
}

/// The rules of all roles in order, without duplicates.
fn union_of_rules(parts: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    // Compares rules by their JSON: `PolicyRule` does not implement `Hash`, and comparing all pairs would be quadratic.
    let mut seen = HashSet::new();
    for rule in parts.iter().flat_map(|part| part.rules.iter().flatten()) {
        if seen.insert(serde_json::to_string(rule).unwrap_or_default()) {
            rules.push(rule.clone());
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn union_has_no_duplicates() {
        let role = |verbs: &[&str]| -> ClusterRole {
            let rules: Vec<_> =
                verbs.iter().map(|verb| json!({"verbs": [verb], "resources": ["pods"]})).collect();
            serde_json::from_value(json!({"metadata": {"name": "r"}, "rules": rules})).unwrap()
        };
        let rules = union_of_rules(&[role(&["get", "list"]), role(&["list", "watch"]), role(&[])]);
        let verbs: Vec<_> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "list", "watch"]);
    }

    #[test]
    fn applies_nothing_but_the_rules() {
        let rule: PolicyRule =
            serde_json::from_value(json!({"verbs": ["get"], "resources": ["pods"]})).unwrap();
        let applied = serde_json::to_value(configuration("r", vec![rule])).unwrap();
        let type_and_name = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}});
        let mut expected = type_and_name.clone();
        expected["rules"] = json!([{"verbs": ["get"], "resources": ["pods"]}]);
        assert_eq!(applied, expected);
        assert_eq!(serde_json::to_value(configuration("r", Vec::new())).unwrap(), type_and_name);
    }

    #[test]
    fn only_roles_with_an_aggregation_rule_are_aggregated() {
        let role = |json: serde_json::Value| serde_json::from_value::<ClusterRole>(json).unwrap();
        assert_eq!(selectors_of(&role(json!({"metadata": {}}))).unwrap(), None);
        let made = json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": [
            {"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "c", "operator": "Exists"}]}]}});
        assert_eq!(selectors_of(&role(made)).unwrap().unwrap().len(), 2);
    }
}
