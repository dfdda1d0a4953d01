//! Table columns of networking kinds.

use nave_machinery::Value;

use crate::groups::core::load_balancer;
use crate::read;
use crate::table::{Column, abridged, age, field, format_selector, joined_strings, name, text};

pub(super) fn ingress_class() -> Vec<Column> {
    vec![
        name(),
        field("Controller", "spec.controller", "").about("The controller that serves ingresses of the class"),
        text("Parameters", parameters).about("The parameters for the controller"),
        age(),
    ]
}

fn parameters(class: &Value) -> String {
    let Some(parameters @ Value::Object(_)) = read::value_at(class, "spec.parameters") else {
        return "<none>".to_owned();
    };
    let group = read::value_at(parameters, "apiGroup")
        .and_then(Value::as_str)
        .map_or(String::new(), |it| format!(".{it}"));
    format!("{}{group}/{}", read::text(parameters, "kind"), read::text(parameters, "name"))
}

pub(super) fn ingress() -> Vec<Column> {
    vec![
        name(),
        field("Class", "spec.ingressClassName", "<none>").about("The ingress class"),
        text("Hosts", hosts).about("The hosts of the rules"),
        text("Address", load_balancer).about("The addresses of the load balancer"),
        text("Ports", |ingress| {
            let tls = !read::list(ingress, "spec.tls").is_empty();
            if tls { "80, 443" } else { "80" }.to_owned()
        })
        .about("The ports that serve requests"),
        age(),
    ]
}

fn hosts(ingress: &Value) -> String {
    let hosts: Vec<String> = read::list(ingress, "spec.rules")
        .iter()
        .map(|rule| read::text(rule, "host"))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    if hosts.is_empty() { "*".to_owned() } else { abridged(&hosts, 3, ",") }
}

pub(super) fn ip_address() -> Vec<Column> {
    vec![name(), text("ParentRef", parent).described_by("networking.v1.IPAddressSpec", "parentRef")]
}

/// Returns the parent reference as `<resource>.<group>/<namespace>/<name>`.
fn parent(address: &Value) -> String {
    let Some(parent @ Value::Object(_)) = read::value_at(address, "spec.parentRef") else {
        return "<none>".to_owned();
    };
    let mut shown = read::text(parent, "resource").to_lowercase();
    for (separator, field) in [('.', "group"), ('/', "namespace"), ('/', "name")] {
        let part = read::text(parent, field);
        if !part.is_empty() {
            shown.push(separator);
            shown.push_str(part);
        }
    }
    shown
}

pub(super) fn network_policy() -> Vec<Column> {
    let pods =
        text("Pod-Selector", |policy| format_selector(read::value_at(policy, "spec.podSelector"), "<none>"));
    vec![name(), pods.described_by("networking.v1.NetworkPolicySpec", "podSelector"), age()]
}

pub(super) fn service_cidr() -> Vec<Column> {
    let cidrs = text("CIDRs", |object| joined_strings(object, "spec.cidrs"));
    vec![name(), cidrs.described_by("networking.v1.ServiceCIDRSpec", "cidrs"), age()]
}
