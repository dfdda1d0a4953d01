//! The audit flags, with upstream's names and defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nave_audit::log::{FileOptions, Format, LogOptions, Output};
use nave_audit::webhook::WebhookOptions;
use nave_audit::{BatchOptions, Mode, Options, Policy, Throttle, Truncation};

use super::FlagError;
use super::values::{parse_bool, parse_count, parse_duration, whole};

const AUDIT: &str = "Audit";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_field_names, clippy::struct_excessive_bools, reason = "a field for each flag")]
pub(super) struct AuditFlags {
    /// Audit policy: which requests are recorded, and how much of them. Nothing is recorded without it.
    #[arg(long, value_name = "FILE", help_heading = AUDIT)]
    audit_policy_file: Option<PathBuf>,
    /// File that audit events are appended to, or - for standard output.
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, help_heading = AUDIT)]
    audit_log_path: Option<PathBuf>,
    /// Format of the file: json, or legacy for one line of text per event.
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = parse_format, help_heading = AUDIT)]
    audit_log_format: Format,
    /// Size at which the file is rotated, in megabytes. 0 disables rotation.
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = whole(0..=u32::MAX), help_heading = AUDIT)]
    audit_log_maxsize: u32,
    /// Age at which rotated files are removed, in days. 0 means no limit.
    #[arg(long, value_name = "DAYS", default_value_t = 366, value_parser = whole(0..=u32::MAX), help_heading = AUDIT)]
    audit_log_maxage: u32,
    /// Number of rotated files to keep. 0 means no limit.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_maxbackup: usize,
    /// Compress rotated files with gzip.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUDIT)]
    audit_log_compress: bool,
    /// Kubeconfig of the webhook that audit events are sent to.
    #[arg(long, value_name = "FILE", help_heading = AUDIT)]
    audit_webhook_config_file: Option<PathBuf>,
    /// Time to wait before the first failed call of the webhook is repeated.
    #[arg(long, alias = "audit-webhook-batch-initial-backoff", value_name = "DURATION", default_value = "10s",
          value_parser = parse_duration, help_heading = AUDIT)]
    audit_webhook_initial_backoff: Duration,
    /// Mode of the log: batch never delays requests and drops events when its buffer is full; blocking records each event before the request continues; blocking-strict also rejects requests that cannot be recorded.
    #[arg(long, value_name = "MODE", default_value = "blocking", value_parser = parse_mode, help_heading = AUDIT)]
    audit_log_mode: Mode,
    /// Size of the buffer of the log, in events. Batch mode only.
    #[arg(long, value_name = "N", default_value_t = 10000, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_batch_buffer_size: usize,
    /// Maximum number of events in a batch. Has no effect: lines are written as soon as possible.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_batch_max_size: usize,
    /// Maximum time to wait for a full batch. Has no effect: lines are written as soon as possible.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration, help_heading = AUDIT)]
    audit_log_batch_max_wait: Duration,
    /// Limit the rate of batches. Has no effect: lines are written as soon as possible.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUDIT)]
    audit_log_batch_throttle_enable: bool,
    /// Maximum average rate of batches, per second. Has no effect: lines are written as soon as possible.
    #[arg(long, value_name = "RATE", default_value_t = 0.0, help_heading = AUDIT)]
    audit_log_batch_throttle_qps: f32,
    /// Number of batches that may be sent at once after an idle time. Has no effect: lines are written as soon as possible.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_batch_throttle_burst: usize,
    /// Limit the size of events and batches of the log.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUDIT)]
    audit_log_truncate_enabled: bool,
    /// Maximum size of a batch, in bytes. A larger batch is split.
    #[arg(long, value_name = "BYTES", default_value_t = Truncation::default().max_batch_size, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_truncate_max_batch_size: usize,
    /// Maximum size of an event, in bytes. A larger event loses its objects, or is dropped.
    #[arg(long, value_name = "BYTES", default_value_t = Truncation::default().max_event_size, value_parser = parse_count, help_heading = AUDIT)]
    audit_log_truncate_max_event_size: usize,
    /// Version of the events; only audit.k8s.io/v1 exists.
    #[arg(long, value_name = "VERSION", value_parser = ["audit.k8s.io/v1"], default_value = "audit.k8s.io/v1", help_heading = AUDIT)]
    audit_log_version: String,
    /// Mode of the webhook: batch never delays requests and drops events when its buffer is full; blocking records each event before the request continues; blocking-strict also rejects requests that cannot be recorded.
    #[arg(long, value_name = "MODE", default_value = "batch", value_parser = parse_mode, help_heading = AUDIT)]
    audit_webhook_mode: Mode,
    /// Size of the buffer of the webhook, in events. Batch mode only.
    #[arg(long, value_name = "N", default_value_t = 10000, value_parser = parse_count, help_heading = AUDIT)]
    audit_webhook_batch_buffer_size: usize,
    /// Maximum number of events in a batch. Batch mode only.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = parse_count, help_heading = AUDIT)]
    audit_webhook_batch_max_size: usize,
    /// Maximum time to wait for a full batch. Batch mode only.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration, help_heading = AUDIT)]
    audit_webhook_batch_max_wait: Duration,
    /// Limit the rate of batches. Batch mode only.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUDIT)]
    audit_webhook_batch_throttle_enable: bool,
    /// Maximum average rate of batches, per second. Batch mode only.
    #[arg(long, value_name = "RATE", default_value_t = 10.0, help_heading = AUDIT)]
    audit_webhook_batch_throttle_qps: f32,
    /// Number of batches that may be sent at once after an idle time. Batch mode only.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = parse_count, help_heading = AUDIT)]
    audit_webhook_batch_throttle_burst: usize,
    /// Limit the size of events and batches of the webhook.
    #[arg(long, value_name = "BOOL", default_value_t = false, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = AUDIT)]
    audit_webhook_truncate_enabled: bool,
    /// Maximum size of a batch, in bytes. A larger batch is split.
    #[arg(long, value_name = "BYTES", default_value_t = Truncation::default().max_batch_size, value_parser = parse_count, help_heading = AUDIT)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Maximum size of an event, in bytes. A larger event loses its objects, or is dropped.
    #[arg(long, value_name = "BYTES", default_value_t = Truncation::default().max_event_size, value_parser = parse_count, help_heading = AUDIT)]
    audit_webhook_truncate_max_event_size: usize,
    /// Version of the events; only audit.k8s.io/v1 exists.
    #[arg(long, value_name = "VERSION", value_parser = ["audit.k8s.io/v1"], default_value = "audit.k8s.io/v1", help_heading = AUDIT)]
    audit_webhook_version: String,
}

