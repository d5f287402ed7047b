//! From an endpoint to a kernel with an open websocket.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::worker::Worker;
use super::{Session, Shared};
use crate::channel::Deadlines;
use crate::config::SessionConfig;
use crate::error::Seconds;
use crate::gateway::{Endpoint, GatewayClient};
use crate::{Error, Result};

/// How long the deletion of a kernel may take: it also happens on the way out of everything else.
pub(super) const DELETE_WITHIN: Duration = Duration::from_secs(5);

/// A kernel that is deleted when nobody takes it over, so that no way out of [`open`] leaves one behind.
pub(super) struct CreatedKernel {
    gateway: GatewayClient,
    kernel_id: Option<String>,
    /// The name of its specification; empty where the gateway does not say.
    name: String,
}

impl CreatedKernel {
    pub(super) fn take_over(mut self) -> String {
        self.kernel_id.take().unwrap_or_default()
    }
}

impl Drop for CreatedKernel {
    fn drop(&mut self) {
        let Some(kernel_id) = self.kernel_id.take() else { return };
        let gateway = self.gateway.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = timeout(DELETE_WITHIN, gateway.delete_kernel(&kernel_id)).await;
            });
        }
    }
}

pub(super) async fn open(endpoint: Endpoint, config: SessionConfig) -> Result<Session> {
    check_that_the_token_is_kept(&endpoint, &config)?;
    let gateway = GatewayClient::new(endpoint, config.extra_ca_pem.as_deref())?;
    gateway.wait_until_ready(config.connect_timeout).await?;
    // What the kernel may take, in all.
    let end = Instant::now() + config.connect_timeout;
    let (kernel_id, name, created, restarts) = if let Some(kernel_id) = &config.kernel_id {
        let found = timeout_at(end, gateway.get_kernel(kernel_id)).await;
        let found =
            found.unwrap_or_else(|_| Err(unanswered("looking up a kernel", config.connect_timeout)))?;
        (found.id, found.name, None, found.restarts)
    } else {
        let created = create_kernel(&gateway, config.kernel_name.clone(), config.connect_timeout).await?;
        (created.kernel_id.clone().unwrap_or_default(), created.name.clone(), Some(created), Some(0))
    };
    let shared = Arc::new(Shared {
        gateway,
        config,
        kernel_id: Mutex::new(kernel_id.into()),
        kernel_name: Some(name).filter(|name| !name.is_empty()),
        owned: created.is_some(),
        restarts: Mutex::new(restarts),
        generation: AtomicU64::new(0),
        journaled: AtomicBool::new(false),
        recorded: AtomicU64::new(0),
        language: OnceLock::new(),
        closed: AtomicBool::new(false),
    });
    let (jobs, job_queue) = mpsc::unbounded_channel();
    let (controls, control_queue) = mpsc::unbounded_channel();
    let mut worker = Worker::new(Arc::clone(&shared), job_queue, control_queue);
    let remaining = end.saturating_duration_since(Instant::now());
    Box::pin(worker.link.open_within(Deadlines { whole: remaining, patience: remaining })).await?;
    created.map(CreatedKernel::take_over);
    tokio::spawn(worker.serve());
    Ok(Session { shared, jobs, controls })
}

fn unanswered(operation: &'static str, patience: Duration) -> Error {
    let reason = format!("the gateway did not answer within {}", Seconds(patience));
    Error::Gateway { operation, reason }
}

/// A token that travels in clear is one that everybody on the way has: whoever has it runs code in the sandbox.
fn check_that_the_token_is_kept(endpoint: &Endpoint, config: &SessionConfig) -> Result<()> {
    if config.allow_plain_http || !endpoint.exposes_token() {
        return Ok(());
    }
    Err(Error::Configuration(format!(
        "the token would travel unencrypted over http:// to {host}, which is no host of a local network; use https://, \
         or pass allow_plain_http=True if the way to {host} is protected otherwise",
        host = endpoint.host()
    )))
}

/// Creates a kernel in a task of its own: a caller that stops waiting while the request is in flight would
/// otherwise leave a kernel behind whose id nobody knows.
pub(super) async fn create_kernel(
    gateway: &GatewayClient,
    name: Option<String>,
    patience: Duration,
) -> Result<CreatedKernel> {
    let gateway = gateway.clone();
    let creation = tokio::spawn(async move {
        let kernel = timeout(patience, gateway.create_kernel(name.as_deref()))
            .await
            .map_err(|_| unanswered("creating a kernel", patience))??;
        Ok(CreatedKernel { gateway, kernel_id: Some(kernel.id), name: kernel.name })
    });
    creation.await.unwrap_or(Err(Error::Closed))
}
