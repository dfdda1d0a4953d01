//! Measures many CustomResourceDefinitions: the time until the last is served, memory, idle CPU, and the cost of the
//! discovery and OpenAPI documents.
//!
//! Starts the server under test on an empty folder for each number of definitions.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::LoadError;
use crate::http::{Call, Pool, Target};
use crate::load::{Limits, Meter, Sample, closed_loop};
use crate::process::Processes;
use crate::report::{Row, duration, megabytes};
use crate::spawn::ServerProcess;

/// A number of definitions to create.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Number of definitions.
    pub count: u64,
    /// Size in bytes of the JSON of one definition.
    pub bytes: usize,
    /// Maximum time until the last is served.
    pub time: Duration,
    /// Maximum resident memory in bytes that one definition adds.
    pub memory_each: u64,
}

impl Family {
    /// 200 definitions of 8 KB.
    pub const SMALL: Self =
        Self { count: 200, bytes: 8_000, time: Duration::from_secs(1), memory_each: 50_000 };
    /// 2,000 definitions of 50 KB, as a large family of Crossplane providers has them. The limit of the memory is
    /// 100 MB with the server.
    pub const LARGE: Self =
        Self { count: 2_000, bytes: 50_000, time: Duration::from_secs(20), memory_each: 37_500 };
}

/// Starts `program` on an empty folder and measures a family of definitions.
pub async fn run(program: &Path, folder: &Path, family: Family) -> Result<Vec<Row>, LoadError> {
    let server = ServerProcess::start(program, folder, NO_CONTROLLERS).await?;
    let processes = Processes(vec![server.pid()]);
    let pool = Target::from_kubeconfig(server.kubeconfig())?.pool(8).await?;
    tokio::time::sleep(SETTLE_PAUSE).await;
    let empty = processes.rss()?.unwrap_or_default();
    let mut rows = vec![create(&pool, &processes, family).await?];
    tokio::time::sleep(SETTLE_PAUSE).await;
    rows.extend(memory(&processes, empty, family)?);
    rows.push(idle(&processes).await?);
    rows.extend(documents(&pool, &processes, family).await?);
    let after = processes.rss()?.unwrap_or_default();
    rows.push(Row::size("resident memory after reading the documents", after));
    drop(pool);
    server.terminate(Duration::from_mins(1)).await?;
    let server = ServerProcess::start(program, folder, NO_CONTROLLERS).await?;
    rows.push(Row::time(
        &format!("restart with {} definitions", family.count),
        server.ready_in(),
        family.time,
    ));
    tokio::time::sleep(SETTLE_PAUSE).await;
    let rss = Processes(vec![server.pid()]).rss()?.unwrap_or_default();
    rows.push(Row::size("resident memory after the restart", rss));
    Ok(rows)
}

/// Creates all definitions and waits until each is served.
async fn create(pool: &Pool, processes: &Processes, family: Family) -> Result<Row, LoadError> {
    let meter = Meter::start(processes)?;
    let limits = Limits { operations: family.count, time: MAX_TIME };
    let call = move |n| Call::post(DEFINITIONS, definition(n, family.bytes));
    let created = closed_loop(pool, &Processes::default(), 8, limits, call).await?;
    for number in 0..family.count {
        served(pool, &objects_path(number)).await?;
    }
    let sample = meter.stop(family.count, created.bytes, created.latencies)?;
    let work =
        format!("create {} definitions of {} KB until the last is served", family.count, family.bytes / 1000);
    note(&work, &sample);
    let cpu = sample.cpu_per_operation().map_or(String::new(), duration);
    Ok(Row { cpu, ..Row::time(&work, sample.elapsed, family.time) })
}

fn memory(processes: &Processes, empty: u64, family: Family) -> Result<[Row; 2], LoadError> {
    let rss = processes.rss()?.unwrap_or_default();
    let each = rss.saturating_sub(empty) / family.count.max(1);
    let work = format!("memory that each of {} definitions adds", family.count);
    Ok([Row::size("resident memory with the definitions", rss), Row::memory(&work, each, family.memory_each)])
}

/// Measures the CPU of a server without requests. The figure is per second.
async fn idle(processes: &Processes) -> Result<Row, LoadError> {
    let meter = Meter::start(processes)?;
    tokio::time::sleep(IDLE_TIME).await;
    let sample = meter.stop(IDLE_TIME.as_secs(), 0, Vec::new())?;
    note("one idle second", &sample);
    let cpu = sample.cpu_per_operation().map_or(String::new(), duration);
    Ok(Row { work: "one idle second".into(), cpu, ..Row::default() })
}

