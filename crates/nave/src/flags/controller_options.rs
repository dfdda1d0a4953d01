//! Flags of individual controllers, with kube-controller-manager's names.

use std::time::Duration;

use clap::Args;
use nave_controllers::frame::{AutoscalerOptions, Options};

use super::FlagError;
use super::values::{parse_bool, parse_count, parse_duration, parse_ratio};

const GENERAL: &str = "General";
const AUTOSCALER: &str = "Horizontal pod autoscaler";

/// The flags, as typed.
#[derive(Args, Clone, Debug)]
pub(super) struct ControllerOptionsFlags {
    /// Number of terminated pods above which the oldest pods are deleted. 0 keeps all pods.
    #[arg(long, value_name = "N", default_value_t = Options::default().terminated_pods, value_parser = parse_count, help_heading = GENERAL)]
    terminated_pod_gc_threshold: usize,
    /// Interval between attempts to find a volume for a claim.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration, help_heading = GENERAL)]
    pvclaimbinder_sync_period: Duration,
    /// Ask external provisioners for the volumes of claims.
    #[arg(long, value_name = "BOOL", default_value_t = true, value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", help_heading = GENERAL)]
    enable_dynamic_provisioning: bool,
    /// Interval between calculations of the usage of all resource quotas.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration, help_heading = GENERAL)]
    resource_quota_sync_period: Duration,
    /// Time after the last use at which a service account token in a secret is deleted.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = parse_duration, help_heading = GENERAL)]
    legacy_service_account_token_clean_up_period: Duration,
    /// Interval between evaluations of an autoscaler.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration, help_heading = AUTOSCALER)]
    horizontal_pod_autoscaler_sync_period: Duration,
    /// Time for which an autoscaler does not scale below its highest recommendation.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration, help_heading = AUTOSCALER)]
    horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// Minimum deviation from 1 of the ratio of a metric to its target that causes scaling.
    #[arg(long, value_name = "RATIO", default_value_t = AutoscalerOptions::default().tolerance, value_parser = parse_ratio, help_heading = AUTOSCALER)]
    horizontal_pod_autoscaler_tolerance: f64,
    /// Time after the start of a pod during which its CPU samples may be ignored.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_duration, help_heading = AUTOSCALER)]
    horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// Time after the start of a pod during which changes of its readiness count as initial readiness.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration, help_heading = AUTOSCALER)]
    horizontal_pod_autoscaler_initial_readiness_delay: Duration,
}

impl ControllerOptionsFlags {
    /// Checks each flag.
    ///
    /// # Errors
    /// The first invalid flag and the reason.
    pub(super) fn validate(self) -> Result<Options, FlagError> {
        let periods = [
            ("pvclaimbinder-sync-period", self.pvclaimbinder_sync_period),
            ("resource-quota-sync-period", self.resource_quota_sync_period),
            ("horizontal-pod-autoscaler-sync-period", self.horizontal_pod_autoscaler_sync_period),
        ];
        if let Some((flag, _)) = periods.iter().find(|(_, period)| period.is_zero()) {
            return Err(FlagError::new(flag, "must be greater than zero".to_owned()));
        }
        Ok(Options {
            terminated_pods: match self.terminated_pod_gc_threshold {
                0 => usize::MAX,
                kept => kept,
            },
            claim_binder_sync_period: self.pvclaimbinder_sync_period,
            dynamic_provisioning: self.enable_dynamic_provisioning,
            resource_quota_sync_period: self.resource_quota_sync_period,
            legacy_token_clean_up_period: self.legacy_service_account_token_clean_up_period,
            autoscaler: AutoscalerOptions {
                sync_period: self.horizontal_pod_autoscaler_sync_period,
                downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
                tolerance: self.horizontal_pod_autoscaler_tolerance,
                cpu_initialization_period: self.horizontal_pod_autoscaler_cpu_initialization_period,
                initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ControllerOptionsFlags,
    }

    fn options(flags: &[&str]) -> Result<Options, String> {
        let line = Line::try_parse_from(["nave"].iter().chain(flags)).map_err(|error| error.to_string())?;
        line.flags.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_have_the_defaults_of_the_controllers() {
        assert_eq!(options(&[]), Ok(Options::default()));
    }

    #[test]
    fn rejects_periods_of_zero_and_negative_tolerances() {
        for flag in [
            "--pvclaimbinder-sync-period=0s",
            "--horizontal-pod-autoscaler-sync-period=0s",
            "--resource-quota-sync-period=0s",
            "--horizontal-pod-autoscaler-tolerance=-0.1",
            "--horizontal-pod-autoscaler-tolerance=NaN",
        ] {
            assert!(options(&[flag]).is_err(), "{flag}");
        }
        assert_eq!(options(&["--terminated-pod-gc-threshold=0"]).unwrap().terminated_pods, usize::MAX);
    }
}
