//! What the integration tests share: the binary, plugins built as outside authors build them, and folders to run in.

pub mod collector;
pub mod events;
pub mod http;
pub mod measure;
pub mod nats;
pub mod services;
pub mod serving;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// This repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// Where cargo puts what it builds: the folder of the binary.
pub fn artefacts() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(2).expect("a test is in `<target>/<profile>/deps`").to_owned()
}

/// The binary, built with its plugins.
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo(&["build", "--release", "--locked"], &artefacts().join(".."), &[]));
    artefacts().join("pype")
}

/// A pype of the next minor version of the plugin API, without optimisation and polars.
pub fn next_minor_binary() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let target = artefacts().join("../next-minor");
    let arguments = ["build", "--locked", "-p", "pype", "--no-default-features", "--features", "__next-minor"];
    BUILT.get_or_init(|| cargo(&arguments, &target, &[]));
    target.join("debug/pype")
}

/// How a plugin of `tests/plugins` is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Build {
    /// Cargo features.
    pub features: &'static [&'static str],
    /// Environment variables, such as `CARGO_PROFILE_RELEASE_PANIC`.
    pub env: &'static [(&'static str, &'static str)],
}

/// The library of a plugin of `tests/plugins`.
pub fn plugin(name: &'static str) -> PathBuf {
    plugin_with(name, &Build::default())
}

/// The same, built differently: in a target folder of its own.
pub fn plugin_with(name: &'static str, build: &Build) -> PathBuf {
    // Tests of one process that need the same library wait for it here; processes wait on cargo's own lock.
    static BUILT: Mutex<BTreeMap<(&str, Build), PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry((name, build.clone())).or_insert_with(|| build_plugin(name, build)).clone()
}

fn build_plugin(name: &str, build: &Build) -> PathBuf {
    let mut variant: String = build.features.join("-");
    build.env.iter().for_each(|(key, value)| variant += &format!("{key}={value}").to_lowercase());
    let target = artefacts().join("../plugins").join(if variant.is_empty() { "plain" } else { &variant });
    let manifest = repository().join("tests/plugins/Cargo.toml");
    let manifest = manifest.to_str().expect("the repository's path is text");
    let features = build.features.join(",");
    let arguments =
        ["build", "--release", "--locked", "--manifest-path", manifest, "-p", name, "--features", &features];
    cargo(&arguments, &target, build.env);
    target.join("release").join(format!("lib{name}.so"))
}

/// Runs cargo in this repository, and shows what it says only if it fails.
pub fn cargo(arguments: &[&str], target: &Path, env: &[(&str, &str)]) {
    cargo_in(repository(), arguments, target, env);
}

/// The same in another folder.
pub fn cargo_in(folder: &Path, arguments: &[&str], target: &Path, env: &[(&str, &str)]) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test about its package would change the fingerprint of build scripts that look at it, and with
    // that have half the dependencies built again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target)
        .envs(env.iter().copied())
        .output()
        .expect("cargo runs: it has just built this test");
    assert!(output.status.success(), "cargo {arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder of its own, with a cache of its own.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// An empty folder with a project's registry.
    pub fn new() -> Self {
        let sandbox = Self { folder: tempfile::tempdir().expect("a temporary directory") };
        sandbox.write("registry/modules.json", "{}\n");
        sandbox
    }

    /// A path inside it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file inside it.
    pub fn write(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("inside the folder")).expect("the sandbox can be written");
        fs::write(&path, text).expect("the sandbox can be written");
        path
    }

    /// Reads a file inside it.
    pub fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
    }

    /// The command `pype` in this folder, its environment cleared of what would change its output.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&binary(), arguments)
    }

    /// The same with another binary.
    pub fn command_of(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        for name in ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "CARGO_HOME", "RUSTUP_HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // One cache for all tests of a machine: the bundled library is large.
        command.env("PYPE_CACHE_DIR", artefacts().join("../pype-cache"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `pype` to its end.
    pub fn pype(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().expect("the binary runs"))
    }

    /// Runs `pype` and expects exit code 0.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.pype(arguments);
        assert_eq!(done.code, Some(0), "pype {arguments:?}\n{}\n{}", done.out, done.err);
        done
    }

    /// Registers a library.
    #[track_caller]
    pub fn register(&self, library: &Path) -> Done {
        self.ok(&["register-module", library.to_str().expect("a path that is text")])
    }

    /// Writes a flow of these modules and edges, with the least that the language asks for.
    pub fn flow(&self, name: &str, modules_and_connections: &str) -> PathBuf {
        let head = format!(
            "flow: {{name: {name}, version: 1.0.0, authors: [test], created: 2025-01-15}}\n{modules_and_connections}"
        );
        self.write(&format!("{name}.yaml"), &head)
    }
}

impl Done {
    /// What an ended process did.
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("pype prints UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Expects an exit code and each of these texts on standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        for text in says {
            assert!(self.err.contains(text), "`{text}` is missing in:\n{}", self.err);
        }
    }
}

/// Waits until something is there, for a minute at most.
pub fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
