//! The log backend: one line per event, in files or on standard output (upstream: `plugin/pkg/audit/log`).

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use tokio::sync::mpsc;

use crate::event::Event;
use crate::legacy;
use crate::metrics::{Losses, Metrics};
use crate::queue::{BatchOptions, Entry};
use crate::rotation::RotatingFile;
use crate::truncate::{self, Truncation};

/// The format of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// An event's JSON.
    #[default]
    Json,
    /// Text.
    Legacy,
}

/// The options of the backend.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The destination.
    pub output: Output,
    /// The format.
    pub format: Format,
    /// The mode.
    pub mode: crate::Mode,
    /// Only the size of the buffer applies: lines are written as soon as possible.
    pub batch: BatchOptions,
    /// Limits on the size of events; `None` for no limits.
    pub truncation: Option<Truncation>,
}

/// The destination of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileOptions),
}

/// A file and its rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The path.
    pub path: PathBuf,
    /// Size at which the file is rotated, in bytes; 0 for no rotation.
    pub max_size: u64,
    /// Age at which rotated files are removed, in days; 0 for no limit.
    pub max_age_days: u32,
    /// Maximum number of rotated files; 0 for no limit.
    pub max_backups: usize,
    /// True if rotated files are compressed.
    pub compress: bool,
}

/// Starts the thread that writes lines.
pub(crate) fn start(
    options: LogOptions,
    receiver: mpsc::Receiver<Entry>,
    metrics: &Metrics,
) -> io::Result<()> {
    let output: Box<dyn Write + Send> = match options.output {
        Output::Stdout => Box::new(io::stdout()),
        Output::File(file) => Box::new(RotatingFile::open(file)?),
    };
    let writer = Writer {
        output,
        format: options.format,
        truncation: options.truncation,
        failed: metrics.losses("log"),
        too_large: metrics.losses("truncate"),
    };
    thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(receiver))?;
    Ok(())
}

struct Writer {
    output: Box<dyn Write + Send>,
    format: Format,
    truncation: Option<Truncation>,
    failed: Losses,
    too_large: Losses,
}

impl Writer {
    /// Writes events until the queue is closed. Events that arrive together are written together.
    fn run(mut self, mut receiver: mpsc::Receiver<Entry>) {
        let (mut lines, mut entries) = (Vec::with_capacity(MAX_WRITE), Vec::new());
        while let Some(entry) = receiver.blocking_recv() {
            self.add(entry, &mut lines, &mut entries);
            while lines.len() < MAX_WRITE
                && let Ok(entry) = receiver.try_recv()
            {
                self.add(entry, &mut lines, &mut entries);
            }
            self.write(&mut lines, &mut entries);
        }
    }

    fn add(&self, entry: Entry, lines: &mut Vec<u8>, entries: &mut Vec<Entry>) {
        if let Some(event) = &entry.event {
            if !truncate::encode(event, self.truncation, |event, out| self.encode(event, out), lines) {
                self.too_large.add(1, &"event is too large even after truncating");
                // As upstream, this is not an error of the request.
                return entry.finish(true);
            }
            lines.push(b'\n');
        }
        entries.push(entry);
    }

    fn encode(&self, event: &Event, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => event.encode(false, out),
            Format::Legacy => legacy::encode(event, out),
        }
    }

    fn write(&mut self, lines: &mut Vec<u8>, entries: &mut Vec<Entry>) {
        let written = self.output.write_all(lines).and_then(|()| self.output.flush());
        if let Err(error) = &written {
            self.failed.add(entries.iter().filter(|entry| entry.event.is_some()).count(), error);
        }
        for entry in entries.drain(..) {
            entry.finish(written.is_ok());
        }
        lines.clear();
        lines.shrink_to(MAX_WRITE);
    }
}

/// The number of bytes after which lines are written, even if more events wait.
const MAX_WRITE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::deliveries::Deliveries;
    use crate::event::tests::event;
    use crate::queue::Queue;

    fn options(output: Output) -> LogOptions {
        LogOptions {
            output,
            format: Format::Json,
            mode: crate::Mode::Blocking,
            batch: BatchOptions {
                buffer_size: 100,
                max_size: 1,
                max_wait: std::time::Duration::ZERO,
                throttle: None,
            },
            truncation: None,
        }
    }

    fn file(path: PathBuf) -> Output {
        Output::File(FileOptions { path, max_size: 0, max_age_days: 0, max_backups: 0, compress: false })
    }

    #[tokio::test]
    async fn recorded_events_are_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/audit.log");
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let (queue, receiver) = Queue::new(100, &metrics);
        let deliveries = Deliveries::new(&metrics);
        start(options(file(path.clone())), receiver, &metrics).unwrap();
        for count in 1..=3 {
            assert!(queue.submit(&Arc::new(event("x")), &deliveries).recorded().await);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), count);
            assert!(text.ends_with('\n'));
        }
        for _ in 0..50 {
            queue.offer(&Arc::new(event("y")));
        }
        queue.flush().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 53);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_and_does_not_block() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (queue, receiver) = Queue::new(100, &metrics);
        let deliveries = Deliveries::new(&metrics);
        start(options(file("/dev/full".into())), receiver, &metrics).unwrap();
        assert!(!queue.submit(&Arc::new(event("x")), &deliveries).recorded().await);
        queue.offer(&Arc::new(event("y")));
        queue.flush().await;
        let lost = &registry.gather()[0];
        assert_eq!(lost.name(), "apiserver_audit_error_total");
        let log = lost.get_metric().iter().find(|metric| metric.get_label()[0].value() == "log");
        assert_eq!(log.unwrap().get_counter().get_value() as u64, 2);
    }
}
