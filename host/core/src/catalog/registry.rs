//! The registry file: JSON, one entry a module by name.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Catalog, ModuleEntry};
use crate::diagnostic::{Diagnostic, Span};
use crate::document::Source;
use crate::template::offset_of;

/// Not a module: what a registry says about itself.
const METADATA: &str = "_metadata";

/// Reads a registry. An entry that is wrong is reported, and the others still load. A blank file is an empty registry:
/// `touch modules.json` makes one.
#[must_use]
pub fn parse_registry(path: &Path, text: &str) -> (Catalog, Vec<Diagnostic>) {
    let source = Source::new(path, text);
    if text.trim().is_empty() {
        return (Catalog::new(), Vec::new());
    }
    let sections: Sections<'_> = match serde_json::from_str(text) {
        Ok(sections) => sections,
        Err(error) => return (Catalog::new(), vec![not_json(&source, &error)]),
    };
    let mut catalog = Catalog::new();
    let mut found = Vec::new();
    for (name, raw) in sections.0.into_iter().filter(|(name, _)| name != METADATA) {
        // The raw value is a slice of the text, so its address tells where it stands.
        let offset = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        found.extend(add(&mut catalog, &source, &name, raw, offset));
    }
    (catalog, found)
}

/// Of two entries of one name the later counts, and if that is wrong, none: the earlier was to be replaced.
fn add(catalog: &mut Catalog, source: &Source, name: &str, raw: &RawValue, offset: usize) -> Option<Diagnostic> {
    let replaced = catalog.remove(name);
    let entry = match entry(source, name, raw, offset) {
        Ok(entry) => entry,
        Err(refused) => return Some(refused),
    };
    if let Err(error) = catalog.insert(name, entry) {
        return Some(bad_entry(source, offset, error.to_string()));
    }
    replaced.map(|_| bad_entry(source, offset, format!("`{name}` stands here a second time; this one counts")))
}

/// Writes a registry: modules in alphabetical order, indented.
#[must_use]
pub fn registry_to_json(catalog: &Catalog) -> String {
    let entries: Map<String, Value> = catalog
        .iter()
        .map(|(name, entry)| {
            let entry = serde_json::to_value(entry).expect("an entry has text keys only");
            (name.to_string(), entry)
        })
        .collect();
    format!("{:#}\n", Value::Object(entries))
}

fn entry(source: &Source, name: &str, raw: &RawValue, offset: usize) -> Result<ModuleEntry, Diagnostic> {
    let entry: ModuleEntry = serde_json::from_str(raw.get()).map_err(|error| {
        // A missing field is only noticed at the end of an entry; its start tells more.
        let at = match error.is_data() && error.to_string().starts_with("missing field") {
            true => 0,
            false => offset_of(raw.get(), error.line().max(1), error.column().max(1)),
        };
        bad_entry(source, offset + at, format!("the entry `{name}` is invalid: {}", without_place(&error)))
    })?;
    let digest = entry.sha256.as_deref();
    if digest.is_some_and(|digest| digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        let message = format!("the entry `{name}` is invalid: its `sha256` is not 64 hexadecimal digits");
        return Err(bad_entry(source, offset, message));
    }
    Ok(entry)
}

fn bad_entry(source: &Source, offset: usize, message: String) -> Diagnostic {
    source
        .error("bad-registry-entry", Span::at(source.position(offset)), message)
        .help("register the module again with `pype register-module`, or take the entry out")
}

fn not_json(source: &Source, error: &serde_json::Error) -> Diagnostic {
    let offset = offset_of(&source.text, error.line().max(1), error.column().max(1));
    let message = format!("the registry is malformed: {}", without_place(error));
    source
        .error("malformed-registry", Span::at(source.position(offset)), message)
        .help("a registry is one JSON object with an entry for each module")
}

/// `serde_json` counts from the start of what it was given, which is not the start of the file.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// The entries of an object, each as its slice of the text, none lost to a namesake.
struct Sections<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Sections<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each module")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(InOrder).map(Sections)
    }
}
