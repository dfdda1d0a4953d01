use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::dealer::flow_hash;

const QUEUING: Queuing = Queuing::Queue { queues: 8, hand_size: 2, queue_length_limit: 3 };

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn wide(seats: u32) -> WorkEstimate {
    WorkEstimate::seats(seats)
}

/// The reference: all queues exist, nothing is summed up in advance, and every request passes a queue.
struct Model {
    queues: Vec<ModelQueue>,
    limit: u32,
    hand_size: u32,
    queue_length_limit: usize,
    progress: SeatSeconds,
    now: Instant,
    robin: usize,
    deals: usize,
    lingering: Vec<(Instant, usize, u32)>,
}

#[derive(Clone, Default)]
struct ModelQueue {
    waiting: VecDeque<ModelRequest>,
    executing: Vec<(ModelRequest, Instant)>,
    lingering_seats: u32,
    next_dispatch: SeatSeconds,
}

#[derive(Clone, Copy)]
struct ModelRequest {
    id: usize,
    estimate: WorkEstimate,
    work: SeatSeconds,
    arrival: SeatSeconds,
}

impl ModelQueue {
    fn seats(&self) -> u32 {
        self.executing.iter().map(|(request, _)| request.estimate.max_seats()).sum::<u32>()
            + self.lingering_seats
    }

    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.executing.is_empty()
    }

    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_dispatch = self.next_dispatch.max(oldest.arrival);
        }
    }
}

impl Model {
    fn seats(&self) -> u32 {
        self.queues.iter().map(ModelQueue::seats).sum()
    }

    fn executing(&self) -> usize {
        self.queues.iter().map(|queue| queue.executing.len()).sum()
    }

    fn move_time(&mut self, now: Instant) {
        let active = self.queues.iter().filter(|queue| queue.is_active()).count();
        if active > 0 {
            let waiting =
                |queue: &ModelQueue| queue.waiting.iter().map(|it| it.estimate.max_seats()).sum::<u32>();
            let requested: u32 = self.queues.iter().map(|queue| queue.seats() + waiting(queue)).sum();
            let rate = f64::from(requested.min(self.limit)) / active as f64;
            self.progress = self.progress.plus(SeatSeconds::product(rate, now - self.now));
        }
        self.now = now;
    }

    fn advance(&mut self, now: Instant) {
        self.lingering.sort_unstable();
        while let Some((until, queue, seats)) = self.lingering.first().copied().filter(|first| first.0 <= now)
        {
            self.move_time(until);
            self.lingering.remove(0);
            self.queues[queue].lingering_seats -= seats;
        }
        self.move_time(now);
    }

    /// Returns whether the request was accepted.
    fn arrive(&mut self, id: usize, hash: u64, estimate: WorkEstimate) -> bool {
        let hand = Hand::deal(hash, self.queues.len() as u32, self.hand_size);
        let (mut best, mut least) = (None, None);
        for at in 0..hand.cards().len() {
            let card = hand.cards()[(self.deals + at) % hand.cards().len()] as usize;
            let work =
                self.queues[card].waiting.iter().fold(SeatSeconds::default(), |sum, it| sum.plus(it.work));
            if least.is_none_or(|least| work < least) {
                (best, least) = (Some(card), Some(work));
            }
        }
        self.deals += 1;
        let index = best.unwrap();
        if self.seats() >= self.limit && self.queues[index].waiting.len() >= self.queue_length_limit {
            return false;
        }
        let (arrival, work) = (self.progress, estimate.total_work());
        let queue = &mut self.queues[index];
        if !queue.is_active() {
            queue.next_dispatch = arrival;
        }
        queue.waiting.push_back(ModelRequest { id, estimate, work, arrival });
        self.queues[index].bound();
        self.dispatch();
        true
    }

