//! The paths and operations of the API, computed from the registry; the same for both OpenAPI versions.

use std::collections::HashSet;
use std::sync::Arc;

use nave_machinery::{GroupVersion, GroupVersionKind};
use nave_resources::{Registry, ResourceDef, ResourceVersion, Subresource, Verb};

use super::definitions::{Kinds, META};
use super::parameters::{self, NAME, NAMESPACE, PATH, PRETTY, Parameter};

/// A path and its operations.
#[derive(Debug)]
pub(super) struct PathItem {
    pub path: String,
    /// The parameters shared by all operations.
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

/// The operation of a method.
#[derive(Debug)]
pub(super) struct Operation {
    pub method: &'static str,
    pub id: String,
    pub tag: String,
    pub about: String,
    /// The action and the kind; `None` for discovery.
    pub action: Option<(&'static str, GroupVersionKind)>,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    pub consumes: &'static [&'static str],
    pub produces: &'static [&'static str],
    /// The status codes that mean success.
    pub codes: &'static [u16],
    pub answer: Content,
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Body {
    pub type_name: String,
    pub required: bool,
}

/// The content of a response.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A type.
    Type(String),
    /// Text, or a stream of bytes.
    Text,
}

const ANYTHING: &[&str] = &["*/*"];
const ENCODINGS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM_ENCODINGS: &[&str] = &["application/json", "application/yaml"];
const STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOGS: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// The patch types of kinds without a built-in type: strategic merge patch is not supported.
const UNTYPED_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
/// The methods of a proxy, in document order.
const PROXIED: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch"];

/// Returns the paths of a group and version.
pub(super) fn of_version(registry: &Registry, version: &GroupVersion) -> Vec<PathItem> {
    let group = registry.group(&version.group);
    let mut items = Vec::new();
    if group.is_some_and(|group| !group.is_custom()) {
        items.push(discovery(version, "APIResources", "APIResourceList"));
    }
    let resources = group.map(|group| &group.resources[..]).unwrap_or_default();
    for def in resources {
        if let Some(served) = def.version(&version.version) {
            Resource::new(def, served).paths(&mut items);
        }
    }
    items
}

/// Returns the discovery path of a group.
pub(super) fn of_group(group: &str) -> PathItem {
    let of = GroupVersion::new(group, "");
    if group.is_empty() {
        discovery(&of, "APIVersions", "APIVersions")
    } else {
        discovery(&of, "APIGroup", "APIGroup")
    }
}

/// Returns the paths outside of groups, with their keys in the index: `/apis/` and `/version/`.
pub(super) fn of_server() -> [(&'static str, PathItem); 2] {
    let groups = read("/apis/", "getAPIVersions", "apis", format!("{META}APIGroupList"));
    let mut version =
        read("/version/", "getCodeVersion", "version", "io.k8s.apimachinery.pkg.version.Info".to_owned());
    for get in &mut version.operations {
        (get.consumes, get.produces) = (&ENCODINGS[..1], &ENCODINGS[..1]);
    }
    [("apis", groups), ("version", version)]
}

/// Returns the group, version and kind of each top-level type, for documents about these versions.
pub(super) fn kinds(registry: &Registry, versions: &[GroupVersion]) -> Kinds {
    let mut kinds = Kinds::new();
    let groups: HashSet<&str> = versions.iter().map(|version| version.group.as_str()).collect();
    // Documents of other groups never refer to custom types.
    let described = |def: &&Arc<ResourceDef>| !def.is_custom() || groups.contains(def.group.as_str());
    for def in registry.all().filter(described) {
        for version in &def.versions {
            let group_version = def.group_version(&version.name);
            kinds.insert(version.type_name.clone(), vec![group_version.with_kind(&*def.kind)]);
            if def.serves(Verb::List) {
                kinds.insert(list_type(def, version), vec![group_version.with_kind(&*def.list_kind)]);
            }
            for subresource in version.subresources.iter().filter(|sub| !sub.response.version.is_empty()) {
                kinds.insert(answer_type(version, subresource), vec![subresource.response.clone()]);
            }
        }
    }
    let core = GroupVersion::new("", "v1");
    for kind in ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"] {
        kinds.insert(format!("{META}{kind}"), vec![core.with_kind(kind)]);
    }
    for kind in ["DeleteOptions", "WatchEvent"] {
        kinds.insert(format!("{META}{kind}"), kinds_of_all(versions, kind));
    }
    kinds
}

/// Returns the group, version and kind of a type that all versions have.
pub(super) fn kinds_of_all(versions: &[GroupVersion], kind: &str) -> Vec<GroupVersionKind> {
    let mut all: Vec<GroupVersion> = versions.to_vec();
    all.push(GroupVersion::new("", "v1"));
    all.sort();
    all.dedup();
    all.iter().map(|version| version.with_kind(kind)).collect()
}

/// Returns the list type of a resource.
pub(super) fn list_type(def: &ResourceDef, version: &ResourceVersion) -> String {
    sibling(&version.type_name, &def.list_kind)
}

/// Returns the type of a subresource's responses.
fn answer_type(version: &ResourceVersion, subresource: &Subresource) -> String {
    let GroupVersionKind { group, version: of, kind } = &subresource.response;
    if of.is_empty() {
        return sibling(&version.type_name, kind);
    }
    format!("io.k8s.api.{}.{of}.{kind}", group.trim_end_matches(".k8s.io"))
}

/// Returns the type of another kind in the same package.
fn sibling(type_name: &str, kind: &str) -> String {
    let package = type_name.rsplit_once('.').map(|(package, _)| package).unwrap_or_default();
    format!("{package}.{kind}")
}

fn discovery(of: &GroupVersion, what: &str, answer: &str) -> PathItem {
    let path = match (of.group.as_str(), of.version.as_str()) {
        ("", "") => "/api/".to_owned(),
        (group, "") => format!("/apis/{group}/"),
        _ => format!("{}/", root(of)),
    };
    read(&path, &format!("get{}{what}", pascal_name(of)), &tag(of), format!("{META}{answer}"))
}

/// Returns a path that serves only GET.
fn read(path: &str, id: &str, tag: &str, type_name: String) -> PathItem {
    let get = Operation {
        method: "get",
        id: id.to_owned(),
        tag: tag.to_owned(),
        about: "Returns information about the server.".to_owned(),
        action: None,
        parameters: Vec::new(),
        body: None,
        consumes: ENCODINGS,
        produces: ENCODINGS,
        codes: &[200],
        answer: Content::Type(type_name),
    };
    PathItem { path: path.to_owned(), parameters: Vec::new(), operations: vec![get] }
}

/// A resource in one version, while its paths are generated.
struct Resource<'a> {
    def: &'a ResourceDef,
    version: &'a ResourceVersion,
    gv: GroupVersion,
    /// The group and version in operation IDs: `AppsV1`.
    prefix: String,
    /// The kind in operation IDs: `NamespacedDeployment`.
    subject: String,
    /// The middle of the paths: `/namespaces/{namespace}/deployments`.
    collection: String,
}

impl<'a> Resource<'a> {
    fn new(def: &'a ResourceDef, version: &'a ResourceVersion) -> Self {
        let gv = def.group_version(&version.name);
        let (scope, middle) =
            if def.namespaced { ("Namespaced", "/namespaces/{namespace}") } else { ("", "") };
        Self {
            def,
            version,
            prefix: pascal_name(&gv),
            subject: format!("{scope}{}", def.kind),
            collection: format!("{middle}/{}", def.resource),
            gv,
        }
    }

