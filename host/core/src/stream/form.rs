//! The form of a stream document: its mappings, their keys, and what stands under each.

use super::lanes::Ordering;
use super::plan::{Engine, Payload, RecordPart};
use super::quantity::{ByteSize, Interval, Listen};
use crate::flow::form::{CONFIGS, DATA, MODULE};
use crate::form::{Content, Form, LABELS, names, optional, required};
use crate::name::{FieldName, ModuleName, StreamName, TopicName, Version};
use crate::retry::RetryOn;

pub(super) static DOCUMENT: Form = Form {
    what: "a stream document",
    about: "A stream: records without end, handled one by one by a pipeline, or batch by batch by modules.",
    keys: &[
        required("stream", Content::Mapping(&META), "Which stream it is."),
        required("source", Content::Mapping(&SOURCE), "Where its records come from."),
        optional("parallel", Content::Mapping(&PARALLEL), "How many records are handled at a time, and which not."),
        optional("retry", Content::Mapping(&RETRY), "When what failed is tried again."),
        optional(
            "dead_letter",
            Content::Mapping(&DEAD_LETTER),
            "Where records go that could not be handled. Without it the first of them stops the stream.",
        ),
        optional(
            "alerts",
            Content::Mapping(&ALERTS),
            "Where it is told what somebody should look at; without it, in the log only.",
        ),
        optional("commit", Content::Mapping(&COMMIT), "How the source learns what is done."),
        optional("metrics", Content::Mapping(&METRICS), "Where its metrics are served; without it, nowhere."),
        optional("decode", Content::Mappings(&DECODE, 0), "What the records go through first, from top to bottom."),
        required("handle", Content::Mapping(&HANDLE), "What is done with the records."),
        optional("settings", Content::Mapping(&SETTINGS), "How the stream ends."),
    ],
};

pub(super) static META: Form = Form {
    what: "`stream`",
    about: "Which stream it is, who wrote it, what for.",
    keys: &[
        required("name", Content::Name(StreamName::PATTERN), "Its name; its metrics and logs have it."),
        required("version", Content::Name(Version::PATTERN), "Its version: three numbers, `1.0.0`."),
        optional("desc", Content::Text, "What it is for."),
        optional("authors", Content::Texts, "Who wrote it."),
        LABELS,
    ],
};

pub(super) static SOURCE: Form = Form {
    what: "`source`",
    about: "Where the records come from.",
    keys: &[
        required(
            "name",
            Content::Name(ModuleName::PATTERN),
            "The module: a source without end; `pype list-modules` shows what there is.",
        ),
        optional(
            "configs",
            Content::Mapping(&CONFIGS),
            "What the module is told; `pype describe NAME` shows what it can be told.",
        ),
    ],
};

pub(super) static PARALLEL: Form = Form {
    what: "`parallel`",
    about: "How many records are handled at a time, and which not. Of `handle.pipeline` only: batches follow one another.",
    keys: &[
        optional(
            "ordering",
            Content::Choice(&names(&ORDERINGS)),
            "Which records run one after the other, in the order they came: those of a partition with the same `key` (the \
             default), all of a `partition`, or none (`unordered`).",
        ),
        optional(
            "max_in_flight",
            Content::Integer(1, 1_000_000),
            "How many records are handled at a time, and how many of a partition wait for that before it pauses; 1000 by \
             default. It goes on at 0.7 of it.",
        ),
        optional(
            "engine",
            Content::Choice(&names(&ENGINES)),
            "Where they are handled: in the host (`async`, the default), or in child processes (`process`), whose crash costs \
             the one record that was running.",
        ),
        optional(
            "workers",
            Content::Integer(1, 1024),
            "Of the engine `process`: how many processes; as many as there are cores by default.",
        ),
        optional(
            "recycle_after",
            Content::Integer(1, i64::MAX),
            "Of the engine `process`: after how many records a process gives way to a new one; never by default.",
        ),
        optional("timeout_s", TIMEOUT, "The bound of one attempt at a record, in seconds; 30 by default."),
    ],
};

pub(super) const ORDERINGS: [(&str, Ordering); 3] =
    [("key", Ordering::Key), ("partition", Ordering::Partition), ("unordered", Ordering::Unordered)];

pub(super) const ENGINES: [(&str, Engine); 2] = [("async", Engine::Async), ("process", Engine::Process)];

/// From a millisecond to a year.
const TIMEOUT: Content = Content::Number(0.001, 31_536_000.0);

