use Answer::{Conflict, Deleted, Exists, Found, NotFound, Written};
use Request::{Create, Delete, Get, Update};

use nave_store::contract::Random;

use super::*;

/// An operation with its start, its end and its answer.
fn op(start: u64, end: u64, request: Request, answer: Answer) -> Operation {
    Operation { client: 0, key: "a".to_owned(), start, request, answer: Some((end, answer)) }
}

/// An operation with an unknown outcome.
fn unknown(start: u64, request: Request) -> Operation {
    Operation { client: 0, key: "a".to_owned(), start, request, answer: None }
}

const CREATE: Request = Create { value: 1 };
const UPDATE: Request = Update { value: 2, expected: 10 };
const REMOVE: Request = Delete { expected: None };
const CREATED: Answer = Written { revision: 10 };
const UPDATED: Answer = Written { revision: 20 };
const FIRST: Answer = Found { value: 1, revision: 10 };
const SECOND: Answer = Found { value: 2, revision: 20 };

#[test]
fn accepts_linearizable_histories() {
    let cases: &[(&str, Vec<Operation>)] = &[
        ("nothing", vec![]),
        (
            "one client",
            vec![
                op(1, 2, Get, NotFound),
                op(3, 4, CREATE, CREATED),
                op(5, 6, CREATE, Exists),
                op(7, 8, Get, FIRST),
                op(9, 10, UPDATE, UPDATED),
                op(11, 12, UPDATE, Conflict),
                op(13, 14, Get, SECOND),
                op(15, 16, Delete { expected: Some(10) }, Conflict),
                op(17, 18, Delete { expected: Some(20) }, Deleted),
                op(19, 20, REMOVE, NotFound),
                op(21, 22, UPDATE, NotFound),
            ],
        ),
        (
            "reads beside a write see either state",
            vec![
                op(1, 2, CREATE, CREATED),
                op(3, 10, UPDATE, UPDATED),
                op(4, 5, Get, FIRST),
                op(6, 7, Get, SECOND),
                op(8, 9, Get, SECOND),
            ],
        ),
        (
            "one of two concurrent updates wins",
            vec![
                op(1, 2, CREATE, CREATED),
                op(3, 9, UPDATE, Conflict),
                op(4, 8, Update { value: 3, expected: 10 }, UPDATED),
            ],
        ),
        (
            "the answers come in another order than the effects",
            vec![
                op(1, 9, CREATE, CREATED),
                op(2, 8, REMOVE, Deleted),
                op(3, 7, Get, FIRST),
                op(4, 6, Get, NotFound),
            ],
        ),
        ("an unknown write has no effect", vec![unknown(1, CREATE), op(2, 3, Get, NotFound)]),
        (
            "an unknown write has its effect late",
            vec![
                unknown(1, CREATE),
                op(2, 3, Get, NotFound),
                op(4, 5, Get, FIRST),
                op(6, 7, UPDATE, UPDATED),
            ],
        ),
        (
            "an unknown update is overwritten unseen",
            vec![
                op(1, 2, CREATE, CREATED),
                unknown(3, UPDATE),
                op(4, 5, Update { value: 3, expected: 10 }, Conflict),
            ],
        ),
        (
            "an unknown delete and a new object",
            vec![op(1, 2, CREATE, CREATED), unknown(3, REMOVE), op(4, 5, Create { value: 2 }, UPDATED)],
        ),
    ];
    for (name, history) in cases {
        assert_eq!(check(history), Ok(()), "{name}");
    }
}

#[test]
fn rejects_histories_without_an_order() {
    let cases: &[(&str, Vec<Operation>)] = &[
        ("a lost write", vec![op(1, 2, CREATE, CREATED), op(3, 4, Get, NotFound)]),
        ("an object from nowhere", vec![op(1, 2, Get, FIRST)]),
        ("a stale read", vec![op(1, 2, CREATE, CREATED), op(3, 4, UPDATE, UPDATED), op(5, 6, Get, FIRST)]),
        (
            "reads that go back during a write",
            vec![
                op(1, 2, CREATE, CREATED),
                op(3, 10, UPDATE, UPDATED),
                op(4, 5, Get, SECOND),
                op(6, 7, Get, FIRST),
            ],
        ),
        (
            "a lost update",
            vec![
                op(1, 2, CREATE, CREATED),
                op(3, 8, UPDATE, UPDATED),
                op(4, 9, Update { value: 3, expected: 10 }, Written { revision: 21 }),
            ],
        ),
        (
            "two creates of one object",
            vec![op(1, 5, CREATE, CREATED), op(2, 6, Create { value: 2 }, UPDATED)],
        ),
        (
            "two deletes of one object",
            vec![op(1, 2, CREATE, CREATED), op(3, 6, REMOVE, Deleted), op(4, 7, REMOVE, Deleted)],
        ),
        ("a conflict without a change", vec![op(1, 2, CREATE, CREATED), op(3, 4, UPDATE, Conflict)]),
        (
            "a resource version that goes back",
            vec![
                op(1, 2, CREATE, UPDATED),
                op(3, 4, REMOVE, Deleted),
                op(5, 6, Create { value: 2 }, CREATED),
            ],
        ),
        (
            "an object that comes back",
            vec![
                op(1, 2, CREATE, CREATED),
                op(3, 4, REMOVE, Deleted),
                op(5, 6, Get, NotFound),
                op(7, 8, Get, FIRST),
            ],
        ),
        (
            "another resource version of the same write",
            vec![op(1, 2, CREATE, CREATED), op(3, 4, Get, Found { value: 1, revision: 11 })],
        ),
        (
            "an unknown write that takes effect twice",
            vec![
                unknown(1, CREATE),
                op(2, 3, Get, FIRST),
                op(4, 5, REMOVE, Deleted),
                op(6, 7, Get, Found { value: 1, revision: 30 }),
            ],
        ),
        ("an unknown write before its start", vec![op(1, 2, Get, FIRST), unknown(3, CREATE)]),
    ];
    for (name, history) in cases {
        assert!(matches!(check(history), Err(Violation::NotLinearizable { .. })), "{name}");
    }
}

