//! Checks whether rules allow everything that other rules allow (upstream: `component-helpers/auth/rbac/validation`,
//! `Covers`).
//!
//! Upstream splits each rule into one part for each combination of its groups, resources, verbs and names, and looks
//! for a rule that covers the part. The number of parts is the product of the lists' lengths. This implementation
//! represents a rule as a [`Block`], a list of values for each dimension, and subtracts each held rule from the block:
//!
//! ```text
//! verbs ┌─────────┬───┐   At most one block per dimension remains:
//!       │ covered │ 2 │   1: the verbs that the held rule lacks, with all resources
//!       ├─────────┴───┤   2: the verbs that the held rule has, with the resources that it lacks
//!       │      1      │   …
//!       └─────────────┘
//!          resources
//! ```
//!
//! The result is the same as upstream's: a part remains if and only if no held rule covers it. The number of steps is
//! bounded.

use std::cell::OnceCell;

use super::rule::{ALL, Entries, Rule};

/// The parts of some rules that no held rule covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The parts, in upstream's order. Each has one verb, and either one path or one group, one resource and at most
    /// one name. Limited to [`MAX_PARTS`] parts and [`MAX_BYTES`] bytes.
    pub(crate) parts: Vec<Rule>,
    /// The number of omitted parts.
    pub(crate) more: usize,
    bytes: usize,
}

/// The error for a comparison that takes more than [`MAX_STEPS`] steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many rules to compare with those currently held")]
pub(crate) struct TooComplex;

/// Returns the parts of the rules `wanted` that no rule of `held` covers.
///
/// # Errors
/// [`TooComplex`]; the result is then unknown.
pub(crate) fn not_covered<'a>(
    held: &[&Rule],
    wanted: impl IntoIterator<Item = &'a Rule>,
) -> Result<Missing, TooComplex> {
    compare(held, wanted, &mut Steps(MAX_STEPS))
}

