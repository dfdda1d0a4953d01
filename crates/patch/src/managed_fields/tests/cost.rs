//! The cost of writes with thousands of entries, in visited path elements. Doubling the input may only slightly more
//! than double the cost.

use serde_json::json;

use super::super::visits::visits_of;
use super::*;

/// Maximum growth of the cost when the input doubles. More than this is not linear, even with sorting.
const MOST: usize = 3;

fn assert_linear(name: &str, work: impl Fn(usize) -> usize) {
    let (once, twice) = (work(500), work(1000));
    assert!(once > 500, "{name}: {once} visits are no measure");
    assert!(twice <= MOST * once, "{name}: {once} visits become {twice}");
}

/// Returns a set of `count` fields of `data`, starting at `from`.
fn data_fields(from: usize, count: usize) -> Value {
    let fields: serde_json::Map<String, Value> =
        (from..from + count).map(|at| (format!("f:k{at}"), json!({}))).collect();
    json!({"f:data": fields})
}

fn entry(manager: &str, operation: &str, second: usize, fields: Value) -> Value {
    let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
        "fieldsV1": fields})
}

/// Returns an entry with `n` fields, and `n` entries with one field each.
fn one_large_and_many_small(operation: &str, n: usize) -> Value {
    let small = (0..n).map(|at| entry(&format!("m{at}"), operation, at + 1, data_fields(n + at, 1)));
    Value::Array([entry("large", operation, 0, data_fields(0, n))].into_iter().chain(small).collect())
}

#[test]
fn many_updaters_become_ancient_changes_in_linear_time() {
    let kind = Kind::config_map();
    let live = kind.update(None, "first", kind.object(json!({"data": {"a": "1"}})));
    for large in ["large", ANCIENT] {
        assert_linear(large, |n| {
            let mut new = live.clone();
            let mut entries = one_large_and_many_small("Update", n);
            entries[0]["manager"] = json!(large);
            new["metadata"]["managedFields"] = entries;
            let visits = visits_of(|| kind.update_at(NOW, Some(&live), &mut new, "two"));
            assert_eq!(managers(&new).len(), 10);
            assert_eq!(
                fields(&new, ANCIENT, "Update").unwrap()["f:data"].as_object().unwrap().len(),
                2 * n - 9
            );
            visits
        });
    }
}

#[test]
fn equal_elements_are_parsed_in_linear_time() {
    assert_linear("spaces in keys", |n| {
        let same = (0..n).map(|at| {
            (format!("k:{{\"p\":{}1}}", " ".repeat(at % 50) + &"\n".repeat(at / 50)), data_fields(at, 1))
        });
        let mut same: serde_json::Map<String, Value> = same.collect();
        same.insert("k:{\"p\":1}".to_owned(), data_fields(0, n));
        let fields = Value::Object(same);
        visits_of(|| {
            let set = FieldSet::from_fields_v1(&fields).unwrap();
            assert_eq!(set.paths().len(), n);
        })
    });
}

/// Returns a live object with `n` entries of one field each. Some of the fields will change.
fn with_many_appliers(kind: &Kind, n: usize) -> Value {
    let data: serde_json::Map<String, Value> = (0..2 * n).map(|at| (format!("k{at}"), json!("1"))).collect();
    let mut live = kind.normalized(kind.object(json!({ "data": data })));
    live["metadata"]["managedFields"] = one_large_and_many_small("Apply", n);
    live
}

#[test]
fn large_changes_are_taken_from_many_appliers_in_linear_time() {
    let kind = Kind::config_map();
    for (name, value) in [("changes", json!("2")), ("removals", Value::Null)] {
        assert_linear(name, |n| {
            let live = with_many_appliers(&kind, n);
            let mut new = live.clone();
            new["data"] = (0..n).map(|at| (format!("k{at}"), value.clone())).collect();
            visits_of(|| kind.update_at(NOW, Some(&live), &mut new, "two"))
        });
    }
    assert_linear("additions", |n| {
        let live = with_many_appliers(&kind, n);
        let mut new = live.clone();
        for at in 0..n {
            new["data"][format!("new{at}")] = json!("2");
        }
        visits_of(|| kind.update_at(NOW, Some(&live), &mut new, "two"))
    });
}