/// Measures the documents that list all types, and their change by one more definition.
async fn documents(pool: &Pool, processes: &Processes, family: Family) -> Result<Vec<Row>, LoadError> {
    let mut rows = Vec::new();
    for (title, call) in [
        ("aggregated discovery", Call::get("/apis").accept(AGGREGATED)),
        ("index of OpenAPI v3", Call::get("/openapi/v3")),
        ("OpenAPI v3 of one group", Call::get(format!("/openapi/v3/apis/{}/v1", group(0)))),
        ("OpenAPI v2, compressed", Call::get("/openapi/v2").compressed()),
    ] {
        let first = repeat(pool, processes, &call, 1).await?;
        note(&format!("{title}, first"), &first);
        rows.push(Row::plain(format!("{title}, first request"), &first));
        let again = repeat(pool, processes, &call, REPETITIONS).await?;
        note(title, &again);
        rows.push(Row::plain(title.into(), &again));
    }
    let number = family.count;
    let meter = Meter::start(processes)?;
    pool.call(&Call::post(DEFINITIONS, definition(number, family.bytes))).await?;
    served(pool, &objects_path(number)).await?;
    let plural = format!("\"{}\"", plural(number));
    let (aggregated, index) = (Call::get("/apis").accept(AGGREGATED), Call::get("/openapi/v3"));
    let listed = pool.call(&aggregated).await?;
    if !listed.windows(plural.len()).any(|bytes| bytes == plural.as_bytes()) {
        return Err(LoadError::Unexpected(format!("discovery does not list {plural}")));
    }
    pool.call(&index).await?;
    let elapsed = meter.started().elapsed();
    let sample = meter.stop(1, 0, vec![elapsed])?;
    let work = "one more definition, until it is served and both lists are read";
    note(work, &sample);
    rows.push(Row::plain(work.into(), &sample));
    rows.extend(changed_documents(pool, processes, family).await?);
    Ok(rows)
}

/// Measures the first requests of the documents after a definition is established.
async fn changed_documents(
    pool: &Pool,
    processes: &Processes,
    family: Family,
) -> Result<Vec<Row>, LoadError> {
    let number = family.count + 1;
    pool.call(&Call::post(DEFINITIONS, definition(number, family.bytes))).await?;
    served(pool, &objects_path(number)).await?;
    let mut rows = Vec::new();
    for (title, call) in [
        ("aggregated discovery", Call::get("/apis").accept(AGGREGATED)),
        ("index of OpenAPI v3", Call::get("/openapi/v3")),
        ("OpenAPI v3 of the group", Call::get(format!("/openapi/v3/apis/{}/v1", group(number)))),
        ("OpenAPI v2, compressed", Call::get("/openapi/v2").compressed()),
    ] {
        let sample = repeat(pool, processes, &call, 1).await?;
        let work = format!("{title}, once a definition is established");
        note(&work, &sample);
        let cpu = sample.cpu_per_operation().map_or(String::new(), duration);
        rows.push(Row { cpu, ..Row::time(&work, sample.elapsed, CHANGE_TIME) });
    }
    Ok(rows)
}

async fn repeat(pool: &Pool, processes: &Processes, call: &Call, times: u64) -> Result<Sample, LoadError> {
    let limits = Limits { operations: times, time: MAX_TIME };
    let call = call.clone();
    closed_loop(pool, processes, 1, limits, move |_| call.clone()).await
}

/// Waits until a list of the resource succeeds.
async fn served(pool: &Pool, path: &str) -> Result<(), LoadError> {
    let started = Instant::now();
    let call = Call::get(format!("{path}?limit=1"));
    loop {
        let response = pool.lane(0).send(&call).await?;
        if response.status().is_success() {
            return response.drain().await.map(drop);
        }
        if started.elapsed() > MAX_TIME {
            return response.success().await.map(drop);
        }
        response.drain().await?;
        tokio::time::sleep(POLL).await;
    }
}

fn group(number: u64) -> String {
    format!("family{:03}.example.com", number / PER_GROUP)
}

fn plural(number: u64) -> String {
    format!("things{number:05}")
}

fn objects_path(number: u64) -> String {
    format!("/apis/{}/v1/{}", group(number), plural(number))
}