    fn paths(&self, items: &mut Vec<PathItem>) {
        let scope: &[Parameter] = if self.def.namespaced { &[NAMESPACE] } else { &[] };
        let one: Vec<Parameter> = [NAME].iter().chain(scope).copied().collect();
        let at = |middle: &str, rest: &str| format!("{}{middle}{}{rest}", root(&self.gv), self.collection);
        add(items, at("", ""), with_pretty(scope), self.of_collection());
        add(items, at("", "/{name}"), with_pretty(&one), self.of_object());
        for subresource in self.version.subresources.iter() {
            self.subresource(items, &at("", &format!("/{{name}}/{}", subresource.name)), &one, subresource);
        }
        let everywhere = |middle: &str| format!("{}{middle}/{}", root(&self.gv), self.def.resource);
        if self.def.namespaced && self.def.serves(Verb::List) {
            let list = self.list(format!("list{}{}ForAllNamespaces", self.prefix, self.def.kind));
            add(items, everywhere(""), with_pretty(&[]), vec![list]);
        }
        // The deprecated watch paths of custom resources are not documented.
        if !self.def.serves(Verb::Watch) || self.is_custom() {
            return;
        }
        if self.def.namespaced {
            let id = format!("watch{}{}ListForAllNamespaces", self.prefix, self.def.kind);
            add(items, everywhere("/watch"), with_pretty(&[]), vec![self.watch(id, "watchlist")]);
        }
        let id = format!("watch{}{}", self.prefix, self.subject);
        add(items, at("/watch", ""), with_pretty(scope), vec![self.watch(format!("{id}List"), "watchlist")]);
        add(items, at("/watch", "/{name}"), with_pretty(&one), vec![self.watch(id, "watch")]);
    }