impl AuditFlags {
    /// Validates the flags. Returns `None` without a policy or a backend, and warns if one is given without the other.
    ///
    /// # Errors
    /// The first invalid flag, or an error in the policy.
    pub(super) fn validate(self) -> Result<Option<Options>, FlagError> {
        let log = self.log()?;
        let webhook = self.webhook()?;
        let Some(file) = self.audit_policy_file.as_ref().filter(|file| !file.as_os_str().is_empty()) else {
            let backends = [("--audit-log-path", log.is_some()), (WEBHOOK_FILE, webhook.is_some())];
            for (flag, _) in backends.into_iter().filter(|(_, is_given)| *is_given) {
                tracing::warn!("{flag} has no effect without --audit-policy-file: nothing is audited");
            }
            return Ok(None);
        };
        let policy = Policy::from_file(file).map_err(|error| {
            FlagError::new("audit-policy-file", format!("{error}: from file {}", file.display()))
        })?;
        if log.is_none() && webhook.is_none() {
            tracing::warn!(
                "--audit-policy-file has no effect without --audit-log-path or {WEBHOOK_FILE}: nothing is audited"
            );
            return Ok(None);
        }
        Ok(Some(Options { policy, log, webhook }))
    }

    fn log(&self) -> Result<Option<LogOptions>, FlagError> {
        let Some(path) = self.audit_log_path.clone().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let file = || FileOptions {
            path: path.clone(),
            max_size: u64::from(self.audit_log_maxsize) * MEGABYTE,
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            compress: self.audit_log_compress,
        };
        let batch = BatchOptions {
            buffer_size: self.audit_log_batch_buffer_size,
            max_size: self.audit_log_batch_max_size,
            max_wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable.then_some(Throttle {
                qps: self.audit_log_batch_throttle_qps,
                burst: self.audit_log_batch_throttle_burst,
            }),
        };
        if self.audit_log_mode == Mode::Batch {
            check_batch(&batch, &LOG)?;
        }
        let truncation = Truncation {
            max_event_size: self.audit_log_truncate_max_event_size,
            max_batch_size: self.audit_log_truncate_max_batch_size,
        };
        check_truncation(
            truncation,
            "audit-log-truncate-max-event-size",
            "audit-log-truncate-max-batch-size",
        )?;
        Ok(Some(LogOptions {
            output: if path.as_os_str() == "-" { Output::Stdout } else { Output::File(file()) },
            format: self.audit_log_format,
            mode: self.audit_log_mode,
            batch,
            truncation: self.audit_log_truncate_enabled.then_some(truncation),
        }))
    }