/// Returns the JSON of the definition with this number, of about `bytes` bytes: a schema with the mix of types,
/// descriptions and nesting that generated definitions have.
pub fn definition(number: u64, bytes: usize) -> Bytes {
    let (group, plural) = (group(number), plural(number));
    let head = format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"{plural}.{group}"}},"spec":{{"group":"{group}","scope":"Namespaced","names":{{"plural":"{plural}","singular":"thing{number:05}","kind":"Thing{number:05}","listKind":"Thing{number:05}List","categories":["family"]}},"versions":[{{"name":"v1","served":true,"storage":true,"subresources":{{"status":{{}}}},"additionalPrinterColumns":[{{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}},{{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}}],"schema":{{"openAPIV3Schema":{{"type":"object","description":"A thing of the family.","required":["spec"],"properties":{{"spec":{{"type":"object","properties":{{"#
    );
    let tail = format!("}}}},\"status\":{STATUS}}}}}}}}}]}}}}");
    let mut json = head;
    let mut field = 0;
    loop {
        let before = json.len();
        if field > 0 {
            json.push(',');
        }
        property(&mut json, number, field);
        if json.len() + tail.len() > bytes && field > 0 {
            json.truncate(before);
            break;
        }
        field += 1;
    }
    json.push_str(&tail);
    Bytes::from(json)
}

/// Writes one property. Every eighth is an object with properties of its own.
fn property(json: &mut String, number: u64, field: u64) {
    let name = format!("{}{}{field}", WORDS[(number + field) as usize % WORDS.len()], field % 7);
    let about =
        "Selects how the controller treats this setting when the external resource is created or changed.";
    let schema = match field % 8 {
        0 => {
            let inner = ["region", "zone", "subnetId"].map(|inner| {
                format!(r#""{inner}":{{"type":"string","description":"The {inner} of {name}. {about}"}}"#)
            });
            format!(r#""type":"object","required":["region"],"properties":{{{}}}"#, inner.join(","))
        }
        1 => r#""type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"value":{"type":"string","maxLength":253}}}"#.into(),
        2 => r#""type":"integer","format":"int64","minimum":0"#.into(),
        3 => r#""type":"boolean","default":false"#.into(),
        4 => r#""type":"string","enum":["Orphan","Delete","Retain"],"default":"Delete""#.into(),
        5 => r#""type":"object","additionalProperties":{"type":"string"}"#.into(),
        6 => r#""type":"string","pattern":"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$""#.into(),
        _ => r#""type":"number""#.into(),
    };
    // Writing to a string cannot fail.
    let _ = write!(json, r#""{name}":{{"description":"The {name} of thing {number}. {about}",{schema}}}"#);
}

fn note(work: &str, sample: &Sample) {
    let cpu = sample.cpu_per_operation().map_or(String::new(), |cpu| format!(", {} CPU each", duration(cpu)));
    let rss = sample.rss.map_or(String::new(), |rss| format!(", {} resident", megabytes(rss)));
    eprintln!("{work}: {} in {}{cpu}{rss}", sample.operations, duration(sample.elapsed));
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const NO_CONTROLLERS: &[&str] = &["--controllers=none"];
/// Definitions of one API group.
const PER_GROUP: u64 = 10;
/// Pause before memory is measured, because the server continues to release memory after writes.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Number of requests for a document that exists.
const REPETITIONS: u64 = 50;
/// Maximum time until a document shows a definition that is established.
const CHANGE_TIME: Duration = Duration::from_millis(100);
/// Maximum time of one step.
const MAX_TIME: Duration = Duration::from_mins(10);
const POLL: Duration = Duration::from_millis(1);
const WORDS: [&str; 12] = [
    "deletion",
    "provider",
    "network",
    "capacity",
    "region",
    "backup",
    "encryption",
    "access",
    "monitoring",
    "endpoint",
    "storage",
    "identity",
];
const STATUS: &str = r#"{"type":"object","properties":{"observedGeneration":{"type":"integer","format":"int64"},"conditions":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["type"],"items":{"type":"object","required":["type","status"],"properties":{"type":{"type":"string","maxLength":316},"status":{"type":"string","enum":["True","False","Unknown"]},"reason":{"type":"string"},"message":{"type":"string"},"lastTransitionTime":{"type":"string","format":"date-time"}}}}}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_json_of_the_requested_size() {
        for bytes in [8_000, 50_000] {
            let definition = definition(12, bytes);
            assert!(definition.len() <= bytes && definition.len() > bytes - 1_000, "{}", definition.len());
            let value: serde_json::Value = serde_json::from_slice(&definition).unwrap();
            assert_eq!(value["metadata"]["name"], "things00012.family001.example.com");
        }
    }
}
