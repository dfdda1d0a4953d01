//! `cargo xtask kinds`: generates `docs/kinds.md`, the page of the built-in kinds, from the registry.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use nave_resources::{Generation, Registry, ResourceDef, Verb};

use crate::root;

/// Known differences from kube-apiserver 1.36: group, kinds, difference.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "",
        "ResourceQuota",
        "Devices of resource claims count under their device class only, not under extended resource names.",
    ),
    (
        "admissionregistration.k8s.io",
        "webhook configurations",
        "An update of an object whose stored selector has an invalid label value is refused.",
    ),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        "A request of several PEM blocks is refused: parsers differ in which block they use.",
    ),
    (
        "policy",
        "PodDisruptionBudget",
        "An update of an object whose stored selector has an invalid label value is refused.",
    ),
    (
        "rbac.authorization.k8s.io",
        "ClusterRole",
        "An update of an object whose stored aggregation selector has an invalid label value is refused.",
    ),
    (
        "resource.k8s.io",
        "ResourceClaim, ResourceClaimTemplate",
        "`adminAccess` does not depend on the label of the namespace, and `status` is authorized as a whole.",
    ),
];

/// The reasons why the page cannot be generated.
#[derive(Debug, thiserror::Error)]
enum KindsError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0} is not up to date; run `cargo xtask kinds`")]
    Stale(PathBuf),
}

/// Writes the page; with `check`, fails if it is out of date.
pub(crate) fn run(check: bool) -> ExitCode {
    match write(check) {
        Ok(path) => {
            println!("{} is up to date", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(check: bool) -> Result<PathBuf, KindsError> {
    let path = root().join("docs/kinds.md");
    let text = page();
    if check {
        let found = fs::read_to_string(&path).map_err(|error| KindsError::Io(path.clone(), error))?;
        return if found == text { Ok(path) } else { Err(KindsError::Stale(path)) };
    }
    let folder = root().join("docs");
    fs::create_dir_all(&folder).map_err(|error| KindsError::Io(folder, error))?;
    fs::write(&path, text).map_err(|error| KindsError::Io(path.clone(), error))?;
    Ok(path)
}

/// Generates the page.
fn page() -> String {
    let registry = Registry::builtin(nave_schema::builtin());
    let defs: Vec<&ResourceDef> = registry.all().map(|def| &**def).collect();
    let mut text = String::from(INTRODUCTION);
    for group in defs.chunk_by(|one, next| one.group == next.group) {
        self::group(&mut text, group);
    }
    text
}

/// Writes the section of a group and its kinds.
fn group(text: &mut String, defs: &[&ResourceDef]) {
    let name = defs.first().map_or("", |def| &def.group);
    let _ = write!(text, "\n## {}\n\n{TABLE}", if name.is_empty() { "core" } else { name });
    for def in defs {
        let cells = [kind(def), served(def), subresources(def), rules(def)];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let known = DIFFERENCES.iter().filter(|(group, _, _)| *group == name);
    let lines: Vec<String> = known.map(|(_, kinds, what)| format!("- {kinds}: {what}\n")).collect();
    if !lines.is_empty() {
        let _ = write!(text, "\nKnown differences:\n\n{}", lines.concat());
    }
}

fn kind(def: &ResourceDef) -> String {
    let scope = if def.namespaced { "" } else { ", cluster" };
    let versions: Vec<&str> = def.versions.iter().map(|version| version.name.as_str()).collect();
    format!("{} (`{}`, {}{scope})", def.kind, def.resource, versions.join(", "))
}

fn served(def: &ResourceDef) -> String {
    if def.verbs == Verb::ALL { "all".to_owned() } else { verbs(def.verbs) }
}

fn verbs(verbs: &[Verb]) -> String {
    verbs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn subresources(def: &ResourceDef) -> String {
    let subresources = def.versions.first().into_iter().flat_map(|version| version.subresources.iter());
    let all =
        subresources.map(|subresource| format!("`{}` ({})", subresource.name, verbs(subresource.verbs)));
    all.collect::<Vec<_>>().join("; ")
}

fn rules(def: &ResourceDef) -> String {
    let rules = &def.rules;
    let mut said = vec![if def.strategy.is_plain() { "generic rules only" } else { "own rules" }.to_owned()];
    let facts = [
        (rules.create_on_update, "PUT creates"),
        (def.storage.is_some() && !rules.unconditional_update, "updates need a resourceVersion"),
        (rules.creates_with_status, "created with a status"),
        (rules.returns_deleted, "DELETE answers with the object"),
        (rules.orphans_dependents, "DELETE orphans dependents"),
    ];
    said.extend(facts.iter().filter(|(holds, _)| *holds).map(|(_, fact)| (*fact).to_owned()));
    if let Generation::Of(fields) = rules.generation
        && !fields.is_empty()
    {
        said.push(format!("generation follows `{}`", fields.join("`, `")));
    }
    if !def.fields.is_empty() {
        let fields: Vec<&str> = def.fields.iter().map(|field| field.path.as_str()).collect();
        said.push(format!("field selectors `{}`", fields.join("`, `")));
    }
    if let Some(ttl) = def.storage.as_ref().and_then(|storage| storage.ttl) {
        said.push(format!("kept for {} s", ttl.as_secs()));
    }
    if def.storage.is_none() {
        said.push("not stored".to_owned());
    }
    said.join("; ")
}

const INTRODUCTION: &str = "\
# Kinds

The built-in kinds, group by group. `cargo xtask kinds` writes this page from the registry
(`crates/resources/src/groups`) and from the tables in `xtask/src/kinds.rs`; `cargo xtask kinds --check` fails if it is
not up to date.

| in the tables | meaning |
| --- | --- |
| verbs: all | create, delete, deletecollection, get, list, patch, update, watch |
| cluster | the kind is not namespaced |
| own rules | defaults, validation of creates, updates and the status, immutable fields, dropped fields and warnings of kube-apiserver 1.36, in the folder of the group |
| generic rules only | the rules of all kinds: schema, metadata, generation, and a `status` that only its subresource changes |
| PUT creates | an update of a name that does not exist creates the object |
| updates need a resourceVersion | an update without one is refused |
| created with a status | a create may set `status` |
| DELETE answers with the object | of a completed deletion, instead of a `Status` |
| DELETE orphans dependents | if the request has no propagation policy |
| generation follows … | a change of these fields increments `metadata.generation` |
| field selectors … | besides `metadata.name` and `metadata.namespace` |
| kept for … s | after its last write, then it is deleted |
| not stored | the answer is computed |
";
const TABLE: &str = "| kind | verbs | subresources | rules |\n| --- | --- | --- | --- |\n";
