//! `Session`: thin sync and async twins over the core's futures.

use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::execution::Execution;
use super::mailbox::await_in_loop;
use super::stream::ExecutionStream;
use super::wait::wait;
use super::{errors, runtime, seconds};
use crate::config::{RunOptions, SessionConfig};
use crate::execution::Limits;
use crate::gateway::Endpoint;
use crate::session;

/// A session of the core, and the process that owns it. `sandkernel.Session` is the public face.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
pub(super) struct Session {
    process_id: u32,
    /// What takes it out of those that are closed at exit; `None` where that has happened.
    key: Mutex<Option<u64>>,
    inner: Option<session::Session>,
}

impl Session {
    fn new(session: session::Session) -> PyResult<Self> {
        let key = runtime::register(session.clone())?;
        Ok(Self { process_id: std::process::id(), key: Mutex::new(Some(key)), inner: Some(session) })
    }

    fn session(&self) -> PyResult<&session::Session> {
        if self.process_id != std::process::id() {
            return Err(errors::forked("session"));
        }
        self.inner.as_ref().ok_or_else(|| errors::closed("the session is closed; open a new one"))
    }

    fn take_key(&self) -> Option<u64> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes that it is closed.
    fn unregister(&self) {
        if let Some(key) = self.take_key() {
            runtime::unregister(key);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.process_id == std::process::id() {
            if let Some(key) = self.take_key() {
                runtime::close_unheld(key);
            }
        } else {
            // What it would wake lives in the parent.
            mem::forget(self.inner.take());
        }
    }
}

/// The arguments of `connect`, as the core takes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Arguments {
    url: String,
    token: Option<String>,
    authorization: String,
    kernel_id: Option<String>,
    owns_kernel: bool,
    kernel_name: Option<String>,
    extra_ca_pem: Option<Vec<u8>>,
    allow_plain_http: bool,
    connect_timeout: f64,
    timeout: f64,
    interrupt_grace: f64,
    dead_peer_timeout: f64,
    reconnect_timeout: f64,
    max_output_bytes: usize,
    max_result_bytes: usize,
}

impl Arguments {
    fn check(self, py: Python<'_>) -> PyResult<(Endpoint, SessionConfig)> {
        let finite = |name: &str, value: f64| {
            seconds(name, value)?
                .ok_or_else(|| errors::configuration(&format!("{name} must be a finite number of seconds")))
        };
        let config = SessionConfig {
            kernel_id: self.kernel_id,
            owns_kernel: self.owns_kernel,
            kernel_name: self.kernel_name,
            extra_ca_pem: self.extra_ca_pem,
            allow_plain_http: self.allow_plain_http,
            connect_timeout: finite("connect_timeout", self.connect_timeout)?,
            timeout: seconds("timeout", self.timeout)?,
            interrupt_grace: finite("interrupt_grace", self.interrupt_grace)?,
            dead_peer_timeout: finite("dead_peer_timeout", self.dead_peer_timeout)?,
            reconnect_timeout: finite("reconnect_timeout", self.reconnect_timeout)?,
            limits: Limits { output_bytes: self.max_output_bytes, result_bytes: self.max_result_bytes },
        };
        let endpoint = Endpoint::new(&self.url, self.token.as_deref())
            .and_then(|endpoint| Ok(endpoint.with_authorization(self.authorization.parse()?)))
            .map_err(|error| errors::exception(py, error))?;
        Ok((endpoint, config))
    }
}

#[pymethods]
impl Session {
    #[staticmethod]
    fn connect(py: Python<'_>, arguments: Arguments) -> PyResult<Self> {
        let (endpoint, config) = arguments.check(py)?;
        Self::new(wait(py, session::Session::open(endpoint, config))?)
    }

