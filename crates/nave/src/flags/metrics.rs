//! The flags of metrics.

use std::collections::BTreeSet;

use clap::Args;

use super::{FlagError, GENERAL};

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = GENERAL)]
pub(super) struct MetricsFlags {
    /// Names of metrics that /metrics leaves out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    disabled_metrics: Vec<String>,
    /// Accepted for compatibility: 1.35, or nothing. nave hides no metrics.
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    show_hidden_metrics_for_version: String,
}

impl MetricsFlags {
    /// Returns the names of the metrics that are left out.
    ///
    /// # Errors
    /// A name is not that of a metric, or the version is not the previous one.
    pub(super) fn validate(self) -> Result<BTreeSet<String>, FlagError> {
        if let Some(name) = self.disabled_metrics.iter().find(|name| !is_metric(name)) {
            return Err(FlagError::new("disabled-metrics", format!("{name:?} is not the name of a metric")));
        }
        if !matches!(&*self.show_hidden_metrics_for_version, "" | PREVIOUS) {
            let why = format!("must be omitted or {PREVIOUS}, the previous minor version");
            return Err(FlagError::new("show-hidden-metrics-for-version", why));
        }
        Ok(self.disabled_metrics.into_iter().collect())
    }
}

/// Returns whether a name has the form of metric names (Prometheus).
fn is_metric(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    bytes.next().is_some_and(starts) && bytes.all(|byte| starts(byte) || byte.is_ascii_digit())
}

const PREVIOUS: &str = "1.35";