    fn webhook(&self) -> Result<Option<WebhookOptions>, FlagError> {
        let config_file = self.audit_webhook_config_file.clone();
        let Some(config_file) = config_file.filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let batch = BatchOptions {
            buffer_size: self.audit_webhook_batch_buffer_size,
            max_size: self.audit_webhook_batch_max_size,
            max_wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(Throttle {
                qps: self.audit_webhook_batch_throttle_qps,
                burst: self.audit_webhook_batch_throttle_burst,
            }),
        };
        if self.audit_webhook_mode == Mode::Batch {
            check_batch(&batch, &WEBHOOK)?;
        }
        let truncation = Truncation {
            max_event_size: self.audit_webhook_truncate_max_event_size,
            max_batch_size: self.audit_webhook_truncate_max_batch_size,
        };
        let names = ["audit-webhook-truncate-max-event-size", "audit-webhook-truncate-max-batch-size"];
        check_truncation(truncation, names[0], names[1])?;
        Ok(Some(WebhookOptions {
            config_file,
            initial_backoff: self.audit_webhook_initial_backoff,
            mode: self.audit_webhook_mode,
            batch,
            truncation: self.audit_webhook_truncate_enabled.then_some(truncation),
            egress: nave_webhook::Egress::Direct,
        }))
    }
}

/// The flags for batches of a backend.
struct BatchFlags {
    buffer_size: &'static str,
    max_size: &'static str,
    qps: &'static str,
    burst: &'static str,
}

const LOG: BatchFlags = BatchFlags {
    buffer_size: "audit-log-batch-buffer-size",
    max_size: "audit-log-batch-max-size",
    qps: "audit-log-batch-throttle-qps",
    burst: "audit-log-batch-throttle-burst",
};

const WEBHOOK: BatchFlags = BatchFlags {
    buffer_size: "audit-webhook-batch-buffer-size",
    max_size: "audit-webhook-batch-max-size",
    qps: "audit-webhook-batch-throttle-qps",
    burst: "audit-webhook-batch-throttle-burst",
};

fn check_batch(batch: &BatchOptions, flags: &BatchFlags) -> Result<(), FlagError> {
    let throttle = batch.throttle;
    for (flag, is_positive) in [
        (flags.buffer_size, batch.buffer_size > 0),
        (flags.max_size, batch.max_size > 0),
        (flags.qps, throttle.is_none_or(|throttle| throttle.qps > 0.0 && throttle.qps.is_finite())),
        (flags.burst, throttle.is_none_or(|throttle| throttle.burst > 0)),
    ] {
        if !is_positive {
            return Err(FlagError::new(flag, "must be a positive number"));
        }
    }
    Ok(())
}