#[test]
fn an_apply_beside_many_appliers_takes_linear_time() {
    let kind = Kind::config_map();
    let data = |count: usize, value: &str| -> Value {
        let data: serde_json::Map<String, Value> =
            (0..count).map(|at| (format!("k{at}"), json!(value))).collect();
        json!({ "data": data })
    };
    for (name, force, value) in [("conflicts", false, "2"), ("take over", true, "2"), ("share", false, "1")] {
        assert_linear(name, |n| {
            let live = with_many_appliers(&kind, n);
            let applied = kind.object(data(2 * n, value));
            visits_of(|| drop(kind.manager(NOW).apply(Some(&live), &applied, "two", force)))
        });
    }
    assert_linear("give up", |n| {
        let live = with_many_appliers(&kind, n);
        let applied = kind.object(data(n / 2, "1"));
        visits_of(|| {
            let object = kind.manager(NOW).apply(Some(&live), &applied, "large", false).unwrap();
            assert_eq!(object["data"].as_object().unwrap().len(), n / 2 + n);
        })
    });
}

#[test]
fn sets_of_different_sizes_are_compared_at_the_cost_of_the_smaller() {
    let set = |from: usize, count: usize| FieldSet::from_fields_v1(&data_fields(from, count)).unwrap();
    let large = set(0, 10_000);
    for (from, common) in [(0, 4), (9998, 2), (10_000, 0)] {
        let small = set(from, 4);
        let visits = visits_of(|| {
            assert_eq!(large.intersects(&small), common > 0);
            assert_eq!(small.intersection(&large).paths().len(), common);
            assert_eq!(large.intersection(&small).paths().len(), common);
            assert_eq!(small.clone().difference(&large).paths().len(), 4 - common);
        });
        assert!(visits < 500, "{visits}");
    }
}

/// Returns the response to a client, and its size.
fn answered(refused: Result<Value, ApplyError>) -> (String, usize) {
    let status = refused.unwrap_err().into_status();
    (status.message.clone(), status.to_value().to_string().len())
}

#[test]
fn errors_about_many_conflicts_are_bounded() {
    let kind = Kind::config_map();
    let data = |name: &dyn Fn(usize) -> String, value: &str| -> Value {
        let data: serde_json::Map<String, Value> = (0..300).map(|at| (name(at), json!(value))).collect();
        json!({ "data": data })
    };
    let short = |at: usize| format!("k{at:03}");
    let live = kind.apply(None, "one", data(&short, "1")).unwrap();
    let (message, _) = answered(kind.apply(Some(&live), "two", data(&short, "2")));
    assert!(message.starts_with("Apply failed with 300 conflicts: conflicts with \"one\":\n- .data.k000\n"));
    assert!(message.ends_with("\n- .data.k099\nand 200 more conflicts"), "{message}");

    let long = |at: usize| format!("{at}{}", "x".repeat(10_000));
    let mut live = kind.apply(None, "one", data(&long, "1")).unwrap();
    live["metadata"]["managedFields"][0]["manager"] = json!("m".repeat(100_000));
    let (message, size) = answered(kind.apply(Some(&live), "two", data(&long, "2")));
    assert!(message.starts_with("Apply failed with 300 conflicts: "));
    assert!(size < 1 << 19, "{size}");
}

#[test]
fn errors_about_invalid_configurations_are_bounded() {
    let kind = Kind::deployment();
    let (name, value) = ("n".repeat(100_000), "v".repeat(100_000));
    let fields: serde_json::Map<String, Value> = (0..200).map(|at| (format!("{at}"), json!(value))).collect();
    let containers = json!([{"name": name, "env": [{"name": name, "valueFrom": fields}]}]);
    let (_, size) = answered(kind.apply(
        None,
        "one",
        json!({"spec": {"template": {"spec": {"containers": containers}}}}),
    ));
    assert!(size < 1 << 19, "{size}");
    let (_, size) = answered(kind.apply(None, "one", json!({"spec": {"replicas": value, "paused": fields}})));
    assert!(size < 1 << 19, "{size}");
}

const ANCIENT: &str = "ancient-changes";
