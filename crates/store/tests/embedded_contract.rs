//! Runs the contract tests on the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use nave_store::contract::Fixture;
use nave_store::embedded::{Embedded, Options};
use nave_store::{Store, contract_tests};
use tempfile::TempDir;

struct Folder(TempDir);

#[async_trait]
impl Fixture for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Embedded::open(self.0.path(), &Options { history: None, ..Options::default() }).unwrap())
    }
}

contract_tests!(Folder(tempfile::tempdir().unwrap()));