#[test]
fn checks_each_key_on_its_own() {
    let other = |mut operation: Operation| {
        operation.key = "b".to_owned();
        operation
    };
    let mut history = vec![op(1, 2, CREATE, CREATED), other(op(3, 4, Get, NotFound))];
    assert_eq!(check(&history), Ok(()));
    history.push(other(op(5, 6, Get, FIRST)));
    let Err(Violation::NotLinearizable { operations, longest }) = check(&history) else {
        panic!("the read of the other key is accepted");
    };
    assert!(operations.iter().all(|operation| operation.key == "b"));
    assert_eq!(longest, [0]);
}

/// Many overlapping operations: without a memory of visited configurations, this takes forever.
#[test]
fn decides_a_wide_history() {
    let wide = |last: Answer| {
        let mut history = vec![op(1, 2, CREATE, CREATED)];
        history.extend((0..24).map(|number| op(3 + number, 100 + number, Get, FIRST)));
        history
            .extend((0..12).map(|number| unknown(50 + number, Update { value: 100 + number, expected: 10 })));
        history.push(op(200, 201, Get, last));
        history
    };
    assert_eq!(check(&wide(FIRST)), Ok(()));
    assert_eq!(check(&wide(Found { value: 105, revision: 30 })), Ok(()));
    assert!(matches!(check(&wide(NotFound)), Err(Violation::NotLinearizable { .. })));
}

/// Runs random operations one after another on a simple register, widens their times so that they overlap, and checks
/// that the history is accepted, and that a changed read is not.
#[test]
fn agrees_with_a_serial_register() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut history = serial_history(&mut random, 60);
        assert_eq!(check(&history), Ok(()), "seed {seed}");
        let reads: Vec<usize> =
            (0..history.len()).filter(|at| matches!(history[*at].answer, Some((_, Found { .. })))).collect();
        let Some(&at) = reads.get(random.below(reads.len().max(1) as u64) as usize) else { continue };
        // No write has this value.
        history[at].answer = history[at].answer.map(|(end, _)| (end, Found { value: 999, revision: 1 }));
        assert!(check(&history).is_err(), "seed {seed}");
    }
}

fn serial_history(random: &mut Random, length: u64) -> Vec<Operation> {
    let (mut object, mut revision, mut history) = (None::<(u64, u64)>, 0, Vec::new());
    // The highest resource version in an answer. A client knows no other one.
    let mut known = 0;
    for number in 1..=length {
        let value = number;
        let expected = known - random.below(2).min(known);
        let request = match random.below(4) {
            0 => Get,
            1 => Create { value },
            2 => Update { value, expected },
            _ => Delete { expected: None },
        };
        let answer = match (request, object) {
            (Get, Some((value, revision))) => Found { value, revision },
            (Create { .. }, None) => {
                revision += 1;
                object = Some((value, revision));
                Written { revision }
            }
            (Create { .. }, Some(_)) => Exists,
            (Update { .. }, Some((_, current))) if current == expected => {
                revision += 1;
                object = Some((value, revision));
                Written { revision }
            }
            (Update { .. }, Some(_)) => Conflict,
            (Delete { .. }, Some(_)) => {
                revision += 1;
                object = None;
                Deleted
            }
            (_, None) => NotFound,
        };
        // The effect is at number * 10; the operation starts before it and ends after it.
        let (start, end) = (number * 10 - random.below(40).min(number * 10), number * 10 + random.below(40));
        let is_unknown = request != Get && random.below(8) == 0;
        if let (false, Found { revision, .. } | Written { revision }) = (is_unknown, answer) {
            known = known.max(revision);
        }
        history.push(Operation {
            client: 0,
            key: "a".to_owned(),
            start,
            request,
            answer: (!is_unknown).then_some((end, answer)),
        });
    }
    history
}
