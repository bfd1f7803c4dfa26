//! The bundled stages of pipelines.

mod key;
mod logging;
mod set_fields;
mod storage;
mod store;
mod timeout;
mod traced;
mod validate;

use pype_plugin::export_plugin;

export_plugin! {
    executes: [
        logging::Logging,
        set_fields::SetFields,
        storage::DeadLetter,
        storage::StorageDelete,
        storage::StorageRead,
        storage::StorageWrite,
        timeout::Timeout,
        traced::Tracing,
        validate::Validate,
    ]
}
