//! Queues that need no server: `local`, in a file, and `in_memory`.

mod in_memory;
mod local;
mod queue;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use pype_plugin::export_plugin;

export_plugin! { dispatches: [local::Local, in_memory::InMemory] }
