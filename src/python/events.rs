//! What is seen of an execution while it runs, as Python objects.

use std::mem;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::errors;
use super::execution::{ExecutionError, Result};
use crate::execution::StreamName;
use crate::session::{self, Replier, Reply, StreamEvent};

/// Text that the code wrote.
#[pyclass(module = "sandkernel._sandkernel", frozen, get_all)]
pub(super) struct Output {
    stream: &'static str,
    text: String,
}

#[pymethods]
impl Output {
    fn __repr__(&self) -> String {
        format!("<Output {}: {} characters>", self.stream, self.text.chars().count())
    }
}

/// The code asked for its output so far to be cleared.
#[pyclass(module = "sandkernel._sandkernel", frozen, get_all)]
pub(super) struct ClearOutput {
    wait: bool,
}

/// What nobody took in time.
#[pyclass(module = "sandkernel._sandkernel", frozen, get_all)]
pub(super) struct Skipped {
    bytes: usize,
    results: usize,
}

/// What the code asks on the stdin channel.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct InputRequest {
    process_id: u32,
    inner: session::InputRequest,
    replier: Option<Replier>,
}

impl Drop for InputRequest {
    fn drop(&mut self) {
        if self.process_id != std::process::id() {
            // What it would wake lives in the parent.
            mem::forget(self.replier.take());
        }
    }
}

#[pymethods]
impl InputRequest {
    #[getter]
    fn prompt(&self) -> &str {
        &self.inner.prompt
    }

    #[getter]
    fn password(&self) -> bool {
        self.inner.password
    }

    #[getter]
    fn buffers<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.inner.buffers.iter().map(|buffer| PyBytes::new(py, buffer)).collect()
    }

    #[getter]
    fn size(&self) -> usize {
        self.inner.size()
    }

    #[getter]
    fn parsed_size(&self, py: Python<'_>) -> usize {
        py.detach(|| self.inner.parsed_size())
    }

    #[getter]
    fn is_awaited(&self) -> bool {
        self.replier.as_ref().is_some_and(Replier::is_awaited)
    }

    #[pyo3(signature = (value, buffers = Vec::new()))]
    fn reply(&self, value: String, buffers: Vec<PyBackedBytes>) -> PyResult<bool> {
        if self.process_id != std::process::id() {
            return Err(errors::forked("request"));
        }
        let buffers = buffers.into_iter().map(|buffer| Bytes::copy_from_slice(&buffer)).collect();
        Ok(self.replier.as_ref().is_some_and(|replier| replier.reply(Reply { value, buffers })))
    }

    fn __repr__(&self) -> String {
        format!("<InputRequest {:?}>", self.inner.prompt.chars().take(200).collect::<String>())
    }
}

/// The object for an event.
pub(super) fn event(py: Python<'_>, event: StreamEvent, replier: Option<&Replier>) -> PyResult<Py<PyAny>> {
    Ok(match event {
        StreamEvent::Output { stream, text } => {
            let stream = match stream {
                StreamName::Stdout => "stdout",
                StreamName::Stderr => "stderr",
            };
            Py::new(py, Output { stream, text })?.into_any()
        }
        StreamEvent::Result(item) => Py::new(py, Result::from(item))?.into_any(),
        StreamEvent::Error(error) => Py::new(py, ExecutionError(error))?.into_any(),
        StreamEvent::InputRequest(inner) => {
            let request = InputRequest { process_id: std::process::id(), inner, replier: replier.cloned() };
            Py::new(py, request)?.into_any()
        }
        StreamEvent::ClearOutput { wait } => Py::new(py, ClearOutput { wait })?.into_any(),
        StreamEvent::Skipped { bytes, results } => Py::new(py, Skipped { bytes, results })?.into_any(),
    })
}
