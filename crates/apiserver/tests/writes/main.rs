//! The write path against a model: a map of objects.
//!
//! Random creates, updates, patches and deletions of services, config maps and pods: with dry runs, finalizers and
//! preconditions, by one writer or two concurrent ones, with a lagging watch cache, a rejecting plugin, a failing
//! store, and clients that disconnect. After each step, the stored state must follow from the responses. At the end,
//! the allocated addresses and ports must be exactly those of the stored services.
//!
//! A failing schedule is shrunk and printed with the seed of its run. `PROPTEST_RNG_SEED=… cargo nextest run -p
//! nave-apiserver --test writes` runs it again. `PROPTEST_CASES` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod faults;
mod scenarios;
mod world;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use futures_util::future::join;
use http::Method;
use nave_machinery::{Value, meta};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use faults::Fault;
use world::{FIRST_PORT, LAST_PORT, TestResponse, World};

/// The finalizer that the test sets.
const FINALIZER: &str = "example.com/hold";

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    /// Two concurrent writers.
    Pair(Write, Write),
    /// A write whose transaction fails after a number of other transactions.
    Failing(Fault, u8, Write),
    /// A write whose client disconnects after a number of polls.
    Cancelled(u8, Write),
    /// Makes the watch cache lag, or lets it catch up.
    Lag(bool),
}

#[derive(Clone, Debug)]
struct Write {
    kind: Kind,
    name: u8,
    change: Change,
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Service,
    ConfigMap,
    Pod,
}

#[derive(Clone, Debug)]
enum Change {
    Create {
        body: Body,
        generate: bool,
    },
    Update {
        body: Body,
        version: Version,
    },
    Patch {
        body: Body,
        version: Version,
    },
    /// Sets metadata that only a deletion may set.
    Forge(&'static str),
    Delete {
        uid: Option<bool>,
        version: Option<bool>,
        grace: Option<i8>,
    },
}

#[derive(Clone, Debug)]
struct Body {
    ports: Ports,
    held: bool,
    number: u8,
    fault: BodyFault,
}

/// The type of a service, with its address or port.
#[derive(Clone, Copy, Debug)]
enum Ports {
    Headless,
    Allocated,
    Address(u8),
    NodePort(Option<u8>),
    /// A port out of range.
    OutOfRange,
}

/// The reason why a body is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFault {
    None,
    /// Rejected by admission.
    Refused,
    /// Rejected by validation.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    None,
    Current,
    Stale,
}

fn body() -> impl Strategy<Value = Body> {
    let ports = prop_oneof![
        1 => Just(Ports::Headless),
        3 => Just(Ports::Allocated),
        1 => (1..15_u8).prop_map(Ports::Address),
        4 => prop::option::of(0..4_u8).prop_map(Ports::NodePort),
        1 => Just(Ports::OutOfRange),
    ];
    let fault = prop_oneof![
        8 => Just(BodyFault::None), 1 => Just(BodyFault::Refused), 1 => Just(BodyFault::Invalid)
    ];
    (ports, prop::bool::weighted(0.2), any::<u8>(), fault).prop_map(|(ports, held, number, fault)| Body {
        ports,
        held,
        number,
        fault,
    })
}

fn write() -> impl Strategy<Value = Write> {
    let version = prop_oneof![
        3 => Just(Version::None), 2 => Just(Version::Current), 1 => Just(Version::Stale)
    ];
    let condition = || prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let grace = prop_oneof![2 => Just(None), 2 => (-2..3_i8).prop_map(Some)];
    let change = prop_oneof![
        4 => (body(), prop::bool::weighted(0.2)).prop_map(|(body, generate)| Change::Create { body, generate }),
        3 => (body(), version.clone()).prop_map(|(body, version)| Change::Update { body, version }),
        2 => (body(), version).prop_map(|(body, version)| Change::Patch { body, version }),
        1 => prop::sample::select(vec!["deletionTimestamp", "deletionGracePeriodSeconds"]).prop_map(Change::Forge),
        3 => (condition(), condition(), grace)
            .prop_map(|(uid, version, grace)| Change::Delete { uid, version, grace }),
    ];
    let kind = prop_oneof![4 => Just(Kind::Service), 1 => Just(Kind::ConfigMap), 1 => Just(Kind::Pod)];
    (kind, 0..4_u8, change, prop::bool::weighted(0.15)).prop_map(|(kind, name, change, dry_run)| Write {
        kind,
        name,
        change,
        dry_run,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![Fault::Refused, Fault::Lost, Fault::AnswerLost]);
    prop_oneof![
        10 => write().prop_map(Step::Write),
        4 => (write(), write()).prop_map(|(one, other)| Step::Pair(one, other)),
        4 => (fault, 0..4_u8, write()).prop_map(|(fault, others, write)| Step::Failing(fault, others, write)),
        3 => (0..12_u8, write()).prop_map(|(polls, write)| Step::Cancelled(polls, write)),
        1 => any::<bool>().prop_map(Step::Lag),
    ]
}

impl Kind {
    fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::ConfigMap => "configmaps",
            Self::Pod => "pods",
        }
    }
}