    fn of_collection(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        if self.def.serves(Verb::List) {
            operations.push(self.list(format!("list{}{}", self.prefix, self.subject)));
        }
        if self.def.serves(Verb::Create) {
            operations.push(self.create("", self.version.type_name.clone(), self.kind()));
        }
        if self.def.serves(Verb::DeleteCollection) {
            let id = format!("delete{}Collection{}", self.prefix, self.subject);
            let answer = format!("{META}Status");
            let mut delete = self.operation("delete", id, ("deletecollection", self.kind()), answer);
            delete.about = format!("Deletes many objects of kind {}.", self.def.kind);
            delete.parameters = parameters::DELETE_COLLECTION.to_vec();
            delete.body = Some(Body { type_name: format!("{META}DeleteOptions"), required: false });
            operations.push(delete);
        }
        operations
    }

    fn of_object(&self) -> Vec<Operation> {
        let mut operations = self.view("", &self.version.type_name, &self.kind(), self.def.verbs);
        if self.def.serves(Verb::Delete) {
            let deleted = self.version.type_name.clone();
            let answer = if self.def.rules.returns_deleted { deleted } else { format!("{META}Status") };
            let id = format!("delete{}{}", self.prefix, self.subject);
            let mut delete = self.operation("delete", id, ("delete", self.kind()), answer);
            delete.about = format!("Deletes an object of kind {}.", self.def.kind);
            delete.parameters = parameters::DELETE.to_vec();
            delete.body = Some(Body { type_name: format!("{META}DeleteOptions"), required: false });
            delete.codes = &[200, 202];
            operations.push(delete);
        }
        operations
    }

    /// Returns the get, put and patch operations of an object or a subresource.
    fn view(&self, part: &str, type_name: &str, kind: &GroupVersionKind, verbs: &[Verb]) -> Vec<Operation> {
        let name = |verb: &str| format!("{verb}{}{}{part}", self.prefix, self.subject);
        let operation =
            |method, verb| self.operation(method, name(verb), (method, kind.clone()), type_name.to_owned());
        let mut operations = Vec::new();
        if verbs.contains(&Verb::Get) {
            let mut get = operation("get", "read");
            get.about = format!("Reads {} of kind {}.", an_object(part), self.def.kind);
            // Upstream documents it for custom resources only.
            if self.is_custom() {
                get.parameters = vec![parameters::RESOURCE_VERSION];
            }
            operations.push(get);
        }
        if verbs.contains(&Verb::Update) {
            let mut put = operation("put", "replace");
            put.about = format!("Replaces {} of kind {}.", an_object(part), self.def.kind);
            put.parameters = parameters::WRITE.to_vec();
            put.body = Some(Body { type_name: type_name.to_owned(), required: true });
            put.codes = &[200, 201];
            operations.push(put);
        }
        if verbs.contains(&Verb::Patch) {
            let mut patch = operation("patch", "patch");
            patch.about = format!("Changes some fields of {} of kind {}.", an_object(part), self.def.kind);
            patch.parameters = parameters::PATCH.to_vec();
            patch.body = Some(Body { type_name: format!("{META}Patch"), required: true });
            patch.consumes = if self.version.type_id().is_some() { PATCHES } else { UNTYPED_PATCHES };
            patch.codes = if self.is_custom() { &[200] } else { &[200, 201] };
            operations.push(patch);
        }
        operations
    }

    fn create(&self, part: &str, type_name: String, kind: GroupVersionKind) -> Operation {
        let id = format!("create{}{}{part}", self.prefix, self.subject);
        let about = format!("Creates an object of kind {}.", kind.kind);
        let body = Body { type_name: type_name.clone(), required: true };
        let post = self.operation("post", id, ("post", kind), type_name);
        Operation {
            about,
            parameters: parameters::WRITE.to_vec(),
            body: Some(body),
            codes: &[200, 201, 202],
            ..post
        }
    }

    fn list(&self, id: String) -> Operation {
        let get = self.operation("get", id, ("list", self.kind()), list_type(self.def, self.version));
        let about = format!("Lists or watches objects of kind {}.", self.def.kind);
        let streams = self.def.serves(Verb::Watch) || !self.def.namespaced;
        let produces = if streams && !self.is_custom() { STREAMS } else { get.produces };
        Operation { about, parameters: parameters::LIST.to_vec(), produces, ..get }
    }

    fn watch(&self, id: String, action: &'static str) -> Operation {
        let get = self.operation("get", id, (action, self.kind()), format!("{META}WatchEvent"));
        let about = format!("Watches {}; deprecated, lists take the parameter 'watch'.", self.def.kind);
        Operation { about, parameters: parameters::LIST.to_vec(), produces: STREAMS, ..get }
    }

