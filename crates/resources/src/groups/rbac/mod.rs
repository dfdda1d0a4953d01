//! `rbac.authorization.k8s.io`: roles and role bindings.

mod strategy;

use nave_machinery::Value;

use crate::builder::{Builder, GroupBuilder, group as declare, resource};
use crate::def::NameRule;
use crate::read;
use crate::table::{self, Column, age, name, text};

pub(crate) fn group() -> GroupBuilder {
    let kind =
        |kind, plural| -> Builder { resource(kind, plural).named(NameRule::PathSegment).create_on_update() };
    let resources = vec![
        kind("ClusterRoleBinding", "clusterrolebindings")
            .cluster()
            .columns(bindings("rbac.v1.ClusterRoleBinding"))
            .strategy(strategy::Binding { namespaced: false }),
        kind("ClusterRole", "clusterroles")
            .cluster()
            .columns(table::name_and_creation())
            .strategy(strategy::Role { namespaced: false }),
        kind("RoleBinding", "rolebindings")
            .columns(bindings("rbac.v1.RoleBinding"))
            .strategy(strategy::Binding { namespaced: true }),
        kind("Role", "roles")
            .columns(table::name_and_creation())
            .strategy(strategy::Role { namespaced: true }),
    ];
    declare("rbac.authorization.k8s.io", "io.k8s.api.rbac", resources)
}

fn bindings(type_name: &str) -> Vec<Column> {
    vec![
        name(),
        text("Role", |binding| {
            format!("{}/{}", read::text(binding, "roleRef.kind"), read::text(binding, "roleRef.name"))
        })
        .described_by(type_name, "roleRef"),
        age(),
        text("Users", |binding| subjects(binding, "User")).wide().about("The users who have the role"),
        text("Groups", |binding| subjects(binding, "Group")).wide().about("The groups that have the role"),
        text("ServiceAccounts", |binding| subjects(binding, "ServiceAccount"))
            .wide()
            .about("The service accounts that have the role"),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let subjects =
        read::list(binding, "subjects").iter().filter(|subject| read::text(subject, "kind") == kind);
    let names = subjects.map(|subject| match (kind, read::text(subject, "name")) {
        ("ServiceAccount", name) => format!("{}/{name}", read::text(subject, "namespace")),
        (_, name) => name.to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}
