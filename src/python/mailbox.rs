//! A future awaited by an asyncio loop.
//!
//! Every event loop has a mailbox: a queue, and a socket pair that wakes the loop. A thread of the runtime puts the
//! outcome into the queue and writes one byte; the loop reads it, and makes Python objects of the outcomes on its
//! own thread. So no thread of the runtime needs the GIL, and an interpreter on its way out is none of its business.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::task::AbortHandle;

use super::{errors, runtime};

type Conversion = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The side of the runtime's threads.
#[derive(Debug)]
struct Inbox {
    outcomes: Mutex<Vec<(u64, Outcome)>>,
    bell: UnixStream,
}

struct Outcome(Conversion);

impl std::fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Outcome")
    }
}

impl Inbox {
    fn outcomes(&self) -> MutexGuard<'_, Vec<(u64, Outcome)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, ticket: u64, conversion: Conversion) {
        let was_empty = {
            let mut outcomes = self.outcomes();
            outcomes.push((ticket, Outcome(conversion)));
            outcomes.len() == 1
        };
        if was_empty {
            // It can't be full: a byte is only written where the loop has read all before it. It can be gone with
            // its loop: then nobody waits any more.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

/// The side of the event loop. All of it happens on the loop's thread.
#[pyclass(module = "sandkernel._sandkernel", weakref)]
struct Mailbox {
    inbox: Arc<Inbox>,
    bell: UnixStream,
    waiting: HashMap<u64, Py<PyAny>>,
    next_ticket: u64,
}

#[pymethods]
impl Mailbox {
    /// Completes the futures whose outcomes have come.
    fn deliver(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let outcomes = {
            let mailbox = slf.borrow();
            let mut rung = [0; 16];
            // The byte goes before the queue is emptied: an outcome that comes later rings again.
            let _ = (&mailbox.bell).read(&mut rung);
            std::mem::take(&mut *mailbox.inbox.outcomes())
        };
        for (ticket, Outcome(convert)) in outcomes {
            let Some(future) = slf.borrow_mut().waiting.remove(&ticket) else { continue };
            let future = future.bind(py);
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            match convert(py) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
            };
        }
        Ok(())
    }
}

/// Drops the Rust side of a future when the Python side is cancelled.
#[pyclass(module = "sandkernel._sandkernel", frozen)]
struct CancelWith {
    task: AbortHandle,
    mailbox: Py<Mailbox>,
    ticket: u64,
}

#[pymethods]
impl CancelWith {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            self.task.abort();
            self.mailbox.bind(py).borrow_mut().waiting.remove(&self.ticket);
        }
        Ok(())
    }
}

/// The mailboxes by their loops, which they do not keep alive.
static MAILBOXES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn mailbox_of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Mailbox>> {
    let py = event_loop.py();
    let mailboxes = MAILBOXES
        .get_or_try_init(py, || {
            py.import("weakref")?.getattr("WeakKeyDictionary")?.call0().map(Bound::unbind)
        })?
        .bind(py);
    let known = mailboxes.call_method1(intern!(py, "get"), (event_loop,))?;
    if !known.is_none() {
        return Ok(known.cast_into::<Mailbox>()?);
    }
    let (bell, rung) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    rung.set_nonblocking(true)?;
    let file_descriptor = rung.as_raw_fd();
    let mailbox = Bound::new(
        py,
        Mailbox {
            inbox: Arc::new(Inbox { outcomes: Mutex::default(), bell }),
            bell: rung,
            waiting: HashMap::new(),
            next_ticket: 0,
        },
    )?;
    event_loop.call_method1("add_reader", (file_descriptor, mailbox.getattr("deliver")?))?;
    mailboxes.set_item(event_loop, &mailbox)?;
    Ok(mailbox)
}

/// An asyncio future, of the running loop, for a future of ours. Cancelling one drops the other.
pub(super) fn await_in_loop<T, C>(
    py: Python<'_>,
    future: impl Future<Output = crate::Result<T>> + Send + 'static,
    convert: C,
) -> PyResult<Bound<'_, PyAny>>
where
    T: Send + 'static,
    C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
{
    static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let event_loop = GET_RUNNING_LOOP
        .get_or_try_init(py, || py.import("asyncio")?.getattr("get_running_loop").map(Bound::unbind))?
        .bind(py)
        .call0()?;
    let mailbox = mailbox_of(&event_loop)?;
    let awaited = event_loop.call_method0(intern!(py, "create_future"))?;
    let (inbox, ticket) = {
        let mut mailbox = mailbox.borrow_mut();
        mailbox.next_ticket += 1;
        let ticket = mailbox.next_ticket;
        mailbox.waiting.insert(ticket, awaited.clone().unbind());
        (Arc::clone(&mailbox.inbox), ticket)
    };
    let task = runtime::handle()?.spawn(async move {
        let outcome = future.await;
        inbox.post(
            ticket,
            Box::new(move |py| match outcome {
                Ok(value) => convert(py, value),
                Err(error) => Err(errors::exception(py, error)),
            }),
        );
    });
    let cancel = CancelWith { task: task.abort_handle(), mailbox: mailbox.unbind(), ticket };
    awaited.call_method1(intern!(py, "add_done_callback"), (cancel,))?;
    Ok(awaited)
}
