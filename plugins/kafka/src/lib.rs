//! Kafka: a source and a sink of streams.
//!
//! [`reader`] is the thread that owns a consumer; everything that librdkafka calls back runs on it. [`source`] hands its events to
//! the host and the host's requests to it. [`reach`] is how far a partition was read. [`producer`] sends what is to be
//! published, and waits for the brokers' confirmation.

mod config;
mod producer;
mod reach;
mod reader;
mod rebalance;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

export_plugin! { streams: [source::KafkaSource], sinks: [sink::KafkaSink] }
