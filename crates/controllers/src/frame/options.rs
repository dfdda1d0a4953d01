use std::time::Duration;

/// Options of single controllers, by kube-controller-manager's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// So many pods that have ended are kept (`--terminated-pod-gc-threshold`).
    pub terminated_pods: usize,
    /// Claims that have no volume are looked at this often (`--pvclaimbinder-sync-period`).
    pub claim_binder_sync_period: Duration,
    /// True if provisioners are asked for volumes (`--enable-dynamic-provisioning`).
    pub dynamic_provisioning: bool,
    /// All quotas are counted this often (`--resource-quota-sync-period`).
    pub resource_quota_sync_period: Duration,
    /// Tokens in secrets that nothing has used for so long are deleted
    /// (`--legacy-service-account-token-clean-up-period`).
    pub legacy_token_clean_up_period: Duration,
    /// The horizontal pod autoscaler's.
    pub autoscaler: AutoscalerOptions,
}

/// The horizontal pod autoscaler's options (`--horizontal-pod-autoscaler-…`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoscalerOptions {
    /// Each autoscaler is looked at this often (`sync-period`).
    pub sync_period: Duration,
    /// The highest recommendation of this time holds against scaling down (`downscale-stabilization`).
    pub downscale_stabilization: Duration,
    /// Ratios this close to 1 change nothing (`tolerance`).
    pub tolerance: f64,
    /// CPU samples of this time after the start of a pod may be left out (`cpu-initialization-period`).
    pub cpu_initialization_period: Duration,
    /// A pod that becomes unready within this time after its start was never ready (`initial-readiness-delay`).
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
