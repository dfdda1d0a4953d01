//! `authorization.k8s.io`: reviews of permissions.

use crate::builder::{GroupBuilder, group as declare, review};

pub(crate) fn group() -> GroupBuilder {
    let resources = vec![
        review("LocalSubjectAccessReview", "localsubjectaccessreviews"),
        review("SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster(),
        review("SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster(),
        review("SubjectAccessReview", "subjectaccessreviews").cluster(),
    ];
    declare("authorization.k8s.io", "io.k8s.api.authorization", resources)
}
