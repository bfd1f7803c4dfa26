//! What several test files need: the catalog of `catalog.json`, and flows made of solos.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pype_core::catalog::{Catalog, parse_registry};
use pype_core::document::Source;
use pype_core::flow::load_and_plan;
use pype_core::flow::plan::{Plan, SubFlowId};
use pype_core::template::Context;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

pub(crate) fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(read_catalog);
    &CATALOG
}

fn read_catalog() -> Catalog {
    let path = folder().join("catalog.json");
    let text = std::fs::read_to_string(&path).expect("the catalog can be read");
    let (catalog, problems) = parse_registry(&path, &text);
    assert_eq!(problems, []);
    catalog
}

/// The plan of solos with these ids and control edges (`a (1|ok) b`).
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn plan_of_solos(settings: &str, ids: &[String], control: &[String]) -> Plan {
    plan_of_joined_solos(settings, ids, control, &[])
}

/// The same, where some solos say how edges that lead to them join.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn plan_of_joined_solos(settings: &str, ids: &[String], control: &[String], joins: &[(&str, &str)]) -> Plan {
    let misc = |id: &str| {
        let join = joins.iter().find(|(of, _)| *of == id);
        join.map(|(_, join)| format!(", misc: {{join: {join}}}")).unwrap_or_default()
    };
    let module = |id: &String| {
        format!("  - {{id: {id}, name: notify_solo, configs: {{required: {{message: hello}}}}{}}}\n", misc(id))
    };
    let modules: String = ids.iter().map(module).collect();
    let control: String = control.iter().map(|edge| format!("    - {edge}\n")).collect();
    let text = format!(
        "flow: {{name: solos, version: 1.0.0, authors: [tester], created: 2025-01-15}}\n\
         settings: {settings}\nmodules:\n{modules}connections:\n  control:\n{control}"
    );
    let planned = load_and_plan(&Source::new("solos.yaml", text), catalog(), &Context::new());
    planned.unwrap_or_else(|found| panic!("{found}")).0
}

/// The sub flow of a solo.
#[allow(dead_code, reason = "each test file is a crate of its own, and not every one makes plans")]
pub(crate) fn sub_flow(plan: &Plan, id: &str) -> SubFlowId {
    let found = plan.sub_flows().iter().find(|sub_flow| sub_flow.name().as_str() == id);
    found.expect("the plan has a solo of this id").id
}
