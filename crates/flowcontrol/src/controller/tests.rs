use serde_json::json;

use super::*;
use crate::level::Held;
use crate::queues::QueueSet;
use nave_machinery::RequestedResource;

struct Asked(&'static str);

impl RequestAttributes for Asked {
    fn verb(&self) -> &'static str {
        "get"
    }

    fn path(&self) -> &'static str {
        self.0
    }

    fn resource(&self) -> Option<RequestedResource<'_>> {
        None
    }
}

fn request(name: &str, wait: Duration) -> Request {
    let groups = vec!["system:authenticated".to_owned()];
    Request {
        user: Arc::new(UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }),
        attributes: Arc::new(Asked("/x")),
        mutating: false,
        is_watch: false,
        wait_until: Instant::now() + wait,
    }
}

fn controller(seats: u32) -> Arc<Controller> {
    Arc::new(Controller::new(seats, FlowMetrics::new(&prometheus::Registry::new()).unwrap()))
}

fn level(name: &str, shares: u32, response: &serde_json::Value) -> Stored<PriorityLevelSpec> {
    let limited = json!({"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": 0, "borrowingLimitPercent": 0});
    let spec = serde_json::from_value(json!({"type": "Limited", "limited": limited})).unwrap();
    Stored { name: name.to_owned(), uid: format!("uid-{name}"), spec }
}

fn queued() -> serde_json::Value {
    json!({"type": "Queue", "queuing": {"queues": 16, "handSize": 2, "queueLengthLimit": 2}})
}

/// A schema for the user of its name.
fn schema(name: &str, level: &str, precedence: i32) -> Stored<FlowSchemaSpec> {
    let spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": name}}, {"kind": "User", "user": {"name": "all"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    Stored { name: name.to_owned(), uid: format!("uid-{name}"), spec: serde_json::from_value(spec).unwrap() }
}

async fn admit(controller: &Controller, request: &Request) -> Admission {
    controller.admit(request, |_| WorkEstimate::seats(1)).await.1
}

fn seat(admission: Admission) -> Seat {
    match admission {
        Admission::Admitted(seat) => seat,
        Admission::Rejected { reason, .. } => panic!("rejected: {reason:?}"),
    }
}

