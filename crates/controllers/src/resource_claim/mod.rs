//! Resource claims: makes claims from the templates that pods name, reserves claims for pods that were placed without
//! the scheduler, and ends reservations of pods that are done (upstream: `resourceclaim`, KEP-4381). Pod groups are not
//! served here, and have no claims.
//!
//! | module | what it does |
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

/// The controller.
pub(crate) const RESOURCE_CLAIM: Descriptor = Descriptor {
    name: "resourceclaim-controller",
    alias: "resource-claim-controller",
    service_account: "resource-claim-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-resourceclaim-syncs", 50),
    start,
};

/// Pods by the claims that they use.
const BY_CLAIM: &str = "pod-resource-claim";
/// Claims by the uid of the pod that they were made for.
const BY_POD: &str = "resource-claim-pod";
/// Pods by the templates of their claims.
const BY_TEMPLATE: &str = "pod-resource-claim-template";

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut of_pods = context.controller("resource_claim");
    let mut of_claims = context.controller("resource_claim");
    let (pods, claims) = (of_pods.informer::<Pod>(), of_pods.informer::<ResourceClaim>());
    let templates = of_pods.informer::<ResourceClaimTemplate>();
    // Both wait for both.
    let _ = (of_claims.informer::<Pod>(), of_claims.informer::<ResourceClaim>());
    add_indexes(&pods, &claims);

    of_claims.work_on(&claims);
    let queue = of_claims.queue();
    of_claims.watch(
        &pods,
        on_each(move |pod| {
            for claim in claims_of(pod) {
                queue.add(ObjectName::new(pod.namespace(), &claim));
            }
        }),
    );
    of_pods.map(&pods, |pod| uses_claims(pod).then(|| pod.key()));
    for_users(&mut of_pods, &pods, &claims, BY_CLAIM);
    for_users(&mut of_pods, &pods, &templates, BY_TEMPLATE);

    let client = &context.client;
    let work_on_pods = of_pods.run(ClaimMaker {
        client: client.clone(),
        events: context.events.with_component("resource_claim"),
        pods: pods.lister(),
        claims: claims.lister(),
        templates: templates.lister(),
        made: Mutex::default(),
    });
    let work_on_claims =
        of_claims.run(Reservations { client: client.clone(), pods: pods.lister(), claims: claims.lister() });
    join(work_on_pods, work_on_claims).map(drop).boxed()
}

/// Has the pods looked at that use a claim or a template.
fn for_users<K: 'static>(
    builder: &mut crate::frame::ControllerBuilder,
    pods: &SharedInformer<Pod>,
    used: &SharedInformer<K>,
    index: &'static str,
) {
    let (queue, pods) = (builder.queue(), pods.lister());
    builder.watch(
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

/// True if a pod uses claims. A look at the JSON spares decoding all other pods.
fn uses_claims(pod: &Object<Pod>) -> bool {
    pod.json_at(&["spec", "resourceClaims"]).is_some()
        || pod.json_at(&["status", "extendedResourceClaimStatus"]).is_some()
}

/// The names of the claims of a pod, as far as they are made.
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

/// True if a pod will not use its claims any more.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_none())
}

fn api(client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<ResourceClaim>(&()))
}
