//! From what the user names, a flow file or a job folder, to a plan and where its libraries are.
//!
//! All problems of the document come at once, as diagnostics with places; problems of the surroundings (a file that cannot
//! be read, no registry) are errors.

mod pipeline;
mod stream;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pype_core::diagnostic::Diagnostics;
use pype_core::document::{self, Node, Source};
use pype_core::flow::dag::{self, Artifacts};
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::{Plan, PlannedNode};
use pype_core::name::NodeId;
use pype_core::template::{Context, SetError, parse_set};

use pype_core::catalog::ModuleEntry;

use crate::durable;
use crate::loader::{self, Digest, LoadError};
use crate::registry::{self, Registry, RegistryError};

pub use self::pipeline::{PreparedPipeline, prepare_pipeline};
pub use self::stream::{PreparedStream, prepare_stream};

/// What a document declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// A flow, or whatever else is neither of the others: planning says what is wrong with it.
    Flow,
    /// A pipeline.
    Pipeline,
    /// A stream.
    Stream,
}

/// What the document at `path` declares.
///
/// # Errors
/// It cannot be read, or is no YAML.
pub fn kind_of(path: &Path) -> Result<DocumentKind, PrepareError> {
    if path.is_dir() {
        return Ok(DocumentKind::Flow);
    }
    let tree = document::parse(&Source::new(path, read(path)?)).map_err(PrepareError::Invalid)?;
    let kinds = [("pipeline", DocumentKind::Pipeline), ("stream", DocumentKind::Stream)];
    let kind = kinds.into_iter().find(|(key, _)| child(&tree.value, key).is_some());
    Ok(kind.map_or(DocumentKind::Flow, |(_, kind)| kind))
}

/// What the command line adds to a document.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--registry`.
    pub registry: Option<PathBuf>,
    /// `--context`: which file of the folder `context`.
    pub environment: Option<String>,
    /// `--set name=value`.
    pub set: Vec<String>,
}

impl Given {
    fn has_context(&self) -> bool {
        self.environment.is_some() || !self.set.is_empty()
    }
}

/// A plan that can be run.
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// What `{{context.…}}` stands for.
    pub context: Context,
    /// Relative paths in configs start here.
    pub folder: PathBuf,
    /// Each node's library.
    pub libraries: BTreeMap<NodeId, LibraryFile>,
    /// What is odd, but no error.
    pub warnings: Diagnostics,
    /// The document itself.
    pub source: Source,
    /// Whether the command line has a say in the context.
    pub context_given: bool,
}

/// Where a library is, and the bytes it must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct LibraryFile {
    /// Its path.
    pub path: PathBuf,
    /// Its digest as it was registered; absent for a bundled library, which stands beside the executable.
    pub sha256: Option<Digest>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The document has errors.
    #[error("{} problems in the flow", .0.len())]
    Invalid(Diagnostics),
    /// A file cannot be read or written.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no context of that name.
    #[error("there is no context `{environment}`: `{}` is not there", path.display())]
    NoContext {
        /// What was asked for.
        environment: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A `--set` is not understood.
    #[error("--set {given}: {problem}")]
    Set {
        /// As given.
        given: String,
        /// Why.
        problem: SetError,
    },
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A library cannot be read.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// A folder that is no job folder.
    #[error("`{}` is not a job folder: {why}", path.display())]
    NotAJob {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A job folder whose files cannot be used.
    #[error("the job folder `{}` cannot be used: {problem}", path.display())]
    Artifact {
        /// The folder.
        path: PathBuf,
        /// Why.
        problem: dag::ArtifactError,
    },
}

/// Loads and plans what is at `path`.
///
/// # Errors
/// The document is not valid, or something around it cannot be read.
pub fn prepare(path: &Path, given: &Given) -> Result<Prepared, PrepareError> {
    if path.is_dir() { prepare_job(path, given) } else { prepare_flow(path, given) }
}

fn prepare_flow(path: &Path, given: &Given) -> Result<Prepared, PrepareError> {
    let source = Source::new(path, read(path)?);
    let folder = folder_of(path)?;
    let registry = registry::find(given.registry.as_deref(), &folder)?;
    let name = document_name(&source, "flow")?;
    let context = context(&folder, name.as_deref(), given)?;
    let (plan, warnings) = load_and_plan(&source, &registry.catalog, &context).map_err(|mut found| {
        // A module that is not known may be one whose entry cannot be read.
        found.extend(registry.problems.iter().cloned());
        PrepareError::Invalid(found)
    })?;
    let libraries = libraries(&plan, &registry)?;
    Ok(Prepared { plan, context, folder, libraries, warnings, source, context_given: given.has_context() })
}

/// The name in a document, before anything else of it is understood: its context file is named after it.
fn document_name(source: &Source, kind: &str) -> Result<Option<String>, PrepareError> {
    let tree = document::parse(source).map_err(PrepareError::Invalid)?;
    Ok(child(&tree.value, kind).and_then(|head| child(head, "name")).and_then(|name| match name {
        Node::Str(name) => Some(name.clone()),
        _ => None,
    }))
}

fn child<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match node {
        Node::Map(entries) => entries.iter().find(|(k, _)| k.value == key).map(|(_, v)| &v.value),
        _ => None,
    }
}

