//! Validation of a policy (upstream: `apiserver/pkg/apis/audit/validation`).

use nave_machinery::{FieldError, FieldPath, Value, names};

use super::{GroupResources, Level, Part, PolicyFile, RuleFile, elements, known_fields};
use crate::event::Stage;

/// Returns the errors of all fields.
pub(super) fn validate(policy: &PolicyFile) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_stages(&policy.omit_stages, &FieldPath::new("omitStages"), &mut errors);
    for (index, rule) in policy.rules.iter().enumerate() {
        check_rule(rule, &FieldPath::new("rules").index(index), &mut errors);
    }
    errors
}

/// Returns an error for each field that a policy does not have.
pub(super) fn unknown_fields(policy: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut check = |value: &Value, part, at: &FieldPath| {
        let fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
        let known = known_fields(part);
        let names = fields.filter(|name| !known.contains(&name.as_str()));
        unknown.extend(names.map(|name| format!("unknown field \"{}\"", at.child(name).as_str())));
    };
    check(policy, Part::Policy, &FieldPath::default());
    for (index, rule) in elements(policy, "rules").iter().enumerate() {
        let at = FieldPath::new("rules").index(index);
        check(rule, Part::Rule, &at);
        for (index, resources) in elements(rule, "resources").iter().enumerate() {
            check(resources, Part::Resources, &at.child("resources").index(index));
        }
    }
    unknown
}

fn check_rule(rule: &RuleFile, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let level = at.child("level");
    if rule.level.is_empty() {
        errors.push(FieldError::required(&level, ""));
    } else if Level::parse(&rule.level).is_none() {
        let levels = Level::ALL.map(Level::as_str);
        errors.push(FieldError::not_supported(&level, rule.level.as_str(), &levels));
    }
    let urls = at.child("nonResourceURLs");
    check_urls(&rule.non_resource_urls, &urls, errors);
    check_resources(&rule.resources, &at.child("resources"), errors);
    check_stages(&rule.omit_stages, &at.child("omitStages"), errors);
    let names_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if names_resources && !rule.non_resource_urls.is_empty() {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&urls, rule.non_resource_urls.0.clone(), why));
    }
}

fn check_urls(urls: &[String], at: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut refuse = |why| errors.push(FieldError::invalid(&at.index(index), url.as_str(), why));
        if !url.starts_with('/') {
            refuse("non-resource URL rules must begin with a '/' character");
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            refuse("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
}

fn check_resources(all: &[GroupResources], at: &FieldPath, errors: &mut Vec<FieldError>) {
    for GroupResources { group, resources, resource_names } in all {
        if !group.is_empty() && group != "*" {
            let why = names::is_dns1123_subdomain(group);
            if !why.is_empty() {
                errors.push(FieldError::invalid(&at.child("group"), group.as_str(), why.join(",")));
            }
        }
        if !resource_names.is_empty() && resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(&at.child("resourceNames"), resource_names.0.clone(), why));
        }
    }
}

fn check_stages(stages: &[String], at: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, stage) in stages.iter().enumerate() {
        if Stage::parse(stage).is_none() {
            let why = format!("allowed stages are {}", Stage::ALL.map(Stage::as_str).join(","));
            errors.push(FieldError::invalid(&at.index(index), stage.as_str(), why));
        }
    }
}
