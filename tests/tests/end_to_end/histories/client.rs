//! Clients that send random requests to random servers and record the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nave_loadtest::http::{Call, JSON, Method, Pool};
use nave_store::contract::Random;
use nave_tests::linearizability::{Answer, Operation, Request};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cluster::Targets;
use super::record::{LENGTH, Record};

pub(super) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CLIENTS: usize = 5;
/// Time that a client waits for an answer. Shorter than a server may be stopped.
const PATIENCE: Duration = Duration::from_millis(700);

/// Starts the clients of a history.
pub(super) fn start(
    record: &Arc<Record>,
    targets: &Arc<Targets>,
    random: &mut Random,
) -> JoinSet<Option<()>> {
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client {
            number,
            record: Arc::clone(record),
            targets: Arc::clone(targets),
            random: Random::new(random.number()),
            connections: BTreeMap::new(),
            known: BTreeMap::new(),
            newest: 0,
        };
        clients.spawn(client.run());
    }
    clients
}

struct Client {
    number: usize,
    record: Arc<Record>,
    targets: Arc<Targets>,
    random: Random,
    /// Connections by server, with the start of the server that they lead to.
    connections: BTreeMap<usize, (u64, Pool)>,
    /// The last resource version in an answer about each key.
    known: BTreeMap<String, u64>,
    /// The highest resource version that an answer to this client had.
    newest: u64,
}

impl Client {
    async fn run(mut self) -> Option<()> {
        while self.record.answered() < LENGTH {
            let server = self.random.below(self.targets.len() as u64) as usize;
            let Some(pool) = self.connection(server).await else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            let is_answered = match self.random.below(10) {
                0 => self.list(&pool).await,
                _ => self.request(&pool).await,
            };
            if is_answered {
                self.record.count(server);
            } else {
                self.connections.remove(&server);
            }
        }
        Some(())
    }

    /// Returns a connection to a server, or `None` if there is none. Nothing was sent then.
    async fn connection(&mut self, server: usize) -> Option<Pool> {
        let (start, target) = self.targets.get(server);
        if let Some((known, pool)) = self.connections.get(&server)
            && *known == start
        {
            return Some(pool.clone());
        }
        let pool = tokio::time::timeout(PATIENCE, target.pool(1)).await.ok()?.ok()?;
        self.connections.insert(server, (start, pool.clone()));
        Some(pool)
    }

    /// Sends a random request to a random key and returns whether it was answered.
    async fn request(&mut self, pool: &Pool) -> bool {
        let keys = self.record.keys();
        let key = keys[self.random.below(keys.len() as u64) as usize].clone();
        let request = self.choose(&key);
        let call = self.call(&key, request);
        let start = self.record.tick();
        let answer = send(pool, &call).await;
        let end = self.record.tick();
        match answer.map(|(status, body)| (status, meaning(request, status, &body))) {
            Some((_, Meaning::Answer(answer))) => {
                self.learn(&key, answer);
                self.record.add_answer(self.number, &key, start, request, (end, answer));
                true
            }
            Some((_, Meaning::NoEffect)) => true,
            Some((status, Meaning::Wrong)) => panic!("{request:?} of {key}: {status}"),
            outcome @ (None | Some((_, Meaning::Unknown))) => {
                if request != Request::Get {
                    let (client, answer) = (self.number, None);
                    self.record.add(Operation { client, key, start, request, answer });
                }
                outcome.is_some()
            }
        }
    }

    fn choose(&mut self, key: &str) -> Request {
        let value = self.record.new_value();
        match (self.random.below(8), self.known.get(key).copied()) {
            (0..2, _) => Request::Get,
            (2..4, _) | (4..7, None) => Request::Create { value },
            (4..7, Some(expected)) => Request::Update { value, expected },
            (_, known) => Request::Delete { expected: known.filter(|_| self.random.below(2) == 0) },
        }
    }

