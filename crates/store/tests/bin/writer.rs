//! `store-writer FOLDER [PREFIX]`: creates keys with a prefix as fast as possible and prints each acknowledged key and revision, until it is killed
//! or a write fails. After a failure it reads and prints the result. When it then receives a line on standard input, it
//! writes again until a write succeeds.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nave_store::embedded::{Embedded, Options};
use nave_store::{Store, StoreError, Txn, TxnOutcome};

const WRITERS: usize = 32;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: store-writer FOLDER");
        return ExitCode::from(2);
    };
    let prefix = std::env::args().nth(2).unwrap_or_default();
    let store = match Embedded::open(Path::new(&folder), &Options::default()) {
        Ok(store) => Arc::new(store),
        Err(error) => {
            println!("refused {error}");
            return ExitCode::from(3);
        }
    };
    println!("open");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(Arc::clone(&store), format!("{prefix}/{writer}"))))
        .collect();
    for writer in writers {
        match writer.await {
            Ok(StoreError::NoSpace(error)) => println!("full {error}"),
            other => println!("failed {other:?}"),
        }
    }
    match store.count("/").await {
        Ok(count) => println!("count {count}"),
        Err(error) => println!("failed {error}"),
    }
    match store.get(&format!("{prefix}/0/0"), None).await {
        Ok(Some(found)) => println!("read {} {}", found.key, found.mod_revision),
        other => println!("failed {other:?}"),
    }
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
        write_again(&store).await;
    }
    ExitCode::SUCCESS
}

async fn write_again(store: &Embedded) {
    loop {
        match store.txn(Txn::create("/again", "/again".repeat(200))).await {
            Ok(TxnOutcome::Committed { revision, .. }) => return println!("acknowledged /again {revision}"),
            Ok(failed) => return println!("failed {failed:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Creates keys until a write fails.
async fn write(store: Arc<Embedded>, prefix: String) -> StoreError {
    for turn in 0_u64.. {
        let key = format!("{prefix}/{turn}");
        match store.txn(Txn::create(key.as_str(), key.repeat(200))).await {
            Ok(TxnOutcome::Committed { revision, .. }) => println!("acknowledged {key} {revision}"),
            Ok(failed) => println!("failed {failed:?}"),
            Err(error) => return error,
        }
    }
    StoreError::Closed
}
