//! The section `stages`, and the dead letter, which is a stage too.

use std::num::NonZeroU32;
use std::time::Duration;

use super::timeout;
use crate::catalog::{Catalog, ModuleEntry, ModuleKind};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::{Node, Source, SpanMap, Spanned};
use crate::form::configs::{Configs, Described, Given, Schemas};
use crate::form::fields::{Fields, bad_name, list};
use crate::form::ids::ids;
use crate::name::{ModuleName, NodeId};
use crate::pipeline::form;
use crate::pipeline::plan::{Large, Queueing, Stage};
use crate::retry::Retry;
use crate::suggest;
use crate::template::{self, check};

/// What stands for the module that `configs` names under `queue`.
pub(in crate::pipeline) const SCHEDULE_JOB: &str = "schedule_job";
pub(in crate::pipeline) const QUEUE: &str = "queue";

/// Reads stages.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) catalog: &'a Catalog,
    pub(super) context: &'a template::Context,
    /// Whether the context says which shard it belongs to.
    pub(super) has_shard_key: bool,
}

pub(super) struct Stages {
    pub(super) chain: Vec<Stage>,
    pub(super) dead_letter: Option<Stage>,
    pub(super) large: Option<Large>,
}

/// The modules that write, read and delete what is too large for the queue.
const STORE: [&str; 3] = ["storage_write", "storage_read", "storage_delete"];
/// What these are told of fields, which is the host's to say.
const CARRIED: [&str; 3] = ["key", "content", "fence"];
/// What is too large, if nothing else is said.
const LARGE_BYTES: u64 = 1 << 20;

/// A stage as it is written.
struct Written<'a> {
    role: Role,
    id: Option<Spanned<NodeId>>,
    /// The name under `execute` or `dispatch`.
    name: Spanned<ModuleName>,
    configs: Option<&'a Spanned<Node>>,
    /// If it is said.
    retry: Option<Retry>,
    timeout: Option<Duration>,
    queueing: Queueing,
    large: Option<WrittenLarge<'a>>,
}

/// What a dispatch says of large bytes.
#[derive(Clone, Copy)]
struct WrittenLarge<'a> {
    over_bytes: u64,
    configs: &'a Spanned<Node>,
    span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Execute,
    Dispatch,
}

/// The module that a stage is an instance of.
struct Module<'a> {
    name: ModuleName,
    entry: &'a ModuleEntry,
}

impl<'a> Reader<'a> {
    /// Reads all stages. None if one of them cannot be read, which has been reported.
    pub(super) fn stages(
        self,
        node: &'a Spanned<Node>,
        dead_letter: Option<&'a Spanned<Node>>,
        found: &mut Diagnostics,
    ) -> Option<Stages> {
        let items = list(self.source, node, "stages", found)?;
        if items.is_empty() {
            found.push(self.source.error("no-stages", node.span, "the pipeline has no stages"));
        }
        let chain: Vec<Written> = items.iter().filter_map(|item| self.written(item, found)).collect();
        let last = dead_letter.and_then(|node| self.written_dead_letter(node, found));
        self.dispatches(&chain, found);
        let complete = chain.len() == items.len() && last.is_some() == dead_letter.is_some();
        self.all(chain, last, found).filter(|_| complete)
    }

    /// Ids are settled for all stages before any is read further.
    fn all(self, chain: Vec<Written<'a>>, dead_letter: Option<Written<'a>>, found: &mut Diagnostics) -> Option<Stages> {
        let (count, mut schemas) = (chain.len(), Schemas::default());
        let large = chain.iter().find_map(|one| one.large);
        let stores = large.into_iter().flat_map(|large| STORE.map(|module| large.stage(module)));
        let has_dead_letter = dead_letter.is_some();
        let written: Vec<Written> = chain.into_iter().chain(dead_letter).chain(stores).collect();
        let names: Vec<_> = written.iter().map(|one| (one.id.clone(), one.name.clone())).collect();
        let ids = ids(self.source, &names, found);
        let mut read: Vec<Option<Stage>> =
            written.into_iter().zip(ids).map(|(one, id)| self.stage(one, &id, &mut schemas, found)).collect();
        let mut others = read.split_off(count).into_iter();
        let dead_letter = if has_dead_letter { others.next()? } else { None };
        let large = match large {
            Some(WrittenLarge { over_bytes, .. }) => {
                let (write, read, delete) = (others.next()??, others.next()??, others.next()??);
                Some(Large { over_bytes, write, read, delete })
            }
            None => None,
        };
        Some(Stages { chain: read.into_iter().collect::<Option<_>>()?, dead_letter, large })
    }

