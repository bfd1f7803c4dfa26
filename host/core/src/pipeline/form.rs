//! The form of a pipeline document: its mappings, their keys, and what stands under each.

use super::context::FieldType;
use crate::form::{Content, Form, Key, LABELS, names, optional, required};
use crate::name::{ContextVersion, FieldName, ModuleName, NodeId, PipelineName, Version};
use crate::retry::RetryOn;

pub(super) static DOCUMENT: Form = Form {
    what: "a pipeline document",
    about: "A pipeline: a chain of stages around a context, of which those after the dispatch run in the background.",
    keys: &[
        required("pipeline", Content::Mapping(&META), "Which pipeline it is."),
        required("context", Content::Mapping(&CONTEXT), "What its stages work on."),
        required("stages", Content::Mappings(&STAGE, 1), "What it does, from top to bottom."),
        optional("on_error", Content::Mapping(&ON_ERROR), "What becomes of a context that no stage could help."),
        optional("settings", Content::Mapping(&SETTINGS), "How to run it."),
    ],
};

pub(super) static META: Form = Form {
    what: "`pipeline`",
    about: "Which pipeline it is, who wrote it, what for.",
    keys: &[
        required("name", Content::Name(PipelineName::PATTERN), "Its name; it is served and queued under it."),
        required("version", Content::Name(Version::PATTERN), "Its version: three numbers, `1.0.0`."),
        optional("desc", Content::Text, "What it is for."),
        optional("authors", Content::Texts, "Who wrote it."),
        LABELS,
    ],
};

/// A number such as `1.0` counts as written.
const VERSION: Content = Content::Either(&[Content::Name(ContextVersion::PATTERN), Content::Number(0.0, 1e9)]);

pub(super) static CONTEXT: Form = Form {
    what: "`context`",
    about: "What the stages work on: fields, and the version of their layout.",
    keys: &[
        required(
            "version",
            VERSION,
            "The version of the layout; a job that was made with another is migrated or refused.",
        ),
        required(
            "fields",
            Content::Named(
                FieldName::PATTERN,
                &Content::Either(&[Content::Choice(&TYPE_NAMES), Content::Mapping(&FIELD)]),
            ),
            "The fields, each with its type; `str?` is a text that need not be there.",
        ),
        optional(
            "shard_key",
            Content::Name(FieldName::PATTERN),
            "The field whose value says which shard a context belongs to.",
        ),
        optional("shards", Content::Integer(1, 1_000_000), "How many shards there are; 1024 by default."),
        optional(
            "migrations",
            Content::Mappings(&MIGRATION, 0),
            "How contexts of older versions become such as these, step by step.",
        ),
    ],
};

pub(super) static FIELD: Form = Form {
    what: "a field",
    about: "A field of the context.",
    keys: &[
        required("type", Content::Choice(&TYPE_NAMES), "What it holds; with `?` it need not be there."),
        optional("default", Content::Any, "What it holds when it is not given."),
        optional("desc", Content::Text, "What it is for."),
    ],
};

/// The types of fields, each also as that of a field that need not be there.
pub(super) const TYPES: [(&str, (FieldType, bool)); 16] = [
    ("str", (FieldType::Str, false)),
    ("int", (FieldType::Int, false)),
    ("float", (FieldType::Float, false)),
    ("bool", (FieldType::Bool, false)),
    ("bytes", (FieldType::Bytes, false)),
    ("list", (FieldType::List, false)),
    ("object", (FieldType::Object, false)),
    ("any", (FieldType::Any, false)),
    ("str?", (FieldType::Str, true)),
    ("int?", (FieldType::Int, true)),
    ("float?", (FieldType::Float, true)),
    ("bool?", (FieldType::Bool, true)),
    ("bytes?", (FieldType::Bytes, true)),
    ("list?", (FieldType::List, true)),
    ("object?", (FieldType::Object, true)),
    ("any?", (FieldType::Any, true)),
];

static TYPE_NAMES: [&str; 16] = names(&TYPES);

pub(super) static MIGRATION: Form = Form {
    what: "a migration",
    about: "How a context of one version becomes one of the next: it is renamed, then set, then removed.",
    keys: &[
        required("from", VERSION, "The version it starts from."),
        required("to", VERSION, "The version it leads to: the current one, or one that another migration starts from."),
        optional(
            "rename",
            Content::Named(FieldName::PATTERN, &Content::Name(FieldName::PATTERN)),
            "Fields that have another name now: `old: new`.",
        ),
        optional("set", Content::Named(FieldName::PATTERN, &Content::Any), "Fields that now hold this."),
        optional("remove", Content::Patterned(FieldName::PATTERN, "A field."), "Fields that are no more."),
    ],
};

