//! The commands that read and change the registry.

mod show;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use pype_core::label::Rule;
use serde_json::{Value, json};

use super::Exit;
use super::render::{self, Failure, Style};
use super::select;
use crate::loader::{Digest, LoadError};
use crate::registry::{self, Options, Places, Registry, RegistryError};

/// Which registry a command works on.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RegistryChoice {
    /// The registry file [default: $PYPE_REGISTRY, else the nearest registry/modules.json upward]
    #[arg(long, value_name = "FILE")]
    pub(crate) registry: Option<PathBuf>,
}

/// Register plugins, so that flows can use their modules.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype register-module target/release/libwait.so   a library, by its path
  pype register-module wait                        the same, found in the project
  pype register-module wait_mod                    a registered module: its library, as it is now")]
pub(crate) struct RegisterArgs {
    /// The path of a library, its bare name (wait for libwait.so), or the name of a registered module
    #[arg(required = true, value_name = "NAME|PATH.so")]
    plugins: Vec<String>,
    /// Take over names that are registered from other libraries
    #[arg(long)]
    replace: bool,
    /// List it by bare name and without a digest, as libraries that are shipped beside the executable are
    #[arg(long, hide = true)]
    bundled: bool,
    #[command(flatten)]
    choice: RegistryChoice,
}

/// Register every plugin in some folders.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype auto-register                 plugins/, plugins/*/target/release/ and target/release/ of the project
  pype auto-register build/ --verbose")]
pub(crate) struct AutoRegisterArgs {
    /// Where to look [default: plugins/, plugins/*/target/release/ and target/release/ of the project]
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Take over names that are registered from other libraries
    #[arg(long)]
    replace: bool,
    /// Also say what was skipped, and why
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    choice: RegistryChoice,
}

/// Remove modules from the registry. The libraries stay where they are.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype clear-registry wait_mod    one module
  pype clear-registry             all of them (the bundled modules remain usable)")]
pub(crate) struct ClearArgs {
    /// The modules to remove [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    choice: RegistryChoice,
}

/// List the modules that flows can use.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype list-modules
  pype list-modules --select 'type = mod and not output.rejected'
  pype list-modules --json | jq 'keys'

A rule asks for labels: name, type, category, version, description, library, module_path, and
input.PORT, output.PORT, global.NAME, package.NAME. It knows = != < <= > >=, in (a, b),
between 1 and 5, exists, and, or, not and parentheses.")]
pub(crate) struct ListArgs {
    /// Only modules whose labels meet this rule
    #[arg(long, value_name = "RULE")]
    select: Option<String>,
    /// As a JSON object: entries by name
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choice: RegistryChoice,
}

/// Describe a module: its kind, ports, globals and configs.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype describe csv_source
  pype describe csv_source --json | jq .config_schema.required")]
pub(crate) struct DescribeArgs {
    /// The module
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choice: RegistryChoice,
}

/// `pype register-module`. Stops at the first plugin that cannot be registered.
pub(crate) fn register_module(args: &RegisterArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let places = Places::of_process();
    let registry = args.choice.to_write(&places)?;
    let options = Options { replace: args.replace, bundled: args.bundled };
    for plugin in &args.plugins {
        let path = library_meant(plugin, &registry, &places)?;
        let inspected = registry::inspect(&path)?;
        let registered = inspected.register(&registry, &places, options)?;
        out.write_all(show::told(&inspected, &registered).as_bytes())?;
    }
    Ok(Exit::Ok)
}

/// `pype auto-register`. One plugin that is refused does not keep the others out.
pub(crate) fn auto_register(args: &AutoRegisterArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let places = Places::of_process();
    let registry = args.choice.to_write(&places)?;
    let folders = match args.folders.is_empty() {
        true => registry::plugin_folders(registry::project_of(&registry)),
        false => args.folders.clone(),
    };
    let libraries = registry::libraries_in(&folders)?;
    let options = Options { replace: args.replace, bundled: false };
    let mut seen: BTreeMap<Digest, PathBuf> = BTreeMap::new();
    let mut refused = 0;
    for path in &libraries {
        let name = render::shown(path);
        let result = registry::inspect(path).and_then(|inspected| {
            if let Some(twin) = seen.insert(inspected.digest.clone(), path.clone()) {
                return Ok(Err(format!("the same bytes as {}", render::shown(&twin))));
            }
            Ok(Ok(inspected.register(&registry, &places, options)?))
        });
        match result {
            Ok(Ok(registered)) => writeln!(out, "{name}: {}", show::counted(&registered))?,
            Ok(Err(why)) if args.verbose => writeln!(out, "{name}: skipped: {why}")?,
            Err(RegistryError::Library(error @ (LoadError::NotALibrary { .. } | LoadError::NotAPlugin { .. })))
                if args.verbose =>
            {
                writeln!(out, "{name}: skipped: {error}")?;
            }
            Ok(Err(_)) | Err(RegistryError::Library(LoadError::NotALibrary { .. } | LoadError::NotAPlugin { .. })) => {}
            // Without the registry there is nothing to go on with.
            Err(error @ (RegistryError::Malformed { .. } | RegistryError::Io { .. })) => return Err(error.into()),
            Err(error) => {
                refused += 1;
                write!(out, "{name}: refused\n{}", Failure::from(error).text(Style::Plain))?;
            }
        }
    }
    if seen.is_empty() && refused == 0 {
        let looked: Vec<String> = folders.iter().map(|folder| render::shown(folder)).collect();
        let missing = format!("there is no plugin in {}", looked.join(", "));
        return Err(Failure::invalid("no-plugins", missing)
            .hint("build one (cargo build --release), or name the folder: pype auto-register DIR"));
    }
    Ok(if refused == 0 { Exit::Ok } else { Exit::Invalid })
}

