use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// Upstream's algorithm: compares each part with each rule.
fn by_parts(held: &[&Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut parts = Vec::new();
    for rule in wanted {
        for group in rule.api_groups.iter() {
            for resource in rule.resources.iter() {
                for verb in rule.verbs.iter() {
                    if rule.resource_names.is_empty() {
                        parts.push(Rule::for_resource(group, resource, verb));
                    }
                    for name in rule.resource_names.iter() {
                        let resource_names = Entries::from_iter([name]);
                        parts.push(Rule { resource_names, ..Rule::for_resource(group, resource, verb) });
                    }
                }
            }
        }
        for path in rule.non_resource_urls.iter() {
            parts.extend(rule.verbs.iter().map(|verb| Rule::for_path(path, verb)));
        }
    }
    parts.retain(|part| !held.iter().any(|rule| covers(rule, part)));
    parts
}

fn covers(rule: &Rule, part: &Rule) -> bool {
    let every = |entries: &Entries, covered: &dyn Fn(&str) -> bool| entries.iter().all(covered);
    let or_all = |entries: &Entries, entry: &str| entries.has("*") || entries.has(entry);
    every(&part.verbs, &|verb| or_all(&rule.verbs, verb))
        && every(&part.api_groups, &|group| or_all(&rule.api_groups, group))
        && every(&part.resources, &|resource| {
            or_all(&rule.resources, resource)
                || resource.split_once('/').is_some_and(|(_, sub)| rule.resources.has(&format!("*/{sub}")))
        })
        && every(&part.non_resource_urls, &|path| {
            rule.non_resource_urls
                .iter()
                .any(|url| url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))))
        })
        && (rule.resource_names.is_empty()
            || (!part.resource_names.is_empty()
                && every(&part.resource_names, &|name| rule.resource_names.has(name))))
}

fn entries(all: &'static [&'static str]) -> impl Strategy<Value = Entries> {
    subsequence(all, 0..=all.len()).prop_map(Entries::from_iter)
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        entries(&["get", "list", "update", "*"]),
        entries(&["", "apps", "batch", "*"]),
        entries(&["pods", "pods/log", "pods/a/b", "*/log", "*/a/b", "*", "nodes"]),
        prop_oneof![2 => Just(Entries::default()), 1 => entries(&["a", "b", "c", "*"])],
        prop_oneof![
            2 => Just(Entries::default()),
            1 => entries(&["/a", "/a/*", "/a/b", "/a/b*", "/a/bc", "/b", "/a**", "*", "/*"]),
        ],
    )
        .prop_map(|(verbs, api_groups, resources, resource_names, non_resource_urls)| Rule {
            verbs,
            api_groups,
            resources,
            resource_names,
            non_resource_urls,
        })
}

proptest! {
    #[test]
    fn missing_parts_match_upstream_algorithm(
        held in prop::collection::vec(rule(), 0..8),
        wanted in prop::collection::vec(rule(), 0..4),
    ) {
        let held: Vec<&Rule> = held.iter().collect();
        let missing = not_covered(&held, &wanted).unwrap();
        prop_assert_eq!(missing.parts, by_parts(&held, &wanted));
        prop_assert_eq!(missing.more, 0);
    }
}

fn many(prefix: &str, count: usize) -> Entries {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

/// A rule with this many groups, resources, verbs and names.
fn wide(count: usize) -> Rule {
    Rule {
        verbs: many("v", count),
        api_groups: many("g", count),
        resources: many("r", count),
        resource_names: many("n", count),
        non_resource_urls: many("/u", count),
    }
}

#[test]
fn large_products_take_few_steps_and_little_memory() {
    let product = 300_usize.pow(4) + 300 * 300;
    let missing = not_covered(&[], [&wide(300)]).unwrap();
    assert_eq!(missing.parts.len() + missing.more, product);
    assert!(missing.parts.len() <= MAX_PARTS);
    // The held rule lacks only one value of one dimension.
    let mut held = wide(300);
    held.resource_names = many("n", 299);
    let missing =
        not_covered(&[&held], [&Rule { non_resource_urls: Entries::default(), ..wide(300) }]).unwrap();
    assert_eq!(missing.parts.len() + missing.more, 300_usize.pow(3));
    let missing =
        not_covered(&[&wide(300), &Rule { resource_names: Entries::default(), ..wide(300) }], [&wide(300)]);
    assert_eq!(missing.unwrap(), Missing::default());
}

#[test]
fn long_values_are_not_copied_for_each_part() {
    let long = Rule { resources: ["r".repeat(100_000)].into_iter().collect(), ..wide(100) };
    let missing = not_covered(&[], [&long]).unwrap();
    let bytes: usize = missing.parts.iter().flat_map(|part| part.resources.iter()).map(str::len).sum();
    assert!(bytes <= MAX_BYTES && missing.more > 0, "{bytes}");
}

#[test]
fn rejects_rules_that_split_into_too_many_blocks() {
    // Each held rule cuts one corner off, so the number of blocks grows.
    let corner = |at: usize| Rule {
        verbs: many("v", 300).iter().skip(at % 7).step_by(7).collect(),
        api_groups: many("g", 300).iter().skip(at % 11).step_by(11).collect(),
        resources: many("r", 300).iter().skip(at % 13).step_by(13).collect(),
        resource_names: many("n", 300).iter().skip(at % 17).step_by(17).collect(),
        ..Rule::default()
    };
    let held: Vec<Rule> = (0..2000).map(corner).collect();
    assert_eq!(not_covered(&held.iter().collect::<Vec<_>>(), [&wide(300)]), Err(TooComplex));
}

#[test]
fn skips_indexing_of_unneeded_rules() {
    let everything = Rule::for_resource("*", "*", "*");
    let long = Rule { resource_names: many("n", MAX_STEPS + 1), ..wide(1) };
    let wanted = Rule { non_resource_urls: Entries::default(), ..wide(10) };
    assert_eq!(not_covered(&[&long, &everything], [&wanted]), Ok(Missing::default()));
    assert_eq!(not_covered(&[&long], [&wanted]), Err(TooComplex));
}

#[test]
fn bootstrap_roles_take_few_steps() {
    let policy = crate::bootstrap::policy().unwrap();
    let roles = policy.iter().filter(|object| object.resource == "clusterroles");
    let roles: Vec<Vec<Rule>> = roles
        .filter(|role| role.name != "cluster-admin")
        .map(|role| serde_json::from_value(role.object["rules"].clone()).unwrap_or_default())
        .collect();
    let held: Vec<&Rule> = roles.iter().flatten().collect();
    for role in &roles {
        let mut steps = Steps(MAX_STEPS / 20);
        assert_eq!(compare(&held, role, &mut steps), Ok(Missing::default()));
    }
}
