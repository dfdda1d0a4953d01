//! The log as one JSON object per line, with the names that kube-apiserver uses (upstream: `component-base/logs/json`).

use std::fmt::{self, Debug};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as `{"ts":…,"caller":"serve/api.rs:12","msg":"…","v":0,…}`. `ts` is in milliseconds since 1970. Errors
/// have no `v`; the others have the verbosity at which they are logged.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let metadata = event.metadata();
        let (millis, caller, message) =
            (now.as_secs_f64() * 1000.0, json!(caller(metadata)), json!(fields.message));
        write!(to, "{{\"ts\":{millis:.3},\"caller\":{caller},\"msg\":{message}")?;
        if let Some(verbosity) = verbosity(*metadata.level()) {
            write!(to, ",\"v\":{verbosity}")?;
        }
        for (name, value) in &fields.others {
            write!(to, ",{}:{value}", json!(name))?;
        }
        writeln!(to, "}}")
    }
}

/// Returns the last two parts of the path of the source file, and the line.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or_default();
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
    format!("{}:{}", file.get(start..).unwrap_or(file), metadata.line().unwrap_or_default())
}

fn verbosity(level: Level) -> Option<u8> {
    match level {
        Level::ERROR => None,
        Level::WARN | Level::INFO => Some(0),
        Level::DEBUG => Some(4),
        Level::TRACE => Some(8),
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "error" { "err" } else { field.name() };
        self.others.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.add(field, text.into()) }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::util::SubscriberInitExt;

    use super::super::tests::Log;
    use super::super::{Form, subscriber};
    use super::*;

    #[test]
    fn each_line_is_an_object() {
        let log = Log::default();
        let writer = log.clone();
        let logging = subscriber(EnvFilter::new("trace"), move || writer.clone(), Form::Json).set_default();
        tracing::info!(count = 3, path = "a\"b", "two\nlines");
        tracing::error!(error = %"broken", on = true, "failed");
        drop(logging);
        let text = log.text();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [info, error] = &lines[..] else { panic!("{text}") };
        assert_eq!(
            (&info["msg"], &info["count"], &info["path"]),
            (&json!("two\nlines"), &json!(3), &json!("a\"b"))
        );
        assert_eq!((&info["v"], &info["ts"].is_f64()), (&json!(0), &true));
        assert!(info["caller"].as_str().unwrap().starts_with("logging/json_lines.rs:"), "{info}");
        assert_eq!(
            (&error["msg"], &error["err"], &error["on"]),
            (&json!("failed"), &json!("broken"), &json!(true))
        );
        assert_eq!(error.get("v"), None);
    }
}
