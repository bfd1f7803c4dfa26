//! What pype does with NATS: `jetstream`, a queue that machines share; `nats_publish` and `nats_subscribe`, messages;
//! `jetstream_source` and `nats_sink`, streams.
//!
//! | room | what it does |
//! |---|---|
//! | [`connection`], [`pull`] | one connection for all modules that name the same servers; errors in the user's terms |
//! | [`jetstream`] | the queue: what is written in which order, and why nothing that was accepted is lost |
//! | [`record`] | what is kept of a job, and every decision about it, without I/O |
//! | [`bucket`], [`hints`], [`name`] | where it is kept: compare-and-set, what may be due, legal keys |
//! | [`publish`], [`subscribe`], [`subject`] | messages out and in, and where they go |
//! | [`source`] | a stream of JetStream as a source without an end, through a durable consumer |
//! | [`sink`], [`send`] | rows as messages, many at a time, each confirmed |

mod bucket;
mod connection;
mod hints;
mod jetstream;
mod name;
mod publish;
mod pull;
mod record;
mod send;
mod sink;
mod source;
mod subject;
mod subscribe;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

export_plugin! {
    sources: [subscribe::NatsSubscribe],
    sinks: [sink::NatsSink],
    streams: [source::JetStreamSource],
    executes: [publish::NatsPublish],
    dispatches: [jetstream::JetStream],
}