    fn dispatch(&mut self) {
        while self.seats() < self.limit {
            let count = self.queues.len();
            let order = (1..=count).map(|step| (self.robin + step) % count);
            let mut next: Option<(SeatSeconds, usize)> = None;
            for index in order {
                let Some(oldest) = self.queues[index].waiting.front() else { continue };
                let finish = self.queues[index].next_dispatch.plus(oldest.work);
                if next.is_none_or(|(least, _)| finish < least) {
                    next = Some((finish, index));
                }
            }
            let Some((_, index)) = next else { return };
            let seats = self.queues[index].waiting[0].estimate.max_seats();
            let fits =
                if seats > self.limit { self.executing() == 0 } else { self.seats() + seats <= self.limit };
            if !fits {
                return;
            }
            self.robin = index;
            let (limit, now, queue) = (self.limit, self.now, &mut self.queues[index]);
            let mut request = queue.waiting.pop_front().unwrap();
            request.estimate = narrowed(request.estimate, limit);
            queue.executing.push((request, now));
            queue.next_dispatch = queue.next_dispatch.plus(request.work);
            queue.bound();
        }
    }

    fn leave(&mut self, id: usize) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Some(at) = queue.waiting.iter().position(|request| request.id == id) {
                queue.waiting.remove(at);
                queue.bound();
            }
            if let Some(at) = queue.executing.iter().position(|(request, _)| request.id == id) {
                let (request, started) = queue.executing.remove(at);
                let seats = f64::from(request.estimate.initial_seats);
                let estimated = SeatSeconds::product(seats, ESTIMATED_SERVICE_TIME);
                let actual = SeatSeconds::product(seats, self.now - started);
                queue.next_dispatch = queue.next_dispatch.minus(estimated).plus(actual);
                queue.bound();
                let latency = request.estimate.additional_latency;
                if !latency.is_zero() {
                    queue.lingering_seats += request.estimate.max_seats();
                    self.lingering.push((self.now + latency, index, request.estimate.max_seats()));
                }
            }
        }
        self.dispatch();
    }

    /// Returns the executing and the waiting requests with their queues.
    fn state(&self) -> (BTreeMap<usize, usize>, BTreeMap<usize, usize>) {
        let queues = || self.queues.iter().enumerate();
        let executing =
            queues().flat_map(|(at, queue)| queue.executing.iter().map(move |(it, _)| (it.id, at)));
        let waiting = queues().flat_map(|(at, queue)| queue.waiting.iter().map(move |it| (it.id, at)));
        (executing.collect(), waiting.collect())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive { flow: u64, estimate: WorkEstimate },
    Leave(prop::sample::Index),
    Wait(u64),
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let estimate = (1..4_u32, 0..9_u32, 0..20_u64).prop_map(|(initial_seats, final_seats, latency)| {
        let latency = if final_seats == 0 { 0 } else { latency };
        WorkEstimate { initial_seats, final_seats, additional_latency: ms(latency) }
    });
    prop_oneof![
        6 => (0..5_u64, estimate).prop_map(|(flow, estimate)| Step::Arrive { flow, estimate }),
        5 => any::<prop::sample::Index>().prop_map(Step::Leave),
        3 => (1..15_u64).prop_map(Step::Wait),
        1 => (0..8_u32).prop_map(Step::Limit),
    ]
}

fn waiting_seats(model: &Model) -> u64 {
    let waiting = model.queues.iter().flat_map(|queue| &queue.waiting);
    waiting.map(|request| u64::from(request.estimate.max_seats())).sum()
}

