//! Kubernetes' controllers: each brings what is observed of its kind closer to what is wanted.
//!
//! ```text
//! SharedInformerFactory ── one watch a type ──► handlers (metadata only) ──► Workqueue ──► sync(key)
//!                                                                                           │
//!        what is observed ──► a pure function: what is to be done ──► writes by kube::Client ┘
//! ```
//!
//! Every controller is level-driven. A sync reads the present state from the informers, decides by a pure function,
//! and writes; what an event said is never more than a hint that a key is worth a look. So a restart, a missed event
//! and a repeated event are all the same: the next sync sees what is there. What informers cannot know yet (an object
//! this controller has just made) is bridged by [`expectations`], never by waiting.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`frame`] | what all controllers share: how they are put together ([`frame::ControllerBuilder`]), how they start, their workers |
//! | [`owners`], [`owned`] | controller references: adoption and release, and finding what belongs to an object |
//! | [`selectors`] | finding the objects that select another by its labels |
//! | [`expectations`] | creations and deletions that informers have yet to see |
//! | `history` | the templates a workload has had, as controller revisions |
//! | [`pods`] | pods as their controllers see them: active, ready, available, made from a template |
//!
//! | controller | what it brings about |
//! | --- | --- |
//! | `daemonset` | a pod on each node that fits |
//! | `statefulset` | pods with an identity and claims of their own, in order |
//! | `namespace` | what is in a namespace goes with it |
//! | `service_account`, `root_ca` | what each namespace has from the start |
//! | `service_account_token` | secrets with tokens of service accounts |
//! | `certificates` | certificates for kubelets and others that ask for one |
//! | `bootstrap_signer` | who joins by a token can check the cluster's kubeconfig |
//! | `token_cleaner` | bootstrap tokens go when their time is over |
//! | `node_lifecycle`, `taint_eviction` | nodes whose kubelets are silent, their taints, and what these evict |
//! | `node_ttl` | how long kubelets may cache what pods mount |
//! | `garbage_collector` | what belongs to an object goes with it, before it, or is orphaned |
//! | `cluster_role_aggregation` | roles that are made of others |
//! | `endpoint_slice`, `endpoints` | where the pods of a service are |
//! | `endpoint_slice::mirroring` | slices for endpoints that users write |
//! | `persistent_volume` | a volume for each claim, and what becomes of it afterwards; who is to expand it |
//! | `ephemeral_volume` | the claims that pods bring along |
//! | `resource_claim` | claims of devices from templates, and who uses them |
//! | `horizontal_pod_autoscaler` | as many pods as metrics ask for |
//! | `volume_attributes_class_protection` | classes of volumes go only when they are not used |
//! | `legacy_token_cleaner` | tokens in secrets go when nothing uses them |
//! | `validating_admission_policy_status` | that a policy was seen |
//! | `disruption` | how many pods a budget lets go |
//! | `volume_protection` | volumes and claims go only when they are not used |
//! | `resource_quota` | what of a quota is used |
//! | `service_cidr` | ranges of cluster IPs stay while addresses are in use |
//!
//! Invariants: controllers know nothing of the server they run in, only a client and informers. A handler reads no
//! more than metadata. Objects in informers are shared: a sync never changes one in place.

mod api;
mod bootstrap_signer;
mod certificates;
mod cluster_role_aggregation;
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

/// Every controller there is, in the order in which they start.
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
