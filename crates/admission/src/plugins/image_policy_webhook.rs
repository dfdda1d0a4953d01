//! ImagePolicyWebhook asks a webhook whether a pod's images are allowed (upstream: `plugin/pkg/admission/imagepolicy`).

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lru::LruCache;
use nave_machinery::backoff::Backoff;
use nave_machinery::{Object, Status, Value};
use nave_webhook::Webhook;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::pods::{ContainerKind, containers, text};
use crate::config::{ConfigError, PluginConfig};
use crate::{Attributes, Plugin, Validate};

const NAME: &str = "ImagePolicyWebhook";
/// The text in the keys of annotations that are sent to the webhook.
const ANNOTATIONS: &str = ".image-policy.k8s.io/";
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// The maximum number of cached reviews.
const CACHE_SIZE: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// The timeout of one attempt. The request's deadline may be earlier.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The defaults and bounds of the configuration.
const DEFAULT_ALLOW_TTL: Duration = Duration::from_mins(5);
const DEFAULT_DENY_TTL: Duration = Duration::from_secs(30);
const DEFAULT_BACKOFF: Duration = Duration::from_millis(500);
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(30));
const BACKOFF_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_mins(5));

/// ImagePolicyWebhook.
pub(super) fn plugin(config: &PluginConfig) -> Result<Plugin, ConfigError> {
    let wrong = |why: String| ConfigError::Plugin { plugin: NAME, why };
    let Some((configuration, folder)) = config.read::<Configuration>(NAME)? else {
        return Err(wrong("imagePolicy is required".to_owned()));
    };
    ImagePolicyWebhook::new(&configuration.image_policy, folder).map(Plugin::validating).map_err(wrong)
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "imagePolicy")]
    image_policy: ImagePolicy,
}

/// The configuration. A time of -1 means zero, and 0 means the default.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImagePolicy {
    kube_config_file: PathBuf,
    /// In seconds.
    #[serde(default, rename = "allowTTL")]
    allow_ttl: i64,
    /// In seconds.
    #[serde(default, rename = "denyTTL")]
    deny_ttl: i64,
    /// In milliseconds.
    #[serde(default)]
    retry_backoff: i64,
    #[serde(default)]
    default_allow: bool,
}

struct ImagePolicyWebhook {
    webhook: Webhook,
    allow_ttl: Duration,
    deny_ttl: Duration,
    default_allow: bool,
    reviews: Mutex<LruCache<String, CachedReview>>,
}

#[derive(Clone)]
struct CachedReview {
    status: Value,
    expires: Instant,
}

impl ImagePolicyWebhook {
    fn new(policy: &ImagePolicy, folder: &Path) -> Result<Self, String> {
        let millis = |seconds: i64| seconds.saturating_mul(1000);
        let allow_ttl = period("allowTTL", millis(policy.allow_ttl), DEFAULT_ALLOW_TTL, TTL_BOUNDS)?;
        let deny_ttl = period("denyTTL", millis(policy.deny_ttl), DEFAULT_DENY_TTL, TTL_BOUNDS)?;
        let initial = period("retryBackoff", policy.retry_backoff, DEFAULT_BACKOFF, BACKOFF_BOUNDS)?;
        let file = folder.join(&policy.kube_config_file);
        let webhook = Webhook::from_file(&file, ATTEMPT_TIMEOUT).map_err(|error| error.to_string())?;
        let webhook = webhook.with_backoff(Backoff { initial, ..Backoff::WEBHOOK });
        let reviews = Mutex::new(LruCache::new(CACHE_SIZE));
        Ok(Self { webhook, allow_ttl, deny_ttl, default_allow: policy.default_allow, reviews })
    }

    /// Returns the status of a review, from the cache or the webhook.
    async fn review(&self, attributes: &Attributes<'_>, spec: &Value) -> Result<Value, String> {
        let key = spec.to_string();
        let now = Instant::now();
        let known = self.reviews.lock().get(&key).filter(|answer| answer.expires > now).cloned();
        if let Some(known) = known {
            return Ok(known.status);
        }
        let review = json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {}, "spec": spec, "status": {"allowed": false}});
        let deadline = tokio::time::Instant::from_std(attributes.deadline);
        let answer = tokio::time::timeout_at(deadline, self.webhook.call(&review)).await;
        let mut answer = match answer {
            Ok(answer) => answer.map_err(|error| error.to_string())?,
            Err(_) => return Err("the webhook call timed out".to_owned()),
        };
        let status = answer.get_mut("status").map(Value::take).unwrap_or_default();
        let ttl = if is_allowed(&status) { self.allow_ttl } else { self.deny_ttl };
        let answer = CachedReview { status: status.clone(), expires: Instant::now() + ttl };
        self.reviews.lock().put(key, answer);
        Ok(status)
    }
}