fn compare(set: &QueueSet<usize>, model: &Model) -> Result<(), TestCaseError> {
    let (executing, waiting) = model.state();
    let queue_of = |started: bool| {
        let entries = set.entries().filter(move |(_, entry)| entry.started.is_some() == started);
        entries.map(|(_, entry)| (entry.request, entry.queue.unwrap() as usize)).collect::<BTreeMap<_, _>>()
    };
    prop_assert_eq!(queue_of(true), executing);
    prop_assert_eq!(queue_of(false), waiting);
    prop_assert_eq!(set.active as usize, model.queues.iter().filter(|queue| queue.is_active()).count());
    prop_assert_eq!(set.seats_waiting(), waiting_seats(model));
    prop_assert_eq!(set.progress(), model.progress);
    prop_assert_eq!(set.seats_in_use(), u64::from(model.seats()));
    for (index, queue) in set.queues() {
        prop_assert_eq!(queue.seats_in_use(), u64::from(model.queues[*index as usize].seats()));
        prop_assert_eq!(queue.is_idle(), !model.queues[*index as usize].is_active());
        if !queue.is_idle() {
            prop_assert_eq!(queue.next_dispatch(), model.queues[*index as usize].next_dispatch);
        }
        let sum = model.queues[*index as usize]
            .waiting
            .iter()
            .fold(SeatSeconds::default(), |sum, it| sum.plus(it.work));
        prop_assert_eq!(queue.sums().work, sum);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn serves_as_the_reference_does(steps in proptest::collection::vec(step(), 1..120)) {
        let start = Instant::now();
        let mut now = start;
        let mut set = QueueSet::new(now, QUEUING, 5);
        let mut model = Model {
            queues: vec![ModelQueue::default(); 8], limit: 5, hand_size: 2, queue_length_limit: 3,
            progress: SeatSeconds::default(), now, robin: 0, deals: 0, lingering: Vec::new(),
        };
        let mut live: Vec<(usize, RequestId)> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            model.advance(now);
            match step {
                Step::Arrive { flow, estimate } => {
                    // Seats that were released until now are given to waiting requests first.
                    set.release_due(now);
                    model.dispatch();
                    let hash = flow_hash("schema", &flow.to_string());
                    let arrival = set.arrive(now, hash, estimate, id);
                    prop_assert_eq!(arrival.is_ok(), model.arrive(id, hash, estimate));
                    if let Ok(Arrival::Executing(it) | Arrival::Waiting(it, _)) = arrival {
                        live.push((id, it));
                    }
                }
                Step::Leave(index) if !live.is_empty() => {
                    let (id, it) = live.swap_remove(index.index(live.len()));
                    set.release_due(now);
                    model.dispatch();
                    prop_assert_eq!(set.leave(now, it), Some(id));
                    prop_assert_eq!(set.leave(now, it), None);
                    model.leave(id);
                }
                Step::Leave(_) => {}
                Step::Wait(time) => {
                    now += ms(time);
                    model.advance(now);
                    set.release_due(now);
                    model.dispatch();
                }
                Step::Limit(limit) => {
                    set.configure(now, QUEUING, limit);
                    model.limit = limit;
                    model.dispatch();
                }
            }
            compare(&set, &model)?;
        }
        // Nothing is left behind.
        for (_, it) in live {
            set.leave(now, it);
        }
        set.release_due(now + ms(100_000));
        prop_assert!(set.is_drained() && set.queues().is_empty() && set.entries().next().is_none());
    }
}

/// Two flows that always have requests share the seats by work, however many requests each has.
#[test]
fn backlogged_flows_get_equal_work() {
    let mut now = Instant::now();
    let queuing = Queuing::Queue { queues: 64, hand_size: 6, queue_length_limit: 50 };
    let mut set = QueueSet::new(now, queuing, 4);
    // The first flow has wide, slow requests and a hundred of them at a time; the second has narrow ones, five at a time.
    let flows = [(100, wide(2), ms(12)), (5, wide(1), ms(3))];
    let (mut waiting, mut work) = ([0_u32; 2], [0.0_f64; 2]);
    let mut executing: BTreeMap<(Instant, u64), (RequestId, usize)> = BTreeMap::new();
    let (mut number, mut served) = (0, [0_u32; 2]);
    for _ in 0..20_000 {
        for (flow, (backlog, estimate, _)) in flows.iter().enumerate() {
            while waiting[flow] < *backlog {
                waiting[flow] += 1;
                let hash = flow_hash("schema", &flow.to_string());
                // A full queue rejects.
                if let Ok(Arrival::Executing(id)) = set.arrive(now, hash, *estimate, flow) {
                    number += 1;
                    executing.insert((now + flows[flow].2, number), (id, flow));
                }
            }
        }
        for id in set.take_dispatched() {
            let flow = set.get(id).unwrap().request;
            number += 1;
            executing.insert((now + flows[flow].2, number), (id, flow));
        }
        let ((until, _), (id, flow)) = executing.pop_first().unwrap();
        now = until;
        set.leave(now, id);
        waiting[flow] -= 1;
        served[flow] += 1;
        work[flow] += f64::from(flows[flow].1.initial_seats) * flows[flow].2.as_secs_f64();
    }
    let ratio = work[0] / work[1];
    // Each flow has its hand of six queues; the narrow flow keeps five of them busy.
    assert!((0.8..1.5).contains(&ratio), "{ratio}: {served:?}");
}

