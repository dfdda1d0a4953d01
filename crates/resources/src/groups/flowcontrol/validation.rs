//! Validation of flow schemas and priority levels (upstream: `pkg/apis/flowcontrol/validation`).

use std::collections::HashSet;

use nave_machinery::{FieldError, names};
use serde_json::json;

use super::mandatory::EXEMPT;
use crate::validate::{At, Errors, checked, required_text};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// The number of request hash bits that shuffle sharding uses.
const HASH_BITS: f64 = 60.0;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn schema(name: &str, spec: At, errors: &mut Errors) {
    let precedence = spec.field("matchingPrecedence");
    let number = precedence.int().unwrap_or_default();
    let wrong = match number {
        ..=0 => Some("must be a positive value".to_owned()),
        1 if name != EXEMPT => {
            Some("only the schema named 'exempt' may have matchingPrecedence 1".to_owned())
        }
        1..=PRECEDENCE_MAX => None,
        _ => Some(format!("must not be greater than {PRECEDENCE_MAX}")),
    };
    errors.extend(wrong.map(|why| FieldError::invalid(&precedence.path(), number, why)));
    let method = spec.field("distinguisherMethod");
    if method.is_set() {
        const METHODS: [&str; 2] = ["ByNamespace", "ByUser"];
        let kind = method.field("type");
        if !METHODS.contains(&kind.text()) {
            // Upstream shows the method as its internal type.
            errors.push(FieldError::not_supported(&kind.path(), json!({"Type": kind.text()}), &METHODS));
        }
    }
    let level = spec.field("priorityLevelConfiguration");
    let level_name = level.field("name");
    if level_name.text().is_empty() {
        errors.push(level_name.required("must reference a priority level"));
    } else {
        checked(level_name, names::is_dns1123_subdomain, errors);
    }
    for rule in spec.field("rules").items() {
        self::rule(rule, errors);
    }
}

/// Checks the subjects, resources and paths of a rule.
fn rule(rule: At, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    if subjects.len() == 0 {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for subject in subjects.items() {
        self::subject(subject, errors);
    }
    let (resources, paths) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.len() == 0 && paths.len() == 0 {
        errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    resources.items().for_each(|rule| resource_rule(rule, errors));
    paths.items().for_each(|rule| path_rule(rule, errors));
}

fn resource_rule(rule: At, errors: &mut Errors) {
    verbs(rule.field("verbs"), errors);
    listed(
        rule.field("apiGroups"),
        "resource rules must supply at least one api group",
        "api groups",
        errors,
    );
    listed(rule.field("resources"), "resource rules must supply at least one resource", "resources", errors);
    let namespaces = rule.field("namespaces");
    if namespaces.len() == 0 && rule.field("clusterScope").flag() {
        return;
    }
    let why = "resource rules that are not cluster scoped must supply at least one namespace";
    if listed(namespaces, why, "namespaces", errors) {
        for namespace in namespaces.items() {
            let wrong = names::is_dns1123_label(namespace.text());
            let intro = "each member of this list must be '*' or a DNS-1123 label; ";
            errors.extend(wrong.into_iter().map(|why| namespace.invalid_text(format!("{intro}{why}"))));
        }
    }
}

fn path_rule(rule: At, errors: &mut Errors) {
    verbs(rule.field("verbs"), errors);
    let paths = rule.field("nonResourceURLs");
    let why = "nonResourceURLs must contain at least one value";
    if listed(paths, why, "non-resource URLs", errors) {
        for path in paths.items() {
            errors.extend(wrong_path(path.text()).map(|why| path.invalid_text(why)));
        }
    }
}

fn verbs(verbs: At, errors: &mut Errors) {
    if listed(verbs, "verbs must contain at least one value", "verbs", errors)
        && verbs.items().any(|verb| !VERBS.contains(&verb.text()))
    {
        let shown = verbs.value().cloned().unwrap_or_default();
        errors.push(FieldError::not_supported(&verbs.path(), shown, &VERBS));
    }
}

/// Checks that the list is not empty and that `*` is its only item. Returns whether to check the items.
fn listed(list: At, none: &str, what: &str, errors: &mut Errors) -> bool {
    let has_all = list.items().any(|item| item.text() == "*");
    if list.len() == 0 {
        errors.push(list.required(none));
    } else if list.len() > 1 && has_all {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
    list.len() > 0 && !has_all
}

fn wrong_path(path: &str) -> Option<&'static str> {
    let why = match path {
        "" => "must not be empty",
        "/" => return None,
        _ if !path.starts_with('/') => "must start with slash",
        _ if path.contains(' ') => "must not contain white-space",
        _ if path.contains("//") => "must not contain double slash",
        _ if path.strip_suffix("/*").unwrap_or(path).contains('*') => "wildcard can only do suffix matching",
        _ => return None,
    };
    Some(why)
}

fn subject(subject: At, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] =
        [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.field("kind");
    let Some((_, field)) = KINDS.iter().find(|(known, _)| *known == kind.text()) else {
        errors.push(kind.not_supported(&KINDS.map(|(known, _)| known)));
        return;
    };
    for (other_kind, other) in KINDS {
        if other != *field && subject.field(other).is_set() {
            let why = format!("{other} is forbidden when subject kind is not '{other_kind}'");
            errors.push(subject.field(other).forbidden(why));
        }
    }
    let who = subject.field(field);
    if !who.is_set() {
        errors.push(who.required(format!("{field} is required when subject kind is '{}'", kind.text())));
        return;
    }
    let name = who.field("name");
    let is_named = required_text(name, errors);
    if *field == "serviceAccount" {
        if is_named && name.text() != "*" {
            checked(name, names::is_dns1123_subdomain, errors);
        }
        let namespace = who.field("namespace");
        if namespace.text().is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            checked(namespace, names::is_dns1123_label, errors);
        }
    }
}

/// Checks the conditions of a status. Types must be unique.
pub(super) fn status(status: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        if !seen.insert(kind.text()) {
            errors.push(FieldError::duplicate(&kind.path(), kind.text()));
        }
        required_text(kind, errors);
    }
}