fn context(folder: &Path, name: Option<&str>, given: &Given) -> Result<Context, PrepareError> {
    let environment = given.environment.as_deref().unwrap_or("default");
    let path = folder.join("context").join(format!("{}_{environment}.json", name.unwrap_or("flow")));
    let mut context = if path.is_file() {
        Context::from_json(&Source::new(&path, read(&path)?)).map_err(PrepareError::Invalid)?
    } else if given.environment.is_some() {
        return Err(PrepareError::NoContext { environment: environment.to_owned(), path });
    } else {
        Context::new()
    };
    for given in &given.set {
        let wrong = |problem| PrepareError::Set { given: given.clone(), problem };
        let (path, value) = parse_set(given).map_err(wrong)?;
        context.set(&path, value).map_err(wrong)?;
    }
    Ok(context)
}

fn libraries(plan: &Plan, registry: &Registry) -> Result<BTreeMap<NodeId, LibraryFile>, PrepareError> {
    plan.nodes().iter().map(|node: &PlannedNode| Ok((node.id.clone(), library(&node.entry, registry)?))).collect()
}

fn library(entry: &ModuleEntry, registry: &Registry) -> Result<LibraryFile, PrepareError> {
    let path = registry::library_path(entry, registry.folder())?;
    Ok(LibraryFile { path, sha256: entry.sha256.as_ref().map(Digest::new) })
}