    fn call(&self, key: &str, request: Request) -> Call {
        let path = format!("{MAPS}/{key}");
        let object = |value: u64, expected: Option<u64>| {
            let version = expected.map(|expected| expected.to_string());
            let labels = json!({"history": self.record.label()});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value.to_string()},
                "metadata": {"name": key, "labels": labels, "resourceVersion": version}})
        };
        match request {
            Request::Get => Call::get(path),
            Request::Create { value } => Call::post(MAPS, object(value, None).to_string()),
            Request::Update { value, expected } => {
                Call::new(Method::PUT, path, Some(JSON), object(value, Some(expected)).to_string().into())
            }
            Request::Delete { expected: None } => Call::delete(path),
            Request::Delete { expected: Some(expected) } => {
                let options = json!({"preconditions": {"resourceVersion": expected.to_string()}});
                Call::new(Method::DELETE, path, Some(JSON), options.to_string().into())
            }
        }
    }

    /// Lists all objects of the history, which is a read of each key. Returns whether it was answered.
    async fn list(&mut self, pool: &Pool) -> bool {
        let call = Call::get(format!("{MAPS}?labelSelector=history%3D{}", self.record.label()));
        let start = self.record.tick();
        let answer = send(pool, &call).await;
        let end = self.record.tick();
        let Some((status, body)) = answer else { return false };
        if status != 200 {
            assert!(UNAVAILABLE.contains(&status), "list: {status}");
            return true;
        }
        let list: Value = serde_json::from_slice(&body).unwrap();
        let revision = revision_of(&list).unwrap();
        assert!(revision >= self.newest, "a list of {revision} after {}", self.newest);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        for key in self.record.keys() {
            let item = items.iter().find(|item| item["metadata"]["name"] == *key);
            let answer = item.map_or(Answer::NotFound, |item| read(item).unwrap());
            if let Answer::Found { revision: item, .. } = answer {
                assert!(item <= revision, "{key} of {item} in a list of {revision}");
            }
            self.learn(&key, answer);
            self.record.add_answer(self.number, &key, start, Request::Get, (end, answer));
        }
        self.newest = revision;
        true
    }

    fn learn(&mut self, key: &str, answer: Answer) {
        if let Answer::Found { revision, .. } | Answer::Written { revision } = answer {
            self.known.insert(key.to_owned(), revision);
            self.newest = self.newest.max(revision);
        }
    }
}

/// Sends a request and returns the status and the body of the response, or `None` without one.
async fn send(pool: &Pool, call: &Call) -> Option<(u16, Bytes)> {
    let sent = async {
        let response = pool.lane(0).send(call).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.read_all().await.ok()?))
    };
    tokio::time::timeout(PATIENCE, sent).await.ok()?
}

/// The meaning of a response.
enum Meaning {
    Answer(Answer),
    /// The request was not carried out and will not be.
    NoEffect,
    /// The request may have been carried out, or may still be.
    Unknown,
    Wrong,
}

/// Statuses of requests that were not carried out or whose outcome is unknown.
const UNAVAILABLE: [u16; 4] = [429, 500, 503, 504];

fn meaning(request: Request, status: u16, body: &[u8]) -> Meaning {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let answer = match (request, status) {
        (_, 429 | 503) => return Meaning::NoEffect,
        (_, 500 | 504) => return Meaning::Unknown,
        (Request::Get, 200) => read(&parsed),
        (Request::Create { .. }, 201) | (Request::Update { .. }, 200) => {
            revision_of(&parsed).map(|revision| Answer::Written { revision })
        }
        (Request::Delete { .. }, 200) => Some(Answer::Deleted),
        (Request::Get | Request::Update { .. } | Request::Delete { .. }, 404) => Some(Answer::NotFound),
        (Request::Create { .. }, 409) if parsed["reason"] == "AlreadyExists" => Some(Answer::Exists),
        (Request::Update { .. } | Request::Delete { .. }, 409) => Some(Answer::Conflict),
        _ => None,
    };
    answer.map_or(Meaning::Wrong, Meaning::Answer)
}

fn read(object: &Value) -> Option<Answer> {
    let value = object["data"]["value"].as_str()?.parse().ok()?;
    Some(Answer::Found { value, revision: revision_of(object)? })
}

/// Returns the resource version of an object or a list.
pub(super) fn revision_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}