#[async_trait]
impl Validate for ImagePolicyWebhook {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
            && attributes.is_pods()
            && matches!(attributes.subresource, "" | "ephemeralcontainers")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let spec = review_spec(attributes, pod);
        // A rejected audit annotation does not affect the decision.
        let note =
            |key: &str, value: &str| drop(attributes.notes.annotate(&format!("{AUDIT_PREFIX}{key}"), value));
        let status = match self.review(attributes, &spec).await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "image policy webhook call failed");
                if self.default_allow {
                    note("failed-open", "true");
                    return Ok(());
                }
                return Err(attributes.forbidden(pod, error));
            }
        };
        for (key, value) in status.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten() {
            note(key, value.as_str().unwrap_or_default());
        }
        if is_allowed(&status) {
            return Ok(());
        }
        match text(&status, "reason") {
            "" => Err(attributes.forbidden(pod, "one or more images rejected by webhook backend")),
            reason => Err(attributes.forbidden(
                pod,
                format_args!("image policy webhook backend denied one or more images: {reason}"),
            )),
        }
    }
}

fn review_spec(attributes: &Attributes<'_>, pod: &Object) -> Value {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let of_kind = |kind| {
        let all = containers(spec).filter(move |container| container.kind == kind);
        all.map(|container| json!({"image": text(container.value, "image")}))
    };
    let mut images: Vec<Value> = Vec::new();
    if attributes.is_object() {
        images.extend(of_kind(ContainerKind::Regular).chain(of_kind(ContainerKind::Init)));
    }
    images.extend(of_kind(ContainerKind::Ephemeral));
    let annotations = pod.annotations().into_iter().flatten().filter(|(key, _)| key.contains(ANNOTATIONS));
    let annotations: nave_machinery::Map =
        annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut review = json!({"containers": images, "namespace": attributes.namespace});
    if !annotations.is_empty() {
        review["annotations"] = Value::Object(annotations);
    }
    review
}

fn is_allowed(status: &Value) -> bool {
    status.get("allowed").and_then(Value::as_bool).unwrap_or_default()
}

fn period(
    name: &str,
    millis: i64,
    default: Duration,
    (min, max): (Duration, Duration),
) -> Result<Duration, String> {
    let period = match millis {
        0 => return Ok(default),
        -1 | -1000 => return Ok(Duration::ZERO),
        millis => u64::try_from(millis).map(Duration::from_millis).unwrap_or_default(),
    };
    if (min..=max).contains(&period) {
        Ok(period)
    } else {
        Err(format!("valid value is between {min:?} and {max:?} for {name}, got {period:?}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nave_webhook::testing::HttpsServer;

    use super::*;
    use crate::testing::{Request, outcome, registry};

    async fn server(calls: &Arc<AtomicUsize>) -> (HttpsServer, tempfile::TempDir) {
        let calls = Arc::clone(calls);
        let server = HttpsServer::start(move |request| {
            calls.fetch_add(1, Ordering::SeqCst);
            let review: Value = serde_json::from_slice(request.body()).unwrap();
            let images = review["spec"]["containers"].to_string();
            let status = if images.contains("broken") {
                return http::Response::builder().status(403).body("no".into()).unwrap();
            } else if images.contains("bad") {
                json!({"allowed": false, "reason": "not signed", "auditAnnotations": {"k": "v"}})
            } else {
                json!({"allowed": !images.contains("mute")})
            };
            let body =
                json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": status});
            http::Response::new(body.to_string().into())
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &server.ca).unwrap();
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://localhost:{}", server.address.port()), "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {}}], "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(folder.path().join("webhook.yaml"), text.to_string()).unwrap();
        (server, folder)
    }

    fn policy(folder: &Path, default_allow: bool) -> ImagePolicyWebhook {
        let policy =
            json!({"kubeConfigFile": "webhook.yaml", "retryBackoff": 1, "defaultAllow": default_allow});
        ImagePolicyWebhook::new(&serde_json::from_value(policy).unwrap(), folder).unwrap()
    }

    fn request(image: &str) -> Request<'static> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}});
        Request::new(registry(), "", "pods", pod, Value::Null)
    }

    #[tokio::test]
    async fn webhook_decides_and_answers_are_cached() {
        let calls = Arc::default();
        let (_server, folder) = server(&calls).await;
        let plugin = policy(folder.path(), false);
        let told = |why: &str| Err((403, format!(r#"pods "p" is forbidden: {why}"#)));
        for _ in 0..2 {
            assert_eq!(outcome(request("good").validate(&plugin).await), Ok(()));
            let refused = request("bad");
            let denied = told("image policy webhook backend denied one or more images: not signed");
            assert_eq!(outcome(refused.validate(&plugin).await), denied);
            assert_eq!(refused.notes.take_annotations()[&format!("{AUDIT_PREFIX}k")], "v");
            let mute = told("one or more images rejected by webhook backend");
            assert_eq!(outcome(request("mute").validate(&plugin).await), mute);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        assert!(request("broken").validate(&plugin).await.is_err());
        let open = policy(folder.path(), true);
        let admitted = request("broken");
        assert_eq!(outcome(admitted.validate(&open).await), Ok(()));
        assert_eq!(admitted.notes.take_annotations()[&format!("{AUDIT_PREFIX}failed-open")], "true");
    }

    #[test]
    fn times_have_defaults_and_bounds() {
        let ttl = |millis| period("allowTTL", millis, DEFAULT_ALLOW_TTL, TTL_BOUNDS);
        assert_eq!(
            (ttl(0), ttl(-1000), ttl(5000)),
            (Ok(DEFAULT_ALLOW_TTL), Ok(Duration::ZERO), Ok(Duration::from_secs(5)))
        );
        assert!(ttl(-5000).is_err() && ttl(31 * 60 * 1000).is_err());
    }
}
