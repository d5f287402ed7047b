//! How running code is ended: interrupt, then restart.

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::execute::Asked;
use super::open::DELETE_WITHIN;
use super::worker::{Control, Worker, death_notice};

/// How it went.
pub(super) enum Stopped {
    /// The interrupt ended the code; the kernel's state is kept.
    Interrupted,
    /// The kernel was restarted; its state is gone.
    Restarted,
    /// The gateway can't be reached.
    Failed(String),
    /// The session is to be closed meanwhile.
    CloseAsked(Option<oneshot::Sender<()>>),
}

impl Worker {
    /// Ends an execution: what comes after it finds the kernel idle.
    pub(super) async fn stop(&mut self, asked: &mut Asked<'_>) -> Stopped {
        if let Some(stopped) = self.interrupt_and_wait(asked).await {
            return stopped;
        }
        match self.restart().await {
            Ok(()) => Stopped::Restarted,
            Err(error) => Stopped::Failed(format!("the kernel could not be restarted: {error}")),
        }
    }

    /// Interrupts, and waits for the code to end; `None` where it did not within the grace period.
    async fn interrupt_and_wait(&mut self, asked: &mut Asked<'_>) -> Option<Stopped> {
        let gateway = self.shared.gateway.clone();
        let kernel_id = self.shared.kernel_id.clone();
        let grace = self.shared.config.interrupt_grace;
        let interrupt = async move {
            // A refused interrupt shows in the code going on: then the kernel is restarted.
            let _ = timeout(grace, gateway.interrupt_kernel(&kernel_id)).await;
            sleep(grace).await;
        };
        tokio::pin!(interrupt);
        loop {
            let connection = self.connection.as_mut()?;
            let incoming = tokio::select! {
                biased;
                () = &mut interrupt => return None,
                control = self.controls.recv() => match control {
                    Some(Control::Restart(done)) => {
                        let _ = done.send(self.restart().await);
                        return Some(Stopped::Restarted);
                    }
                    Some(Control::Close(done)) => return Some(Stopped::CloseAsked(Some(done))),
                    None => return Some(Stopped::CloseAsked(None)),
                },
                incoming = connection.next() => incoming,
            };
            match incoming {
                Ok(message) if death_notice(&message).is_some() => {
                    self.kernel_was_replaced();
                    return Some(Stopped::Restarted);
                }
                Ok(message) => {
                    asked.take(&message, self);
                    if asked.fold.is_complete() {
                        return Some(Stopped::Interrupted);
                    }
                }
                Err(reason) => {
                    self.connection = None;
                    return Some(Stopped::Failed(reason));
                }
            }
        }
    }

    /// Leaves an execution to itself as the session closes: a kernel that is not ours to delete is interrupted.
    pub(super) async fn abandon(&self) {
        if !self.shared.owned {
            let _ =
                timeout(DELETE_WITHIN, self.shared.gateway.interrupt_kernel(&self.shared.kernel_id)).await;
        }
    }
}
