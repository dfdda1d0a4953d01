use std::time::Duration;

/// Options of individual controllers, set by kube-controller-manager's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The number of terminated pods to keep (`--terminated-pod-gc-threshold`).
    pub terminated_pods: usize,
    /// The interval at which unbound claims are retried (`--pvclaimbinder-sync-period`).
    pub claim_binder_sync_period: Duration,
    /// True if volumes are provisioned dynamically (`--enable-dynamic-provisioning`).
    pub dynamic_provisioning: bool,
    /// The interval at which each quota is recalculated (`--resource-quota-sync-period`).
    pub resource_quota_sync_period: Duration,
    /// The time without use after which secret-based tokens are deleted
    /// (`--legacy-service-account-token-clean-up-period`).
    pub legacy_token_clean_up_period: Duration,
    /// Options of the horizontal pod autoscaler.
    pub autoscaler: AutoscalerOptions,
}

/// The horizontal pod autoscaler's options (`--horizontal-pod-autoscaler-…`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscalerOptions {
    /// The interval at which each autoscaler is evaluated (`sync-period`).
    pub sync_period: Duration,
    /// The window whose highest recommendation limits scaling down (`downscale-stabilization`).
    pub downscale_stabilization: Duration,
    /// The deviation of the usage ratio from 1 that does not cause scaling (`tolerance`).
    pub tolerance: f64,
    /// CPU samples taken within this time after a pod's start may be ignored (`cpu-initialization-period`).
    pub cpu_initialization_period: Duration,
    /// A pod that becomes unready within this time after its start counts as never ready
    /// (`initial-readiness-delay`).
    pub initial_readiness_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            terminated_pods: 12_500,
            claim_binder_sync_period: Duration::from_secs(15),
            dynamic_provisioning: true,
            resource_quota_sync_period: Duration::from_mins(5),
            legacy_token_clean_up_period: Duration::from_hours(365 * 24),
            autoscaler: AutoscalerOptions::default(),
        }
    }
}

impl Default for AutoscalerOptions {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_mins(5),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_mins(5),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}
