//! A key management plugin (KMS v2) to try encryption with. Its keys are derived from their IDs, so it protects nothing.
//!
//! ```text
//! cargo run -p nave-encryption --features testing --example kms_plugin -- SOCKET KEY_ID
//! ```

use std::path::Path;
use std::process::ExitCode;

use nave_encryption::testing::Plugin;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, key_id] = arguments.as_slice() else {
        eprintln!("usage: kms_plugin SOCKET KEY_ID");
        return ExitCode::from(2);
    };
    let plugin = Plugin::start(Path::new(socket), key_id);
    println!("{}", plugin.endpoint());
    std::future::pending().await
}
