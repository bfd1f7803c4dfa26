//! What pype does with NATS: `jetstream`, a queue that machines share; `nats_publish` and `nats_subscribe`, messages.
//!
//! | room | what it does |
//! |---|---|
//! | [`connection`], [`pull`] | one connection for all modules that name the same servers; errors in the user's terms |
//! | [`jetstream`] | the queue: what is written in which order, and why nothing that was accepted is lost |
//! | [`record`] | what is kept of a job, and every decision about it, without I/O |
//! | [`bucket`], [`hints`], [`name`] | where it is kept: compare-and-set, what may be due, legal keys |
//! | [`publish`], [`subscribe`], [`subject`] | messages out and in, and where they go |

mod bucket;
mod connection;
mod hints;
mod jetstream;
mod name;
mod publish;
mod pull;
mod record;
mod subject;
mod subscribe;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

export_plugin! {
    sources: [subscribe::NatsSubscribe],
    executes: [publish::NatsPublish],
    dispatches: [jetstream::JetStream],
}
