//! The tokio runtime: one, made at first use, owned by the process that made it, ended with the interpreter.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::errors;
use crate::session::Session;

/// Sockets, timers and the parsing of messages: two threads are plenty, and the cores are the kernels'.
const WORKER_THREADS: usize = 2;

/// Name resolution is the only thing that blocks.
const BLOCKING_THREADS: usize = 2;

/// How long the sessions may take to close as the interpreter exits, and then the runtime.
const CLOSE_WITHIN: Duration = Duration::from_secs(6);
const SHUT_DOWN_WITHIN: Duration = Duration::from_secs(1);

enum State {
    NotStarted,
    Running(Owned),
    /// The interpreter is on its way out.
    Ended,
}

struct Owned {
    process_id: u32,
    runtime: Runtime,
    /// The sessions to close at exit.
    sessions: BTreeMap<u64, Session>,
    /// Those that are closing already, since nobody holds them any more.
    closing: Vec<JoinHandle<()>>,
    next_key: u64,
}

/// Only ever locked by a thread that is attached to the interpreter, and never while waiting: so no other thread
/// holds it at a `fork`, which only an attached thread can make.
static STATE: Mutex<State> = Mutex::new(State::NotStarted);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime of this process.
pub(super) fn handle() -> PyResult<Handle> {
    with_owned(|owned| owned.runtime.handle().clone())
}

fn with_owned<T>(action: impl FnOnce(&mut Owned) -> T) -> PyResult<T> {
    let mut state = state();
    let inherited = matches!(&*state, State::Running(owned) if owned.process_id != std::process::id());
    if inherited {
        // Its threads stayed behind in the parent: it can't even be dropped, only left alone.
        std::mem::forget(std::mem::replace(&mut *state, State::NotStarted));
    }
    if matches!(*state, State::NotStarted) {
        *state = State::Running(Owned {
            process_id: std::process::id(),
            runtime: Builder::new_multi_thread()
                .worker_threads(WORKER_THREADS)
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("sandkernel")
                .enable_io()
                .enable_time()
                .build()
                .map_err(|error| {
                    errors::root(&format!("the threads of the client can't be started: {error}"))
                })?,
            sessions: BTreeMap::new(),
            closing: Vec::new(),
            next_key: 0,
        });
    }
    match &mut *state {
        State::Running(owned) => Ok(action(owned)),
        _ => Err(errors::closed("the interpreter is shutting down")),
    }
}

/// Has a session closed at exit; the key takes it out again.
pub(super) fn register(session: Session) -> PyResult<u64> {
    with_owned(|owned| {
        owned.next_key += 1;
        owned.sessions.insert(owned.next_key, session);
        owned.next_key
    })
}

/// Takes a session that was closed out of those to close at exit.
pub(super) fn unregister(key: u64) {
    if let State::Running(owned) = &mut *state() {
        owned.sessions.remove(&key);
    }
}

/// Closes a session that nobody holds any more, without waiting for it; at exit it is waited for.
pub(super) fn close_unheld(key: u64) {
    if let State::Running(owned) = &mut *state()
        && let Some(session) = owned.sessions.remove(&key)
    {
        owned.closing.retain(|closing| !closing.is_finished());
        owned.closing.push(owned.runtime.spawn(async move { session.close().await }));
    }
}

pub(super) fn shut_down_at_exit(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let shut_down = wrap_pyfunction!(shut_down, module)?;
    module.py().import("atexit")?.call_method1("register", (shut_down,))?;
    Ok(())
}

/// Closes every open session and ends the runtime's threads, in bounded time.
#[pyfunction]
#[pyo3(name = "_shut_down")]
fn shut_down(py: Python<'_>) {
    let State::Running(owned) = std::mem::replace(&mut *state(), State::Ended) else { return };
    if owned.process_id != std::process::id() {
        std::mem::forget(owned);
        return;
    }
    py.detach(|| {
        let Owned { runtime, sessions, mut closing, .. } = owned;
        runtime.block_on(async {
            closing.extend(
                sessions.into_values().map(|session| tokio::spawn(async move { session.close().await })),
            );
            let _ = tokio::time::timeout(CLOSE_WITHIN, async {
                for session in closing {
                    let _ = session.await;
                }
            })
            .await;
        });
        runtime.shutdown_timeout(SHUT_DOWN_WITHIN);
    });
}
