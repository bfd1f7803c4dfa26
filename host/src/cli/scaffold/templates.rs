//! The texts under `templates/`. Their blanks are words like `__name__`, so that they remain Rust, TOML and YAML.

pub(super) const CARGO_TOML: &str = include_str!("templates/module/Cargo.toml");
pub(super) const MODULE_GITIGNORE: &str = include_str!("templates/module/gitignore");
pub(super) const SOURCE: &str = include_str!("templates/module/source.rs");
pub(super) const MOD: &str = include_str!("templates/module/mod.rs");
pub(super) const SINK: &str = include_str!("templates/module/sink.rs");
pub(super) const SOLO: &str = include_str!("templates/module/solo.rs");
pub(super) const DISPATCH: &str = include_str!("templates/module/dispatch.rs");
pub(super) const EXECUTE: &str = include_str!("templates/module/execute.rs");

pub(super) const PROJECT_GITIGNORE: &str = include_str!("templates/project/gitignore");
pub(super) const README: &str = include_str!("templates/project/README.md");
pub(super) const PLUGINS_README: &str = include_str!("templates/project/plugins.md");
pub(super) const MODULES_JSON: &str = include_str!("templates/project/modules.json");
pub(super) const FLOW: &str = include_str!("templates/project/flow.yaml");
pub(super) const ORDERS: &str = include_str!("templates/project/orders.csv");

/// The template with its blanks filled in.
pub(super) fn fill(template: &str, blanks: &[(&str, &str)]) -> String {
    blanks.iter().fold(template.to_owned(), |text, (blank, value)| text.replace(&format!("__{blank}__"), value))
}