fn check_truncation(
    truncation: Truncation,
    event_flag: &'static str,
    batch_flag: &'static str,
) -> Result<(), FlagError> {
    let Truncation { max_event_size, max_batch_size } = truncation;
    if max_event_size == 0 {
        return Err(FlagError::new(event_flag, "must be a positive number"));
    }
    if max_batch_size < max_event_size {
        let why = format!("must be greater than the maximum size of an event ({max_event_size})");
        return Err(FlagError::new(batch_flag, why));
    }
    Ok(())
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "batch" => Ok(Mode::Batch),
        "blocking" => Ok(Mode::Blocking),
        "blocking-strict" => Ok(Mode::BlockingStrict),
        _ => Err("must be batch, blocking or blocking-strict".to_owned()),
    }
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        "legacy" => Ok(Format::Legacy),
        _ => Err("must be json or legacy".to_owned()),
    }
}

const WEBHOOK_FILE: &str = "--audit-webhook-config-file";
const MEGABYTE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: AuditFlags,
    }

    fn options(arguments: &[&str]) -> Result<Option<Options>, String> {
        let all = ["nave"].iter().chain(arguments);
        let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
        command.flags.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn records_only_with_a_policy_and_a_backend() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.yaml");
        std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]")
            .unwrap();
        let policy = format!("--audit-policy-file={}", policy.display());
        assert!(options(&[]).unwrap().is_none());
        assert!(options(&["--audit-log-path=/x"]).unwrap().is_none());
        assert!(options(&[&policy]).unwrap().is_none());
        let log = options(&[&policy, "--audit-log-path", "-"]).unwrap().unwrap().log.unwrap();
        assert_eq!((log.output, log.mode, log.truncation), (Output::Stdout, Mode::Blocking, None));
        let webhook =
            options(&[&policy, "--audit-webhook-config-file=/x", "--audit-webhook-truncate-enabled"]);
        let webhook = webhook.unwrap().unwrap().webhook.unwrap();
        assert_eq!((webhook.mode, webhook.truncation), (Mode::Batch, Some(Truncation::default())));
        assert_eq!(webhook.batch.throttle, Some(Throttle { qps: 10.0, burst: 15 }));
    }

    #[test]
    fn warns_of_flags_and_fields_without_effect() {
        let folder = tempfile::tempdir().unwrap();
        let policy = |name: &str, rule: &str| {
            let file = folder.path().join(name);
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{rule}]");
            std::fs::write(&file, text).unwrap();
            format!("--audit-policy-file={}", file.display())
        };
        let valid = policy("valid", "{level: Metadata}");
        let misspelled = policy("misspelled", "{level: Metadata, usres: [a]}");
        let (valid, misspelled) = (valid.as_str(), misspelled.as_str());
        for (arguments, expected) in [
            (&[][..], &[][..]),
            (&[valid, "--audit-log-path=-"], &[]),
            (&[valid], &["--audit-policy-file has no effect"]),
            (&["--audit-log-path=/x"], &["--audit-log-path has no effect"]),
            (&["--audit-webhook-config-file=/x"], &["--audit-webhook-config-file has no effect"]),
            (&[misspelled, "--audit-log-path=-"], &["usres"]),
        ] {
            let (result, warnings) = crate::logging::collect(|| options(arguments));
            result.unwrap();
            assert_eq!(warnings.len(), expected.len(), "{arguments:?}: {warnings:?}");
            for (warning, part) in warnings.iter().zip(expected) {
                assert!(warning.contains(part), "{arguments:?}: {warning}");
            }
        }
    }

    #[test]
    fn errors_name_the_flag() {
        for (arguments, flag) in [
            (&["--audit-policy-file=/no/such/file"][..], "--audit-policy-file"),
            (&["--audit-log-mode=fast"], "--audit-log-mode"),
            (&["--audit-log-format=xml"], "--audit-log-format"),
            (
                &["--audit-log-path=/x", "--audit-log-mode=batch", "--audit-log-batch-buffer-size=0"],
                "buffer-size",
            ),
            (&["--audit-webhook-config-file=/x", "--audit-webhook-batch-throttle-qps=0"], "throttle-qps"),
            (&["--audit-log-path=/x", "--audit-log-truncate-max-event-size=99999999"], "max-batch-size"),
            (&["--audit-webhook-version=audit.k8s.io/v1beta1"], "--audit-webhook-version"),
        ] {
            let error = options(arguments).unwrap_err();
            assert!(error.contains(flag), "{arguments:?}: {error}");
        }
    }
}
