//! Recorded histories of concurrent clients while servers and etcd are killed and stopped, checked for linearizability.
//! Watches must deliver the same history without a gap.
//!
//! Each history has a seed, which is printed. A seed decides about requests and faults, but not about their timing.
//! `NAVE_SEED` sets the seed of the first history and `NAVE_HISTORIES` the number of histories of each test. Histories
//! of seeds that ever failed are in `seeds.txt`, one `TEST SEED` on a line, and are checked first.

mod client;
mod cluster;
mod record;
mod watcher;

use nave_store::contract::{Random, installed_etcd, seed};
use nave_tests::linearizability;

use self::cluster::{Cluster, Shape};
use self::record::Record;

/// Histories of each test by default. More are for a longer run by hand.
const HISTORIES: u64 = 2;
const SEEDS: &str = include_str!("seeds.txt");

#[tokio::test]
async fn embedded_store_is_linearizable_across_kills() {
    check_histories("embedded", Shape { servers: 1, etcd: None, members: 0 }).await;
}

#[tokio::test]
async fn three_servers_over_one_etcd_are_linearizable_across_faults() {
    // Newer versions of this machine's package lose writes when they are killed (etcd issue 13766).
    check_histories("etcd", Shape { servers: 3, etcd: Some(installed_etcd("3.4")), members: 1 }).await;
}

#[tokio::test]
async fn three_servers_over_three_members_are_linearizable_across_faults() {
    check_histories("members", Shape { servers: 3, etcd: Some(installed_etcd("3.4")), members: 3 }).await;
}

/// Checks histories on one cluster.
async fn check_histories(test: &str, shape: Shape) {
    let wanted = std::env::var("NAVE_HISTORIES").ok().and_then(|count| count.parse().ok());
    let (first, count) = (seed(), wanted.unwrap_or(HISTORIES));
    let kept = SEEDS.lines().filter_map(|line| line.strip_prefix(test)?.trim().parse::<u64>().ok());
    let seeds: Vec<u64> = kept.chain((0..count).map(|number| first.wrapping_add(number))).collect();
    let mut cluster = Cluster::start(shape).await;
    for (number, seed) in seeds.into_iter().enumerate() {
        println!("{test} {seed}");
        check_history(&mut cluster, number, &mut Random::new(seed)).await;
    }
}

/// Records one history and checks it.
async fn check_history(cluster: &mut Cluster, number: usize, random: &mut Random) {
    let record = Record::new(number);
    let start = cluster.revision().await;
    let clients = client::start(&record, cluster.targets(), random);
    let watchers = watcher::start(&record, cluster.targets(), start);
    cluster.disturb(&record, random).await;
    let clients = clients.join_all().await;
    assert!(clients.iter().all(Option::is_some), "a client ended early");
    let end = cluster.end_history(&record).await;
    let seen = watcher::finish(watchers, end).await;

    let history = record.into_operations();
    if let Err(violation) = linearizability::check(&history) {
        panic!("{violation}");
    }
    for watch in &seen {
        watch.includes(&history);
        watcher::agree(&seen[0], watch);
    }
    println!("  {} operations, {} events", history.len(), seen[0].len());
}
