//! The result of a command, as the kubelet reports it on the `error` stream.

use nave_machinery::{Status, Value};
use serde_json::json;

use super::ended;
use crate::spdy::session::{Ended, StreamReader};

/// Maximum size of a result, in bytes.
const MAX_RESULT: usize = 64 << 10;

/// Reads the result of the command from the `error` stream, which the kubelet finishes with or without content.
pub(super) async fn read(mut reader: StreamReader) -> Result<Value, Status> {
    let mut text = Vec::new();
    while let Some(piece) = reader.next().await.map_err(|Ended| ended())? {
        if text.len() + piece.len() > MAX_RESULT {
            return Err(Status::internal("error stream protocol error: the result is too large"));
        }
        text.extend_from_slice(&piece);
    }
    if text.is_empty() {
        return Ok(success());
    }
    let Ok(result) = serde_json::from_slice::<Value>(&text) else {
        let text = String::from_utf8_lossy(&text);
        return Err(Status::internal(format!("error stream protocol error: {text:?} is not a Status")));
    };
    let field = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("status"), field("reason")) {
        ("Success", _) => Ok(success()),
        ("Failure", NON_ZERO_EXIT_CODE) => exit_status(&result),
        ("Failure", _) => Err(Status::internal(field("message"))),
        _ => Err(Status::internal("error stream protocol error: unknown error")),
    }
}

/// The reason and the type of cause of an exit code (upstream: `remotecommand`).
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

/// Returns the result for a command with an exit code.
fn exit_status(result: &Value) -> Result<Value, Status> {
    let causes = result.get("details").and_then(|details| details.get("causes")).and_then(Value::as_array);
    let cause = causes.into_iter().flatten().find(|cause| cause.get("reason") == Some(&json!(EXIT_CODE)));
    let code = cause.and_then(|cause| cause.get("message")).and_then(Value::as_str);
    let Some(code) = code.and_then(|code| code.parse::<u8>().ok()) else {
        return Err(Status::internal(format!("error stream protocol error: no {EXIT_CODE} cause given")));
    };
    let text = format!("command terminated with exit code {code}");
    Ok(json!({
        "metadata": {}, "status": "Failure", "reason": NON_ZERO_EXIT_CODE,
        "message": format!("command terminated with non-zero exit code: {text}"),
        "details": {"causes": [{"reason": EXIT_CODE, "message": code.to_string()}]},
    }))
}

pub(super) fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}
