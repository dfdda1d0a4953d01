//! EventRateLimit limits the rate of event writes (upstream: `plugin/pkg/admission/eventratelimit`).

use std::num::NonZeroUsize;
use std::time::Instant;

use async_trait::async_trait;
use lru::LruCache;
use nave_machinery::{Object, Status, Value};
use parking_lot::Mutex;
use serde::Deserialize;

use super::pods::text;
use crate::config::{ConfigError, PluginConfig};
use crate::{Attributes, Plugin, Validate};

const NAME: &str = "EventRateLimit";
/// The default number of keys per limit.
const DEFAULT_CACHE_SIZE: u32 = 4096;

/// EventRateLimit.
pub(super) fn plugin(config: &PluginConfig) -> Result<Plugin, ConfigError> {
    let configuration = config.read::<Configuration>(NAME)?.map(|(configuration, _)| configuration);
    let limits = configuration.map(|configuration| configuration.limits).unwrap_or_default();
    let plugin = EventRateLimit::new(limits).map_err(|why| ConfigError::Plugin { plugin: NAME, why })?;
    Ok(Plugin::validating(plugin))
}

/// The configuration (`eventratelimit.admission.k8s.io/v1alpha1`).
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    limits: Vec<Limit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limit {
    #[serde(rename = "type")]
    kind: LimitKind,
    /// Tokens added to a bucket per second.
    #[serde(default)]
    qps: i32,
    /// The capacity of a bucket.
    #[serde(default)]
    burst: i32,
    /// The maximum number of buckets.
    #[serde(default)]
    cache_size: i32,
}

/// The grouping of events into buckets.
#[derive(Clone, Copy, Debug, Deserialize)]
enum LimitKind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

struct EventRateLimit {
    limits: Vec<Enforcer>,
}

struct Enforcer {
    kind: LimitKind,
    qps: f64,
    burst: f64,
    buckets: Mutex<LruCache<String, Bucket>>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl EventRateLimit {
    fn new(limits: Vec<Limit>) -> Result<Self, String> {
        if limits.is_empty() {
            return Err("limits: must not be empty".to_owned());
        }
        let limits = limits.into_iter().enumerate().map(|(index, limit)| Enforcer::new(index, &limit));
        Ok(Self { limits: limits.collect::<Result<_, _>>()? })
    }

    fn check(&self, attributes: &Attributes<'_>, event: &Object, now: Instant) -> Result<(), Status> {
        let mut errors: Vec<String> = Vec::new();
        // Takes a token from each limit, even if another limit refuses the event.
        for enforcer in &self.limits {
            let key = enforcer.kind.key(attributes, event);
            if !enforcer.accept(&key, now) {
                errors.push(format!("limit reached on type {:?} for key {key}", enforcer.kind));
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(Status::too_many_requests(format!("Too many requests: {one}"), 0)),
            many => Err(Status::too_many_requests(format!("Too many requests: [{}]", many.join(", ")), 0)),
        }
    }
}

impl Enforcer {
    fn new(index: usize, limit: &Limit) -> Result<Self, String> {
        let positive = |field: &str, value: i32| {
            if value > 0 {
                Ok(f64::from(value))
            } else {
                Err(format!("limits[{index}].{field}: {value}: must be positive"))
            }
        };
        let size = match u32::try_from(limit.cache_size) {
            Ok(0) => DEFAULT_CACHE_SIZE,
            Ok(size) => size,
            Err(_) => {
                return Err(format!("limits[{index}].cacheSize: {}: must not be negative", limit.cache_size));
            }
        };
        // The limit of type `Server` has a single bucket.
        let size = if matches!(limit.kind, LimitKind::Server) { 1 } else { size };
        let size = NonZeroUsize::new(size as usize).unwrap_or(NonZeroUsize::MIN);
        let (qps, burst) = (positive("qps", limit.qps)?, positive("burst", limit.burst)?);
        Ok(Self { kind: limit.kind, qps, burst, buckets: Mutex::new(LruCache::new(size)) })
    }

    fn accept(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.get_or_insert_mut(key.to_owned(), || Bucket { tokens: self.burst, filled: now });
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * self.qps;
        bucket.tokens = (bucket.tokens + gained).min(self.burst);
        bucket.filled = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        accepted
    }
}

impl LimitKind {
    fn key(self, attributes: &Attributes<'_>, event: &Object) -> String {
        match self {
            Self::Server => String::new(),
            Self::Namespace => attributes.namespace.to_owned(),
            Self::User => attributes.user.name.clone(),
            Self::SourceAndObject => {
                let null = Value::Null;
                let source = event.get("source").unwrap_or(&null);
                let involved = event.get("involvedObject").unwrap_or(&null);
                let source = ["component", "host"].map(|field| text(source, field));
                let involved =
                    ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| text(involved, field));
                [source.as_slice(), involved.as_slice()].concat().concat()
            }
        }
    }
}

#[async_trait]
impl Validate for EventRateLimit {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_resource("", "events") && !attributes.dry_run()
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        match object {
            Some(event) => self.check(attributes, event, Instant::now()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::testing::{Request, registry};

    fn limits(limits: Value) -> Result<EventRateLimit, String> {
        let limits: Vec<Limit> = serde_json::from_value(limits).map_err(|error| error.to_string())?;
        EventRateLimit::new(limits)
    }

    fn write(plugin: &EventRateLimit, user: &str, host: &str, now: Instant) -> Result<(), (u16, String)> {
        let event = json!({"metadata": {"name": "e"}, "source": {"component": "c", "host": host},
            "involvedObject": {"kind": "Pod", "name": "p"}});
        let request = Request::new(registry(), "", "events", event.clone(), Value::Null).by(user, &[]);
        let object = Object::try_from(event).unwrap();
        plugin
            .check(&request.attributes("e", None), &object, now)
            .map_err(|status| (status.code, status.message))
    }

    #[test]
    fn each_limit_has_separate_buckets() {
        let now = Instant::now();
        let limit = |kind: &str| limits(json!([{"type": kind, "qps": 1, "burst": 2}])).unwrap();
        for (kind, key, other_user, other_host) in [
            ("Server", "", false, false),
            ("Namespace", "ns", false, false),
            ("User", "u", true, false),
            ("SourceAndObject", "chPodp", false, true),
        ] {
            let plugin = limit(kind);
            let write = |user: &str, host: &str, now| write(&plugin, user, host, now);
            assert_eq!((write("u", "h", now), write("u", "h", now)), (Ok(()), Ok(())));
            let refused =
                Err((429, format!("Too many requests: limit reached on type {kind} for key {key}")));
            assert_eq!(write("u", "h", now), refused);
            assert_eq!(write("v", "h", now).is_ok(), other_user, "{kind}");
            assert_eq!(write("u", "i", now).is_ok(), other_host, "{kind}");
            assert_eq!(write("u", "h", now + Duration::from_secs(1)), Ok(()), "a token a second");
        }
    }

    #[test]
    fn rejects_invalid_limits() {
        for wrong in [
            json!([]),
            json!([{"type": "Other", "qps": 1, "burst": 1}]),
            json!([{"type": "Server", "qps": 0, "burst": 1}]),
            json!([{"type": "Server", "qps": 1, "burst": -1}]),
            json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": -1}]),
        ] {
            assert!(limits(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
