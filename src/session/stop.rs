//! How running code is ended: interrupt, then restart.

use std::time::Duration;

use tokio::time::sleep;

use super::execute::Asked;
use super::link::Gone;
use super::open::DELETE_WITHIN;
use super::worker::{CloseAsked, Control, Worker};

/// How long silent code, which is mostly a request of the host's own, may go on to its end when nobody waits for it any
/// more. An interrupt that comes just as the code ends hits the kernel where it takes none: its reply is lost, and with a
/// restart its state.
const SILENT_CODE_MAY_END: Duration = Duration::from_secs(1);

/// How it went.
pub(super) enum Stopped {
    /// The kernel's state is kept: the interrupt ended the code, or it never began.
    Interrupted,
    /// The kernel was restarted; its state is gone.
    Restarted,
    /// The gateway can't be reached.
    Failed(String),
    /// The session is to be closed meanwhile.
    CloseAsked(CloseAsked),
}

impl Worker {
    /// Ends an execution that nobody waits for any more.
    pub(super) async fn cancel(&mut self, asked: &mut Asked) -> Stopped {
        let patience = if asked.is_silent() { SILENT_CODE_MAY_END } else { Duration::ZERO };
        self.stop_after(asked, patience).await
    }

    /// Ends an execution: what comes after it finds the kernel idle.
    pub(super) async fn stop(&mut self, asked: &mut Asked) -> Stopped {
        self.stop_after(asked, Duration::ZERO).await
    }

    async fn stop_after(&mut self, asked: &mut Asked, patience: Duration) -> Stopped {
        if !asked.was_sent() {
            return Stopped::Interrupted;
        }
        let grace = self.shared.config.interrupt_grace;
        let interrupt = self.link.interrupt(grace);
        let interrupted_in_vain = async {
            sleep(patience).await;
            interrupt.await;
            sleep(grace).await;
        };
        tokio::select! {
            biased;
            control = self.controls.next() => match control {
                Control::Restart(done) => {
                    let _ = done.send(self.link.restart().await);
                    return Stopped::Restarted;
                }
                Control::Close(closer) => return Stopped::CloseAsked(CloseAsked(closer)),
            },
            () = interrupted_in_vain => {}
            attended = asked.attend(&mut self.link) => match attended {
                Ok(()) => return Stopped::Interrupted,
                Err(Gone::Died(_)) => return Stopped::Restarted,
                Err(Gone::Lost(reason)) => return Stopped::Failed(reason),
            },
        }
        match self.link.restart().await {
            Ok(()) => Stopped::Restarted,
            Err(error) => Stopped::Failed(format!("the kernel could not be restarted: {error}")),
        }
    }

    /// Leaves an execution to itself as the session closes: a kernel that is not ours to delete is interrupted.
    pub(super) async fn abandon(&self, asked: &Asked) {
        if !self.shared.owned && asked.was_sent() {
            self.link.interrupt(DELETE_WITHIN).await;
        }
    }
}
