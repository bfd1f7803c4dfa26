//! `pype new-module`: a crate that builds and passes its own test.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pype_core::name::ModuleName;
use pype_plugin::abi::{API_MAJOR, API_MINOR};

use super::templates::{self, fill};
use super::{File, ScaffoldError, write};
use crate::cli::Exit;
use crate::cli::render::{self, Failure};

/// Write a new module: a crate that builds and passes its own test.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pype new-module shout_mod --kind mod
  pype new-module prices --kind source --path ../prices --pype-plugin 1.0")]
pub(crate) struct NewModuleArgs {
    /// The module's name in flows and pipelines, and its crate's: letters, digits and `_`
    name: String,
    /// What it is to do
    #[arg(long, value_enum)]
    kind: NewKind,
    /// The new crate's folder [default: plugins/NAME in a project, else NAME]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The SDK: the folder of the crate pype-plugin, or a version [default: the one this pype was built with]
    #[arg(long, value_name = "PATH|VERSION")]
    pype_plugin: Option<String>,
}

/// The kinds of module that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NewKind {
    /// Brings data in
    Source,
    /// Turns data into other data
    Mod,
    /// Takes data out
    Sink,
    /// Works without data
    Solo,
    /// Is a stage of a pipeline
    Execute,
    /// Is a queue for the jobs of pipelines
    Dispatch,
}

/// `pype new-module`.
pub(crate) fn new_module(args: &NewModuleArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    check_name(&args.name)?;
    let sdk = args.pype_plugin.as_deref().map_or_else(|| Ok(Sdk::of_this_pype()), Sdk::parse)?;
    let folder = args.path.clone().unwrap_or_else(|| default_folder(&args.name));
    if folder.join("Cargo.toml").exists() {
        return Err(ScaffoldError::Exists { path: folder.join("Cargo.toml") }.into());
    }
    write(&folder, &files(&args.name, args.kind, &sdk))?;
    out.write_all(next_steps(&args.name, args.kind, &folder).as_bytes())?;
    Ok(Exit::Ok)
}

fn default_folder(name: &str) -> PathBuf {
    let plugins = Path::new("plugins");
    if plugins.is_dir() { plugins.join(name) } else { name.into() }
}

fn files(name: &str, kind: NewKind, sdk: &Sdk) -> Vec<File> {
    let manifest = fill(templates::CARGO_TOML, &[("name", name), ("dependencies", &sdk.dependencies(kind))]);
    let code = fill(kind.template(), &[("name", name), ("Name", &type_name(name))]);
    vec![
        ("Cargo.toml".into(), manifest),
        ("src/lib.rs".into(), code),
        (".gitignore".into(), templates::MODULE_GITIGNORE.to_owned()),
    ]
}

fn next_steps(name: &str, kind: NewKind, folder: &Path) -> String {
    let (manifest, target) = (render::shown(&folder.join("Cargo.toml")), folder.join("target/release"));
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = render::shown(&target.join(format!("{prefix}{name}{suffix}")));
    format!(
        "created the {kind} `{name}` in {}: see {}\n\nnext:\n  cargo build --release --manifest-path {manifest}\n  \
         pype register-module {library}\nthen in a {}\n",
        render::shown(folder),
        render::shown(&folder.join("src/lib.rs")),
        kind.used(name),
        kind = kind.word(),
    )
}

impl NewKind {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Mod => "mod",
            Self::Sink => "sink",
            Self::Solo => "solo",
            Self::Execute => "execute",
            Self::Dispatch => "dispatch",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Source => templates::SOURCE,
            Self::Mod => templates::MOD,
            Self::Sink => templates::SINK,
            Self::Solo => templates::SOLO,
            Self::Execute => templates::EXECUTE,
            Self::Dispatch => templates::DISPATCH,
        }
    }

    /// Where it stands in a document, and how.
    fn used(self, name: &str) -> String {
        let example = self.example();
        match self {
            Self::Source | Self::Mod | Self::Sink | Self::Solo => format!(
                "flow, under `modules`:\n  - id: a_step\n    name: {name}\n    configs:\n      required:\n        {example}"
            ),
            Self::Execute | Self::Dispatch => {
                format!("pipeline, under `stages`:\n  - {}: {name}\n    configs:\n      {example}", self.word())
            }
        }
    }

    /// The config of its template.
    fn example(self) -> &'static str {
        match self {
            Self::Source | Self::Mod => "rows: 3",
            Self::Sink => "output_path: came.txt",
            Self::Solo | Self::Execute => "whom: world",
            Self::Dispatch => "name: jobs",
        }
    }

    /// Whether its template touches rows.
    fn needs_arrow(self) -> bool {
        match self {
            Self::Source | Self::Mod | Self::Sink => true,
            Self::Solo | Self::Execute | Self::Dispatch => false,
        }
    }
}

