//! The form of a flow document: its mappings, their keys, and what stands under each.
//!
//! [`super::load`] reads by these tables, and [`super::schema`] writes them as JSON Schema for editors: neither knows a
//! key, a name or a bound that the other does not.

use super::spec::{Date, ExecutionMode, FailStrategy, FlowName, Isolation, Join, ModuleName, NodeId, Version};

/// A mapping of the document.
#[derive(Debug)]
pub(super) struct Form {
    /// What messages call it.
    pub(super) what: &'static str,
    /// What it is for.
    pub(super) about: &'static str,
    /// Its keys, in the order that people write them in.
    pub(super) keys: &'static [Key],
}

/// One key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Must it be there? One that need not may also be empty.
    pub(super) required: bool,
    pub(super) value: Content,
    /// What it is for.
    pub(super) about: &'static str,
}

/// What stands under a key.
#[derive(Debug)]
pub(super) enum Content {
    /// A text of this pattern.
    Name(&'static str),
    Text,
    Texts,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A number from 0 to 1.
    Share,
    Bool,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A mapping of names to plain values.
    Labels,
    Mapping(&'static Form),
    /// A list of mappings, one at least.
    Modules(&'static Form),
    /// A mapping of what the module's own schema says.
    Parameters,
    DataEdges,
    ControlEdges,
}

impl Form {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn required(name: &'static str, value: Content, about: &'static str) -> Key {
    Key { name, required: true, value, about }
}

const fn optional(name: &'static str, value: Content, about: &'static str) -> Key {
    Key { name, required: false, value, about }
}

const LABELS: Key = optional("labels", Content::Labels, "What it can be selected by: names and plain values.");

pub(super) static DOCUMENT: Form = Form {
    what: "a flow document",
    about: "A flow: modules, joined by data edges into sub flows, and by control edges between these.",
    keys: &[
        required("flow", Content::Mapping(&META), "Which flow it is."),
        optional("settings", Content::Mapping(&SETTINGS), "How to run it."),
        required("modules", Content::Modules(&MODULE), "What it is made of."),
        optional("connections", Content::Mapping(&CONNECTIONS), "How the modules are joined."),
    ],
};

pub(super) static META: Form = Form {
    what: "`flow`",
    about: "Which flow it is, who wrote it, when, what for.",
    keys: &[
        required(
            "name",
            Content::Name(FlowName::PATTERN),
            "Its name; its job folder and its contexts are named after it.",
        ),
        required("version", Content::Name(Version::PATTERN), "Its version: three numbers, `1.0.0`."),
        required("authors", Content::Texts, "Who wrote it."),
        required("created", Content::Name(Date::PATTERN), "When it was written: `2025-01-15`."),
        optional("desc", Content::Text, "What it is for."),
        LABELS,
    ],
};

pub(super) static SETTINGS: Form = Form {
    what: "`settings`",
    about: "How to run the flow.",
    keys: &[
        optional(
            "timeout",
            Content::Integer(1, 31_536_000),
            "The bound of the whole run, in seconds; 3600 by default.",
        ),
        optional("retries", Content::Integer(0, 3), "How often a failed sub flow is tried again; once by default."),
        optional(
            "fail_strategy",
            Content::Choice(&names(&FAIL_STRATEGIES)),
            "After a failure, `halt` (the default) starts nothing new; `continue` leaves out only what depends on it.",
        ),
        optional(
            "execution_mode",
            Content::Choice(&names(&EXECUTION_MODES)),
            "`lazy` (the default) streams frames from module to module; `eager` holds every output whole before its \
             readers start. `dask` and `pandas` are their old names.",
        ),
        optional("threads", Content::Integer(1, 1024), "The size of the thread pools; twice the cores by default."),
        optional(
            "spill_threshold_rows",
            Content::Integer(0, i64::MAX),
            "A frame that the host holds goes to a Parquet file when it has more rows; 1,000,000 by default.",
        ),
        optional(
            "max_ram_share",
            Content::Share,
            "The same when the process has more than this share of the memory it may have; 0.7 by default.",
        ),
    ],
};

pub(super) const FAIL_STRATEGIES: [(&str, FailStrategy); 2] =
    [("halt", FailStrategy::Halt), ("continue", FailStrategy::Continue)];

pub(super) const EXECUTION_MODES: [(&str, ExecutionMode); 4] = [
    ("eager", ExecutionMode::Eager),
    ("lazy", ExecutionMode::Lazy),
    ("pandas", ExecutionMode::Eager),
    ("dask", ExecutionMode::Lazy),
];

pub(super) static MODULE: Form = Form {
    what: "a module",
    about: "One module of the flow.",
    keys: &[
        required("id", Content::Name(NodeId::PATTERN), "Its id in this flow, which edges and globals name it by."),
        required(
            "name",
            Content::Name(ModuleName::PATTERN),
            "The module it is an instance of; `pype list-modules` shows what there is.",
        ),
        optional(
            "configs",
            Content::Mapping(&CONFIGS),
            "What the module is told; `pype describe NAME` shows what it can be told.",
        ),
        optional("misc", Content::Mapping(&MISC), "How the host treats it."),
        LABELS,
    ],
};

pub(super) static CONFIGS: Form = Form {
    what: "`configs`",
    about: "What the module is told. A text may hold templates: `{{context.day}}`, `{{env.HOME}}`, `{{orders__row_count}}`.",
    keys: &[
        optional("required", Content::Parameters, "What the module must be told."),
        optional("optional", Content::Parameters, "What the module has a default for."),
    ],
};

pub(super) static MISC: Form = Form {
    what: "`misc`",
    about: "How the host treats the module.",
    keys: &[
        optional(
            "checkpoint",
            Content::Bool,
            "Whether its outgoing data edges end its sub flow, and its output is kept.",
        ),
        optional(
            "join",
            Content::Choice(&names(&JOINS)),
            "Where several control edges lead to its sub flow: run when all are resolved and one is taken (`taken`, the \
             default), or when `all` are taken.",
        ),
        optional(
            "isolation",
            Content::Choice(&names(&ISOLATIONS)),
            "Where it runs: in the host's own process (`none`, the default), or in a `process` of its own, so that its \
             crash costs this module only.",
        ),
    ],
};

pub(super) const JOINS: [(&str, Join); 2] = [("taken", Join::Taken), ("all", Join::All)];

pub(super) const ISOLATIONS: [(&str, Isolation); 2] = [("none", Isolation::None), ("process", Isolation::Process)];

pub(super) static CONNECTIONS: Form = Form {
    what: "`connections`",
    about: "How the modules are joined.",
    keys: &[
        optional("data", Content::DataEdges, "Where data goes; modules joined so are one sub flow."),
        optional("control", Content::ControlEdges, "Which sub flow starts after which, and when."),
    ],
};

const fn names<T: Copy, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = choices[at].0;
        at += 1;
    }
    names
}
