//! The server with real clients. Each test has a server of its own; see the crate's documentation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a step that fails is a test that fails")]

mod access;
mod admission;
mod authentication;
mod authorization_config;
mod autoscaling;
mod bad_input;
mod certificate_requests;
mod controllers;
mod cron_jobs;
mod deployments;
mod disruption;
mod durability;
mod endpoint_slices;
mod garbage;
mod helm;
mod informers;
mod job_policies;
mod jobs;
mod kube_rs;
mod kubectl_kinds;
mod kubectl_verbs;
mod kubectl_watch;
mod namespaces;
mod pod_gc;
mod protocols;
mod python;
mod quota_usage;
mod reads;
mod service_account_pods;
mod service_allocation;
mod stateful_sets;
mod volume_protection;
mod volumes;
mod watch_window;