/// Where the crate `pype-plugin` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sdk {
    Path(PathBuf),
    Version(String),
}

impl Sdk {
    /// The one this binary was built with: its folder if it is still there, or else its version.
    fn of_this_pype() -> Self {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api"));
        match folder.canonicalize() {
            Ok(folder) if folder.join("Cargo.toml").is_file() => Self::Path(folder),
            _ => Self::Version(format!("{API_MAJOR}.{API_MINOR}")),
        }
    }

    fn parse(given: &str) -> Result<Self, ScaffoldError> {
        let version = given.trim_start_matches(['^', '~', '=']);
        let numbers = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        if numbers {
            return Ok(Self::Version(given.to_owned()));
        }
        let no_sdk = |why| ScaffoldError::NoSdk { path: given.into(), why };
        let folder = Path::new(given).canonicalize().map_err(|_| no_sdk("there is no such folder"))?;
        let manifest =
            std::fs::read_to_string(folder.join("Cargo.toml")).map_err(|_| no_sdk("it has no Cargo.toml"))?;
        match manifest.lines().any(|line| line.replace(' ', "") == "name=\"pype-plugin\"") {
            true => Ok(Self::Path(folder)),
            false => Err(no_sdk("it is another crate")),
        }
    }

    /// The lines of `[dependencies]`, in alphabetical order.
    fn dependencies(&self, kind: NewKind) -> String {
        let sdk = match self {
            Self::Path(path) => format!("path = {}", quoted(&path.to_string_lossy())),
            Self::Version(version) => format!("version = {}", quoted(version)),
        };
        let mut lines = Vec::new();
        if kind.needs_arrow() {
            // The arrow-rs that the SDK converts to: the types must be the same.
            lines.push("arrow-array = { version = \"60\", default-features = false }".to_owned());
            lines.push(format!("pype-plugin = {{ {sdk}, features = [\"arrow\"] }}"));
        } else {
            lines.push(format!("pype-plugin = {{ {sdk} }}"));
        }
        lines.push("schemars = \"1\"".to_owned());
        lines.push("serde = { version = \"1\", features = [\"derive\"] }".to_owned());
        if kind == NewKind::Dispatch {
            lines.push("tokio = { version = \"1\", features = [\"sync\"] }".to_owned());
        }
        lines.join("\n")
    }
}

/// A TOML string: its escapes are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn check_name(name: &str) -> Result<(), ScaffoldError> {
    let Some(rule) = broken_rule(name) else { return Ok(()) };
    let near = [snake_case(name), format!("{name}_module")];
    let instead = near.into_iter().find(|near| broken_rule(near).is_none());
    Err(ScaffoldError::Name { given: name.to_owned(), rule, instead })
}

/// Why this cannot be both a module's name and its crate's.
fn broken_rule(name: &str) -> Option<&'static str> {
    if let Err(error) = name.parse::<ModuleName>() {
        return Some(error.rule);
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("it is a crate's name too, so its letters are small");
    }
    if KEYWORDS.contains(&name) {
        return Some("it is a word of Rust's own");
    }
    CRATES.contains(&name).then_some("its crate depends on a crate of that name")
}

/// What Rust does not take as the name of a crate.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "test", "trait",
    "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

const CRATES: &[&str] =
    &["alloc", "arrow_array", "core", "proc_macro", "pype_plugin", "schemars", "serde", "serde_json", "std", "tokio"];

