//! Counts of equal and different facts.

use std::collections::BTreeMap;

use serde_json::Value;

/// The counts, by kind of fact.
#[derive(Default)]
pub(crate) struct Report {
    /// True to print differences.
    pub(crate) show: bool,
    counts: BTreeMap<&'static str, (usize, usize)>,
    skipped: BTreeMap<&'static str, usize>,
}

impl Report {
    /// Counts a fact.
    pub(crate) fn count(&mut self, kind: &'static str, case: &Value, expected: &Value, found: &Value) {
        let equal = same(expected, found);
        let count = self.counts.entry(kind).or_default();
        count.0 += usize::from(equal);
        count.1 += 1;
        if !equal && self.show {
            let name = case.get("expr").or(case.get("id")).map(ToString::to_string).unwrap_or_default();
            let group = case.get("group").and_then(Value::as_str).unwrap_or_default();
            println!(
                "{kind} [{group}] {}\n  want {expected}\n  have {found}",
                name.chars().take(300).collect::<String>()
            );
        }
    }

    /// Counts a fact that is not compared.
    pub(crate) fn skip(&mut self, kind: &'static str) {
        *self.skipped.entry(kind).or_default() += 1;
    }

    /// Prints the shares, and the numbers of facts that are not compared.
    pub(crate) fn print(&self) {
        for (kind, (equal, all)) in &self.counts {
            println!(
                "{kind:28} {equal:6} of {all:6}  {:6.2} %",
                100.0 * *equal as f64 / (*all).max(1) as f64
            );
        }
        for (kind, count) in &self.skipped {
            println!("not compared: {count:6}  {kind}");
        }
    }
}

/// Compares JSON values. Compares numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