pub(super) static STAGE: Form = Form {
    what: "a stage",
    about: "A stage: an `execute`, or the `dispatch`.",
    keys: &[
        optional("execute", Content::Name(ModuleName::PATTERN), "The module that does it."),
        optional(
            "dispatch",
            Content::Name(ModuleName::PATTERN),
            "The queue that takes the rest of the pipeline to the background: its module, or `schedule_job` for that \
             which `configs` names under `queue`.",
        ),
        ID,
        CONFIGS,
        optional(
            "ordered",
            Content::Bool,
            "Of a `dispatch`: whether the jobs of one shard run one after the other, the oldest first.",
        ),
        optional(
            "delay_s",
            Content::Number(0.0, 31_536_000.0),
            "Of a `dispatch`: how long a job waits at least, in seconds.",
        ),
        optional(
            "large",
            Content::Mapping(&LARGE),
            "Of a `dispatch`: where large bytes of the context wait, instead of in the queue.",
        ),
        optional(
            "retry",
            Content::Mapping(&RETRY),
            "When it is tried again. By default an `execute` is as its module says, and most are not; of a `dispatch` this is \
             said of the whole job.",
        ),
        TIMEOUT,
    ],
};

pub(super) static LARGE: Form = Form {
    what: "`large`",
    about: "Bytes that are too large for the queue wait in a store, until their job has succeeded or is forgotten.",
    keys: &[
        optional(
            "over_bytes",
            Content::Integer(1, 1 << 40),
            "A field of more bytes than this waits in the store; 1048576 by default.",
        ),
        required(
            "configs",
            Content::Parameters,
            "Where: what `storage_write`, `storage_read` and `storage_delete` are told, such as `{url: \"s3://bucket/jobs\"}`.",
        ),
    ],
};

const ID: Key =
    optional("id", Content::Name(NodeId::PATTERN), "Its id in this pipeline; by default its module's name.");

const CONFIGS: Key = optional(
    "configs",
    Content::Parameters,
    "What the module is told; `pype describe NAME` shows what it can be told. A text may hold templates: \
     `{{context.day}}`, `{{env.HOME}}`.",
);

const TIMEOUT: Key = optional("timeout_s", TIMEOUT_RANGE, "The bound of one attempt, in seconds; none by default.");

/// From a millisecond to a year.
const TIMEOUT_RANGE: Content = Content::Number(0.001, 31_536_000.0);

pub(super) static RETRY: Form = Form {
    what: "`retry`",
    about: "When something that failed is tried again.",
    keys: &[
        optional("attempts", Content::Integer(1, 1000), "How often it is executed, the first time too; 3 by default."),
        optional(
            "backoff",
            Content::Number(1.0, 100.0),
            "What each delay is multiplied by for the next; 1.5 by default.",
        ),
        optional("delay_ms", Content::Integer(0, DAY_MS), "The first delay, in milliseconds; 1000 by default."),
        optional("max_delay_ms", Content::Integer(0, DAY_MS), "The longest delay, in milliseconds; 60000 by default."),
        optional(
            "jitter",
            Content::Number(0.0, 1.0),
            "By which share of itself a delay is shortened or lengthened at random; 0.1 by default.",
        ),
        optional(
            "on",
            Content::Choice(&names(&RETRY_ON)),
            "Which errors: those that say they are `retryable` (the default), or `any`.",
        ),
    ],
};

const DAY_MS: i64 = 86_400_000;

pub(super) const RETRY_ON: [(&str, RetryOn); 2] = [("retryable", RetryOn::Retryable), ("any", RetryOn::Any)];

pub(super) static ON_ERROR: Form = Form {
    what: "`on_error`",
    about: "What becomes of a context that no stage could help.",
    keys: &[optional(
        "dead_letter",
        Content::Mapping(&DEAD_LETTER),
        "The stage that is given the context of a job that is dead, or of a run that failed.",
    )],
};

pub(super) static DEAD_LETTER: Form = Form {
    what: "`dead_letter`",
    about: "The stage that is given the context of a job that is dead, or of a run that failed.",
    keys: &[
        required("execute", Content::Name(ModuleName::PATTERN), "The module that does it."),
        ID,
        CONFIGS,
        optional("retry", Content::Mapping(&RETRY), "When it is tried again; not by default."),
        TIMEOUT,
    ],
};

pub(super) static SETTINGS: Form = Form {
    what: "`settings`",
    about: "How to run the pipeline.",
    keys: &[optional(
        "timeout_s",
        TIMEOUT_RANGE,
        "The bound of each part, the caller's and the background's, in seconds; none by default.",
    )],
};
