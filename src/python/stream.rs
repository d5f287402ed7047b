//! `ExecutionStream`: what is seen of an execution while it runs.

use std::mem;
use std::sync::Arc;

use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::errors;
use super::events::event;
use super::execution::Execution;
use super::mailbox::await_in_loop;
use super::wait::wait;
use crate::session::{Replier, Running, StreamEvent};

/// An execution under way, as an iterator and as an async iterator over its events.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct ExecutionStream {
    process_id: u32,
    cancel: CancellationToken,
    running: Option<Arc<Mutex<Running>>>,
    replier: Option<Replier>,
    execution: std::sync::OnceLock<Py<Execution>>,
}

/// What one step of the iteration comes to.
enum Step {
    Event(StreamEvent),
    End(Option<Box<crate::execution::Execution>>),
}

impl ExecutionStream {
    pub(super) fn new(running: Running) -> Self {
        Self {
            process_id: std::process::id(),
            cancel: running.cancellation(),
            replier: running.replier(),
            running: Some(Arc::new(Mutex::new(running))),
            execution: std::sync::OnceLock::new(),
        }
    }

    fn running(&self) -> PyResult<Arc<Mutex<Running>>> {
        match &self.running {
            Some(running) if self.process_id == std::process::id() => Ok(Arc::clone(running)),
            _ => Err(errors::forked("stream")),
        }
    }

    fn keep(&self, py: Python<'_>, execution: crate::execution::Execution) -> PyResult<()> {
        let _ = self.execution.set(Py::new(py, Execution::from(execution))?);
        Ok(())
    }
}

async fn step(running: Arc<Mutex<Running>>, ended: bool) -> crate::Result<Step> {
    if ended {
        return Ok(Step::End(None));
    }
    let mut running = running.lock().await;
    match running.next_event().await {
        Some(event) => Ok(Step::Event(event)),
        None => running.finish().await.map(|execution| Step::End(Some(Box::new(execution)))),
    }
}

impl Drop for ExecutionStream {
    fn drop(&mut self) {
        if self.process_id == std::process::id() {
            self.cancel.cancel();
        } else {
            mem::forget((self.running.take(), self.replier.take()));
        }
    }
}

#[pymethods]
impl ExecutionStream {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match wait(py, step(self.running()?, self.execution.get().is_some()))? {
            Step::Event(happened) => event(py, happened, self.replier.as_ref()),
            Step::End(execution) => {
                execution.map_or(Ok(()), |execution| self.keep(py, *execution))?;
                Err(PyStopIteration::new_err(()))
            }
        }
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let stepping = step(this.running()?, this.execution.get().is_some());
        let this = slf.clone().unbind();
        await_in_loop(slf.py(), stepping, move |py, step| match step {
            Step::Event(happened) => event(py, happened, this.get().replier.as_ref()),
            Step::End(execution) => {
                execution.map_or(Ok(()), |execution| this.get().keep(py, *execution))?;
                Err(PyStopAsyncIteration::new_err(()))
            }
        })
    }

    /// The whole of it, once the iteration has ended; until then `None`.
    #[getter]
    fn execution(&self, py: Python<'_>) -> Option<Py<Execution>> {
        self.execution.get().map(|execution| execution.clone_ref(py))
    }

    /// Cancels the execution if it still runs: the kernel is interrupted.
    fn close(&self) {
        self.cancel.cancel();
    }
}
