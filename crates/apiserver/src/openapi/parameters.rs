//! The path and query parameters of operations.

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    /// The name.
    pub name: &'static str,
    /// True for a path parameter, false for a query parameter.
    pub in_path: bool,
    /// The type of its value.
    pub kind: &'static str,
    /// The description.
    pub about: &'static str,
    /// True if OpenAPI 2 documents list the parameter among the shared ones.
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

pub(super) const NAME: Parameter = in_path(unshared(text("name", "The name of the object.")));
pub(super) const NAMESPACE: Parameter = in_path(text("namespace", "The namespace of the object."));
pub(super) const PATH: Parameter = in_path(text("path", "The path of the request to the proxied server."));
pub(super) const PRETTY: Parameter = text(
    "pretty",
    "Pretty-prints the response if 'true'. The default depends on the client: true for browsers, curl and wget.",
);

const CONTINUE: Parameter = text(
    "continue",
    "The continue token of the previous page. The server returns the next page of the same list; an expired token is answered with 410, and a new token that continues with the latest state.",
);
const FIELD_SELECTOR: Parameter = text(
    "fieldSelector",
    "Restricts the objects to those whose fields match the selector. Defaults to everything.",
);
const LABEL_SELECTOR: Parameter = text(
    "labelSelector",
    "Restricts the objects to those whose labels match the selector. Defaults to everything.",
);
const LIMIT: Parameter = number(
    "limit",
    "The maximum number of objects in the response. If more exist, the list's metadata has a continue token for the next page. Ignored for a watch.",
);
pub(super) const RESOURCE_VERSION: Parameter = text(
    "resourceVersion",
    "The resource version that the response is based on. Unset means the latest; \"0\" means any, as the server has it in its cache.",
);
const RESOURCE_VERSION_MATCH: Parameter = text(
    "resourceVersionMatch",
    "How resourceVersion is applied: Exact, or NotOlderThan. Requires resourceVersion.",
);
const SEND_INITIAL_EVENTS: Parameter = flag(
    "sendInitialEvents",
    "Begins a watch with an ADDED event for each existing object, followed by a bookmark with the annotation k8s.io/initial-events-end. Requires allowWatchBookmarks, and resourceVersionMatch NotOlderThan.",
);
const SHARD_SELECTOR: Parameter = text("shardSelector", "Restricts the objects to those of one shard.");
const TIMEOUT_SECONDS: Parameter =
    number("timeoutSeconds", "Ends the request after this many seconds, whether or not it is complete.");

/// The parameters of lists and watches.
pub(super) const LIST: &[Parameter] = &[
    flag(
        "allowWatchBookmarks",
        "Requests BOOKMARK events, which carry a resource version and no object. The server decides when to send them.",
    ),
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    RESOURCE_VERSION,
    RESOURCE_VERSION_MATCH,
    SEND_INITIAL_EVENTS,
    SHARD_SELECTOR,
    TIMEOUT_SECONDS,
    flag("watch", "Watches the objects: the response is a stream of events instead of a list."),
];

const DRY_RUN: Parameter = unshared(text(
    "dryRun",
    "Processes the request through all stages without persisting the outcome. The only valid value is All.",
));
const FIELD_VALIDATION: Parameter = unshared(text(
    "fieldValidation",
    "How the server treats unknown and duplicate fields: Ignore drops them, Warn (the default) drops them and adds a warning, Strict refuses the request.",
));

/// The parameters of creates and updates.
pub(super) const WRITE: &[Parameter] = &[
    DRY_RUN,
    text(
        "fieldManager",
        "The name of the actor that makes the change, as recorded in managedFields. At most 128 printable characters. Defaults to the beginning of the user agent.",
    ),
    FIELD_VALIDATION,
];

/// The parameters of patches.
pub(super) const PATCH: &[Parameter] = &[
    DRY_RUN,
    text(
        "fieldManager",
        "The name of the actor that makes the change, as recorded in managedFields. At most 128 printable characters. Required for apply patches.",
    ),
    FIELD_VALIDATION,
    flag("force", "Takes ownership of fields in conflict, for apply patches only."),
];

const GRACE_PERIOD_SECONDS: Parameter = number(
    "gracePeriodSeconds",
    "The seconds until the object is deleted. 0 deletes it immediately; unset means the default of its kind.",
);
const IGNORE_READ_ERRORS: Parameter = flag(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "Deletes an object that cannot be read from the store, without its finalizers and preconditions. This can break the cluster.",
);
const ORPHAN_DEPENDENTS: Parameter = flag(
    "orphanDependents",
    "Deprecated: use propagationPolicy. Whether dependents are orphaned; at most one of the two may be set.",
);
const PROPAGATION_POLICY: Parameter = text(
    "propagationPolicy",
    "How dependents are deleted: Orphan keeps them, Background deletes them after the object, Foreground before it.",
);

/// The parameters of deletions.
pub(super) const DELETE: &[Parameter] =
    &[DRY_RUN, GRACE_PERIOD_SECONDS, IGNORE_READ_ERRORS, ORPHAN_DEPENDENTS, PROPAGATION_POLICY];

/// The parameters of collection deletions.
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
    text("container", "The container to attach to. Defaults to the only container of the pod."),
    flag("stderr", "Redirects the standard error of the container."),
    flag("stdin", "Redirects the standard input of the container."),
    flag("stdout", "Redirects the standard output of the container."),
    flag("tty", "Allocates a terminal for the streams."),
];

const EXEC: &[Parameter] = &[
    text("command", "The command to execute, with its arguments. It is not run in a shell."),
    text("container", "The container to execute the command in. Defaults to the only container of the pod."),
    flag("stderr", "Redirects the standard error of the command."),
    flag("stdin", "Redirects the standard input of the command."),
    flag("stdout", "Redirects the standard output of the command."),
    flag("tty", "Allocates a terminal for the command."),
];

const LOG: &[Parameter] = &[
    text("container", "The container whose log is returned. Defaults to the only container of the pod."),
    flag("follow", "Follows the log as it grows."),
    flag("insecureSkipTLSVerifyBackend", "Skips the verification of the kubelet's certificate."),
    number("limitBytes", "The maximum number of bytes of the log."),
    PRETTY,
    flag("previous", "Returns the log of the previous instance of the container."),
    number(
        "sinceSeconds",
        "Returns only lines of the last seconds. At most one of sinceSeconds and sinceTime may be set.",
    ),
    text("stream", "The stream that is returned: All, Stdout or Stderr."),
    number("tailLines", "Returns only this many lines from the end of the log."),
    flag("timestamps", "Begins each line with its RFC 3339 timestamp."),
];

const NODE_PROXY: &[Parameter] = &[text("path", "The path of the request to the kubelet of the node.")];
const POD_PROXY: &[Parameter] = &[text("path", "The path of the request to the pod.")];
const SERVICE_PROXY: &[Parameter] = &[text("path", "The path of the request to an endpoint of the service.")];
const PORT_FORWARD: &[Parameter] = &[number("ports", "The ports to forward. Required with WebSockets.")];

/// Returns the additional query parameters of a subresource, by the kind of its options.
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