#[tokio::test]
async fn the_lowest_precedence_and_then_the_first_name_wins() {
    let controller = controller(10);
    let flow = |name| controller.classify(&request(name, Duration::ZERO).user, &Asked("/x"));
    assert_eq!((&*flow("all").name, flow("all").level_name()), (CATCH_ALL, CATCH_ALL));
    let schemas =
        vec![schema("b", "l", 5), schema("a", "l", 5), schema("c", "l", 4), schema("d", "missing", 3)];
    let found = controller.configure(vec![level("l", 10, &queued())], schemas);
    assert_eq!(found, [true, true, true, false]);
    for (user, wanted) in [("all", "c"), ("a", "a"), ("b", "b"), ("d", CATCH_ALL)] {
        assert_eq!(&*flow(user).name, wanted);
    }
    let found = flow("a");
    assert_eq!((&*found.uid, &*found.level_uid, found.level_name()), ("uid-a", "uid-l", "l"));
    controller.configure(vec![level("l", 10, &queued())], vec![schema("b", "l", 5), schema("a", "l", 5)]);
    assert_eq!(&*flow("all").name, "a");
    // A user in no group matches no mandatory schema and is still served.
    let nobody = UserInfo::default();
    assert_eq!(&*controller.classify(&nobody, &Asked("/x")).name, CATCH_ALL);
    let admin = UserInfo { groups: vec!["system:masters".to_owned()], ..UserInfo::default() };
    assert_eq!(&*controller.classify(&admin, &Asked("/x")).name, EXEMPT);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_get_seats_or_leave() {
    let controller = controller(1);
    // All seats belong to the level but one for the catch-all level.
    controller.configure(vec![level("l", 5, &queued())], vec![schema("a", "l", 5)]);
    let long = request("a", Duration::from_secs(100));
    let first = seat(admit(&controller, &long).await);
    // The next one waits until the first is done.
    let (second, ()) = tokio::join!(admit(&controller, &long), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(first);
    });
    let second = seat(second);
    // One that waits too long is rejected.
    let started = Instant::now();
    let rejected = admit(&controller, &request("a", Duration::from_secs(3))).await;
    assert!(matches!(rejected, Admission::Rejected { reason: Rejection::TimeOut, retry_after: 1 }));
    assert_eq!(started.elapsed(), Duration::from_secs(3));
    // One whose client goes away leaves the queue.
    let waiting = admit(&controller, &long);
    assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
    let state = |read: fn(&QueueSet<Held>) -> u32| {
        controller.with_levels(|levels| read(&levels.by_name["l"].level.state().set))
    };
    assert_eq!((state(QueueSet::waiting), state(QueueSet::executing)), (0, 1));
    // Queues are bounded.
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let (controller, long) = (Arc::clone(&controller), long.clone());
                async move { drop(seat(admit(&controller, &long).await)) }
            })
        })
        .collect();
    while state(QueueSet::waiting) < 4 {
        tokio::task::yield_now().await;
    }
    let rejected = admit(&controller, &long).await;
    assert!(matches!(rejected, Admission::Rejected { reason: Rejection::QueueFull, .. }));
    drop(second);
    for task in blocked {
        task.await.unwrap();
    }
    assert_eq!((state(QueueSet::waiting), state(QueueSet::executing)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_removed_level_serves_its_requests_to_the_end() {
    let controller = controller(1);
    controller.configure(vec![level("l", 5, &queued())], vec![schema("a", "l", 5)]);
    let long = request("a", Duration::from_secs(100));
    let first = seat(admit(&controller, &long).await);
    let waiting = tokio::spawn({
        let (controller, long) = (Arc::clone(&controller), long.clone());
        async move { admit(&controller, &long).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    controller.configure(Vec::new(), Vec::new());
    assert!(controller.dump_priority_levels().contains("l,                 1,            false,  true,"));
    assert_eq!(controller.classify(&long.user, &Asked("/x")).level_name(), CATCH_ALL);
    drop(first);
    drop(seat(waiting.await.unwrap()));
    controller.adjust_now();
    assert!(controller.with_levels(|levels| levels.by_name.keys().eq([CATCH_ALL, EXEMPT])));
}

#[tokio::test(start_paused = true)]
async fn the_task_releases_final_seats_and_ends_slow_watches() {
    let controller = controller(1);
    controller.configure(vec![level("l", 5, &queued())], vec![schema("a", "l", 5)]);
    let task = tokio::spawn({
        let controller = Arc::clone(&controller);
        async move { controller.run().await }
    });
    let long = request("a", Duration::from_secs(1_000));
    let estimate =
        WorkEstimate { initial_seats: 1, final_seats: 1, additional_latency: Duration::from_millis(50) };
    drop(seat(controller.admit(&long, |_| estimate).await.1));
    let started = Instant::now();
    let second = seat(admit(&controller, &long).await);
    assert!((50..60).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    drop(second);
    // A watch whose client does not read gives back its seats after a minute.
    let watch = Request { is_watch: true, ..long.clone() };
    let held = seat(admit(&controller, &watch).await);
    let next = seat(admit(&controller, &long).await);
    assert!((60..=80).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    // The seat of the watch is dropped later and frees nothing twice.
    drop(held);
    let third = admit(&controller, &request("a", Duration::from_secs(1))).await;
    assert!(matches!(third, Admission::Rejected { reason: Rejection::TimeOut, .. }));
    drop(next);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn idle_levels_lend_their_seats() {
    let controller = controller(100);
    let share = |name: &str, lendable, borrowing: Option<u32>| {
        let mut stored = level(name, 50, &queued());
        if let Some(limited) = &mut stored.spec.limited {
            (limited.lendable_percent, limited.borrowing_limit_percent) = (Some(lendable), borrowing);
        }
        stored
    };
    let levels = || vec![share("busy", 0, Some(50)), share("idle", 80, None)];
    controller.configure(levels(), vec![schema("a", "busy", 5)]);
    let limit = |name: &str| controller.with_levels(|levels| levels.by_name[name].level.state().set.limit());
    let nominal = 48;
    let requests = (0..200).map(|at| {
        let mut request = request("a", Duration::from_secs(100));
        // Each user has its own queues.
        request.user =
            Arc::new(UserInfo { name: "all".to_owned(), uid: at.to_string(), ..UserInfo::default() });
        request
    });
    let mut held = Vec::new();
    for request in requests {
        let waiting = admit(&controller, &request);
        if let Ok(Admission::Admitted(seat)) = tokio::time::timeout(Duration::ZERO, waiting).await {
            held.push(seat);
        }
    }
    let before = held.len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    controller.adjust_now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    controller.adjust_now();
    assert!(limit("busy") > nominal && limit("busy") <= nominal + 24, "{} {before}", limit("busy"));
    assert!(limit("idle") >= 9, "{}", limit("idle"));
}
