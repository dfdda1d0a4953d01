//! ResourceQuota enforces the quotas of a namespace (upstream: `apiserver/pkg/admission/plugin/resourcequota`).
//!
//! ```text
//! request ─→ Charge (usage of the object)   ─→ matching quotas     ─→ no write needed: admitted or refused at once
//!                                                                  └→ Worker of the namespace: charges in batches,
//!                                                                     writes the quotas' status, then answers
//! ```
//!
//! One worker per namespace writes usage, and each write compares the quota's resource version. So no quota is ever
//! exceeded, even with other writers. A quota counts only the resources in `status.hard`, so a quota without status
//! counts no resources.

mod charge;
mod check;
mod config;
mod quotas;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status};

use super::Parts;
use crate::config::{ConfigError, PluginConfig};
use crate::{Attributes, Plugin, Validate};
use charge::Charge;
use check::Checked;
use config::Limited;
use quotas::Quotas;
use worker::Workers;

/// ResourceQuota.
pub(super) fn plugin(parts: &Parts, config: &PluginConfig) -> Result<Plugin, ConfigError> {
    let limited = config::read(config)?;
    let quotas = Quotas::new(
        Arc::clone(&parts.cluster.resource_quotas),
        Arc::clone(&parts.cluster.writers.quota_status),
    );
    Ok(Plugin::validating(ResourceQuota { limited: limited.into(), workers: Workers::new(Arc::new(quotas)) }))
}

struct ResourceQuota {
    /// Resources that require a covering quota.
    limited: Arc<[Limited]>,
    workers: Workers,
}

#[async_trait]
impl Validate for ResourceQuota {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !attributes.namespace.is_empty() && charge::handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object.filter(|object| charge::is_charged(attributes, object)) else {
            return Ok(());
        };
        let quotas = self.workers.quotas().of_namespace(attributes.namespace).await?;
        let limited: Vec<_> =
            self.limited.iter().filter(|limited| limited.concerns(attributes.def)).cloned().collect();
        if quotas.is_empty() && limited.is_empty() {
            return Ok(());
        }
        let charge = Charge::new(attributes, object, limited)?;
        match check::check(&quotas, &charge)? {
            Checked::Free => Ok(()),
            Checked::Charged(_) | Checked::Exceeded(_) => self.workers.charge(attributes, charge).await,
        }
    }
}
