//! Resource claims: creates claims from templates, reserves claims for pods that were bound without the scheduler,
//! and removes the reservations of finished pods (upstream: `resourceclaim`, KEP-4381). Pod groups are not
//! supported.
//!
//! | module | contents |
//! | --- | --- |
//! | [`pod`] | the claims of a pod |
//! | [`claim`] | the reservations of a claim |

mod claim;
mod pod;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::{Api, ApiResource, DynamicObject};
use nave_client::{Object, ObjectName, SharedInformer, on_each};
use parking_lot::Mutex;

use self::claim::Reservations;
use self::pod::ClaimMaker;
use crate::frame::{Context, Descriptor, Workers};
use crate::pods;

pub(crate) const RESOURCE_CLAIM: Descriptor = Descriptor {
    name: "resourceclaim-controller",
    alias: "resource-claim-controller",
    service_account: "resource-claim-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-resourceclaim-syncs", 50),
    start,
};

/// Index of pods by the claims they use.
const BY_CLAIM: &str = "pod-resource-claim";
/// Index of claims by the UID of the pod for which they were generated.
const BY_POD: &str = "resource-claim-pod";
/// Index of pods by the templates of their claims.
const BY_TEMPLATE: &str = "pod-resource-claim-template";

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut pods_builder = context.controller("resource_claim");
    let mut claims_builder = context.controller("resource_claim");
    let (pods, claims) = (pods_builder.informer::<Pod>(), pods_builder.informer::<ResourceClaim>());
    let templates = pods_builder.informer::<ResourceClaimTemplate>();
    // Each queue waits until both informers have synced.
    let _ = (claims_builder.informer::<Pod>(), claims_builder.informer::<ResourceClaim>());
    add_indexes(&pods, &claims);

    claims_builder.enqueue_objects(&claims);
    let queue = claims_builder.queue();
    claims_builder.add_handler(
        &pods,
        on_each(move |pod| {
            for claim in claims_of(pod) {
                queue.add(ObjectName::new(pod.namespace(), &claim));
            }
        }),
    );
    pods_builder.enqueue_mapped(&pods, |pod| uses_claims(pod).then(|| pod.key()));
    enqueue_users(&mut pods_builder, &pods, &claims, BY_CLAIM);
    enqueue_users(&mut pods_builder, &pods, &templates, BY_TEMPLATE);

    let client = &context.client;
    let work_on_pods = pods_builder.run(ClaimMaker {
        client: client.clone(),
        events: context.events.with_component("resource_claim"),
        pods: pods.lister(),
        claims: claims.lister(),
        templates: templates.lister(),
        created_claims: Mutex::default(),
    });
    let work_on_claims = claims_builder.run(Reservations {
        client: client.clone(),
        pods: pods.lister(),
        claims: claims.lister(),
    });
    join(work_on_pods, work_on_claims).map(drop).boxed()
}

/// Enqueues the pods that use a claim or a template.
fn enqueue_users<K: 'static>(
    builder: &mut crate::frame::ControllerBuilder,
    pods: &SharedInformer<Pod>,
    used: &SharedInformer<K>,
    index: &'static str,
) {
    let (queue, pods) = (builder.queue(), pods.lister());
    builder.add_handler(
        used,
        on_each(move |object: &Object<K>| {
            let users = pods.by_index(index, object.key().as_str()).unwrap_or_default();
            for pod in users {
                queue.add(pod.key());
            }
        }),
    );
}

fn add_indexes(pods: &SharedInformer<Pod>, claims: &SharedInformer<ResourceClaim>) {
    let keys = |pod: &Object<Pod>, names: Vec<String>| -> Vec<String> {
        names.iter().map(|name| ObjectName::new(pod.namespace(), name).as_str().to_owned()).collect()
    };
    pods.add_index(BY_CLAIM, move |pod| keys(pod, claims_of(pod)));
    pods.add_index(BY_TEMPLATE, move |pod| keys(pod, templates_of(pod)));
    claims.add_index(BY_POD, |claim| {
        let owner = claim.controller_of().filter(|owner| owner.kind == "Pod" && owner.api_version == "v1");
        owner.map(|owner| owner.uid.to_owned()).into_iter().collect()
    });
}

/// Returns whether a pod uses claims. Checks the JSON to avoid decoding every pod.
fn uses_claims(pod: &Object<Pod>) -> bool {
    pod.json_at(&["spec", "resourceClaims"]).is_some()
        || pod.json_at(&["status", "extendedResourceClaimStatus"]).is_some()
}

/// Returns the names of a pod's claims. Omits claims whose names are not known yet.
fn claims_of(pod: &Object<Pod>) -> Vec<String> {
    if !uses_claims(pod) {
        return Vec::new();
    }
    let Ok(pod) = pod.decode() else { return Vec::new() };
    let wanted = pod.spec.iter().filter_map(|spec| spec.resource_claims.as_ref()).flatten();
    let names = wanted.filter_map(|wanted| pod::claim_name(&pod, wanted).map(str::to_owned));
    let extended = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    names.chain(extended.map(|extended| extended.resource_claim_name.clone())).collect()
}

fn templates_of(pod: &Object<Pod>) -> Vec<String> {
    let Some(wanted) = pod.json_at(&["spec", "resourceClaims"]) else { return Vec::new() };
    let wanted: Vec<k8s_openapi::api::core::v1::PodResourceClaim> =
        serde_json::from_slice(wanted).unwrap_or_default();
    wanted.into_iter().filter_map(|wanted| wanted.resource_claim_template_name).collect()
}

/// Returns whether a pod no longer needs its claims.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_none())
}

fn api(client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<ResourceClaim>(&()))
}
