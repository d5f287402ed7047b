//! The core's errors as the exceptions of `sandkernel.exceptions`, which is where they are documented.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::execution::Execution;
use crate::Error;

/// The exception for an error of the core.
pub(super) fn exception(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    let made = match error {
        Error::Configuration(_) => make(py, "ConfigurationError", &message),
        Error::Certificate { .. } => make(py, "CertificateError", &message),
        Error::Unresolvable { .. } => make(py, "UnresolvableError", &message),
        Error::NotReady { .. } => make(py, "BootError", &message),
        Error::Gateway { .. } => make(py, "GatewayError", &message),
        Error::Auth { .. } => make(py, "AuthError", &message),
        Error::KernelNotFound { .. } => make(py, "KernelNotFoundError", &message),
        Error::ConnectionLost { execution, .. } => {
            interrupted(py, "ConnectionLost", &message, execution.map(|execution| *execution), &[])
        }
        Error::KernelDied { execution, .. } => {
            interrupted(py, "KernelDied", &message, execution.map(|execution| *execution), &[])
        }
        Error::ExecutionTimeout { aftermath, execution, .. } => {
            let restarted = [("restarted", aftermath.restarted())];
            interrupted(py, "ExecutionTimeout", &message, execution.map(|execution| *execution), &restarted)
        }
        Error::StateLost => make(py, "StateLost", &message),
        Error::KernelUnresponsive { .. } => make(py, "KernelUnresponsive", &message),
        Error::Protocol(_) => make(py, "ProtocolError", &message),
        Error::Payload(_) => make(py, "PayloadError", &message),
        Error::Closed => make(py, "ClosedError", &message),
    };
    made.unwrap_or_else(|error| error)
}

/// An error of no narrower kind.
pub(super) fn root(message: &str) -> PyErr {
    by_name("SandkernelError", message)
}

/// An argument that can't work.
pub(super) fn configuration(message: &str) -> PyErr {
    by_name("ConfigurationError", message)
}

/// A value that is not taken.
pub(super) fn payload(message: &str) -> PyErr {
    by_name("PayloadError", message)
}

/// Something used after its end.
pub(super) fn closed(message: &str) -> PyErr {
    by_name("ClosedError", message)
}

/// Something used in a process that was forked off its owner.
pub(super) fn forked(what: &str) -> PyErr {
    by_name(
        "ForkError",
        &format!("this {what} belongs to another process, of which this one is a fork; open a new one here"),
    )
}

fn by_name(name: &str, message: &str) -> PyErr {
    Python::attach(|py| make(py, name, message).unwrap_or_else(|error| error))
}

fn make(py: Python<'_>, name: &str, message: &str) -> PyResult<PyErr> {
    Ok(PyErr::from_value(class(py, name)?.call1((message,))?))
}

fn interrupted(
    py: Python<'_>,
    name: &str,
    message: &str,
    execution: Option<crate::execution::Execution>,
    attributes: &[(&str, Option<bool>)],
) -> PyResult<PyErr> {
    let execution = execution.map(Execution::from).into_py_any(py)?;
    let keywords = PyDict::new(py);
    for (attribute, value) in attributes {
        keywords.set_item(attribute, value)?;
    }
    Ok(PyErr::from_value(class(py, name)?.call((message, execution), Some(&keywords))?))
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("sandkernel.exceptions")?.getattr(name)
}
