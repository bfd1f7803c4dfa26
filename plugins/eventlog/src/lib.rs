//! The event log: events into Parquet files, each exactly once.
//!
//! `{root}/{simulation_id}/{YYYY-MM-DD}/{HH}/{last sequence}-{tag}.parquet`, by the simulation and the time of each event.
//!
//! # How each event is there once
//!
//! A stream gives records again that were not acknowledged, in other batches than before. So a file says in its metadata
//! exactly which sequences it holds ([`footer`]), and its name says the last of them. Before a row is taken, the sets of all
//! files that may hold it have been read ([`written`]); a row that is in one of them is skipped, and with that the host
//! acknowledges it. Files are whole and on the disk before they get their names, and `commit` returns when the names are on the
//! disk too: what is acknowledged is there. A commit of many files that ends after some of them has written just those.
//!
//! Sequences start anew when a stream is deleted and made again. The time of its making is therefore part of what a file is
//! known by ([`identity`]), as a tag in its name. It comes with the frames, as `nats.created` in their schema's metadata; a mod on
//! the way has to pass that on. Kafka has no such time: a topic that is made anew under its old name needs another root, or its
//! first records would be taken for those of the old one.
//!
//! # One writer
//!
//! Two writers of one stream would not see what the other is about to write. In a folder a lock keeps the second out
//! ([`shelf::folder`]): of a stream of JetStream as long as the first is open, of a partition of Kafka, which may move from one
//! pype to another, from its first row to the commit; whoever gets it then reads what the other has written. An object store has no locks: there, whoever runs pype has to see to it that one writes. All that the store
//! gives is that no object is written twice under one name.
//!
//! # The rooms
//!
//! [`sink`] is the module, [`log`] what it does, without async. [`rows`] reads batches, [`place`] says where a row
//! belongs, [`bucket`] and [`draft`] make files of rows, [`shelf`] is the disk or the object store.

mod bucket;
mod draft;
mod footer;
mod identity;
mod log;
mod place;
mod rows;
mod shelf;
mod sink;
mod standing;
mod streams;
#[cfg(test)]
mod tests;
mod written;

use pype_plugin::export_plugin;

export_plugin! { sinks: [sink::EventLogSink] }
