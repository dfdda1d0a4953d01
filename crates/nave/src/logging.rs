//! Logging to standard error.

mod json_lines;

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::Metadata;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, filter};

use self::json_lines::JsonLines;

/// The form and the extent of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    /// From 0 (quiet) to 10 (everything).
    pub(crate) level: u8,
    /// True for one JSON object per line.
    pub(crate) is_json: bool,
}

impl LogOptions {
    /// A log of text lines.
    pub(crate) fn text(level: u8) -> Self {
        Self { level, is_json: false }
    }
}

/// Starts logging. `RUST_LOG` overrides the level.
pub(crate) fn start(options: LogOptions) {
    let default = match options.level {
        0 => "warn,nave=info",
        1 | 2 => "info",
        3..=5 => "info,nave=debug,nave_apiserver=debug,nave_authn=debug,nave_store=debug,nave_cacher=debug",
        6..=8 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let form = if options.is_json {
        Form::Json
    } else if stderr().is_terminal() {
        Form::Coloured
    } else {
        Form::Plain
    };
    subscriber(filter, stderr, form).init();
}

/// Calls a function before logging is started, because its result contains the options of the log. Returns the warnings
/// that it logs, too.
pub(crate) fn collect<T>(call: impl FnOnce() -> T) -> (T, Vec<String>) {
    let warnings = Warnings::default();
    let writer = warnings.clone();
    let texts = tracing_subscriber::fmt::layer().without_time().with_level(false).with_target(false);
    let texts = texts.with_ansi(false).with_writer(move || writer.clone());
    let subscriber = Registry::default().with(texts.with_filter(LevelFilter::WARN));
    let result = tracing::subscriber::with_default(subscriber, call);
    let warnings = std::mem::take(&mut *warnings.0.lock());
    (result, warnings)
}

/// The first warnings of a call, one per write.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Write for Warnings {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let warnings = &mut *self.0.lock();
        if warnings.len() < MAX_WARNINGS {
            warnings.push(String::from_utf8_lossy(line.trim_ascii()).into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Maximum number of warnings before logging is started.
const MAX_WARNINGS: usize = 100;

/// The form of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Coloured,
    Json,
}

fn subscriber<W>(filter: EnvFilter, writer: W, form: Form) -> impl SubscriberInitExt
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(form == Form::Coloured).with_writer(writer);
    let lines = match form {
        Form::Json => lines.event_format(JsonLines).boxed(),
        Form::Plain | Form::Coloured => lines.boxed(),
    };
    Registry::default().with(filter).with(lines.with_filter(filter::filter_fn(shows_no_bodies)))
}

/// Returns whether events of this target never contain request or response bodies. Bodies may contain secrets, so they
/// are not logged at any level.
fn shows_no_bodies(event: &Metadata<'_>) -> bool {
    !BODIES.iter().any(|module| event.target().starts_with(module))
}

/// Library modules that log bodies, headers or frames. The Kubernetes client logs complete responses that it cannot
/// parse; HTTP and TLS libraries log traffic at level trace.
const BODIES: [&str; 4] = ["kube_client::client", "h2::", "hyper::proto", "rustls::"];

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Secret;
    use kube::client::Body;
    use nave_client::redacted;
    use nave_controllers::frame::SyncError;

    use super::*;

    #[test]
    fn collects_warnings_before_logging_is_started() {
        let (result, warnings) = collect(|| {
            tracing::info!("quiet");
            tracing::warn!(field = "usres", "field ignored");
            tracing::error!("wrong");
            7
        });
        assert_eq!(
            (result, warnings),
            (7, vec!["field ignored field=\"usres\"".to_owned(), "wrong".to_owned()])
        );
        let many = || (0..2 * MAX_WARNINGS).for_each(|_| tracing::warn!("again"));
        assert_eq!(collect(many).1.len(), MAX_WARNINGS);
    }

    const MARKER: &str = "c2VjcmV0LW1hcmtlcg";

    /// A log in memory.
    #[derive(Clone, Default)]
    pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns a client that gets this response to every request.
    fn client(code: u16, body: Vec<u8>) -> kube::Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let response = Response::builder().status(code).body(Body::from(body.clone()));
            async move { Ok::<_, Infallible>(response.unwrap()) }
        });
        kube::Client::new(service, "default")
    }

    /// Collects the errors and logs of each kind of response that cannot be parsed.
    #[tokio::test]
    async fn errors_and_logs_show_no_bodies() {
        let log = Log::default();
        let writer = log.clone();
        let _logging = subscriber(EnvFilter::new("trace"), move || writer.clone(), Form::Plain).set_default();
        tracing::info!("logging works");
        let marked = |before: &str, after: &str| format!("{before}{MARKER}{after}").into_bytes();
        for (code, body) in [
            (200, marked("", "")),
            (200, marked("{\"data\": {\"key\": \"", "\"")),
            (200, marked("{\"data\": \"", "\"}")),
            (200, marked("{\"data\": {\"key\": \"", "=!\"}}")),
            (200, marked("{\"metadata\": \"", "\"}")),
            (200, marked("{\"metadata\": {\"generation\": \"", "\"}}")),
            (200, [&marked("{\"kind\": \"", "\"}"), &[0xff][..]].concat()),
            (500, marked("", "")),
            (403, marked("<html>", "</html>")),
            (404, marked("{\"code\": \"", "\"}")),
            (500, [&marked("", ""), &[0xff][..]].concat()),
        ] {
            let secrets: kube::Api<Secret> = kube::Api::namespaced(client(code, body.clone()), "default");
            let shown = String::from_utf8_lossy(&body).into_owned();
            for step in [0, 1, 2] {
                let error = match step {
                    0 => secrets.get("a").await.err(),
                    1 => secrets.list(&kube::api::ListParams::default()).await.err(),
                    _ => secrets.delete("a", &kube::api::DeleteParams::default()).await.err(),
                };
                let Some(error) = error else { continue };
                let error = redacted(error);
                let forms = format!("{error} {error:?}");
                let sync = SyncError::from(error);
                let forms = format!("{forms} {sync} {sync:?}");
                assert!(!forms.contains(MARKER), "{code} {shown}: {forms}");
                assert!(!forms.contains("99, 50, 86, 106"), "{code} {shown}: {forms}");
                tracing::error!(error = %sync, "sync failed");
            }
        }
        let log = log.text();
        assert!(log.contains("logging works") && log.contains("sync failed"), "{log}");
        assert!(!log.contains(MARKER), "{log}");
    }
}