fn compare<'a>(
    held: &[&Rule],
    wanted: impl IntoIterator<Item = &'a Rule>,
    steps: &mut Steps,
) -> Result<Missing, TooComplex> {
    // Broad rules go first, because they often cover everything. The other rules are indexed only if needed.
    let mut held: Vec<&Rule> = held.to_vec();
    held.sort_by_cached_key(|rule| std::cmp::Reverse(breadth(rule)));
    let held: Vec<(&Rule, OnceCell<Held<'_>>)> =
        held.into_iter().map(|rule| (rule, OnceCell::new())).collect();
    let mut missing = Missing::default();
    for rule in wanted {
        for rule in [Wanted::on_resources(rule), Wanted::on_paths(rule)] {
            let left = rule.not_covered_by(&held, steps)?;
            rule.collect(&left, &mut missing);
        }
    }
    Ok(missing)
}

/// The part of a rule about resources, or about paths, with the values of each dimension.
struct Wanted<'a> {
    rule: &'a Rule,
    on_paths: bool,
    entries: [Vec<Option<&'a str>>; DIMENSIONS],
}

/// A part of a rule: for each dimension, indexes of some of the rule's values.
type Block = [Vec<u32>; DIMENSIONS];

/// Groups, resources (or paths), verbs and names, in upstream's iteration order.
const DIMENSIONS: usize = 4;
const GROUPS: usize = 0;
const RESOURCES: usize = 1;
const VERBS: usize = 2;
const NAMES: usize = 3;

/// The order of comparison: dimensions that differ most often go first.
const COMPARED: [usize; DIMENSIONS] = [RESOURCES, GROUPS, VERBS, NAMES];

impl<'a> Wanted<'a> {
    fn on_resources(rule: &'a Rule) -> Self {
        // `None` means all names. Only a rule without names covers it.
        let names = if rule.resource_names.is_empty() { vec![None] } else { some(&rule.resource_names) };
        let entries = [some(&rule.api_groups), some(&rule.resources), some(&rule.verbs), names];
        Self { rule, on_paths: false, entries }
    }

    fn on_paths(rule: &'a Rule) -> Self {
        let entries = [vec![None], some(&rule.non_resource_urls), some(&rule.verbs), vec![None]];
        Self { rule, on_paths: true, entries }
    }

    /// Returns the parts of the rule that `held` does not cover, as disjoint blocks.
    fn not_covered_by<'h>(
        &self,
        held: &[(&'h Rule, OnceCell<Held<'h>>)],
        steps: &mut Steps,
    ) -> Result<Vec<Block>, TooComplex> {
        if self.entries.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut left: Vec<Block> =
            vec![self.entries.each_ref().map(|entries| (0..entries.len() as u32).collect())];
        for (rule, arranged) in held {
            if arranged.get().is_none() {
                steps.take(rule.all_entries().map(Entries::len).sum())?;
            }
            let rule = arranged.get_or_init(|| Held::new(rule));
            let mut next = Vec::with_capacity(left.len());
            for block in left {
                self.cut(block, rule, &mut next, steps)?;
            }
            left = next;
            if left.is_empty() {
                break;
            }
        }
        Ok(left)
    }

    /// Subtracts a held rule from a block, and appends the remaining blocks to `left`.
    fn cut(
        &self,
        mut block: Block,
        held: &Held<'_>,
        left: &mut Vec<Block>,
        steps: &mut Steps,
    ) -> Result<(), TooComplex> {
        let mut split: [(Vec<u32>, Vec<u32>); DIMENSIONS] = Default::default();
        for dimension in COMPARED {
            let (entries, places) = (&self.entries[dimension], &block[dimension]);
            steps.take(places.len())?;
            let covers = |place: &u32| held.covers(dimension, self.on_paths, entries[*place as usize]);
            let (covered, rest): (Vec<u32>, Vec<u32>) =
                places.iter().copied().partition(|place| covers(place));
            if covered.is_empty() {
                left.push(block);
                return Ok(());
            }
            split[dimension] = (covered, rest);
        }
        for dimension in COMPARED {
            let (covered, rest) = std::mem::take(&mut split[dimension]);
            if !rest.is_empty() {
                let mut piece = block.clone();
                piece[dimension] = rest;
                steps.take(piece.iter().map(Vec::len).sum())?;
                left.push(piece);
            }
            block[dimension] = covered;
        }
        Ok(())
    }

    /// Adds the parts of the blocks in upstream's order, up to the limits.
    fn collect(&self, left: &[Block], missing: &mut Missing) {
        let total = left.iter().fold(0_usize, |sum, block| sum.saturating_add(size(block)));
        let mut places: Vec<[u32; DIMENSIONS]> = Vec::new();
        for part in left.iter().flat_map(combinations) {
            missing.bytes += self.bytes(part);
            if missing.parts.len() + places.len() == MAX_PARTS || missing.bytes > MAX_BYTES {
                break;
            }
            places.push(part);
        }
        places.sort_unstable();
        missing.parts.extend(places.iter().map(|places| self.part(*places)));
        missing.more = missing.more.saturating_add(total - places.len());
    }

    fn bytes(&self, places: [u32; DIMENSIONS]) -> usize {
        let entries =
            self.entries.iter().zip(places).filter_map(|(entries, place)| entries.get(place as usize));
        entries.flatten().map(|entry| entry.len()).sum()
    }

    fn part(&self, places: [u32; DIMENSIONS]) -> Rule {
        let entry = |dimension: usize| -> Entries {
            self.entries[dimension].get(places[dimension] as usize).copied().flatten().into_iter().collect()
        };
        let verbs = entry(VERBS);
        if self.on_paths {
            return Rule { verbs, non_resource_urls: entry(RESOURCES), ..Rule::default() };
        }
        let resource_names =
            if self.rule.resource_names.is_empty() { Entries::default() } else { entry(NAMES) };
        Rule {
            verbs,
            api_groups: entry(GROUPS),
            resources: entry(RESOURCES),
            resource_names,
            ..Rule::default()
        }
    }
}

fn some(entries: &Entries) -> Vec<Option<&str>> {
    entries.iter().map(Some).collect()
}

fn size(block: &Block) -> usize {
    block.iter().fold(1, |product, entries| product.saturating_mul(entries.len()))
}

/// Returns all combinations of a block's values, generated lazily.
fn combinations(block: &Block) -> impl Iterator<Item = [u32; DIMENSIONS]> {
    let [groups, resources, verbs, names] = block;
    groups.iter().flat_map(move |group| {
        resources.iter().flat_map(move |resource| {
            verbs.iter().flat_map(move |verb| names.iter().map(move |name| [*group, *resource, *verb, *name]))
        })
    })
}

