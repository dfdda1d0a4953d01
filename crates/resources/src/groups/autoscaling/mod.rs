//! `autoscaling`: horizontal pod autoscalers, served as v2 and v1, stored as v2.

mod annotated;
mod columns;
mod convert;
mod defaults;
mod validation;

use nave_machinery::{GroupVersion, Value};

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::convert::ConversionError;
use crate::strategy::Strategy;
use crate::validate::Errors;

pub(crate) fn group() -> GroupBuilder {
    let autoscalers = resource("HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .categories(&["all"])
        .status()
        .columns(columns::columns())
        .strategy(AutoscalerStrategy);
    declare("autoscaling", "io.k8s.api.autoscaling", vec![autoscalers]).versions(&["v2", "v1"])
}

/// The strategy of autoscalers.
struct AutoscalerStrategy;

impl Strategy for AutoscalerStrategy {
    fn default(&self, autoscaler: &mut Value, version: &str) {
        defaults::autoscaler(autoscaler, version);
    }

    fn validate(&self, autoscaler: &Value) -> Errors {
        validation::autoscaler(autoscaler, None)
    }

    fn validate_update(&self, autoscaler: &Value, old: &Value) -> Errors {
        validation::autoscaler(autoscaler, Some(old))
    }

    fn validate_status_update(&self, autoscaler: &Value, _old: &Value) -> Errors {
        validation::status(autoscaler)
    }

    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        match (from.version.as_str(), to.version.as_str()) {
            ("v1", "v2") => convert::v1_to_v2(object),
            ("v2", "v1") => convert::v2_to_v1(object),
            _ => crate::convert::relabel(object, from, to),
        }
    }
}