impl Body {
    fn object(&self, kind: Kind) -> Value {
        let mut metadata = json!({"labels": {"number": self.number.to_string()}});
        if self.fault == BodyFault::Refused {
            metadata["labels"]["refuse"] = json!("true");
        }
        metadata["finalizers"] = if self.held { json!([FINALIZER]) } else { Value::Null };
        let is_invalid = self.fault == BodyFault::Invalid;
        match kind {
            Kind::Service => json!({"metadata": metadata, "spec": self.service_spec()}),
            Kind::ConfigMap => {
                let key = if is_invalid { "not a key" } else { "key" };
                json!({"metadata": metadata, "data": {key: self.number.to_string()}})
            }
            Kind::Pod => {
                let image = if is_invalid { "" } else { "image" };
                let containers = json!([{"name": "c", "image": image}]);
                json!({"metadata": metadata, "spec": {"nodeName": "node", "containers": containers}})
            }
        }
    }

    fn service_spec(&self) -> Value {
        let affinity = if self.fault == BodyFault::Invalid { "Bogus" } else { "None" };
        let mut spec = json!({"sessionAffinity": affinity, "type": "ClusterIP", "ports": [{"port": 80}]});
        match self.ports {
            Ports::Headless => spec["clusterIP"] = json!("None"),
            Ports::Allocated => {}
            Ports::Address(last) => spec["clusterIP"] = json!(format!("10.0.0.{last}")),
            Ports::NodePort(offset) => {
                spec["type"] = json!("NodePort");
                if let Some(offset) = offset {
                    spec["ports"][0]["nodePort"] = json!(FIRST_PORT + u16::from(offset));
                }
            }
            Ports::OutOfRange => {
                spec["type"] = json!("NodePort");
                spec["ports"][0]["nodePort"] = json!(1);
            }
        }
        spec
    }
}

/// The objects by resource and name, as returned in responses.
type Model = BTreeMap<(&'static str, String), Value>;

struct Run<'a> {
    world: &'a World,
    namespace: String,
    model: Model,
}