    fn written(self, node: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<Written<'a>> {
        let mut fields = Fields::of(self.source, node, &form::STAGE, found)?;
        let (execute, dispatch) = (fields.optional("execute"), fields.optional("dispatch"));
        let named = match (execute, dispatch) {
            (Some(name), None) => Some((Role::Execute, "execute", name)),
            (None, Some(name)) => Some((Role::Dispatch, "dispatch", name)),
            (None, None) => {
                let message = "a stage needs the key `execute` or `dispatch`";
                found.push(self.source.error("missing-key", Span::at(node.span.start), message));
                None
            }
            (Some(_), Some(second)) => {
                let message = "a stage is either an `execute` or a `dispatch`, not both";
                found.push(self.source.error("bad-stage", second.span, message).help("make two stages of it"));
                None
            }
        };
        let queueing = self.queueing(&mut fields, dispatch.is_some(), found);
        let large = fields.optional("large").and_then(|node| self.large(node, dispatch.is_some(), found));
        Some(Written { queueing, large, ..self.rest(fields, named, found)? })
    }

    /// Where a dispatch has large bytes wait.
    fn large(self, node: &'a Spanned<Node>, is_dispatch: bool, found: &mut Diagnostics) -> Option<WrittenLarge<'a>> {
        if !is_dispatch {
            found.push(self.misplaced("large", node));
            return None;
        }
        let mut fields = Fields::of(self.source, node, &form::LARGE, found)?;
        let over_bytes = fields.optional("over_bytes").and_then(|node| fields.integer(node, "over_bytes", found));
        let configs = fields.required("configs", found);
        fields.finish(found);
        let entries = match configs.map(|node| &node.value) {
            Some(Node::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        for (key, node) in entries.iter().filter(|(key, _)| CARRIED.contains(&key.value.as_str())) {
            let message = format!("`{}` is not for `large`, which names its objects itself", key.value);
            found.push(self.source.error("misplaced-key", node.span, message));
        }
        let over_bytes = over_bytes.map_or(LARGE_BYTES, i64::unsigned_abs);
        Some(WrittenLarge { over_bytes, configs: configs?, span: node.span })
    }

    fn misplaced(self, key: &str, node: &Spanned<Node>) -> Diagnostic {
        let message = format!("`{key}` is for the dispatch, which has jobs");
        self.source.error("misplaced-key", node.span, message)
    }

    /// What only a dispatch has.
    fn queueing(self, fields: &mut Fields<'a>, is_dispatch: bool, found: &mut Diagnostics) -> Queueing {
        let (ordered, delay) = (fields.optional("ordered"), fields.optional("delay_s"));
        if !is_dispatch {
            for (key, node) in [("ordered", ordered), ("delay_s", delay)] {
                found.extend(node.map(|node| self.misplaced(key, node)));
            }
            return Queueing::default();
        }
        let ordered = ordered.and_then(|node| fields.boolean(node, "ordered", found)).filter(|ordered| ordered.value);
        if let Some(ordered) = ordered.as_ref().filter(|_| !self.has_shard_key) {
            let message = "jobs are ordered by their shard, and the context has no `shard_key`";
            found.push(self.source.error("no-shard-key", ordered.span, message));
        }
        let delay = delay.and_then(|node| fields.number(node, "delay_s", found)).map(Duration::from_secs_f64);
        Queueing { ordered: ordered.is_some(), delay: delay.unwrap_or_default() }
    }

    fn written_dead_letter(self, node: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<Written<'a>> {
        let mut fields = Fields::of(self.source, node, &form::DEAD_LETTER, found)?;
        let named = fields.required("execute", found).map(|name| (Role::Execute, "execute", name));
        self.rest(fields, named, found)
    }

    fn rest(
        self,
        mut fields: Fields<'a>,
        named: Option<(Role, &str, &'a Spanned<Node>)>,
        found: &mut Diagnostics,
    ) -> Option<Written<'a>> {
        let id = fields.optional("id");
        let id = id.and_then(|node| Some(Spanned::new(fields.name::<NodeId>(node, "id", found)?, node.span)));
        let configs = fields.optional("configs");
        let retry = fields.optional("retry");
        let timeout = timeout(&mut fields, found);
        let retry = retry.map(|node| self::retry(self.source, node, found));
        let named = named.and_then(|(role, key, node)| {
            Some((role, Spanned::new(fields.name::<ModuleName>(node, key, found)?, node.span)))
        });
        fields.finish(found);
        let (role, name) = named?;
        Some(Written { role, id, name, configs, retry, timeout, queueing: Queueing::default(), large: None })
    }

    /// There is one at most, and something follows it.
    fn dispatches(self, chain: &[Written<'_>], found: &mut Diagnostics) {
        let mut dispatches = chain.iter().filter(|one| one.role == Role::Dispatch);
        let Some(first) = dispatches.next() else { return };
        for second in dispatches {
            let line = first.name.span.start.line;
            let message = format!(
                "`{}` is a second dispatch: `{}` in line {line} hands the rest to the background",
                second.name.value, first.name.value
            );
            let help =
                "a pipeline has one dispatch: stages before it run in the caller, stages after it in the background";
            found.push(self.source.error("second-dispatch", second.name.span, message).help(help));
        }
        if chain.last().is_some_and(|last| std::ptr::eq(last, first)) {
            let message = "no stage follows the dispatch: its jobs have nothing to do";
            found.warning("nothing-follows", &self.source.path, first.name.span, message);
        }
    }

    fn stage(
        self,
        written: Written<'_>,
        id: &Spanned<NodeId>,
        schemas: &mut Schemas,
        found: &mut Diagnostics,
    ) -> Option<Stage> {
        let module = self.module(&written, found);
        let mut given = Given::new(self.source, id, written.configs.map_or(id.span, |node| node.span));
        if let Some(node) = written.configs {
            let is_config = |key: &str| key != QUEUE || !written.is_queue_named();
            given.add(node, is_config, found);
        }
        let described = module.as_ref().map(|Module { name, entry }| Described { name, entry, schemas });
        let read = given.check(described, self.context, found);
        read.refuse_globals(
            self.source,
            "the stages of a pipeline announce no globals",
            "a pipeline has no loops",
            found,
        );
        let (module, Configs { configs, spans, .. }) = (module?, read);
        Some(Stage {
            id: id.value.clone(),
            module: module.name,
            entry: module.entry.clone(),
            configs,
            spans,
            retry: written.retry.unwrap_or_else(|| written.role.usual_retry(module.entry)),
            timeout: written.timeout,
            queueing: written.queueing,
        })
    }

    /// `None` if it cannot be used, which has been reported.
    fn module(self, written: &Written<'_>, found: &mut Diagnostics) -> Option<Module<'a>> {
        let name = match written.is_queue_named() {
            true => self.queue(written, found)?,
            false => written.name.clone(),
        };
        let entry = self.catalog.get(name.value.as_str());
        match entry {
            Some(entry) if written.role.fits(entry.kind) => {
                return entry.may_run_here(self.source, &name, found).then_some(Module { name: name.value, entry });
            }
            Some(entry) => self.wrong_kind(written.role, &name, entry.kind, found),
            None if written.role == Role::Dispatch
                && suggest::nearest(name.value.as_str(), [SCHEDULE_JOB]).is_some() =>
            {
                let message = format!("there is no module `{}`", name.value);
                let help = format!("did you mean `{SCHEDULE_JOB}`?");
                found.push(self.source.error("unknown-module", name.span, message).help(help));
            }
            None => found.push(self.catalog.unknown(self.source, &name)),
        }
        None
    }

    /// The module that `configs` names under `queue`.
    fn queue(self, written: &Written<'_>, found: &mut Diagnostics) -> Option<Spanned<ModuleName>> {
        let entries = match written.configs.map(|node| &node.value) {
            Some(Node::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let Some((_, node)) = entries.iter().find(|(key, _)| key.value == QUEUE) else {
            let message = format!("`{SCHEDULE_JOB}` needs the config `{QUEUE}`");
            let help = suggest::help("", self.queues(), "the queues are");
            found.push(self.source.error("missing-config", written.name.span, message).help_if(help));
            return None;
        };
        let Node::Str(text) = &node.value else {
            let message = format!("`{QUEUE}` must be text, not {}", node.value.kind());
            found.push(self.source.error("wrong-type", node.span, message));
            return None;
        };
        let text = self.filled_in(text, node.span, found)?;
        let name = text.parse().map_err(|error| found.push(bad_name(self.source, node.span, &error)));
        Some(Spanned::new(name.ok()?, node.span))
    }

    /// A queue may depend on the context that is set for the whole pipeline: `local` here, `redis` there.
    fn filled_in(self, text: &str, span: Span, found: &mut Diagnostics) -> Option<String> {
        let (checked, problems) = check(&text.into(), &SpanMap::rooted(span), self.context, self.source);
        let has_errors = problems.has_errors();
        found.append(problems);
        if !has_errors && !checked.unresolved.is_empty() {
            let message = format!("`{QUEUE}` names a module, which must be known before the run");
            let help = "`context.*` may stand here, but neither `env.*` nor `secret.*`";
            found.push(self.source.error("late-queue", span, message).help(help));
        }
        if !checked.unresolved.is_empty() {
            return None;
        }
        checked.value.as_str().map(str::to_owned)
    }

    fn queues(self) -> impl Iterator<Item = &'a str> {
        let queues = self.catalog.iter().filter(|(_, entry)| entry.kind == ModuleKind::Dispatch);
        queues.map(|(name, _)| name.as_str())
    }

    fn wrong_kind(self, role: Role, name: &Spanned<ModuleName>, kind: ModuleKind, found: &mut Diagnostics) {
        let (message, help) = match kind {
            ModuleKind::Source | ModuleKind::Mod | ModuleKind::Sink | ModuleKind::Solo => {
                (format!("`{}` is a module of flows ({kind}), not a stage of pipelines", name.value), None)
            }
            ModuleKind::Execute | ModuleKind::Dispatch => {
                let help = match role {
                    Role::Execute => format!("write `dispatch: {}`", name.value),
                    Role::Dispatch => format!("write `execute: {}`", name.value),
                };
                (format!("`{}` is of kind {kind}", name.value), Some(help))
            }
        };
        found.push(self.source.error("wrong-kind", name.span, message).help_if(help));
    }
}

impl<'a> WrittenLarge<'a> {
    /// What one of the modules does that it is carried by.
    fn stage(self, module: &str) -> Written<'a> {
        Written {
            role: Role::Execute,
            id: None,
            name: Spanned::new(module.parse().expect("the name of a module"), self.span),
            configs: Some(self.configs),
            retry: Some(Retry::default()),
            timeout: None,
            queueing: Queueing::default(),
            large: None,
        }
    }
}

impl Written<'_> {
    fn is_queue_named(&self) -> bool {
        self.role == Role::Dispatch && self.name.value.as_str() == SCHEDULE_JOB
    }
}

impl Role {
    /// When a stage is tried again of which the document does not say it.
    fn usual_retry(self, entry: &ModuleEntry) -> Retry {
        match self {
            Role::Execute => entry.retry.unwrap_or_else(Retry::never),
            Role::Dispatch => Retry::default(),
        }
    }

    fn fits(self, kind: ModuleKind) -> bool {
        match self {
            Role::Execute => kind == ModuleKind::Execute,
            Role::Dispatch => kind == ModuleKind::Dispatch,
        }
    }
}

fn retry(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Retry {
    let usual = Retry::default();
    let Some(mut fields) = Fields::of(source, node, &form::RETRY, found) else { return usual };
    let attempts = fields.optional("attempts").and_then(|node| fields.integer(node, "attempts", found));
    let backoff = fields.optional("backoff").and_then(|node| fields.number(node, "backoff", found));
    let delay = fields.optional("delay_ms");
    let delay_ms = delay.and_then(|node| fields.integer(node, "delay_ms", found)).map(i64::unsigned_abs);
    let longest = fields.optional("max_delay_ms").and_then(|node| fields.integer(node, "max_delay_ms", found));
    let jitter = fields.optional("jitter").and_then(|node| fields.number(node, "jitter", found));
    let on = fields.optional("on").and_then(|node| fields.choice(node, "on", &form::RETRY_ON, found));
    fields.finish(found);
    let max_delay_ms = longest.map_or(usual.max_delay_ms, i64::unsigned_abs);
    if let (Some(node), Some(delay_ms)) = (delay, delay_ms.filter(|delay_ms| *delay_ms > max_delay_ms)) {
        let message = format!("`delay_ms` is {delay_ms}, which is more than `max_delay_ms`, {max_delay_ms}");
        found.push(source.error("out-of-range", node.span, message));
    }
    Retry {
        attempts: attempts.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(usual.attempts),
        backoff: backoff.unwrap_or(usual.backoff),
        delay_ms: delay_ms.unwrap_or(usual.delay_ms),
        max_delay_ms,
        jitter: jitter.unwrap_or(usual.jitter),
        jitter_ms: usual.jitter_ms,
        on: on.unwrap_or(usual.on),
    }
}
