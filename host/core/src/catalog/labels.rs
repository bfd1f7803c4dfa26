//! What a module can be selected by.

use serde_json::{Map, Value};

use super::ModuleEntry;

impl ModuleEntry {
    /// The labels of a module that is registered under `name`: `name`, `type` (also as `kind`), `category`, `version`,
    /// `description`, `module_path`, and `library`, its bare name. Of what a module has several, each is a label of its
    /// own that is true: `input.left`, `output.rejected`, `global.row_count`, `package.polars`.
    #[must_use]
    pub fn labels(&self, name: &str) -> Map<String, Value> {
        let texts = [
            ("name", name),
            ("type", self.kind.as_str()),
            ("kind", self.kind.as_str()),
            ("category", &self.category),
            ("version", &self.version),
            ("description", &self.description),
            ("module_path", &self.module_path),
            ("library", library_name(&self.module_path)),
        ];
        let lists = [
            ("input", &self.input_ports),
            ("output", &self.output_ports),
            ("global", &self.globals),
            ("package", &self.packages),
        ];
        let texts = texts.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text)));
        let flags =
            lists.into_iter().flat_map(|(of, names)| names.iter().map(move |one| (format!("{of}.{one}"), true.into())));
        texts.chain(flags).collect()
    }
}

/// `wait` of `/plugins/libwait.so`; a bare name is itself.
fn library_name(module_path: &str) -> &str {
    let file = module_path.rsplit(['/', '\\']).next().unwrap_or(module_path);
    match file.split_once('.') {
        Some((stem, _)) => stem.strip_prefix("lib").unwrap_or(stem),
        None => file,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::label::Rule;

    #[test]
    fn a_module_is_found_by_what_it_is() {
        let entry: ModuleEntry = serde_json::from_value(json!({
            "module_path": "/plugins/libwait.so", "type": "mod", "version": "1.0.0", "category": "Rows",
            "input_ports": ["in*"], "output_ports": ["output", "rejected"], "globals": ["row_count"]
        }))
        .expect("an entry");
        let labels = entry.labels("wait_mod");
        let check = |rule: &str| rule.parse::<Rule>().expect(rule).matches(&labels);
        for met in [
            "name = wait_mod and type = mod and kind = mod and category = Rows and version = 1.0.0",
            "library = wait and module_path = /plugins/libwait.so",
            "output.rejected and global.row_count and \"input.in*\"",
        ] {
            assert!(check(met), "{met}");
        }
        for unmet in ["output.data", "type = source", "package.polars"] {
            assert!(!check(unmet), "{unmet}");
        }
        for (path, name) in [("pype_tabular", "pype_tabular"), ("libx", "libx"), ("a/b.dylib", "b")] {
            assert_eq!(library_name(path), name);
        }
    }
}