    #[staticmethod]
    fn aconnect(py: Python<'_>, arguments: Arguments) -> PyResult<Bound<'_, PyAny>> {
        let (endpoint, config) = arguments.check(py)?;
        let opening = session::Session::open(endpoint, config);
        await_in_loop(py, opening, |py, session| Ok(Py::new(py, Self::new(session)?)?.into_any()))
    }

    // These read what the session keeps: they work in a forked child too, so that a `repr` never fails.
    #[getter]
    fn kernel_id(&self) -> String {
        self.inner.as_ref().map_or_else(String::new, |session| session.kernel_id().as_ref().to_owned())
    }

    #[getter]
    fn url(&self) -> &str {
        self.inner.as_ref().map_or("", session::Session::url)
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.inner.as_ref().map_or(0, session::Session::generation)
    }

    #[getter]
    fn resumable(&self) -> bool {
        self.inner.as_ref().is_some_and(session::Session::is_resumable)
    }

    #[getter]
    fn kernel_name(&self) -> Option<&str> {
        self.inner.as_ref().and_then(session::Session::kernel_name)
    }

    #[getter]
    fn language(&self) -> Option<&str> {
        self.inner.as_ref().and_then(session::Session::language)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.inner.as_ref().is_none_or(session::Session::is_closed)
    }

    // They are the keyword arguments of the public method, here and below.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (code, timeout, silent, store_history, generation, buffers))]
    fn run(
        &self,
        py: Python<'_>,
        code: String,
        timeout: Option<f64>,
        silent: bool,
        store_history: bool,
        generation: Option<u64>,
        buffers: Vec<PyBackedBytes>,
    ) -> PyResult<Execution> {
        let session = self.session()?;
        let options = options(session, timeout, silent, store_history, generation, buffers)?;
        wait(py, session.run(code, options)).map(Execution::from)
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (code, timeout, silent, store_history, generation, buffers))]
    fn arun<'py>(
        &self,
        py: Python<'py>,
        code: String,
        timeout: Option<f64>,
        silent: bool,
        store_history: bool,
        generation: Option<u64>,
        buffers: Vec<PyBackedBytes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let session = self.session()?;
        let options = options(session, timeout, silent, store_history, generation, buffers)?;
        // Started right here, so that calls are served in the order they were made.
        let running = session.start(code, options).map_err(|error| errors::exception(py, error))?;
        let finishing = async move {
            let mut running = running;
            running.finish().await
        };
        await_in_loop(py, finishing, |py, execution| Ok(Py::new(py, Execution::from(execution))?.into_any()))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (code, timeout, silent, store_history, generation, allow_input, buffers))]
    fn stream(
        &self,
        py: Python<'_>,
        code: String,
        timeout: Option<f64>,
        silent: bool,
        store_history: bool,
        generation: Option<u64>,
        allow_input: bool,
        buffers: Vec<PyBackedBytes>,
    ) -> PyResult<ExecutionStream> {
        let session = self.session()?;
        let options = RunOptions {
            observe: true,
            allow_stdin: allow_input,
            ..options(session, timeout, silent, store_history, generation, buffers)?
        };
        let running = session.start(code, options).map_err(|error| errors::exception(py, error))?;
        Ok(ExecutionStream::new(running))
    }

    fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        let session = self.session()?;
        wait(py, session.interrupt())
    }

    fn ainterrupt<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.session()?.clone();
        await_in_loop(py, async move { session.interrupt().await }, |py, ()| Ok(py.None()))
    }

    fn restart(&self, py: Python<'_>) -> PyResult<()> {
        let session = self.session()?;
        wait(py, session.restart())
    }

    fn arestart<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let session = self.session()?.clone();
        await_in_loop(py, async move { session.restart().await }, |py, ()| Ok(py.None()))
    }

    fn rely_on_record(&self, generation: u64) -> PyResult<()> {
        self.session()?.rely_on_record(generation);
        Ok(())
    }

    fn disconnect(&self) -> PyResult<()> {
        self.session()?.disconnect();
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let session = self.session()?;
        wait(py, async {
            session.close().await;
            Ok(())
        })?;
        self.unregister();
        Ok(())
    }

    fn aclose<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let session = slf.get().session()?.clone();
        let closing = async move {
            session.close().await;
            Ok(())
        };
        let this = slf.clone().unbind();
        await_in_loop(slf.py(), closing, move |py, ()| {
            this.get().unregister();
            Ok(py.None())
        })
    }
}

fn options(
    session: &session::Session,
    timeout: Option<f64>,
    silent: bool,
    store_history: bool,
    generation: Option<u64>,
    buffers: Vec<PyBackedBytes>,
) -> PyResult<RunOptions> {
    let timeout: Option<Duration> = match timeout {
        Some(timeout) => seconds("timeout", timeout)?,
        None => session.config().timeout,
    };
    // Not copied: a reference that is let go in another thread is counted when the interpreter runs next.
    let buffers = buffers.into_iter().map(Bytes::from_owner).collect();
    Ok(RunOptions { timeout, silent, store_history, generation, buffers, ..RunOptions::default() })
}