pub(super) static RETRY: Form = Form {
    what: "`retry`",
    about: "When what failed is tried again: a record, or a batch. Each delay is twice the one before.",
    keys: &[
        optional("attempts", Content::Integer(1, 1000), "How often it is executed, the first time too; 3 by default."),
        optional("backoff_ms", Content::Integer(0, DAY_MS), "The first delay, in milliseconds; 1000 by default."),
        optional(
            "max_backoff_ms",
            Content::Integer(0, DAY_MS),
            "The longest delay, in milliseconds; 30000 by default.",
        ),
        optional(
            "jitter_ms",
            Content::Integer(0, DAY_MS),
            "By how many milliseconds a delay is lengthened at random, at most; 200 by default.",
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

pub(super) static DEAD_LETTER: Form = Form {
    what: "`dead_letter`",
    about: "Where records go that could not be handled: published by the source's module, and confirmed before the stream passes \
            them.",
    keys: &[
        required("topic", TOPIC, "The topic of Kafka, or the subject of JetStream, that they are published to."),
        optional(
            "payload",
            Content::Choice(&names(&PAYLOADS)),
            "What is published: the record and why it failed (`full`, the default), or only where it stands and why \
             (`metadata_only`).",
        ),
        optional("timeout_s", TIMEOUT, "How long its confirmation is waited for, in seconds; 5 by default."),
    ],
};

pub(super) static ALERTS: Form = Form {
    what: "`alerts`",
    about: "Where it is told what somebody should look at: that the source cannot be reached, that records keep failing, that \
            commits fail, that nobody takes dead letters, that the stream has stopped.",
    keys: &[required(
        "topic",
        TOPIC,
        "The topic of Kafka, or the subject of JetStream, that alerts are published to, by the source's module: JSON objects \
         with `stream`, `kind`, `message`, `times` and `at`. Of one kind one comes a minute at most.",
    )],
};

/// A number counts as written.
const TOPIC: Content = Content::Either(&[Content::Name(TopicName::PATTERN), Content::Number(0.0, 1e9)]);

pub(super) const PAYLOADS: [(&str, Payload); 2] = [("full", Payload::Full), ("metadata_only", Payload::MetadataOnly)];

pub(super) static COMMIT: Form = Form {
    what: "`commit`",
    about: "How the source learns what is done.",
    keys: &[optional(
        "interval_ms",
        Content::Integer(1, 3_600_000),
        "How often, in milliseconds; 1000 by default. What was done since the last time is done again after a crash.",
    )],
};

pub(super) static METRICS: Form = Form {
    what: "`metrics`",
    about: "Where metrics are served.",
    keys: &[required(
        "listen",
        Content::Name(Listen::PATTERN),
        "The address and the port, `127.0.0.1:9091`: under `/metrics`, in the form that Prometheus reads.",
    )],
};

pub(super) static DECODE: Form = Form {
    what: "a decoder",
    about: "What records go through before they are handled: a mod with one input and one output.",
    keys: &[
        required("name", Content::Name(ModuleName::PATTERN), "The module."),
        optional("configs", Content::Mapping(&CONFIGS), "What the module is told."),
    ],
};

pub(super) static HANDLE: Form = Form {
    what: "`handle`",
    about: "What is done with the records: either `pipeline`, or `batch` with `modules` and `connections`.",
    keys: &[
        optional("pipeline", Content::Text, "The document of a pipeline, which runs once a record."),
        optional(
            "map",
            Content::Named(FieldName::PATTERN, &Content::Name(RecordPart::PATTERN)),
            "Of `pipeline`: which part of the record each field of the context is. By default the value is a JSON object, \
             and its members are the fields.",
        ),
        optional("batch", Content::Mapping(&BATCH), "How many records are a batch: what comes first ends it."),
        optional("modules", Content::Mappings(&MODULE, 1), "Of `batch`: mods and sinks, as in a flow."),
        optional(
            "connections",
            Content::Mapping(&CONNECTIONS),
            "Of `batch`: how the modules are joined. The records come out of `source.records`.",
        ),
    ],
};

pub(super) static BATCH: Form = Form {
    what: "`batch`",
    about: "How many records are a batch: what comes first ends it.",
    keys: &[
        optional("rows", Content::Integer(1, 1_000_000_000), "So many records; 100000 by default."),
        optional("bytes", BYTES, "So many bytes, `64MiB` by default."),
        optional("interval", Content::Name(Interval::PATTERN), "So much time, `5s` by default."),
    ],
};

const BYTES: Content = Content::Either(&[Content::Name(ByteSize::PATTERN), Content::Integer(1, i64::MAX)]);

pub(super) static CONNECTIONS: Form =
    Form { what: "`connections`", about: "How the modules are joined.", keys: &[DATA] };

pub(super) static SETTINGS: Form = Form {
    what: "`settings`",
    about: "How the stream ends.",
    keys: &[
        optional(
            "revoke_grace_ms",
            Content::Integer(0, 300_000),
            "How long what runs of a partition may go on when it is given to another consumer, in milliseconds; 500 by \
             default.",
        ),
        optional(
            "drain_s",
            Content::Number(0.0, 3600.0),
            "How long what runs may go on when the stream is told to stop, in seconds; 5 by default.",
        ),
    ],
};
