//! `Execution` and what it consists of. Python objects are made of it when they are asked for.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::errors;
use crate::execution::{self, DisplayItem, DisplayKind, MimeValue, printable};

/// What came of a piece of code.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct Execution {
    inner: execution::Execution,
    results: PyOnceLock<Py<PyList>>,
    error: PyOnceLock<Option<Py<ExecutionError>>>,
}

impl From<execution::Execution> for Execution {
    fn from(execution: execution::Execution) -> Self {
        Self { inner: execution, results: PyOnceLock::new(), error: PyOnceLock::new() }
    }
}

#[pymethods]
impl Execution {
    #[getter]
    fn stdout(&self) -> Cow<'_, str> {
        self.inner.stdout()
    }

    #[getter]
    fn stderr(&self) -> Cow<'_, str> {
        self.inner.stderr()
    }

    #[getter]
    fn logs(&self) -> Cow<'_, str> {
        self.inner.logs()
    }

    #[getter]
    fn screen(&self) -> String {
        self.inner.screen()
    }

    #[getter]
    fn cleared_results(&self) -> usize {
        self.inner.cleared.results
    }

    #[getter]
    fn results(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let results = self.results.get_or_try_init(py, || {
            let results: Vec<_> = self.inner.results.iter().cloned().map(Result::from).collect();
            PyList::new(py, results).map(Bound::unbind)
        })?;
        Ok(results.clone_ref(py))
    }

    #[getter]
    fn error(&self, py: Python<'_>) -> PyResult<Option<Py<ExecutionError>>> {
        let error = self.error.get_or_try_init(py, || {
            self.inner.error.clone().map(|error| Py::new(py, ExecutionError(error))).transpose()
        })?;
        Ok(error.as_ref().map(|error| error.clone_ref(py)))
    }

    #[getter]
    fn execution_count(&self) -> Option<u64> {
        self.inner.execution_count
    }

    #[getter]
    fn duration(&self) -> f64 {
        self.inner.duration.as_secs_f64()
    }

    #[getter]
    fn complete(&self) -> bool {
        self.inner.complete
    }

    #[getter]
    fn omitted_output_bytes(&self) -> u64 {
        self.inner.omitted.stdout_bytes.saturating_add(self.inner.omitted.stderr_bytes)
    }

    #[getter]
    fn omitted_results(&self) -> u64 {
        self.inner.omitted.results
    }

    #[getter]
    fn text(&self) -> Option<&str> {
        let main = |item: &&DisplayItem| item.kind == DisplayKind::ExecuteResult;
        self.inner.results.iter().rfind(main)?.data.get("text/plain").map(MimeValue::as_str)
    }

    #[pyo3(signature = (**_options))]
    fn _repr_mimebundle_<'py>(
        slf: &Bound<'py, Self>,
        _options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("sandkernel.notebook")?.call_method1("mime_bundle", (slf,))
    }

    fn __repr__(&self) -> String {
        let execution = &self.inner;
        let error = execution.error.as_ref().map_or(Cow::Borrowed("None"), |error| printable(&error.name));
        format!(
            "<Execution {} results={} error={error} duration={:.3} s{}>",
            execution.execution_count.map_or_else(|| "[*]".to_owned(), |count| format!("[{count}]")),
            execution.results.len(),
            execution.duration.as_secs_f64(),
            if execution.complete { "" } else { " incomplete" },
        )
    }
}

/// A result, or something displayed.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct Result {
    item: DisplayItem,
    data: PyOnceLock<Py<PyDict>>,
}

impl From<DisplayItem> for Result {
    fn from(item: DisplayItem) -> Self {
        Self { item, data: PyOnceLock::new() }
    }
}

impl Result {
    fn bytes_of<'py>(&self, py: Python<'py>, mime_type: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(text) = self.text_of(mime_type) else { return Ok(None) };
        py.import("binascii")?.call_method1("a2b_base64", (text,)).map(Some)
    }
}

/// JSON as Python's objects.
///
/// Python's reader refuses integers of more than some 4,300 digits, whatever else the value holds.
fn parse<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?
        .call_method1("loads", (json,))
        .map_err(|error| errors::payload(&format!("the kernel's JSON can't be read: {}", error.value(py))))
}

#[pymethods]
impl Result {
    #[getter]
    fn kind(&self) -> &'static str {
        match self.item.kind {
            DisplayKind::ExecuteResult => "execute_result",
            DisplayKind::DisplayData => "display_data",
        }
    }

    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let data = self.data.get_or_try_init(py, || {
            let data = PyDict::new(py);
            for (mime_type, value) in self.item.data.iter() {
                match value {
                    MimeValue::Text(text) => data.set_item(mime_type, text)?,
                    MimeValue::Json(json) => data.set_item(mime_type, parse(py, json)?)?,
                }
            }
            PyResult::Ok(data.unbind())
        })?;
        Ok(data.clone_ref(py))
    }

    #[getter]
    fn mime_types(&self) -> Vec<&str> {
        self.item.data.iter().map(|(mime_type, _)| mime_type).collect()
    }

    fn text_of(&self, mime_type: &str) -> Option<&str> {
        match self.item.data.get(mime_type)? {
            MimeValue::Text(text) => Some(text),
            MimeValue::Json(_) => None,
        }
    }

    fn json_of(&self, mime_type: &str) -> Option<&str> {
        match self.item.data.get(mime_type)? {
            MimeValue::Json(json) => Some(json),
            MimeValue::Text(_) => None,
        }
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        parse(py, &self.item.metadata)
    }

    #[getter]
    fn display_id(&self) -> Option<&str> {
        self.item.display_id.as_deref()
    }

    #[getter]
    fn buffers<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.item.buffers.iter().map(|buffer| PyBytes::new(py, buffer)).collect()
    }

    #[getter]
    fn text(&self) -> Option<&str> {
        self.text_of("text/plain")
    }

    #[getter]
    fn html(&self) -> Option<&str> {
        self.text_of("text/html")
    }

    #[getter]
    fn markdown(&self) -> Option<&str> {
        self.text_of("text/markdown")
    }

    #[getter]
    fn latex(&self) -> Option<&str> {
        self.text_of("text/latex")
    }

    #[getter]
    fn svg(&self) -> Option<&str> {
        self.text_of("image/svg+xml")
    }

    #[getter]
    fn png<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.bytes_of(py, "image/png")
    }

    #[getter]
    fn jpeg<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.bytes_of(py, "image/jpeg")
    }

    #[getter]
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.data(py)?.bind(py).get_item("application/json")
    }

    fn __repr__(&self) -> String {
        format!("<Result {} {}>", self.kind(), printable(&self.mime_types().join(", ")))
    }
}

/// The exception that ended the code.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct ExecutionError(pub(super) execution::ExecutionError);

#[pymethods]
impl ExecutionError {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn value(&self) -> &str {
        &self.0.value
    }

    #[getter]
    fn traceback(&self) -> Vec<&str> {
        self.0.traceback.iter().map(String::as_str).collect()
    }

    fn __repr__(&self) -> String {
        let value: String = self.0.value.chars().take(200).collect();
        format!("<ExecutionError {}: {}>", printable(&self.0.name), printable(&value))
    }
}
