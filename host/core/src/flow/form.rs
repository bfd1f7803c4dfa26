//! The form of a flow document: its mappings, their keys, and what stands under each.

use super::edge::{CONTROL_PATTERN, DATA_PATTERN};
use super::spec::{Date, ExecutionMode, FailStrategy, FlowName, Isolation, Join, ModuleName, NodeId, Version};
use crate::form::{Content, Form, Key, LABELS, names, optional, required};

pub(super) static DOCUMENT: Form = Form {
    what: "a flow document",
    about: "A flow: modules, joined by data edges into sub flows, and by control edges between these.",
    keys: &[
        required("flow", Content::Mapping(&META), "Which flow it is."),
        optional("settings", Content::Mapping(&SETTINGS), "How to run it."),
        required("modules", Content::Mappings(&MODULE, 1), "What it is made of."),
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
            Content::Number(0.0, 1.0),
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

pub(crate) static MODULE: Form = Form {
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

pub(crate) static CONFIGS: Form = Form {
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
        DATA,
        optional(
            "control",
            Content::Patterned(CONTROL_PATTERN, CONTROL_EDGE),
            "Which sub flow starts after which, and when.",
        ),
    ],
};

pub(crate) const DATA: Key = optional(
    "data",
    Content::Patterned(DATA_PATTERN, DATA_EDGE),
    "Where data goes; modules joined so are one sub flow.",
);

const DATA_EDGE: &str = "`id.port - id.port`: from an output of one module to an input of another.";

const CONTROL_EDGE: &str = "\
`id (order|condition) id`: from a source, sink or solo to the source or solo that starts after it.

The order is `1`, `2`, … or `Last`, ascending among the edges that leave one sub flow; equal orders run in parallel.

The condition is one of
- nothing, or `ok`: it has succeeded
- `error`: it has failed; this handles the failure
- `done`: it has ended, either way
- an expression over globals and context, such as `orders__row_count > 100`: it has succeeded, and this is true
- `start`: as `ok`, but no later order waits for what follows; with `start detach` the run does not either
- `iterate:NAME`, or `iterate*4:NAME` for four at a time: once for each item of an output or list";