/// `My-Module` gives `my_module`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            snake.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        snake.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    snake.trim_matches(|c: char| c == '_' || c.is_ascii_digit()).to_owned()
}

/// `shout_mod` is a struct `ShoutMod`; what is in scope already gets `Module` behind it.
fn type_name(name: &str) -> String {
    const IN_SCOPE: &[&str] = &[
        "Accepted",
        "Arc",
        "ArrayRef",
        "BTreeMap",
        "Bytes",
        "Clone",
        "Commit",
        "Config",
        "Context",
        "Copy",
        "Debug",
        "Default",
        "Deserialize",
        "Dispatch",
        "Drop",
        "Eq",
        "Err",
        "Error",
        "ErrorKind",
        "Execute",
        "Fields",
        "File",
        "Fn",
        "FnMut",
        "FnOnce",
        "Frame",
        "Held",
        "Inputs",
        "Instance",
        "Int64Array",
        "Iterator",
        "Job",
        "JobAction",
        "JobFilter",
        "JobState",
        "Jobs",
        "JsonSchema",
        "Lease",
        "LeaseRequest",
        "LeasedJob",
        "Mod",
        "Mutex",
        "NewJob",
        "Next",
        "None",
        "Notify",
        "Ok",
        "Option",
        "Ord",
        "Outputs",
        "PathBuf",
        "PipelineContext",
        "PoisonError",
        "RecordBatch",
        "Result",
        "Self",
        "Send",
        "Serialize",
        "Sink",
        "Sized",
        "Solo",
        "Some",
        "Source",
        "String",
        "Sync",
        "SystemTime",
        "ToString",
        "Unpin",
        "Value",
        "Vec",
        "Verdict",
        "Write",
    ];
    let camel: String = name
        .split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
        })
        .collect();
    if IN_SCOPE.contains(&camel.as_str()) { camel + "Module" } else { camel }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> (String, Option<String>) {
        let error = check_name(name).expect_err(name);
        let failure = Failure::from(error);
        (failure.message, failure.hint)
    }

    #[test]
    fn names_are_modules_and_crates() {
        for name in ["wait_mod", "a", "x2", "sink", "error"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for (name, instead) in [
            ("my-module", "my_module"),
            ("MyModule", "my_module"),
            ("2nd_mod", "nd_mod"),
            ("match", "match_module"),
            ("serde", "serde_module"),
            ("../etc", "etc"),
        ] {
            let (message, hint) = refused(name);
            assert!(message.starts_with(&format!("`{name}` cannot be the name of a module: ")), "{message}");
            assert_eq!(hint.as_deref(), Some(format!("for example: pype new-module {instead}").as_str()));
        }
        for name in ["", "é", "_", &"a".repeat(65)] {
            assert_eq!(refused(name).1.as_deref(), Some("take another name: pype new-module NAME"));
        }
    }

    #[test]
    fn a_struct_is_called_like_its_module_unless_that_is_taken() {
        for (name, expect) in [("wait_mod", "WaitMod"), ("a__b2", "AB2"), ("sink", "SinkModule")] {
            assert_eq!(type_name(name), expect);
        }
    }

    #[test]
    fn an_sdk_is_a_version_or_a_folder_with_it() {
        for version in ["1", "1.0", "^1.2.3"] {
            assert_eq!(Sdk::parse(version).expect("a version"), Sdk::Version(version.to_owned()));
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sdk = here.join("../plugin-api");
        assert_eq!(Sdk::parse(&sdk.to_string_lossy()).expect("the SDK"), Sdk::of_this_pype());
        for (path, why) in
            [("/nowhere", "there is no such folder"), (env!("CARGO_MANIFEST_DIR"), "it is another crate")]
        {
            let error = Sdk::parse(path).expect_err("refused").to_string();
            assert!(error.ends_with(why), "{error}");
        }
    }

    #[test]
    fn nothing_is_left_blank_and_the_authors_part_is_short() {
        for kind in NewKind::value_variants() {
            for (path, text) in files("my_thing", *kind, &Sdk::Version("1.0".into())) {
                assert!(!text.contains("__"), "{kind:?} {}: {text}", path.display());
            }
        }
    }
}
