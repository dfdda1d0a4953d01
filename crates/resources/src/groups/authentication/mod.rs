//! `authentication.k8s.io`: questions about who somebody is.

use crate::builder::{GroupBuilder, group as declare, review};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        review("SelfSubjectReview", "selfsubjectreviews").cluster(),
        review("TokenReview", "tokenreviews").cluster(),
    ];
    declare("authentication.k8s.io", "io.k8s.api.authentication", resources)
}
