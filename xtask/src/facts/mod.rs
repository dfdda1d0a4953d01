//! `cargo xtask facts`: generates the table of the built-in API types from the sources of two crates and an overlay.
//!
//! | source | content |
//! | --- | --- |
//! | `k8s-openapi` | the types, JSON names, field types, required fields and fields that are always encoded |
//! | `k8s-pb` | protobuf numbers and inlined messages; in comments: defaults, list topology, patch strategy |
//! | `crates/schema/facts/overlay.txt` | corrections and additions: pointers, structs held by value |

mod model;
mod openapi;
mod overlay;
mod protobuf;
mod reference;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

use model::Field;
use model::Shape;
use model::Types;

use crate::root;

/// The reasons why the table cannot be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    #[error("cargo metadata: {0}")]
    Metadata(String),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error(transparent)]
    Overlay(#[from] overlay::OverlayError),
    #[error("{0} is out of date; run `cargo xtask facts` and review the difference")]
    Stale(PathBuf),
    #[error("the table differs from the recorded server:\n{}", .0.join("\n"))]
    Differs(Vec<String>),
}

/// Writes the table; with `check`, fails if it is out of date.
pub(crate) fn run(check: bool) -> ExitCode {
    let done = if check { verify() } else { write() };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<String, FactsError> {
    let path = folder().join("builtin.txt");
    let text = generate()?;
    fs::write(&path, &text).map_err(|e| FactsError::Io(path.clone(), e))?;
    Ok(format!("{}: {} lines", path.display(), text.lines().count()))
}

fn verify() -> Result<String, FactsError> {
    let path = folder().join("builtin.txt");
    if read(&path)? != generate()? {
        return Err(FactsError::Stale(path));
    }
    let compared = match reference::differences(nave_schema::builtin()) {
        None => "skipped: comparison with a recorded server (no recording in NAVE_REFERENCE)",
        Some(found) if found.is_empty() => "matches the recorded server",
        Some(found) => return Err(FactsError::Differs(found)),
    };
    Ok(format!("{} is up to date\n{compared}", path.display()))
}

/// Generates the table.
fn generate() -> Result<String, FactsError> {
    let (openapi, protobuf) = sources()?;
    let openapi = openapi.join("src/v1_36");
    let protobuf = protobuf.join("src");
    let found = openapi::OpenApi::read(&openapi).map_err(|e| FactsError::Io(openapi, e))?;
    let messages = protobuf::Messages::read(&protobuf).map_err(|e| FactsError::Io(protobuf, e))?;
    let mut types = found.types;
    for (name, _) in found.kinds.iter().filter(|(_, has_list)| *has_list) {
        types.insert(format!("{name}List"), list_of(name));
    }
    messages.complete(&mut types);
    apply_default_rules(&mut types);
    let mut roots = overlay::apply(&read(&folder().join("overlay.txt"))?, &mut types, &messages)?;
    // The overlay names the kinds of other versions.
    for (name, has_list) in found.kinds.into_iter().filter(|(name, _)| is_stable(name)) {
        roots.extend(has_list.then(|| format!("{name}List")));
        roots.push(name);
    }
    model::keep_reachable(&mut types, roots);
    Ok(model::render(&types))
}

/// Returns whether the definition belongs to a stable version.
fn is_stable(name: &str) -> bool {
    name.rsplit('.').nth(1).is_none_or(|version| !version.contains("alpha") && !version.contains("beta"))
}

/// Returns a list type. `k8s-openapi` has one generic type for all of them.
fn list_of(name: &str) -> model::Type {
    let string = || Field { shape: Shape::Word("string"), ..Field::default() };
    let metadata = Shape::Struct("apimachinery.pkg.apis.meta.v1.ListMeta".into());
    let items = Shape::List(Box::new(Shape::Struct(name.to_owned())));
    let fields = [
        ("apiVersion", string()),
        ("kind", string()),
        ("metadata", Field { shape: metadata, always: true, ..Field::default() }),
        ("items", Field { shape: items, always: true, required: true, ..Field::default() }),
    ];
    model::Type { atomic: false, fields: fields.map(|(name, field)| (name.to_owned(), field)).into() }
}

/// Applies rules that the overlay can override: a kind holds metadata (which `k8s-openapi` wrongly requires), spec and
/// status by value; optional numbers and booleans are pointers, optional strings are not.
fn apply_default_rules(types: &mut Types) {
    for ty in types.values_mut() {
        let is_kind = ty.fields.contains_key("metadata");
        for (name, field) in &mut ty.fields {
            if name == "metadata" {
                field.required = false;
            }
            let held = matches!(field.shape, Shape::Struct(_))
                && ["metadata", "spec", "status"].contains(&name.as_str());
            field.always |= is_kind && held;
            let numeric = matches!(field.shape, Shape::Word("bool" | "int32" | "int64" | "double"));
            field.pointer = numeric && !field.always;
        }
    }
}

/// Returns the source folders of `k8s-openapi` and `k8s-pb`. `cargo metadata` downloads them if needed.
fn sources() -> Result<(PathBuf, PathBuf), FactsError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let failed = |reason: &dyn std::fmt::Display| FactsError::Metadata(reason.to_string());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--features=xtask/facts-sources"])
        .current_dir(root())
        .output()
        .map_err(|e| failed(&e))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| failed(&format!("{e}\n{}", String::from_utf8_lossy(&output.stderr))))?;
    let folder = |name: &str| {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let manifest =
            packages.filter(|package| package["name"] == name).find_map(|p| p["manifest_path"].as_str());
        manifest
            .and_then(|path| Path::new(path).parent())
            .map(Path::to_owned)
            .ok_or_else(|| failed(&format!("no {name}")))
    };
    Ok((folder("k8s-openapi")?, folder("k8s-pb")?))
}

fn folder() -> PathBuf {
    root().join("crates/schema/facts")
}

fn read(path: &Path) -> Result<String, FactsError> {
    fs::read_to_string(path).map_err(|e| FactsError::Io(path.to_owned(), e))
}

#[cfg(test)]
mod tests {
    /// Checks that the committed table matches its sources.
    #[test]
    fn table_is_up_to_date() {
        println!("{}", super::verify().unwrap());
    }
}