impl Run<'_> {
    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(write) => {
                let answer = self.send(write).await;
                self.check(write, &answer);
                self.take_in(write, &answer);
            }
            Step::Pair(one, other) => {
                let (first, second) = join(self.send(one), self.send(other)).await;
                self.check_pair(&[(one, &first), (other, &second)]).await;
            }
            Step::Failing(fault, others, write) => {
                self.world.store.fail_after(*others, *fault);
                let answer = self.send(write).await;
                self.world.store.heal();
                self.world.quiet().await;
                if *fault == Fault::Refused && !answer.is_success() {
                    self.take_in(write, &answer);
                }
                self.adopt().await;
            }
            Step::Cancelled(polls, write) => {
                let (method, path, body) = self.request(write);
                self.world.send_and_leave(method, &path, &body, *polls).await;
                self.world.quiet().await;
                self.adopt().await;
            }
            Step::Lag(lags) => self.world.store.hold_back(*lags),
        }
        let stored = self.stored().await;
        assert!(stored == self.model, "{step:?} leads to {stored:#?}, not to {:#?}", self.model);
        // Allocation reads the store, so a lagging watch cache does not affect it.
        self.world.quiet().await;
        if matches!(step, Step::Failing(..)) {
            self.world.repair().await;
        }
        let (allocated, wanted) = (self.world.allocated().await, self.world.should_be_allocated().await);
        assert!(allocated == wanted, "{step:?}: allocated are {allocated:?} and should be {wanted:?}");
        self.no_two_services_share().await;
    }

    /// Compares a response with the model.
    fn check(&self, write: &Write, answer: &TestResponse) {
        let current = self.current(write);
        let context = format!("{write:?} is answered with {answer:?}");
        assert!(answer.code < 500 || is_full(answer), "{context}");
        match &write.change {
            Change::Create { generate: true, body } => {
                if body.fault == BodyFault::None && write.kind != Kind::Service {
                    assert_eq!(answer.code, 201, "{context}");
                }
            }
            Change::Create { body, .. } if current.is_some() => {
                let refused = body.fault != BodyFault::None || write.kind == Kind::Service;
                let is_refusal = matches!(answer.code, 403 | 422) || is_full(answer);
                assert!(answer.code == 409 || (refused && is_refusal), "{context}");
            }
            Change::Create { body, .. } => self.check_body(body, write, None, 201, answer),
            Change::Update { version: Version::Stale, .. }
            | Change::Patch { version: Version::Stale, .. } => {
                assert!(current.is_none() || answer.code == 409, "{context}");
            }
            Change::Update { body, .. } if current.is_some() && write.kind != Kind::Pod => {
                self.check_body(body, write, current, 200, answer);
            }
            Change::Patch { .. } | Change::Update { .. } => {}
            Change::Forge(_) => {
                let wanted: &[u16] = if current.is_some() { &[422, 200] } else { &[404] };
                assert!(wanted.contains(&answer.code), "{context}");
            }
            Change::Delete { uid, version, grace } => {
                let wanted = match current {
                    None => 404,
                    Some(_) if *uid == Some(false) || *version == Some(false) => 409,
                    Some(_) => 200,
                };
                assert_eq!(answer.code, wanted, "{context}");
                let is_graceful = write.kind == Kind::Pod && *grace != Some(0);
                if is_graceful && wanted == 200 {
                    let grace = meta::field(&answer.body, "deletionGracePeriodSeconds");
                    assert!(grace.and_then(Value::as_i64).is_some_and(|seconds| seconds > 0), "{context}");
                }
            }
        }
    }

    fn check_body(
        &self,
        body: &Body,
        write: &Write,
        current: Option<&Value>,
        success: u16,
        answer: &TestResponse,
    ) {
        let context = format!("{write:?} is answered with {answer:?}");
        let wanted = match body.fault {
            // Allocation or validation may reject the body before the plugin does.
            BodyFault::Refused if write.kind == Kind::Service => vec![403, 422, 500],
            BodyFault::Refused => vec![403],
            // Addresses may run out before the body is validated.
            BodyFault::Invalid if write.kind == Kind::Service => vec![422, 500],
            BodyFault::Invalid => vec![422],
            BodyFault::None if write.kind != Kind::Service => vec![success],
            BodyFault::None => self.expected_of_ports(body, write, current, success),
        };
        // An object that is being deleted does not accept new finalizers.
        let is_ending = current.is_some_and(|current| meta::deletion_timestamp(current).is_some());
        assert!(wanted.contains(&answer.code) || (is_ending && answer.code == 422), "{context}");
    }

    /// Returns the expected codes, given the addresses and ports of the model's services.
    fn expected_of_ports(
        &self,
        body: &Body,
        write: &Write,
        current: Option<&Value>,
        success: u16,
    ) -> Vec<u16> {
        let others = || {
            let own = ("services", name_of(write));
            self.model.iter().filter(move |(key, _)| key.0 == "services" && **key != own).map(|(_, it)| it)
        };
        let addresses = others().filter(|other| other["spec"]["clusterIP"] != "None").count();
        let ports: Vec<u64> =
            others().filter_map(|other| other["spec"]["ports"][0]["nodePort"].as_u64()).collect();
        let port = |offset: u8| u64::from(FIRST_PORT) + u64::from(offset);
        // The range has 14 addresses, and the `kubernetes` service uses one.
        let is_full = addresses >= 13;
        match body.ports {
            Ports::OutOfRange => vec![422],
            Ports::NodePort(Some(offset)) if ports.contains(&port(offset)) => vec![422],
            // A dry run does not search for a free port or address.
            Ports::NodePort(None) | Ports::Allocated if write.dry_run => vec![success, 422],
            Ports::NodePort(None) if ports.len() > usize::from(LAST_PORT - FIRST_PORT) => vec![500],
            // A service cannot become headless or stop being headless, and its address cannot change.
            _ if current.is_some() => vec![success, 422],
            Ports::Headless => vec![success],
            Ports::Address(last) => {
                let address = format!("10.0.0.{last}");
                let is_taken = last == 1 || others().any(|other| other["spec"]["clusterIP"] == *address);
                // A dry run does not find an address that is taken. The last one is the range's broadcast address.
                vec![if last == 15 || (is_taken && !write.dry_run) { 422 } else { success }]
            }
            _ => vec![if is_full && !write.dry_run { 500 } else { success }],
        }
    }

    /// Applies the result of a write to the model.
    fn take_in(&mut self, write: &Write, answer: &TestResponse) {
        if write.dry_run || !answer.is_success() {
            return;
        }
        let is_deletion = matches!(write.change, Change::Delete { .. });
        let ended = is_deletion && meta::kind(&answer.body) == "Status";
        let object = &answer.body;
        let name = if is_deletion { name_of(write) } else { meta::name(object).to_owned() };
        let key = (write.kind.resource(), name);
        if ended || !stays(write, object) {
            self.model.remove(&key);
        } else {
            self.model.insert(key, object.clone());
        }
    }

    /// Checks two concurrent writes: the stored state must follow from the successful ones in either order.
    async fn check_pair(&mut self, outcomes: &[(&Write, &TestResponse)]) {
        let stored = self.stored().await;
        for (write, answer) in outcomes {
            assert!(answer.code < 500 || is_full(answer), "{write:?} is answered with {answer:?}");
        }
        let mut possible = vec![];
        let successes: Vec<_> =
            outcomes.iter().filter(|(write, it)| !write.dry_run && it.is_success()).collect();
        for order in [successes.clone(), successes.iter().rev().copied().collect()] {
            let mut after = Run { world: self.world, namespace: String::new(), model: self.model.clone() };
            for (write, answer) in order {
                after.take_in(write, answer);
            }
            possible.push(after.model);
        }
        assert!(possible.contains(&stored), "{outcomes:?} lead to {stored:?}, not to one of {possible:?}");
        self.model = stored;
    }

    /// Reads the stored state into the model if the response does not tell the outcome.
    async fn adopt(&mut self) {
        self.model = self.stored().await;
    }

    async fn stored(&self) -> Model {
        let mut all = Model::new();
        for kind in [Kind::Service, Kind::ConfigMap, Kind::Pod] {
            let found = self.world.all_stored(kind.resource(), &self.namespace).await;
            all.extend(found.into_iter().map(|(name, object)| ((kind.resource(), name), object)));
        }
        all
    }

    async fn no_two_services_share(&self) {
        let owned = self.world.should_be_allocated().await;
        let mut items: Vec<&str> = owned.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let count = items.len();
        items.dedup();
        assert_eq!(items.len(), count, "{owned:?}");
    }

    fn current(&self, write: &Write) -> Option<&Value> {
        self.model.get(&(write.kind.resource(), name_of(write)))
    }

    async fn send(&self, write: &Write) -> TestResponse {
        let (method, path, body) = self.request(write);
        self.world.send(method, &path, &body).await
    }

    fn request(&self, write: &Write) -> (Method, String, Value) {
        let collection = format!("/api/v1/namespaces/{}/{}", self.namespace, write.kind.resource());
        let name = name_of(write);
        let query = if write.dry_run { "?dryRun=All" } else { "" };
        let one = format!("{collection}/{name}{query}");
        let current = self.current(write);
        match &write.change {
            Change::Create { body, generate } => {
                let mut object = body.object(write.kind);
                let field = if *generate { "generateName" } else { "name" };
                object["metadata"][field] = json!(name);
                (Method::POST, format!("{collection}{query}"), object)
            }
            Change::Update { body, version } => {
                let mut object = body.object(write.kind);
                object["metadata"]["name"] = json!(name);
                set_version(&mut object, *version, current);
                (Method::PUT, one, object)
            }
            Change::Patch { body, version } => {
                let mut patch = body.object(write.kind);
                if write.kind == Kind::Pod {
                    patch["spec"] = Value::Null;
                    patch.as_object_mut().unwrap().remove("spec");
                }
                set_version(&mut patch, *version, current);
                (Method::PATCH, one, patch)
            }
            Change::Forge(field) => {
                let value =
                    if *field == "deletionTimestamp" { json!("2020-01-01T00:00:00Z") } else { json!(0) };
                (Method::PATCH, one, json!({"metadata": {*field: value}}))
            }
            Change::Delete { uid, version, grace } => {
                let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
                if write.dry_run {
                    options["dryRun"] = json!(["All"]);
                }
                if let Some(grace) = grace {
                    options["gracePeriodSeconds"] = json!(grace);
                }
                let found = |field: fn(&Value) -> &str| current.map_or("none", field).to_owned();
                if let Some(right) = uid {
                    let uid = if *right { found(meta::uid) } else { "wrong".to_owned() };
                    options["preconditions"]["uid"] = json!(uid);
                }
                if let Some(right) = version {
                    let version = if *right { found(meta::resource_version) } else { "1".to_owned() };
                    options["preconditions"]["resourceVersion"] = json!(version);
                }
                (Method::DELETE, one, options)
            }
        }
    }

    /// Deletes everything and compares the allocations with the stored objects.
    async fn end(mut self) {
        let store = &self.world.store;
        store.hold_back(false);
        self.world.quiet().await;
        self.world.caught_up().await;
        self.allocations_are_right().await;
        for ((resource, name), _) in std::mem::take(&mut self.model) {
            let path = format!("/api/v1/namespaces/{}/{resource}/{name}", self.namespace);
            let release = json!({"metadata": {"finalizers": null}});
            self.world.send(Method::PATCH, &path, &release).await;
            self.world.send(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), &Value::Null).await;
        }
        assert_eq!(self.stored().await, Model::new());
        self.allocations_are_right().await;
    }

    async fn allocations_are_right(&self) {
        assert_eq!(self.world.allocated().await, self.world.should_be_allocated().await);
    }
}

