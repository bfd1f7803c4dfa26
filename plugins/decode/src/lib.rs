//! Decoders of records: JSON, Protobuf, events, text.
//!
//! Each takes records at its port `records` and gives rows at `output`. What cannot be decoded leaves at `errors`, as it came,
//! with a column `error` more that says why: the host makes dead letters of it. [`decoding`] is what they share; a decoder
//! only says how a value becomes a row.
//!
//! Rows have the decoded columns first, and then those of the record that `keep` names. The metadata of the records' schema
//! stays with both outputs: it says which stream the records are of.

mod column;
mod decoding;
mod event;
mod json;
mod keep;
mod protobuf;
mod rejected;
#[cfg(test)]
mod testing;
mod text;

use pype_plugin::export_plugin;

export_plugin! { mods: [json::JsonDecode, protobuf::ProtobufDecode, event::EventDecode, text::TextDecode] }
