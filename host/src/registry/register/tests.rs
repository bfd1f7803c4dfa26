use std::fs;

use serde_json::json;

use super::*;

/// A project with libraries that are empty files, and a pype that has `bundled` beside it.
struct Project {
    root: tempfile::TempDir,
    places: Places,
}

impl Project {
    fn new(bundled: &Value) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for folder in ["plugins", "bin"] {
            fs::create_dir(root.path().join(folder)).expect("created");
        }
        fs::write(root.path().join("bin/modules.json"), bundled.to_string()).expect("written");
        let places = Places { beside: vec![root.path().join("bin")], ..Places::default() };
        Self { root, places }
    }

    fn registry(&self) -> PathBuf {
        self.root.path().join("registry/modules.json")
    }

    fn entries(&self) -> Value {
        let text = fs::read_to_string(self.registry()).expect("a registry");
        serde_json::from_str(&text).expect("valid")
    }

    /// Builds a library with these modules and registers it.
    fn register(&self, file: &str, digest: &str, modules: &[&str], options: Options) -> Result<String, RegistryError> {
        let library = self.root.path().join(file);
        fs::write(&library, digest).expect("written");
        let descriptor = LibraryDescriptor {
            name: "lib".into(),
            version: "1.0.0".into(),
            api_version: "1.0".into(),
            modules: modules.iter().map(|name| module(name)).collect(),
        };
        let inspected = Inspected { library, digest: Digest::new(digest.repeat(32)), descriptor, isolated: false };
        let registered = inspected.register(&self.registry(), &self.places, options)?;
        Ok(registered.modules.iter().map(|(name, change)| format!("{name} {change:?} ")).collect())
    }
}

fn module(name: &str) -> ModuleDescriptor {
    ModuleDescriptor {
        name: name.to_owned(),
        kind: Kind::Mod,
        version: "1.0.0".into(),
        description: String::new(),
        category: "Other".into(),
        input_ports: vec!["input".into()],
        output_ports: vec!["output".into()],
        globals: Vec::new(),
        lists: Vec::new(),
        retry: None,
        exclusive: false,
        acknowledge: None,
        packages: Vec::new(),
        config_schema: json!({"properties": {"rows": {"type": "integer"}}, "required": ["rows"]}),
    }
}

const PLAIN: Options = Options { replace: false, bundled: false };
const REPLACE: Options = Options { replace: true, bundled: false };

#[test]
fn a_library_is_added_updated_and_loses_what_it_has_no_more() {
    let project = Project::new(&json!({}));
    let register =
        |digest, modules: &[&str]| project.register("plugins/libx.so", digest, modules, PLAIN).expect("fine");
    assert_eq!(register("01", &["b", "a"]), "b Added a Added ");
    assert_eq!(register("01", &["b", "a"]), "b Unchanged a Unchanged ");
    assert_eq!(register("02", &["a", "c"]), "b Removed a Updated c Added ");
    let entries = project.entries();
    assert_eq!(entries["a"]["module_path"], "../plugins/libx.so");
    assert_eq!(entries["a"]["sha256"], "02".repeat(32));
    assert_eq!(entries["a"]["config_schema"]["required"]["rows"]["type"], "int");
    assert_eq!(entries.as_object().expect("an object").keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_name_of_another_library_is_taken_over_only_on_demand() {
    let bundled = json!({"csv_source": {"module_path": "tabular", "type": "source"}});
    let project = Project::new(&bundled);
    project.register("plugins/libx.so", "01", &["a"], PLAIN).expect("fine");
    for (module, taken_by) in [("a", "../plugins/libx.so"), ("csv_source", "tabular (bundled)")] {
        let error = project.register("plugins/liby.so", "02", &["new", module], PLAIN).expect_err("refused");
        assert!(matches!(&error, RegistryError::Taken { taken_by: found, .. } if found == taken_by), "{error}");
        assert!(error.hint().contains("--replace") && error.to_string().contains("liby.so"), "{error}");
    }
    assert_eq!(project.entries().as_object().expect("an object").len(), 1, "nothing was written");
    let changes = project.register("plugins/liby.so", "02", &["a", "csv_source"], REPLACE).expect("fine");
    assert_eq!(changes, "a Updated csv_source Added ");
}

#[test]
fn a_library_that_moved_or_was_copied_is_the_same() {
    let project = Project::new(&json!({}));
    project.register("plugins/libx.so", "01", &["a"], PLAIN).expect("fine");
    project.register("bin/libcopy.so", "01", &["a"], PLAIN).expect("the same bytes");
    assert_eq!(project.entries()["a"]["module_path"], "../bin/libcopy.so");
    fs::remove_file(project.root.path().join("bin/libcopy.so")).expect("removed");
    project.register("plugins/libcopy.so", "02", &["a"], PLAIN).expect("it has moved");
    assert_eq!(project.entries()["a"]["module_path"], "../plugins/libcopy.so");
}

#[test]
fn a_bundled_entry_stays_without_a_digest_and_a_file_outside_is_absolute() {
    let project = Project::new(&json!({}));
    let bundled = Options { bundled: true, ..PLAIN };
    project.register("bin/libx.so", "01", &["a"], bundled).expect("fine");
    project.register("bin/libx.so", "02", &["a"], PLAIN).expect("fine");
    assert_eq!(project.entries()["a"]["module_path"], "x");
    assert_eq!(project.entries()["a"].get("sha256"), None);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let library = elsewhere.path().join("liby.so").to_string_lossy().into_owned();
    project.register(&library, "03", &["b"], PLAIN).expect("fine");
    let written = project.entries()["b"]["module_path"].as_str().map(PathBuf::from).expect("a path");
    assert!(written.is_absolute() && written.is_file(), "{}", written.display());
}

#[test]
fn what_is_not_valid_stays_as_it_is() {
    let project = Project::new(&json!({}));
    let text = json!({"_metadata": {"by": "me"}, "odd": {"type": "spaceship"}, "a": {"module_path": "gone/libx.so",
        "type": "mod", "team": "red"}});
    fs::create_dir(project.root.path().join("registry")).expect("created");
    fs::write(project.registry(), text.to_string()).expect("written");
    assert_eq!(project.register("plugins/libx.so", "01", &["a"], PLAIN).expect("fine"), "a Updated ");
    let entries = project.entries();
    assert_eq!((&entries["_metadata"], &entries["odd"]), (&text["_metadata"], &text["odd"]));
    assert_eq!(entries["a"]["team"], "red", "keys of others stay");
    let registry = Registry::find(&project.places, None, project.root.path()).expect("found");
    assert_eq!(registry.catalog.names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(registry.problems.len(), 1);
}

#[test]
fn unusable_names_are_refused() {
    let project = Project::new(&json!({}));
    let refused = |modules: &[&str]| project.register("plugins/libx.so", "01", modules, PLAIN).expect_err("refused");
    assert!(matches!(refused(&["a", "2nd"]), RegistryError::BadName { .. }));
    assert!(matches!(refused(&["a", "a"]), RegistryError::Twice { .. }));
}

#[test]
fn clearing_takes_out_some_or_all_but_no_stranger() {
    let project = Project::new(&json!({}));
    project.register("plugins/libx.so", "01", &["aa", "bb", "cc"], PLAIN).expect("fine");
    let clear = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        clear(&project.registry(), &names)
    };
    let error = clear(&["aa", "bbb"]).expect_err("refused");
    assert_eq!(error.hint(), "did you mean `bb`?");
    assert_eq!(clear(&["bb"]).expect("cleared"), ["bb"]);
    assert_eq!(clear(&[]).expect("cleared"), ["aa", "cc"]);
}