/// `pype clear-registry`.
pub(crate) fn clear_registry(args: &ClearArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let registry = args.choice.to_write(&Places::of_process())?;
    let cleared = registry::clear(&registry, &args.names)?;
    for name in &cleared {
        writeln!(out, "removed {name}")?;
    }
    writeln!(out, "{} removed from {}", show::modules(cleared.len()), render::shown(&registry))?;
    Ok(Exit::Ok)
}

/// `pype list-modules`. Entries that are not valid are reported, and make the exit code 20.
pub(crate) fn list_modules(args: &ListArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let rule = match args.select.as_deref().map(|rule| select::rule("--select", rule)).transpose() {
        Ok(rule) => rule.unwrap_or(Rule::all([])),
        Err(refused) => return refused.show(args.json, out),
    };
    let registry = args.choice.to_read()?;
    let modules: Vec<_> =
        registry.catalog.iter().filter(|(name, entry)| rule.matches(&entry.labels(name.as_str()))).collect();
    if args.json {
        let entries: serde_json::Map<String, Value> =
            modules.iter().map(|(name, entry)| (name.to_string(), json!(entry))).collect();
        let text = serde_json::to_string_pretty(&entries).expect("entries are plain data");
        writeln!(out, "{text}")?;
    } else {
        out.write_all(show::listed(&registry, &modules).as_bytes())?;
    }
    Ok(if registry.problems.is_empty() { Exit::Ok } else { Exit::Invalid })
}

/// `pype describe`.
pub(crate) fn describe(args: &DescribeArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let registry = args.choice.to_read()?;
    let Some(entry) = registry.catalog.get(&args.name) else {
        let near = registry.catalog.suggest(&args.name).map(str::to_owned);
        return Err(RegistryError::NoModule { name: args.name.clone(), registry: registry.path, near }.into());
    };
    if args.json {
        let mut value = json!(entry);
        value["name"] = json!(args.name);
        writeln!(out, "{}", serde_json::to_string_pretty(&value).expect("an entry is plain data"))?;
    } else {
        out.write_all(show::described(&args.name, entry).as_bytes())?;
    }
    Ok(Exit::Ok)
}

impl RegistryChoice {
    fn to_write(&self, places: &Places) -> Result<PathBuf, Failure> {
        Ok(places.registry_to_write(self.registry.as_deref(), Path::new("."))?)
    }

    pub(super) fn to_read(&self) -> Result<Registry, Failure> {
        Ok(registry::find(self.registry.as_deref(), Path::new("."))?)
    }
}

/// The library that a user means: a path, a bare library name, or the name of a registered module.
fn library_meant(plugin: &str, registry: &Path, places: &Places) -> Result<PathBuf, Failure> {
    let path = Path::new(plugin);
    if path.is_dir() {
        let message = format!("`{plugin}` is a folder");
        return Err(Failure::invalid("is-a-folder", message)
            .hint(format!("register every plugin in it: pype auto-register {plugin}")));
    }
    if !registry::is_bare(plugin) || plugin.contains('.') || path.is_file() {
        return Ok(path.to_owned());
    }
    let nowhere = match places.library_by_name(plugin, registry::project_of(registry)) {
        Ok(path) => return Ok(path),
        Err(error) => error,
    };
    if !registry.is_file() {
        return Err(nowhere.into());
    }
    let known = Registry::find(places, Some(registry), Path::new("."))?;
    match known.catalog.get(plugin) {
        Some(entry) => Ok(places.resolve(&entry.module_path, known.folder())?),
        None => Err(nowhere.into()),
    }
}
