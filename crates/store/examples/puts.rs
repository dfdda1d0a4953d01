//! `cargo run --release -p nave-store --example puts -- FOLDER WRITERS [COUNT] [BYTES]`: creates COUNT keys from
//! WRITERS concurrent writers. With COUNT 0, opens the store and lists every key. Prints rates, CPU time and memory
//! (Linux).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nave_store::embedded::{Embedded, Options};
use nave_store::{Range, Store, StoreError, Txn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let mut number = |or: u64| arguments.next().map_or(Ok(or), |argument| argument.parse());
    let (writers, count, bytes) = (number(64)?, number(100_000)?, number(1536)?);

    if count == 0 {
        return read(Path::new(&folder)).await;
    }
    let store = Arc::new(Embedded::open(Path::new(&folder), &Options::default())?);
    let (start, cpu) = (Instant::now(), cpu_micros());
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..writers)
        .map(|_| tokio::spawn(write(Arc::clone(&store), Arc::clone(&next), count, bytes as usize)))
        .collect();
    for task in tasks {
        task.await??;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let each = (cpu_micros() - cpu) as f64 / count as f64;
    println!("{writers} writers: {rate:.0} puts/s, {each:.1} us CPU each, {} kB resident", resident());
    println!("{:?}", store.status().await?);
    Ok(())
}

async fn read(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (start, cpu) = (Instant::now(), cpu_micros());
    let store = Embedded::open(folder, &Options::default())?;
    let opened = start.elapsed();
    let mut range = Range { limit: 500, ..Range::all("/") };
    let (mut items, mut read) = (0, 0);
    loop {
        let page = store.range(range.clone()).await?;
        items += page.items.len();
        read += page.items.iter().map(|item| item.value.len()).sum::<usize>();
        range.start_after = page.items.last().map(|item| Arc::clone(&item.key));
        if !page.more {
            break;
        }
    }
    let rate = read as f64 / 1e6 / start.elapsed().as_secs_f64();
    let millis = (cpu_micros() - cpu) / 1000;
    println!(
        "open {opened:.0?}, {items} read in order: {rate:.0} MB/s, {millis} ms CPU, {} kB resident",
        resident()
    );
    Ok(())
}

async fn write(
    store: Arc<Embedded>,
    next: Arc<AtomicU64>,
    count: u64,
    bytes: usize,
) -> Result<(), StoreError> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        // Scatters the keys: consecutively written keys are not adjacent, as with generated names.
        let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let value: Vec<u8> = (0..bytes as u64).map(|byte| (scattered >> (byte % 57)) as u8).collect();
        store.txn(Txn::create(format!("/registry/pods/default/app-{scattered:016x}"), value)).await?;
    }
}

/// Returns the user and system CPU time of this process in microseconds.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of `/proc/self/stat`, in ticks of 10 ms.
    after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        * 10_000
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("?");
    line.trim().trim_end_matches(" kB").to_owned()
}