/// Estimates how much a rule can cover.
fn breadth(rule: &Rule) -> (usize, usize) {
    let all = [&rule.api_groups, &rule.resources, &rule.verbs].into_iter().filter(|entries| entries.has(ALL));
    let names = usize::from(rule.resource_names.is_empty());
    (all.count() + names, rule.resources.len().saturating_mul(rule.verbs.len()))
}

/// A held rule, indexed for lookups.
struct Held<'a> {
    groups: Set<'a>,
    resources: Set<'a>,
    verbs: Set<'a>,
    names: Set<'a>,
    paths: Paths<'a>,
}

impl<'a> Held<'a> {
    fn new(rule: &'a Rule) -> Self {
        Self {
            groups: Set::new(&rule.api_groups),
            resources: Set::new(&rule.resources),
            verbs: Set::new(&rule.verbs),
            names: Set::new(&rule.resource_names),
            paths: Paths::new(&rule.non_resource_urls),
        }
    }

    /// Returns whether the rule covers a value in a dimension. `None` means all names, or no value in this dimension.
    fn covers(&self, dimension: usize, on_paths: bool, entry: Option<&str>) -> bool {
        match (dimension, entry) {
            (VERBS, Some(verb)) => self.verbs.has_or_all(verb),
            (GROUPS, Some(group)) => self.groups.has_or_all(group),
            (RESOURCES, Some(path)) if on_paths => self.paths.covers(path),
            (RESOURCES, Some(resource)) => self.covers_resource(resource),
            (NAMES, Some(name)) => self.names.entries.is_empty() || self.names.has(name),
            (NAMES, None) => self.names.entries.is_empty(),
            _ => true,
        }
    }

    fn covers_resource(&self, resource: &str) -> bool {
        let of_all = |subresource: &str| self.resources.has(&format!("*/{subresource}"));
        self.resources.has_or_all(resource)
            || resource.split_once('/').is_some_and(|(_, subresource)| of_all(subresource))
    }
}

/// A sorted set of values.
struct Set<'a> {
    entries: Vec<&'a str>,
    /// True if `*` is in the set.
    all: bool,
}

impl<'a> Set<'a> {
    fn new(entries: &'a Entries) -> Self {
        let mut entries: Vec<&str> = entries.iter().collect();
        entries.sort_unstable();
        Self { all: entries.binary_search(&ALL).is_ok(), entries }
    }

    fn has(&self, entry: &str) -> bool {
        self.entries.binary_search(&entry).is_ok()
    }

    fn has_or_all(&self, entry: &str) -> bool {
        self.all || self.has(entry)
    }
}

/// Non-resource paths; some end in `*`.
struct Paths<'a> {
    exact: Set<'a>,
    /// The prefixes before the star, sorted, without redundant prefixes.
    prefixes: Vec<&'a str>,
}

impl<'a> Paths<'a> {
    fn new(paths: &'a Entries) -> Self {
        let starred = paths.iter().filter(|path| path.ends_with('*'));
        let mut prefixes: Vec<&str> = starred.map(|path| path.trim_end_matches('*')).collect();
        prefixes.sort_unstable();
        // In sorted order, longer prefixes directly follow the prefix that covers them.
        prefixes.dedup_by(|longer, shorter| longer.starts_with(*shorter));
        Self { exact: Set::new(paths), prefixes }
    }

    fn covers(&self, path: &str) -> bool {
        let behind = self.prefixes.partition_point(|prefix| *prefix <= path);
        let nearest = behind.checked_sub(1).and_then(|at| self.prefixes.get(at));
        nearest.is_some_and(|prefix| path.starts_with(prefix)) || self.exact.has(path)
    }
}

/// The remaining steps: values indexed, compared or copied.
struct Steps(usize);

impl Steps {
    fn take(&mut self, steps: usize) -> Result<(), TooComplex> {
        self.0 = self.0.checked_sub(steps.max(1)).ok_or(TooComplex)?;
        Ok(())
    }
}

/// The maximum number of steps, which take a few tenths of a second. Comparing a bootstrap role with the rules of all
/// bootstrap roles takes less than a twentieth of them.
const MAX_STEPS: usize = 2_000_000;

/// The maximum number of parts in the result.
const MAX_PARTS: usize = 10_000;

/// The maximum total size of the values in the result, in bytes. Each part has its own copy of its values.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
