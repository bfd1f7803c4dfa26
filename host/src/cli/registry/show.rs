//! Registrations, lists and descriptions as text.

use std::collections::BTreeMap;
use std::path::Path;

use pype_core::catalog::{ModuleEntry, Parameter};
use pype_core::diagnostic::Diagnostics;
use pype_core::name::ModuleName;
use serde_json::Value;

use crate::cli::render::{self, Style};
use crate::loader::Digest;
use crate::registry::{Change, Inspected, Registered, Registry};

pub(super) fn told(inspected: &Inspected, registered: &Registered) -> String {
    let library = &inspected.descriptor;
    let rows: Vec<Vec<String>> = registered
        .modules
        .iter()
        .map(|(name, change)| {
            let module = library.modules.iter().find(|module| module.name == *name);
            let (kind, description) = module.map_or((String::new(), String::new()), |module| {
                (format!("{:?}", module.kind).to_lowercase(), module.description.clone())
            });
            vec![format!("  {}", word(*change)), name.clone(), kind, description]
        })
        .collect();
    format!(
        "registered {} {} ({}, sha256 {}) in {}\n{}",
        library.name,
        library.version,
        render::shown(&inspected.library),
        inspected.digest.short(),
        render::shown(&registered.registry),
        render::columns(&rows)
    )
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
        Change::Removed => "removed",
    }
}

pub(super) fn counted(registered: &Registered) -> String {
    let of = |change| registered.modules.iter().filter(|(_, one)| *one == change).count();
    let counts = [Change::Added, Change::Updated, Change::Unchanged, Change::Removed]
        .map(|change| (of(change), word(change)))
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"));
    let counts: Vec<String> = counts.collect();
    match counts.is_empty() {
        true => "no modules".to_owned(),
        false => format!("modules: {}", counts.join(", ")),
    }
}

pub(super) fn modules(count: usize) -> String {
    format!("{count} module{}", if count == 1 { "" } else { "s" })
}

/// Some of a registry's modules.
pub(super) fn listed(registry: &Registry, selected: &[(&ModuleName, &ModuleEntry)]) -> String {
    let mut groups: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    for (name, entry) in selected {
        let category = if entry.category.is_empty() { "Other" } else { entry.category.as_str() };
        let row = [&format!("  {name}"), entry.kind.as_str(), &entry.version, &entry.description];
        groups.entry(category).or_default().push(row.map(str::to_owned).to_vec());
    }
    // One width for all groups: laid out together, then cut where the groups are.
    let table = render::columns(&groups.values().flatten().cloned().collect::<Vec<_>>());
    let mut lines = table.lines();
    let mut text = String::new();
    for (category, rows) in &groups {
        let rows: Vec<&str> = lines.by_ref().take(rows.len()).collect();
        text.push_str(&format!("{category}\n{}\n\n", rows.join("\n")));
    }
    if !registry.problems.is_empty() {
        let problems: Diagnostics = registry.problems.iter().cloned().collect();
        text.push_str(&format!("Invalid\n{}\n", render::diagnostics(&problems, Style::Plain)));
    }
    let all = modules(registry.catalog.len());
    let counted = if selected.len() == registry.catalog.len() { all } else { format!("{} of {all}", selected.len()) };
    text.push_str(&format!("{counted} in {}\n", render::shown(&registry.path)));
    text
}

pub(super) fn described(name: &str, entry: &ModuleEntry) -> String {
    let list = |ports: &[String]| if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    let library = match &entry.sha256 {
        Some(sha256) => {
            format!("{} (sha256 {})", render::shown(Path::new(&entry.module_path)), Digest::new(sha256).short())
        }
        None => format!("{} (beside the executable)", entry.module_path),
    };
    let mut facts = vec![
        ("kind", entry.kind.to_string()),
        ("category", entry.category.clone()),
        ("inputs", list(&entry.input_ports)),
        ("outputs", list(&entry.output_ports)),
        ("globals", list(&entry.globals)),
        ("library", library),
    ];
    if !entry.lists.is_empty() {
        facts.push(("lists", entry.lists.join(", ")));
    }
    if !entry.packages.is_empty() {
        facts.push(("packages", entry.packages.join(", ")));
    }
    let facts: Vec<Vec<String>> = facts.into_iter().map(|(key, value)| vec![format!("  {key}"), value]).collect();
    let title = format!("{name} {}: {}", entry.version, entry.description);
    format!("{}\n\n{}\n{}", title.trim_end_matches([':', ' ']), render::columns(&facts), configs(entry))
}

