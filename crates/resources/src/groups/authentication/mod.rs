//! `authentication.k8s.io`: reviews of tokens and identities.

use crate::builder::{GroupBuilder, group as declare, review};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        review("SelfSubjectReview", "selfsubjectreviews").cluster(),
        review("TokenReview", "tokenreviews").cluster(),
    ];
    declare("authentication.k8s.io", "io.k8s.api.authentication", resources)
}
