//! The overlay: corrections of the facts from the two crates, one per line.
//!
//! ```text
//! # a comment
//! root TYPE                       keeps a type that no kind refers to; added from the protobuf messages if needed
//! kind TYPE                       the same, with `apiVersion` and `kind`, which protobuf messages lack
//! set  TYPE FIELD SHAPE WORD…     adds or replaces a field, in the words of the table
//! word TYPE FIELD… : WORD…        adds words to fields;  -WORD removes one;  FIELD * means all fields
//! drop TYPE FIELD…                removes fields
//! atomic TYPE                     server-side apply treats the type as one value
//! also PACKAGE KIND…              keeps kinds of a version before the stable one; the fields of the package's types
//!                                 get the words of the stable types' fields that the sources lack
//! ```

use super::model::{Field, Shape, Types};
use super::protobuf::Messages;

/// An invalid line of the overlay.
#[derive(Debug, thiserror::Error)]
#[error("overlay.txt, line {line}: {reason}")]
pub(crate) struct OverlayError {
    line: usize,
    reason: String,
}

/// Applies the overlay. Returns the roots that it names.
pub(crate) fn apply(text: &str, types: &mut Types, messages: &Messages) -> Result<Vec<String>, OverlayError> {
    let mut roots = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if !line.is_empty() && !line.starts_with('#') {
            step(line, types, messages, &mut roots)
                .map_err(|reason| OverlayError { line: at + 1, reason })?;
        }
    }
    Ok(roots)
}

fn step(line: &str, types: &mut Types, messages: &Messages, roots: &mut Vec<String>) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let (Some(verb), Some(name)) = (words.next(), words.next()) else { return Err("too few words".into()) };
    if verb == "root" || verb == "kind" {
        roots.push(name.to_owned());
        import(name, types, messages);
        if verb == "kind" {
            let string = || Field { shape: Shape::Word("string"), ..Field::default() };
            let fields = &mut types.entry(name.to_owned()).or_default().fields;
            for name in ["apiVersion", "kind"] {
                fields.entry(name.to_owned()).or_insert_with(string);
            }
        }
        return Ok(());
    }
    if verb == "also" {
        for kind in words {
            let kinds = [format!("{name}.{kind}"), format!("{name}.{kind}List")];
            if let Some(unknown) = kinds.iter().find(|kind| !types.contains_key(*kind)) {
                return Err(format!("unknown type {unknown}"));
            }
            roots.extend(kinds);
        }
        copy_words(name, types);
        return Ok(());
    }
    let ty = types.get_mut(name).ok_or_else(|| format!("unknown type {name}"))?;
    let absent = |field: &str| format!("{name} has no field {field}");
    match verb {
        "atomic" => ty.atomic = true,
        "drop" => {
            for field in words {
                ty.fields.remove(field).ok_or_else(|| absent(field))?;
            }
        }
        "set" => {
            let (Some(field), Some(shape)) = (words.next(), words.next()) else {
                return Err("too few words".into());
            };
            let mut fact = Field { shape: shape_of(shape)?, ..Field::default() };
            words.try_for_each(|word| fact.word(word))?;
            ty.fields.insert(field.to_owned(), fact);
        }
        "word" => {
            let (fields, added) = line.split_once(" : ").ok_or("no ` : `")?;
            let names: Vec<&str> = fields.split_whitespace().skip(2).collect();
            if let Some(unknown) =
                names.iter().find(|field| **field != "*" && !ty.fields.contains_key(**field))
            {
                return Err(absent(unknown));
            }
            for (_, fact) in
                ty.fields.iter_mut().filter(|(field, _)| names.iter().any(|n| *n == "*" || n == field))
            {
                added.split_whitespace().try_for_each(|word| fact.word(word))?;
            }
        }
        _ => return Err(format!("unknown verb {verb}")),
    }
    Ok(())
}

/// Copies the words that the overlay sets for the types of the stable version of a package to those of the package.
fn copy_words(package: &str, types: &mut Types) {
    let Some((group, _)) = package.rsplit_once('.') else { return };
    let stable =
        |name: &str| name.strip_prefix(package)?.strip_prefix('.').map(|kind| format!("{group}.v1.{kind}"));
    let pairs: Vec<(String, String)> =
        types.keys().filter_map(|name| Some((name.clone(), stable(name)?))).collect();
    for (name, stable) in pairs {
        let Some(known) = types.get(&stable).cloned() else { continue };
        for (field, fact) in types.get_mut(&name).into_iter().flat_map(|ty| &mut ty.fields) {
            let Some(known) = known.fields.get(field) else { continue };
            (fact.always, fact.pointer, fact.granular) = (known.always, known.pointer, known.granular);
            fact.atomic |= known.atomic;
            fact.type_meta.clone_from(&known.type_meta);
        }
    }
}

/// Adds a type and the types it refers to from the protobuf messages, unless they are already known.
fn import(name: &str, types: &mut Types, messages: &Messages) {
    if types.get(name).is_some_and(|ty| !ty.fields.is_empty()) {
        return;
    }
    let Some(fields) = messages.fields(name) else { return };
    let targets: Vec<String> = fields.values().filter_map(|f| f.shape.target()).map(str::to_owned).collect();
    types.entry(name.to_owned()).or_default().fields = fields;
    for target in targets {
        import(&target, types, messages);
    }
}

impl Field {
    fn word(&mut self, word: &str) -> Result<(), String> {
        let (on, name) = word.strip_prefix('-').map_or((true, word), |name| (false, name));
        let (name, value) = name.split_once('=').unwrap_or((name, ""));
        let text = || on.then(|| value.to_owned());
        match name {
            "required" => self.required = on,
            "always" => self.always = on,
            "ptr" => self.pointer = on,
            "atomic" => self.atomic = on,
            "granular" => self.granular = on,
            "set" => self.set = on,
            "map" => self.keys = value.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect(),
            "patch" => self.patch = text(),
            "key" => self.merge_key = text(),
            "typed" => self.type_meta = text(),
            "default" => self.default = text(),
            _ => self.place(name).ok_or_else(|| format!("unknown word {word}"))?,
        }
        Ok(())
    }

    fn place(&mut self, word: &str) -> Option<()> {
        let place = word.strip_prefix('@')?;
        self.wrapped = place.ends_with('*');
        let mut steps = place.trim_end_matches('*').split('/').rev();
        self.number = steps.next()?.parse().ok()?;
        let path = steps.map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
        self.via = path.into_iter().rev().fold(0, |path, step| path << 16 | step);
        Some(())
    }
}

fn shape_of(word: &str) -> Result<Shape, String> {
    let inside = |open, close| word.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(inner) = inside('[', ']') {
        return Ok(Shape::List(Box::new(shape_of(inner)?)));
    }
    if let Some(inner) = inside('{', '}') {
        return Ok(Shape::Map(Box::new(shape_of(inner)?)));
    }
    let known =
        ["string", "bool", "int32", "int64", "double", "bytes", "any", "Time", "MicroTime", "Duration"];
    match known.into_iter().find(|known| *known == word) {
        Some(known) => Ok(Shape::Word(known)),
        None if word.contains('.') => Ok(Shape::Struct(word.to_owned())),
        None => Err(format!("unknown shape {word}")),
    }
}
