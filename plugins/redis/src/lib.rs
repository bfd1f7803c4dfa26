//! What pype does with Redis: a queue that machines share, locks, and messages.

mod connection;
mod lock;
mod publish;
mod queue;
mod subscribe;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

export_plugin! {
    dispatches: [queue::Redis],
    executes: [lock::RedisLock, publish::RedisPublish],
    sources: [subscribe::RedisSubscribe],
}