    fn subresource(
        &self,
        items: &mut Vec<PathItem>,
        path: &str,
        one: &[Parameter],
        subresource: &Subresource,
    ) {
        let part = capitalized(&subresource.name);
        let options = subresource.response.kind.ends_with("Options");
        let response = &subresource.response;
        let kind =
            if response.version.is_empty() { self.gv.with_kind(&*response.kind) } else { response.clone() };
        let kind = if self.is_custom() { self.kind() } else { kind };
        if options {
            return self.connect(items, path, one, &subresource.name, &kind);
        }
        let type_name = answer_type(self.version, subresource);
        if subresource.name == "log" {
            let mut operations = self.view(&part, &type_name, &kind, subresource.verbs);
            for get in &mut operations {
                (get.answer, get.produces) = (Content::Text, LOGS);
            }
            let own = parameters::of_options("PodLogOptions");
            return add(items, path.to_owned(), [one, own].concat(), operations);
        }
        let mut operations = self.view(&part, &type_name, &kind, subresource.verbs);
        if subresource.verbs.contains(&Verb::Create) {
            operations.push(self.create(&part, type_name, kind));
        }
        add(items, path.to_owned(), with_pretty(one), operations);
    }

    /// Adds a subresource that opens a connection.
    fn connect(
        &self,
        items: &mut Vec<PathItem>,
        path: &str,
        one: &[Parameter],
        name: &str,
        kind: &GroupVersionKind,
    ) {
        let proxy = name == "proxy";
        let methods: &'static [&'static str] = if proxy { PROXIED } else { &["get", "post"] };
        let part = capitalized(name);
        let own = [one, parameters::of_options(&kind.kind)].concat();
        let operations = |suffix: &str| {
            let operation = |method: &&'static str| {
                let id =
                    format!("connect{}{}{}{part}{suffix}", self.prefix, capitalized(method), self.subject);
                let operation = self.operation(method, id, ("connect", kind.clone()), String::new());
                let about =
                    format!("Connects {} requests to {name} of a {}.", method.to_uppercase(), self.def.kind);
                Operation { about, produces: ANYTHING, answer: Content::Text, ..operation }
            };
            methods.iter().map(operation).collect()
        };
        add(items, path.to_owned(), own.clone(), operations(""));
        if proxy {
            let own = [own, vec![PATH]].concat();
            add(items, format!("{path}/{{path}}"), own, operations("WithPath"));
        }
    }

    fn operation(
        &self,
        method: &'static str,
        id: String,
        action: (&'static str, GroupVersionKind),
        answer: String,
    ) -> Operation {
        Operation {
            method,
            id,
            tag: tag(&self.gv),
            about: String::new(),
            action: Some(action),
            parameters: Vec::new(),
            body: None,
            consumes: if self.is_custom() { CUSTOM_ENCODINGS } else { ANYTHING },
            produces: if self.is_custom() { CUSTOM_ENCODINGS } else { ENCODINGS },
            codes: &[200],
            answer: Content::Type(answer),
        }
    }

    fn is_custom(&self) -> bool {
        self.version.custom().is_some()
    }

    fn kind(&self) -> GroupVersionKind {
        self.gv.with_kind(&*self.def.kind)
    }
}

/// Adds a path if it has operations. Moves parameters that all operations share to the path.
fn add(
    items: &mut Vec<PathItem>,
    path: String,
    mut parameters: Vec<Parameter>,
    mut operations: Vec<Operation>,
) {
    let Some(first) = operations.first() else { return };
    let common: Vec<Parameter> = first
        .parameters
        .iter()
        .filter(|parameter| operations.iter().all(|operation| operation.parameters.contains(parameter)))
        .copied()
        .collect();
    for operation in &mut operations {
        operation.parameters.retain(|parameter| !common.contains(parameter));
    }
    parameters.extend(common);
    parameters.sort_by_key(|parameter| (parameter.name, !parameter.in_path));
    items.push(PathItem { path, parameters, operations });
}

fn an_object(part: &str) -> String {
    if part.is_empty() { "an object".to_owned() } else { format!("{} of an object", part.to_lowercase()) }
}

fn with_pretty(parameters: &[Parameter]) -> Vec<Parameter> {
    [parameters, &[PRETTY]].concat()
}

/// Returns the path of a group and version.
pub(super) fn root(of: &GroupVersion) -> String {
    if of.group.is_empty() {
        format!("/api/{}", of.version)
    } else {
        format!("/apis/{}/{}", of.group, of.version)
    }
}

/// Returns the operations' tag, such as `rbacAuthorization_v1` for `rbac.authorization.k8s.io/v1`.
fn tag(of: &GroupVersion) -> String {
    let group = pascal_group(&of.group);
    let mut letters = group.chars();
    let group: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    if of.version.is_empty() { group } else { format!("{group}_{}", of.version) }
}

/// Returns the name in operation IDs, such as `RbacAuthorizationV1` for `rbac.authorization.k8s.io/v1`.
fn pascal_name(of: &GroupVersion) -> String {
    format!("{}{}", pascal_group(&of.group), capitalized(&of.version))
}

fn pascal_group(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    group.trim_end_matches(".k8s.io").split(['.', '-']).map(capitalized).collect()
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