/// Returns whether a write was refused because no addresses or ports are left.
fn is_full(answer: &TestResponse) -> bool {
    answer.code == 500 && answer.body["message"].as_str().is_some_and(|text| text.ends_with("range is full"))
}

fn name_of(write: &Write) -> String {
    format!("object{}", write.name)
}

/// Returns whether an object still exists after a write; `object` is the object in the response.
fn stays(write: &Write, object: &Value) -> bool {
    if meta::deletion_timestamp(object).is_none() {
        return !matches!(write.change, Change::Delete { .. });
    }
    let grace = meta::field(object, "deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    !meta::finalizers(object).is_empty() || grace > 0
}

fn set_version(object: &mut Value, version: Version, current: Option<&Value>) {
    let Some(current) = current else { return };
    match version {
        Version::None => {}
        Version::Current => object["metadata"]["resourceVersion"] = json!(meta::resource_version(current)),
        Version::Stale => object["metadata"]["resourceVersion"] = json!("1"),
    }
}

/// Returns the number of schedules and the seed. Prints the seed.
fn config() -> ProptestConfig {
    let mut config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(40),
    };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    config.max_shrink_iters = 500;
    config.failure_persistence = None;
    eprintln!("PROPTEST_RNG_SEED={seed} runs these schedules again");
    config
}

#[test]
fn stored_state_and_allocations_follow_from_the_responses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // All schedules share one server. After a failure, each schedule that is tried while shrinking has its own server.
    let world = std::cell::RefCell::new(None::<World>);
    proptest!(config(), |(steps in prop::collection::vec(step(), 1..60))| {
        let mut taken = world.borrow_mut().take();
        runtime.block_on(async {
            if taken.is_none() {
                taken = Some(World::new().await);
            }
            let world = taken.as_mut().unwrap();
            let namespace = world.namespace().await;
            let mut run = Run { world, namespace, model: Model::new() };
            for step in &steps {
                run.apply(step).await;
            }
            run.end().await;
        });
        *world.borrow_mut() = taken;
    });
}
