//! What operations take beside a body: parameters of the path and the query.

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The name.
    pub name: &'static str,
    /// Whether it is a part of the path rather than of the query.
    pub in_path: bool,
    /// The type of its value.
    pub kind: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether OpenAPI 2 documents keep it among the parameters that operations share.
    pub shared: bool,
}

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, in_path: false, kind: "string", about, shared: true }
}

const fn flag(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, in_path: false, kind: "boolean", about, shared: true }
}

const fn number(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, in_path: false, kind: "integer", about, shared: true }
}

const fn unshared(parameter: Parameter) -> Parameter {
    Parameter { shared: false, ..parameter }
}

const fn in_path(parameter: Parameter) -> Parameter {
    Parameter { in_path: true, ..parameter }
}

pub(super) const NAME: Parameter = in_path(unshared(text("name", "The object's name.")));
pub(super) const NAMESPACE: Parameter = in_path(text("namespace", "The namespace the object is in."));
pub(super) const PATH: Parameter = in_path(text("path", "What to ask of the proxied server."));
pub(super) const PRETTY: Parameter = text("pretty", "'true' for an answer with line breaks.");

const CONTINUE: Parameter =
    text("continue", "The token of the page to go on from, out of the answer before.");
const FIELD_SELECTOR: Parameter = text("fieldSelector", "Only objects whose fields match.");
const LABEL_SELECTOR: Parameter = text("labelSelector", "Only objects whose labels match.");
const LIMIT: Parameter = number("limit", "How many objects a page has at most.");
const RESOURCE_VERSION: Parameter =
    text("resourceVersion", "The resource version the answer must be of or follow.");
const RESOURCE_VERSION_MATCH: Parameter =
    text("resourceVersionMatch", "How resourceVersion is meant: Exact or NotOlderThan.");
const SEND_INITIAL_EVENTS: Parameter = flag(
    "sendInitialEvents",
    "Whether a watch begins with the objects there are, and a bookmark after them.",
);
const SHARD_SELECTOR: Parameter = text("shardSelector", "Only objects of a shard.");
const TIMEOUT_SECONDS: Parameter = number("timeoutSeconds", "After how many seconds the call ends.");

/// What lists and watches take.
pub(super) const LIST: &[Parameter] = &[
    flag("allowWatchBookmarks", "Whether a watch may carry bookmarks."),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT_SECONDS,
    flag("watch", "Whether to follow changes rather than to list."),
];

const DRY_RUN: Parameter =
    unshared(text("dryRun", "'All' for going through all stages but keeping nothing."));
const FIELD_VALIDATION: Parameter = unshared(text(
    "fieldValidation",
    "What becomes of unknown and duplicate fields: Ignore, Warn or Strict.",
));

/// What creations and updates take.
pub(super) const WRITE: &[Parameter] =
    &[DRY_RUN, text("fieldManager", "The name under which the change is recorded."), FIELD_VALIDATION];

/// What patches take.
pub(super) const PATCH: &[Parameter] = &[
    DRY_RUN,
    text("fieldManager", "The name under which the change is recorded; an apply must give it."),
    FIELD_VALIDATION,
    flag("force", "Whether an apply takes over fields that others manage."),
];

const GRACE_PERIOD_SECONDS: Parameter = number("gracePeriodSeconds", "How long the object may take to end.");
const IGNORE_READ_ERRORS: Parameter = flag(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "Whether to delete an object that cannot be read, which may break the cluster.",
);
const ORPHAN_DEPENDENTS: Parameter =
    flag("orphanDependents", "Whether dependents stay; the older form of propagationPolicy.");
const PROPAGATION_POLICY: Parameter =
    text("propagationPolicy", "What becomes of dependents: Orphan, Background or Foreground.");

/// What deletions take.
pub(super) const DELETE: &[Parameter] =
    &[DRY_RUN, GRACE_PERIOD_SECONDS, IGNORE_READ_ERRORS, ORPHAN_DEPENDENTS, PROPAGATION_POLICY];

/// What deletions of collections take.
pub(super) const DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE_PERIOD_SECONDS,
    IGNORE_READ_ERRORS,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN_DEPENDENTS,
    PROPAGATION_POLICY,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT_SECONDS,
];

const ATTACH: &[Parameter] = &[
    text("container", "The container to attach to."),
    flag("stderr", "Whether to carry the container's standard error."),
    flag("stdin", "Whether to carry its standard input."),
    flag("stdout", "Whether to carry the container's standard output."),
    flag("tty", "Whether the streams are a terminal."),
];

const EXEC: &[Parameter] = &[
    text("command", "The program to run and its arguments."),
    text("container", "The container to run it in."),
    flag("stderr", "Whether to carry the program's standard error."),
    flag("stdin", "Whether to carry the program's standard input."),
    flag("stdout", "Whether to carry the program's standard output."),
    flag("tty", "Whether to run it on a terminal."),
];

const LOG: &[Parameter] = &[
    text("container", "The container whose log to read."),
    flag("follow", "Whether to go on as the log grows."),
    flag("insecureSkipTLSVerifyBackend", "Whether to trust a kubelet whose certificate cannot be verified."),
    number("limitBytes", "How many bytes to read at most."),
    PRETTY,
    flag("previous", "Whether to read the log of the container before its last restart."),
    number("sinceSeconds", "Only lines of the last seconds."),
    text("stream", "The stream to read: All, Stdout or Stderr."),
    number("tailLines", "Only the last lines."),
    flag("timestamps", "Whether lines begin with the time they were written at."),
];

const NODE_PROXY: &[Parameter] = &[text("path", "What to ask of the node's kubelet.")];
const POD_PROXY: &[Parameter] = &[text("path", "What to ask of the pod.")];
const SERVICE_PROXY: &[Parameter] = &[text("path", "What to ask of the service's endpoints.")];
const PORT_FORWARD: &[Parameter] = &[number("ports", "The ports to forward.")];

/// The query parameters of the subresources that have some of their own, by the kind of their options.
pub(super) fn of_options(kind: &str) -> &'static [Parameter] {
    match kind {
        "PodAttachOptions" => ATTACH,
        "PodExecOptions" => EXEC,
        "PodLogOptions" => LOG,
        "PodPortForwardOptions" => PORT_FORWARD,
        "NodeProxyOptions" => NODE_PROXY,
        "PodProxyOptions" => POD_PROXY,
        "ServiceProxyOptions" => SERVICE_PROXY,
        _ => &[],
    }
}