pub(super) fn level(name: &str, spec: At, errors: &mut Errors) {
    let (kind, exempt, limited) = (spec.field("type"), spec.field("exempt"), spec.field("limited"));
    if (name == EXEMPT) != (kind.text() == "Exempt") {
        errors.push(kind.invalid_text("must be 'Exempt' if and only if `name` is 'exempt'"));
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                errors.push(limited.forbidden("must be nil if the type is not Limited"));
            }
            shares(exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                self::limited(limited, errors);
            } else {
                errors.push(limited.required("must not be empty when type is Limited"));
            }
        }
        _ => errors.push(kind.not_supported(&["Exempt", "Limited"])),
    }
}

fn shares(at: At, errors: &mut Errors) {
    let (shares, lendable) = (at.field("nominalConcurrencyShares"), at.field("lendablePercent"));
    if shares.int().is_some_and(|number| number < 0) {
        errors.push(shares.invalid("must be a non-negative integer"));
    }
    if lendable.int().is_some_and(|percent| !(0..=100).contains(&percent)) {
        errors.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
}

fn limited(limited: At, errors: &mut Errors) {
    shares(limited, errors);
    let borrowing = limited.field("borrowingLimitPercent");
    if borrowing.int().is_some_and(|percent| percent < 0) {
        errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
    }
    let response = limited.field("limitResponse");
    let queuing = response.field("queuing");
    match response.field("type").text() {
        "Reject" => {
            if queuing.is_set() {
                errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
            }
        }
        "Queue" => {
            if queuing.is_set() {
                self::queuing(queuing, errors);
            } else {
                errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
            }
        }
        _ => errors.push(response.field("type").not_supported(&["Queue", "Reject"])),
    }
}

fn queuing(queuing: At, errors: &mut Errors) {
    let (length, queues, hand) =
        (queuing.field("queueLengthLimit"), queuing.field("queues"), queuing.field("handSize"));
    let (deck, cards) = (queues.int().unwrap_or_default(), hand.int().unwrap_or_default());
    let positive = "must be positive".to_owned();
    let mut wrong = |at: At, number: i64, why: Option<String>| {
        errors.extend(why.map(|why| FieldError::invalid(&at.path(), number, why)));
    };
    let limit = length.int().unwrap_or_default();
    wrong(length, limit, (limit <= 0).then(|| positive.clone()));
    wrong(
        queues,
        deck,
        match deck {
            ..=0 => Some(positive.clone()),
            1..=QUEUES_MAX => None,
            _ => Some(format!("must not be greater than {QUEUES_MAX}")),
        },
    );
    wrong(
        hand,
        cards,
        match cards {
            ..=0 => Some(positive),
            _ if cards > deck => Some(format!("should not be greater than queues ({deck})")),
            _ if entropy(deck, cards) > HASH_BITS => Some(format!(
                "required entropy bits of deckSize {deck} and handSize {cards} should not be greater than {HASH_BITS}"
            )),
            _ => None,
        },
    );
}

/// Returns the number of hash bits needed to deal `cards` cards from a deck.
#[allow(clippy::cast_precision_loss, reason = "both numbers are below 2^32")]
fn entropy(deck: i64, cards: i64) -> f64 {
    ((deck as f64).log2() * cards as f64).ceil()
}
