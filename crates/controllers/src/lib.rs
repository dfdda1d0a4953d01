//! Kubernetes' controllers. Each controller moves the observed state of its kind toward the desired state.
//!
//! ```text
//! SharedInformerFactory ── one watch per type ──► handlers (metadata only) ──► Workqueue ──► sync(key)
//!                                                                                           │
//!              observed state ──► a pure function: the actions due ──► writes through kube::Client ┘
//! ```
//!
//! Every controller is level-driven. A sync reads the current state from the informers, computes the actions in a
//! pure function, and performs the writes. An event only enqueues a key, so restarts and missed or repeated events
//! are harmless: the next sync acts on the current state. [`expectations`] track created objects that the informers
//! do not have yet; no sync waits for a cache.
//!
//! | module | contents |
//! | --- | --- |
//! | [`frame`] | the framework: [`frame::ControllerBuilder`], startup, workers |
//! | [`owners`], [`owned`] | controller references: adoption, release, and lookup of the objects of an owner |
//! | [`selectors`] | lookup of the objects whose selector matches an object |
//! | [`expectations`] | created and deleted objects that the informers do not reflect yet |
//! | `history` | previous pod templates of a workload, stored as controller revisions |
//! | [`pods`] | properties of pods: active, ready, available; pods from a template |
//!
//! | controller | purpose |
//! | --- | --- |
//! | `daemonset` | a pod on each matching node |
//! | `statefulset` | pods with a stable identity and their own claims, in order |
//! | `namespace` | deletes the contents of a terminating namespace |
//! | `service_account`, `root_ca` | the default objects in each namespace |
//! | `service_account_token` | secrets with tokens of service accounts |
//! | `certificates` | approves, signs and cleans up certificate signing requests |
//! | `bootstrap_signer` | signs the cluster's kubeconfig for clients that join with a token |
//! | `token_cleaner` | deletes expired bootstrap tokens |
//! | `node_lifecycle`, `taint_eviction` | taints on unresponsive nodes, and eviction by taints |
//! | `node_ttl` | the time for which kubelets may cache secrets and config maps |
//! | `garbage_collector` | cascading deletion and orphaning of dependents |
//! | `cluster_role_aggregation` | the rules of aggregated cluster roles |
//! | `endpoint_slice`, `endpoints` | the addresses of services |
//! | `endpoint_slice::mirroring` | slices for endpoints created by users |
//! | `persistent_volume` | binding, provisioning, reclaiming and expansion of volumes |
//! | `ephemeral_volume` | claims for the ephemeral volumes of pods |
//! | `resource_claim` | device claims from templates, and their reservations |
//! | `horizontal_pod_autoscaler` | replica counts from metrics |
//! | `volume_attributes_class_protection` | protects volume attributes classes in use from deletion |
//! | `legacy_token_cleaner` | deletes unused secret-based tokens |
//! | `validating_admission_policy_status` | type checking and observed generations of policies |
//! | `disruption` | the allowed disruptions of pod disruption budgets |
//! | `volume_protection` | protects volumes and claims in use from deletion |
//! | `resource_quota` | the usage of resource quotas |
//! | `service_cidr` | protects service IP ranges with allocated addresses from deletion |
//!
//! Invariants: Controllers depend on a client and informers, never on the server they run in. Handlers read
//! metadata only. Cached objects are shared and never modified in place.

mod api;
mod bootstrap_signer;
mod certificates;
mod cluster_role_aggregation;
mod counts;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod ephemeral_volume;
pub mod expectations;
mod finalizers;
pub mod frame;
mod garbage_collector;
mod hash;
mod history;
mod horizontal_pod_autoscaler;
mod int_or_percent;
mod job;
mod legacy_token_cleaner;
mod namespace;
mod node_lifecycle;
mod node_ttl;
pub mod owned;
pub mod owners;
mod persistent_volume;
mod pod_gc;
pub mod pods;
mod ranking;
mod replicaset;
mod resource_claim;
mod resource_quota;
mod root_ca;
mod scheduling;
pub mod selectors;
mod service_account;
mod service_account_token;
mod service_cidr;
mod statefulset;
mod taint_eviction;
mod time_arithmetic;
mod token_cleaner;
mod ttl_after_finished;
mod untyped;
mod validating_admission_policy_status;
mod volume_attributes_class_protection;
mod volume_protection;

use frame::Descriptor;

/// All controllers, in the order in which they start.
pub const CONTROLLERS: &[Descriptor] = &[
    replicaset::REPLICATION_CONTROLLER,
    replicaset::REPLICA_SET,
    deployment::DEPLOYMENT,
    daemonset::DAEMON_SET,
    statefulset::STATEFUL_SET,
    job::JOB,
    cronjob::CRON_JOB,
    ttl_after_finished::TTL_AFTER_FINISHED,
    pod_gc::POD_GC,
    namespace::NAMESPACE,
    persistent_volume::PERSISTENT_VOLUME_BINDER,
    persistent_volume::expand::PERSISTENT_VOLUME_EXPANDER,
    ephemeral_volume::EPHEMERAL_VOLUME,
    volume_protection::CLAIM_PROTECTION,
    volume_protection::VOLUME_PROTECTION,
    volume_attributes_class_protection::VOLUME_ATTRIBUTES_CLASS_PROTECTION,
    resource_claim::RESOURCE_CLAIM,
    service_account::SERVICE_ACCOUNT,
    service_account_token::SERVICE_ACCOUNT_TOKEN,
    legacy_token_cleaner::LEGACY_TOKEN_CLEANER,
    root_ca::ROOT_CA_PUBLISHER,
    cluster_role_aggregation::CLUSTER_ROLE_AGGREGATION,
    validating_admission_policy_status::VALIDATING_ADMISSION_POLICY_STATUS,
    certificates::approving::CSR_APPROVING,
    certificates::signing::CSR_SIGNING,
    certificates::cleaner::CSR_CLEANER,
    node_ttl::NODE_TTL,
    node_lifecycle::NODE_LIFECYCLE,
    taint_eviction::TAINT_EVICTION,
    bootstrap_signer::BOOTSTRAP_SIGNER,
    token_cleaner::TOKEN_CLEANER,
    endpoint_slice::ENDPOINT_SLICE,
    endpoint_slice::mirroring::ENDPOINT_SLICE_MIRRORING,
    endpoints::ENDPOINTS,
    disruption::DISRUPTION,
    horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALER,
    resource_quota::RESOURCE_QUOTA,
    service_cidr::SERVICE_CIDR,
    garbage_collector::GARBAGE_COLLECTOR,
];