#[test]
fn rejects_beyond_the_limits() {
    let now = Instant::now();
    let mut set = QueueSet::new(now, Queuing::Reject, 2);
    let first = set.arrive(now, 0, wide(2), ()).unwrap();
    assert_eq!(set.arrive(now, 0, wide(1), ()), Err(Rejection::ConcurrencyLimit));
    let Arrival::Executing(first) = first else { panic!("{first:?}") };
    set.leave(now, first);
    // A request that is wider than the limit runs alone.
    let Ok(Arrival::Executing(first)) = set.arrive(now, 0, wide(9), ()) else { panic!() };
    assert_eq!(set.arrive(now, 0, wide(1), ()), Err(Rejection::ConcurrencyLimit));
    set.leave(now, first);
    // Without seats, requests are served one at a time.
    set.configure(now, Queuing::Reject, 0);
    let Ok(Arrival::Executing(_)) = set.arrive(now, 0, wide(1), ()) else { panic!() };
    assert_eq!(set.arrive(now, 0, wide(1), ()), Err(Rejection::ConcurrencyLimit));
    // The exempt level has no limits.
    set.configure(now, Queuing::Exempt, 0);
    assert!((0..100).all(|_| set.arrive(now, 0, wide(5), ()).is_ok()));
    assert_eq!((set.executing(), set.totals().rejected), (101, 3));
    // Queues hold their length, for each flow its own ones.
    let mut set = QueueSet::new(now, QUEUING, 1);
    let outcomes: Vec<_> = (0..10).map(|_| set.arrive(now, 7, wide(1), ())).collect();
    assert!(matches!(outcomes[0], Ok(Arrival::Executing(_))));
    assert!(outcomes[1..7].iter().all(|outcome| matches!(outcome, Ok(Arrival::Waiting(..)))));
    assert!(outcomes[7..].iter().all(|outcome| *outcome == Err(Rejection::QueueFull)));
}

#[test]
fn waiting_requests_survive_the_removal_of_their_queues() {
    let now = Instant::now();
    let mut set = QueueSet::new(now, QUEUING, 1);
    let Ok(Arrival::Executing(first)) = set.arrive(now, 1, wide(1), 1) else { panic!() };
    let Ok(Arrival::Waiting(second, 1)) = set.arrive(now, 2, wide(1), 2) else { panic!() };
    set.configure(now, Queuing::Reject, 1);
    assert_eq!(set.arrive(now, 3, wide(1), 3), Err(Rejection::ConcurrencyLimit));
    set.leave(now, first);
    assert_eq!(set.take_dispatched(), [second]);
    set.leave(now, second);
    assert!(set.is_drained());
    // Millions of queues cost nothing while they are not used.
    set.configure(now, Queuing::Queue { queues: 10_000_000, hand_size: 2, queue_length_limit: 1 }, 1);
    for flow in 0..100 {
        let _ = set.arrive(now, flow_hash("schema", &flow.to_string()), wide(1), flow);
    }
    assert_eq!((set.executing(), set.waiting(), set.queues().len()), (1, 99, 100));
}

#[test]
fn final_seats_are_held_after_the_request() {
    let now = Instant::now();
    let mut set = QueueSet::new(now, QUEUING, 4);
    let estimate = WorkEstimate { initial_seats: 1, final_seats: 8, additional_latency: ms(10) };
    let Ok(Arrival::Executing(first)) = set.arrive(now, 1, estimate, ()) else { panic!() };
    // Eight seats for 10 ms become four seats for 20 ms.
    assert_eq!(set.seats_in_use(), 4);
    let Ok(Arrival::Waiting(second, 1)) = set.arrive(now, 2, wide(1), ()) else { panic!() };
    set.leave(now + ms(1), first);
    assert_eq!((set.seats_in_use(), set.next_release()), (4, Some(now + ms(21))));
    assert!(set.take_dispatched().is_empty());
    set.release_due(now + ms(21));
    assert_eq!((set.take_dispatched(), set.seats_in_use(), set.next_release()), (vec![second], 1, None));
}