fn configs(entry: &ModuleEntry) -> String {
    let schema = &entry.config_schema;
    let sections = [("required", &schema.required), ("optional", &schema.optional)];
    let mut text = String::new();
    for (section, parameters) in sections.into_iter().filter(|(_, parameters)| !parameters.is_empty()) {
        let parameters: String = parameters.iter().map(|(name, one)| parameter(name, one)).collect();
        text.push_str(&format!("configs.{section}\n{parameters}\n"));
    }
    if text.is_empty() { "no configs\n".to_owned() } else { text }
}

fn parameter(name: &str, one: &Parameter) -> String {
    const WIDTH: usize = 100;
    let default = match &one.default {
        Some(Value::Null) | None => String::new(),
        Some(value) => format!(" = {value}"),
    };
    let mut description = one.description.clone();
    let choices = one.schema.as_ref().map(choices).unwrap_or_default();
    if !choices.is_empty() {
        description.push_str(&format!(" One of {}.", choices.join(", ")));
    }
    format!("  {name}: {}{default}\n{}", one.kind, render::wrapped(&description, WIDTH, "      "))
}

/// The values that a schema lists, if it lists them.
fn choices(schema: &Value) -> Vec<String> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    // Of an enum, variants with a description are a constant each; those without share a branch.
    let branches = schema["oneOf"].as_array().into_iter().flatten();
    let of_branches = branches
        .flat_map(|branch| branch.get("const").into_iter().chain(branch["enum"].as_array().into_iter().flatten()));
    listed.chain(of_branches).map(|value| format!("`{}`", value.as_str().unwrap_or(&value.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> ModuleEntry {
        let entry = json!({
            "module_path": "tabular", "type": "source", "version": "1.0.0", "description": "Reads CSV files",
            "category": "File Sources", "output_ports": ["data"], "globals": ["row_count"],
            "config_schema": {
                "required": {"file_path": {"type": "str", "description": "Path to CSV file"}},
                "optional": {
                    "encoding": {"type": "str", "default": "utf-8"},
                    "bad_rows": {"type": "str", "description": "What\nto do.", "default": null,
                        "schema": {"oneOf": [{"const": "skip", "description": "x"}, {"enum": ["a", "b"]}]}},
                },
            },
        });
        serde_json::from_value(entry).expect("an entry")
    }

    #[test]
    fn a_module_is_described() {
        let expect = "\
csv_source 1.0.0: Reads CSV files

  kind      source
  category  File Sources
  inputs    none
  outputs   data
  globals   row_count
  library   tabular (beside the executable)

configs.required
  file_path: str
      Path to CSV file

configs.optional
  encoding: str = \"utf-8\"
  bad_rows: str
      What to do. One of `skip`, `a`, `b`.

";
        assert_eq!(described("csv_source", &entry()), expect);
    }

    #[test]
    fn modules_are_listed_by_category() {
        let mut registry =
            Registry { path: "/r/modules.json".into(), catalog: Default::default(), problems: Vec::new() };
        for (name, category) in [("csv_source", "Files"), ("a_longer_name", ""), ("b", "Files")] {
            let entry = ModuleEntry { category: category.to_owned(), ..entry() };
            registry.catalog.insert(name, entry).expect("a name");
        }
        let expect = "\
Files
  b              source  1.0.0  Reads CSV files
  csv_source     source  1.0.0  Reads CSV files

Other
  a_longer_name  source  1.0.0  Reads CSV files

3 modules in /r/modules.json
";
        let all: Vec<_> = registry.catalog.iter().collect();
        assert_eq!(listed(&registry, &all), expect);
        let expect = "Other\n  a_longer_name  source  1.0.0  Reads CSV files\n\n1 of 3 modules in /r/modules.json\n";
        assert_eq!(listed(&registry, &all[..1]), expect);
        assert_eq!(listed(&registry, &[]), "0 of 3 modules in /r/modules.json\n");
    }
}
