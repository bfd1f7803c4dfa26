//! What pype does with PostgreSQL: locks.

mod lock;
#[cfg(test)]
mod tests;

use pype_plugin::export_plugin;

export_plugin! { executes: [lock::PostgresLock] }