fn read(path: &Path) -> Result<String, PrepareError> {
    fs::read_to_string(path).map_err(|source| PrepareError::Io { doing: "read", path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> Result<PathBuf, PrepareError> {
    Ok(absolute(path)?.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Writes `prepared` to `<out>/<flow name>`, and returns that folder. Each file appears whole. A default context that is
/// there stays, unless the command line had a say in it.
///
/// # Errors
/// The folder cannot be written, or a library not be read.
pub fn build(prepared: &Prepared, out: &Path) -> Result<PathBuf, PrepareError> {
    let name = prepared.plan.name.as_str();
    let job = absolute(&out.join(name))?;
    let contexts = job.join("context");
    fs::create_dir_all(&contexts).map_err(|source| writing(&contexts, source))?;
    let Artifacts { mut dag, mut execution } = dag::to_artifacts(&prepared.plan);
    execution["folder"] = relative(&prepared.folder, &job).to_string_lossy().into();
    // In the plan's order, as the nodes are written.
    for (node, written) in prepared.plan.nodes().iter().zip(dag["nodes"].as_array_mut().into_iter().flatten()) {
        let library = vouched(&prepared.libraries[&node.id])?;
        written["library"] = serde_json::to_value(library).expect("a path and a digest are text");
    }
    write(&job.join(format!("{name}.yaml")), &prepared.source.text)?;
    write(&job.join(format!("{name}_dag.json")), &pretty(&dag))?;
    write(&job.join(format!("{name}_execution_metadata.json")), &pretty(&execution))?;
    let context = contexts.join(format!("{name}_default.json"));
    if prepared.context_given || !context.exists() {
        write(&context, &pretty(&serde_json::Value::Object(prepared.context.values().clone())))?;
    }
    Ok(job)
}

/// Reads a job folder back. Paths start from the folder that the flow stood in when it was built.
fn prepare_job(job: &Path, given: &Given) -> Result<Prepared, PrepareError> {
    let job = absolute(job)?;
    let name = job_name(&job)?;
    let dag = read(&job.join(format!("{name}_dag.json")))?;
    let metadata = read(&job.join(format!("{name}_execution_metadata.json")))?;
    let document = job.join(format!("{name}.yaml"));
    let source = Source::new(&document, read(&document)?);
    let plan = dag::from_artifacts(&dag, &metadata, source.clone())
        .map_err(|problem| PrepareError::Artifact { path: job.clone(), problem })?;
    let Surroundings { folder } = kept(&job, &metadata)?;
    let Libraries { nodes } = kept(&job, &dag)?;
    let libraries = nodes.into_iter().map(|node| checked(&job, node)).collect::<Result<_, _>>()?;
    let context = context(&job, Some(&name), given)?;
    Ok(Prepared {
        plan,
        context,
        folder: job.join(folder),
        libraries,
        warnings: Diagnostics::new(),
        source,
        context_given: given.has_context(),
    })
}

/// What the execution metadata keep for the host beside the plan.
#[derive(serde::Deserialize)]
struct Surroundings {
    folder: PathBuf,
}

/// What the dag keeps for the host beside the plan.
#[derive(serde::Deserialize)]
struct Libraries {
    nodes: Vec<NodeLibrary>,
}

#[derive(serde::Deserialize)]
struct NodeLibrary {
    id: NodeId,
    library: LibraryFile,
}

fn kept<'a, T: serde::Deserialize<'a>>(job: &Path, text: &'a str) -> Result<T, PrepareError> {
    serde_json::from_str(text).map_err(|cause| PrepareError::NotAJob { path: job.to_owned(), why: cause.to_string() })
}

/// The library with the digest that its bytes have now, if it was registered without one.
fn vouched(library: &LibraryFile) -> Result<LibraryFile, PrepareError> {
    let sha256 = match &library.sha256 {
        Some(sha256) => sha256.clone(),
        None => loader::digest(&library.path)?,
    };
    Ok(LibraryFile { path: library.path.clone(), sha256: Some(sha256) })
}

/// A job folder may lie anywhere and come from anybody: it must say which bytes it means.
fn checked(job: &Path, node: NodeLibrary) -> Result<(NodeId, LibraryFile), PrepareError> {
    let NodeLibrary { id, library } = node;
    if library.sha256.is_none() {
        let why = format!("the library of `{id}` has no sha256");
        return Err(PrepareError::NotAJob { path: job.to_owned(), why });
    }
    Ok((id, library))
}

fn job_name(job: &Path) -> Result<String, PrepareError> {
    let files = fs::read_dir(job).map_err(|source| PrepareError::Io { doing: "read", path: job.to_owned(), source })?;
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let mut jobs = names.filter_map(|name| name.strip_suffix("_dag.json").map(str::to_owned));
    jobs.next().ok_or_else(|| PrepareError::NotAJob {
        path: job.to_owned(),
        why: "it holds no `…_dag.json`; pype build makes job folders".to_owned(),
    })
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON values are JSON") + "\n"
}

fn write(path: &Path, text: &str) -> Result<(), PrepareError> {
    durable::replace(path, text).map_err(|source| writing(path, source))
}

fn writing(path: &Path, source: std::io::Error) -> PrepareError {
    PrepareError::Io { doing: "write", path: path.to_owned(), source }
}

fn absolute(path: &Path) -> Result<PathBuf, PrepareError> {
    std::path::absolute(path).map_err(|source| PrepareError::Io { doing: "find", path: path.to_owned(), source })
}

/// `to` as seen from `from`; both absolute.
fn relative(to: &Path, from: &Path) -> PathBuf {
    let common = to.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| std::path::Component::ParentDir);
    let path: PathBuf = up.chain(to.components().skip(common)).collect();
    if path.as_os_str().is_empty() { ".".into() } else { path }
}
