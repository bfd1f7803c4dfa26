//! Every decision of pype, and nothing that carries it out.
//!
//! A declared document goes through these rooms, in this order:
//!
//! 1. [`document`] parses YAML text into a tree in which every value knows its place.
//! 2. [`catalog`] says which modules there are, their ports, globals and configs.
//! 3. [`flow::load`] turns the tree into a typed [`flow::spec::Flow`], with every problem at once.
//! 4. [`flow::plan`] wires the modules: sub flows, order, what waits for what. [`flow::select`] takes a part of a plan.
//! 5. [`flow::dag`] writes a plan to a job folder and reads it back.
//! 6. [`run::scheduler`] decides, event by event, which sub flow runs next.
//! 7. [`run::history`] reads in the event log what became of it; [`graph`] draws that, [`report`] tells it.
//!
//! The other kind of document is a [`pipeline`]: a chain of stages around a context, of which a part may run in the
//! background. It is read and planned there. The third is a [`stream`]: records without end, of which its room also decides
//! which is worked on when, and up to where they are done.
//!
//! [`template`] fills `{{ … }}` into configs, at load as far as the names are known and at run for
//! the rest. [`label`] has the rules by which modules, and rows, are selected. [`diagnostic`] is what every room reports
//! with.
//!
//! This crate opens no file, starts no task and knows neither polars nor a plugin library: text,
//! catalogs and events are passed in.
#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "a finding is large, and made once a document, not in a loop")]

pub mod catalog;
pub mod diagnostic;
pub mod document;
pub mod flow;
mod form;
pub mod graph;
pub mod human;
pub mod label;
pub mod name;
pub mod pipeline;
pub mod report;
pub mod retry;
pub mod run;
pub mod stream;
pub mod template;

pub mod suggest;
