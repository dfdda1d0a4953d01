//! The specifications of FlowSchemas and PriorityLevelConfigurations (`flowcontrol.apiserver.k8s.io/v1`).

use serde::{Deserialize, Deserializer};

use crate::allocation::Shares;
use crate::queues::Queuing;

/// The name of the mandatory flow schema and priority level for requests without limits.
pub const EXEMPT: &str = "exempt";

/// The name of the mandatory flow schema and priority level for all other requests.
pub const CATCH_ALL: &str = "catch-all";

/// Default of `nominalConcurrencyShares` of a limited level.
const DEFAULT_SHARES: u32 = 30;

/// Default of `matchingPrecedence`.
const fn default_precedence() -> i32 {
    1_000
}

/// The specification of a FlowSchema.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowSchemaSpec {
    /// The priority level of the requests that match.
    pub priority_level_configuration: LevelReference,
    /// Schemas with a lower number are tried first.
    #[serde(default = "default_precedence")]
    pub matching_precedence: i32,
    /// Divides the requests of the schema into flows.
    #[serde(default)]
    pub distinguisher_method: Option<DistinguisherMethod>,
    /// A request matches the schema if it matches one of the rules.
    #[serde(default)]
    pub rules: Vec<PolicyRules>,
}

/// The name of a priority level.
#[derive(Clone, Debug, Deserialize)]
pub struct LevelReference {
    /// The name.
    pub name: String,
}

/// Division of a schema's requests into flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
pub enum DistinguisherMethod {
    /// One flow for each user.
    ByUser,
    /// One flow for each namespace.
    ByNamespace,
}

/// Requests by subject and by resource or path.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRules {
    /// The users.
    #[serde(default)]
    pub subjects: Vec<Subject>,
    /// The requests for resources.
    #[serde(default)]
    pub resource_rules: Vec<ResourceRule>,
    /// The requests for other paths.
    #[serde(default)]
    pub non_resource_rules: Vec<NonResourceRule>,
}

/// One or more users.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Subject {
    /// A user, or all users (`*`).
    User {
        /// The user.
        user: NamedSubject,
    },
    /// The members of a group, or all users (`*`).
    Group {
        /// The group.
        group: NamedSubject,
    },
    /// A service account, or all of a namespace (name `*`).
    ServiceAccount {
        /// The service account.
        service_account: ServiceAccountSubject,
    },
}

/// The name of a user or group.
#[derive(Clone, Debug, Deserialize)]
pub struct NamedSubject {
    /// The name, or `*`.
    pub name: String,
}

/// The name of a service account.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceAccountSubject {
    /// The namespace.
    pub namespace: String,
    /// The name, or `*`.
    pub name: String,
}

/// Requests for resources. `*` as the only item of a list matches everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRule {
    /// Verbs, in lower case.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// API groups.
    #[serde(default)]
    pub api_groups: Vec<String>,
    /// Resources, or `resource/subresource`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// True if requests without a namespace match.
    #[serde(default)]
    pub cluster_scope: bool,
    /// Namespaces of the other requests.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub namespaces: Vec<String>,
}

/// Reads a list that Go encodes as null if it is empty.
fn null_is_empty<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(list)?.unwrap_or_default())
}

/// Requests for paths that are not resources.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NonResourceRule {
    /// HTTP methods, in lower case.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Paths. A path also matches the paths below it, with or without `*` at its end.
    #[serde(rename = "nonResourceURLs", default)]
    pub non_resource_urls: Vec<String>,
}

/// The specification of a PriorityLevelConfiguration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriorityLevelSpec {
    /// `Exempt` or `Limited`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limits of a limited level.
    #[serde(default)]
    pub limited: Option<LimitedLevel>,
    /// The shares of the exempt level.
    #[serde(default)]
    pub exempt: Option<ExemptLevel>,
}

/// A level with a limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitedLevel {
    /// Weight in the division of the server's seats; 30 by default.
    #[serde(default)]
    pub nominal_concurrency_shares: Option<u32>,
    /// Treatment of requests beyond the limit.
    pub limit_response: LimitResponse,
    /// Percentage of the seats that other levels may borrow.
    #[serde(default)]
    pub lendable_percent: Option<u32>,
    /// Percentage of the seats that the level may borrow; without a limit by default.
    #[serde(default)]
    pub borrowing_limit_percent: Option<u32>,
}

/// The level for requests that are not limited.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExemptLevel {
    /// Weight in the division of the server's seats; 0 by default.
    #[serde(default)]
    pub nominal_concurrency_shares: Option<u32>,
    /// Percentage of the seats that other levels may borrow.
    #[serde(default)]
    pub lendable_percent: Option<u32>,
}

/// Treatment of requests beyond the limit.
#[derive(Clone, Debug, Deserialize)]
pub struct LimitResponse {
    /// `Queue` or `Reject`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The queues.
    #[serde(default)]
    pub queuing: Option<QueuingConfiguration>,
}

/// The queues of a level.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuingConfiguration {
    /// The number of queues.
    pub queues: u32,
    /// The number of queues of one flow.
    pub hand_size: u32,
    /// Maximum number of requests in a queue while all seats are in use.
    pub queue_length_limit: u32,
}

/// The behavior of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelConfig {
    /// The queues.
    pub queuing: Queuing,
    /// The shares.
    pub shares: Shares,
}

impl PriorityLevelSpec {
    /// Returns the behavior of the level.
    ///
    /// # Errors
    /// The reason why the specification cannot be used. The API's validation refuses such objects.
    pub fn config(&self, name: &str) -> Result<LevelConfig, &'static str> {
        match (self.kind.as_str(), &self.limited, &self.exempt) {
            ("Exempt", None, exempt) if name == EXEMPT => {
                let exempt = exempt.clone().unwrap_or_default();
                let shares = Shares {
                    nominal: exempt.nominal_concurrency_shares.unwrap_or(0),
                    lendable_percent: exempt.lendable_percent.unwrap_or(0),
                    borrowing_percent: None,
                };
                Ok(LevelConfig { queuing: Queuing::Exempt, shares })
            }
            ("Limited", Some(limited), None) if name != EXEMPT => limited.config(),
            ("Exempt" | "Limited", ..) => Err("the name, the type and the fields do not fit together"),
            _ => Err("the type is unknown"),
        }
    }
}

impl LimitedLevel {
    fn config(&self) -> Result<LevelConfig, &'static str> {
        let queuing = match (self.limit_response.kind.as_str(), self.limit_response.queuing) {
            ("Reject", None) => Queuing::Reject,
            ("Queue", Some(QueuingConfiguration { queues, hand_size, queue_length_limit })) => {
                if hand_size == 0 || hand_size > queues {
                    return Err("handSize must be from 1 to the number of queues");
                }
                Queuing::Queue { queues, hand_size, queue_length_limit }
            }
            _ => return Err("the type of the limit response and its fields do not fit together"),
        };
        let shares = Shares {
            nominal: self.nominal_concurrency_shares.unwrap_or(DEFAULT_SHARES),
            lendable_percent: self.lendable_percent.unwrap_or(0).min(100),
            borrowing_percent: self.borrowing_limit_percent,
        };
        Ok(LevelConfig { queuing, shares })
    }
}
