//! A future awaited by a thread that must notice signals.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;

use super::{errors, runtime};

/// How long a signal, Ctrl-C above all, may go unnoticed.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future with the GIL released, and raises what a signal handler raises meanwhile; the future is
/// dropped then.
///
/// One `block_on` does no more than poll it once: signal handlers are Python code that may well close a session, and
/// one `block_on` inside another panics. Polled without `block_on` it would have no budget, and where there is always
/// more to read it would never give time limits and signals a turn.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = crate::Result<T>> + Send,
) -> PyResult<T> {
    let runtime = runtime::handle()?;
    let outcome: PyResult<crate::Result<T>> = py.detach(move || {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut check_at = Some(Instant::now() + SIGNALS_EVERY);
        loop {
            let polled = runtime.block_on(poll_fn(|_| Poll::Ready(future.as_mut().poll(&mut context))));
            if let Poll::Ready(outcome) = polled {
                return Ok(outcome);
            }
            let Some(at) = check_at else {
                thread::park();
                continue;
            };
            let now = Instant::now();
            if now >= at {
                check_at = Python::attach(check_signals)?.then(|| Instant::now() + SIGNALS_EVERY);
            } else {
                thread::park_timeout(at - now);
            }
        }
    });
    outcome?.map_err(|error| errors::exception(py, error))
}

/// Runs the handlers of signals that have come; whether they are this thread's to run at all. Python runs them on its
/// main thread only: another would wake in vain, and many that wait would take the processor from what they wait for.
fn check_signals(py: Python<'_>) -> PyResult<bool> {
    py.check_signals()?;
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    threading.call_method0(intern!(py, "get_ident"))?.eq(main)
}
