//! The extension module, and the only place that knows of Python.
//!
//! # Layout
//!
//! - `runtime`: the tokio runtime, its owner process, and its end at interpreter exit.
//! - `wait`: a future awaited by a thread that must notice signals.
//! - `mailbox`: a future awaited by an asyncio loop.
//! - `session`, `stream`, `events`, `execution`: the classes, thin over the core's.
//! - `text`: a kernel's text for terminals and file names.
//! - `errors`: the core's errors as the exceptions of `sandkernel.exceptions`.
//!
//! No thread of the runtime ever attaches to the interpreter: what waits, waits on a Python thread or in its event
//! loop, and fetches its result there. So neither a held GIL stops a socket, nor does an interpreter that is
//! shutting down stop a thread in the middle of something.

mod errors;
mod events;
mod execution;
mod mailbox;
mod runtime;
mod session;
mod stream;
mod text;
mod wait;

use pyo3::prelude::*;

/// The extension module `sandkernel._sandkernel`.
#[pymodule]
mod _sandkernel {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::events::{ClearOutput, InputRequest, Output, Skipped};
    #[pymodule_export]
    use super::execution::{Execution, ExecutionError, Result};
    #[pymodule_export]
    use super::session::Session;
    #[pymodule_export]
    use super::stream::ExecutionStream;
    #[pymodule_export]
    use super::text::{overwritten, printable, printable_name};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        super::runtime::shut_down_at_exit(module)
    }
}

/// A duration given in seconds: positive; infinite means that there is no limit.
fn seconds(name: &str, value: f64) -> PyResult<Option<std::time::Duration>> {
    if value == f64::INFINITY {
        return Ok(None);
    }
    match std::time::Duration::try_from_secs_f64(value) {
        Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
        _ => Err(errors::configuration(&format!(
            "{name}={value} is not a number of seconds above 0 (math.inf: no limit)"
        ))),
    }
}
