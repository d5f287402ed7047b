//! What of earlier executions comes before the next one.

use super::ending::{Ending, Stopped};
use super::link::Link;
use super::proof::Proof;
use crate::Result;

/// What nobody waits for any more, and the next job has to.
#[derive(Default)]
pub(super) struct Unsettled {
    pub(super) ending: Option<Box<Ending>>,
    proof: Option<Proof>,
}

impl Unsettled {
    /// Has the kernel show that it runs code, before it is asked to.
    pub(super) fn require_proof(&mut self) {
        self.proof.get_or_insert_default();
    }

    /// Whether there is nothing to do.
    pub(super) fn is_settled(&self) -> bool {
        self.ending.is_none() && self.proof.is_none()
    }

    /// Whether there is something to do though nobody waits for it.
    pub(super) fn has_work(&self) -> bool {
        self.ending.is_some() || self.proof.as_ref().is_some_and(|proof| !proof.has_failed())
    }

    /// Sees that no code of before runs any more, and that the kernel runs what comes. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// [`Error::KernelUnresponsive`](crate::Error::KernelUnresponsive), or the kernel can't be reached.
    pub(super) async fn settle(&mut self, link: &mut Link) -> Result<()> {
        if let Some(ending) = &mut self.ending {
            let stopped = ending.proceed(link).await;
            if stopped == Stopped::Interrupted && !ending.asked.fold.is_complete() {
                self.require_proof();
            }
            self.ending = None;
            link.unprotect();
        }
        if let Some(proof) = &mut self.proof {
            proof.proceed(link).await?;
            self.proof = None;
        }
        Ok(())
    }
}
